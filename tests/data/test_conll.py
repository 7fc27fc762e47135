from __future__ import annotations

import pytest

from alliage.data.conll import read_conll, read_conllu
from alliage.data.files import Row
from alliage.errors import AlliageError


def word(index, form, upos):
    return "\t".join([str(index), form, "_", upos, *["_"] * 6]) + "\n"


def test_sentences_end_at_blank_lines(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("Rome\tB-LOC\nis\tO\n\n\nNew\tB-LOC\nYork\tI-LOC")
    assert read_conll(path) == [
        Row("line 1", ("Rome", "is"), ("B-LOC", "O")),
        Row("line 5", ("New", "York"), ("B-LOC", "I-LOC")),
    ]


def test_entities_that_do_not_start_with_b_are_named(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("a\tO\nb\tI-LOC\nc\tI-PER\n\nd\tB-PER\ne\tI-PER\nf\tI-LOC\n")
    with pytest.raises(AlliageError) as caught:
        read_conll(path)
    found = [(problem.where, problem.what.split(",")[0]) for problem in caught.value.problems]
    assert found == [
        (f"{path}, line 2", "I-LOC follows O"),
        (f"{path}, line 3", "I-PER follows I-LOC"),
        (f"{path}, line 7", "I-LOC follows I-PER"),
    ]


def test_tags_that_are_no_entities_are_free(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("the\tDET\nsun\tNOUN\n")
    assert read_conll(path)[0].label == ("DET", "NOUN")


def test_lines_without_one_tag_are_named(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("a O\nb\tO\tx\nc\t\nd\tO\n")
    with pytest.raises(AlliageError) as caught:
        read_conll(path)
    assert [p.where for p in caught.value.problems] == [f"{path}, line {n}" for n in (1, 2, 3)]


def test_conllu_skips_comments_ranges_and_empty_nodes(tmp_path):
    path = tmp_path / "train.conllu"
    text = "# text = du vin\n" + word("1-2", "du", "_") + word(1, "de", "ADP")
    text += word(2, "le", "DET") + word("2.1", "bon", "ADJ") + word(3, "vin", "NOUN") + "\n"
    path.write_text(text)
    assert read_conllu(path) == [Row("line 3", ("de", "le", "vin"), ("ADP", "DET", "NOUN"))]


def test_conllu_names_unknown_tags_and_short_lines(tmp_path):
    path = tmp_path / "train.conllu"
    path.write_text(word(1, "vin", "NOUM") + "2\trouge\tADJ\n")
    with pytest.raises(AlliageError) as caught:
        read_conllu(path)
    first, second = map(str, caught.value.problems)
    assert first.startswith(f"{path}, line 1: 'NOUM' is no UPOS tag. Did you mean")
    assert "'NOUN'" in first
    assert second == f"{path}, line 2: expected 10 columns, found 3."
