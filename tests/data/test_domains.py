"""Examples belong to domains where their task names a column of them."""

from __future__ import annotations

import pytest

from alliage.data import load_task
from alliage.errors import AlliageError, UsageError
from tests.data.test_loading import write


def test_a_column_of_domains(tmp_path):
    """A task file may name one; every example then has a domain."""
    folder = write(tmp_path / "t", train__csv="text,label,genre\n" + "x,0,news\ny,1,1\n" * 9)
    yml = tmp_path / "t.yml"
    form = "kind: sequence-classification\nfiles: {train: t/train.csv}\n"
    columns = "columns: {text: text, domain: genre}\n"
    yml.write_text(form + columns)
    train = load_task(yml).splits["train"]
    assert {example.domain for example in train} == {"news", "1"}
    assert load_task(folder).splits["train"][0].domain is None
    yml.write_text(form + columns.replace("genre", "gerne"))
    with pytest.raises(AlliageError, match=r"no column 'gerne'. Did you mean 'genre'\?"):
        load_task(yml)
    write(tmp_path / "t", train__csv="text,label,genre\n" + "x,0,news\ny,1,\n" * 9)
    yml.write_text(form + columns)
    with pytest.raises(AlliageError, match=r"line 3: column 'genre': expected a domain, found"):
        load_task(yml)


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        ("sequence-classification", "{text: text, domain: label}", "what is to be answered"),
        ("regression", "{text: text, domain: genre}", "such answers have no confidence"),
        ("text-generation", "{target: text, domain: genre}", "such answers have no confidence"),
    ],
)
def test_columns_that_are_no_domain(tmp_path, kind, columns, message):
    write(tmp_path / "t", train__csv="text,label,genre\n" + "x,0,news\ny,1,talk\n" * 9)
    (tmp_path / "t.yml").write_text(
        f"kind: {kind}\nfiles: {{train: t/train.csv}}\ncolumns: {columns}\n"
    )
    with pytest.raises(UsageError, match=message):
        load_task(tmp_path / "t.yml")


def test_a_domain_is_of_a_sentence_and_may_be_its_comment(tmp_path):
    word = "1\tvin\tvin\tNOUN\t_\t_\t0\troot\t_\t_\n"
    for split in ("train", "validation"):
        write(tmp_path / "t", **{f"{split}__conllu": f"# genre = news\n{word}\n" * 3})
    form = (
        "kind: token-classification\n"
        "files: {train: t/train.conllu, validation: t/validation.conllu}\n"
    )
    yml = tmp_path / "t.yml"
    yml.write_text(form + "columns: {tokens: form, tags: upos, domain: genre}\n")
    assert load_task(yml).splits["validation"][0].domain == "news"
    yml.write_text(form + "columns: {tokens: form, tags: upos, domain: xpos}\n")
    with pytest.raises(AlliageError, match="'xpos' is of tokens") as raised:
        load_task(yml)
    assert len(raised.value.problems) == 2  # one for each file
