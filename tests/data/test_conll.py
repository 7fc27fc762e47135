from __future__ import annotations

import pytest

from alliage.data.columns import TagColumns, TextColumns
from alliage.data.files import Row
from alliage.errors import AlliageError
from tests.data.rows import rows_of


def word(index, form, upos, xpos="_", feats="_"):
    return "\t".join([str(index), form, "_", upos, xpos, feats, *["_"] * 4]) + "\n"


def problems_of(path, columns=None, **ways):
    with pytest.raises(AlliageError) as caught:
        rows_of(path, "token-classification", columns, **ways)
    return caught.value.problems


def test_sentences_end_at_blank_lines(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("Rome\tB-LOC\nis\tO\n\n\nNew\tB-LOC\nYork\tI-LOC")
    assert rows_of(path, "token-classification") == [
        Row("line 1", ("Rome", "is"), ("B-LOC", "O")),
        Row("line 5", ("New", "York"), ("B-LOC", "I-LOC")),
    ]


def test_entities_that_do_not_start_with_b_are_named(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("a\tO\nb\tI-LOC\nc\tI-PER\n\nd\tB-PER\ne\tI-PER\nf\tI-LOC\n")
    found = [(problem.where, problem.what.split(",")[0]) for problem in problems_of(path)]
    assert found == [
        (f"{path}, line 2", "I-LOC follows O"),
        (f"{path}, line 3", "I-PER follows I-LOC"),
        (f"{path}, line 7", "I-LOC follows I-PER"),
    ]


def test_tags_that_are_no_entities_are_free(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("the\tDET\nsun\tNOUN\n")
    assert rows_of(path, "token-classification")[0].label == ("DET", "NOUN")


def test_lines_of_another_width_are_named(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("z\tO\na O\nb\tO\tx\nc\t\nd\tO\n")
    assert [p.where for p in problems_of(path)] == [f"{path}, line {n}" for n in (2, 3, 4)]


def test_spaces_where_tabs_are_expected_are_explained(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("EU NNP B-ORG\nrejects VBZ O\n\n")
    (problem,) = problems_of(path)
    assert str(problem).startswith(f"{path}, line 1: no TAB in 'EU NNP B-ORG'")
    assert "separator: whitespace" in problem.fix


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
"""


@pytest.mark.parametrize(("tags", "expected"), [(4, "B-ORG"), (-1, "B-ORG"), (2, "NNP")])
def test_columns_of_conll_2003_are_chosen_by_number(tmp_path, tags, expected):
    path = tmp_path / "train.conll"
    path.write_text(CONLL_2003)
    columns = TagColumns(tokens=1, tags=tags)
    rows = rows_of(path, "token-classification", columns, separator="whitespace")
    assert [row.inputs for row in rows] == [("EU", "rejects"), ("Peter",)]
    assert rows[0].label[0] == expected


def test_more_columns_than_two_must_be_chosen(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text(CONLL_2003)
    (problem,) = problems_of(path, separator="whitespace")
    assert "are no tokens and tags" in problem.what
    assert "names the columns" in problem.fix


def test_a_file_without_blank_lines_is_no_sentence(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("word\tO\nRome\tB-LOC\n" * 500)
    (problem,) = problems_of(path)
    assert str(problem).startswith(f"{path}: no blank line: one sentence of 1000 tokens.")


def test_conllu_skips_comments_ranges_and_empty_nodes(tmp_path):
    path = tmp_path / "train.conllu"
    text = "# text = du vin\n" + word("1-2", "du", "_") + word(1, "de", "ADP")
    text += word(2, "le", "DET") + word("2.1", "bon", "ADJ") + word(3, "vin", "NOUN") + "\n"
    path.write_text(text)
    assert rows_of(path, "token-classification") == [
        Row("line 3", ("de", "le", "vin"), ("ADP", "DET", "NOUN"))
    ]


def test_conllu_names_unknown_tags_and_short_lines(tmp_path):
    path = tmp_path / "train.conllu"
    path.write_text(word(1, "vin", "NOUM") + "2\trouge\tADJ\n")
    second, first = sorted(map(str, problems_of(path)), reverse=True)
    assert first.startswith(f"{path}, line 1: 'NOUM' is no UPOS tag. Did you mean")
    assert "'NOUN'" in first
    assert second == f"{path}, line 2: expected 10 columns, found 3."


@pytest.mark.parametrize(
    ("tags", "expected"), [("xpos", ("Nc", "Aq")), ("feats.Number", ("Plur", "_"))]
)
def test_any_column_of_conllu_or_a_key_of_it(tmp_path, tags, expected):
    path = tmp_path / "train.conllu"
    path.write_text(
        word(1, "vins", "NOUN", "Nc", "Gender=Masc|Number=Plur") + word(2, "rouges", "ADJ", "Aq")
    )
    columns = TagColumns(tokens="form", tags=tags)
    assert rows_of(path, "token-classification", columns)[0].label == expected


def test_a_wrong_column_of_conllu_gets_the_nearest(tmp_path):
    path = tmp_path / "train.conllu"
    path.write_text(word(1, "vin", "NOUN"))
    (problem,) = problems_of(path, TagColumns(tokens="form", tags="xposs"))
    assert str(problem).startswith(f"{path}: no column 'xposs'. Did you mean 'xpos'")


def test_comments_of_conllu_label_whole_sentences(tmp_path):
    path = tmp_path / "train.conllu"
    first = "# text = Du vin?\n# s_type = q\n" + word(1, "Du", "DET") + "\n"
    path.write_text(first + "# text = Non.\n# s_type = decl\n" + word(1, "Non", "INTJ"))
    columns = TextColumns(text="text", label="s_type")
    assert rows_of(path, "sequence-classification", columns) == [
        Row("line 3", ("Du vin?",), "q"),
        Row("line 7", ("Non.",), "decl"),
    ]


def test_a_missing_blank_line_of_conllu_is_told_by_the_ids(tmp_path):
    path = tmp_path / "train.conllu"
    first, short = word(1, "vin", "NOUN") + word(2, "rouge", "ADJ"), word(1, "Non", "INTJ")
    path.write_text(first + short + word(3, "pas", "ADV") + word(2, "du", "DET") + "\n" + first)
    assert [str(problem) for problem in problems_of(path)] == [
        f"{path}, line 3: id 1 follows 2. Write a blank line between sentences.",
        f"{path}, line 5: id 2 follows 3. Write a blank line between sentences.",
    ]
