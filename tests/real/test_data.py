"""The readers on real files; the expected numbers are those of the data sets' own descriptions."""

from __future__ import annotations

import pytest

from alliage.data import load_task

pytestmark = pytest.mark.real


def sizes(task):
    return {split: len(examples) for split, examples in task.splits.items()}


def test_sst2(data_folder):
    task = load_task(data_folder / "sst2")
    assert (task.kind, task.labels) == ("sequence-classification", ("0", "1"))
    assert sizes(task) == {"train": 6908, "validation": 872}
    assert all(len(example.inputs) == 1 for example in task.splits["train"])


@pytest.mark.parametrize("name", ["mrpc", "rte", "qnli", "sick"])
def test_pairs(data_folder, name):
    task = load_task(data_folder / name)
    assert {len(example.inputs) for example in task.splits["train"]} == {2}


def test_wnut17(data_folder):
    task = load_task(data_folder / "wnut17_ner_en")
    assert sizes(task) == {"train": 3273, "validation": 1004}
    assert task.has_entities
    kinds = {"corporation", "creative-work", "group", "location", "person", "product"}
    assert set(task.labels) == {"O"} | {f"{place}-{kind}" for place in "BI" for kind in kinds}


def test_ud_french_gsd(data_folder):
    task = load_task(data_folder / "ud_french_gsd")
    assert sizes(task) == {"train": 1175, "validation": 300}
    seen = {task.labels[tag] for example in task.splits["train"] for tag in example.label}
    assert len(seen) == 16
    assert not task.has_entities


def test_mnist(data_folder):
    task = load_task(data_folder / "mnist")
    assert sizes(task) == {"train": 6000, "validation": 1000, "test": 1000}
    assert task.labels == tuple("0123456789")
    assert task.splits["train"][0].inputs.shape == (32, 32)


def test_every_set_with_splits_loads(data_folder):
    # Two forms of one set (snips) and semantic roles (srl_*) need a YAML file or another kind.
    names = [f.name for f in data_folder.iterdir() if f.is_dir()]
    for name in sorted(set(names) - {"snips", "srl_en", "srl_fr"}):
        task = load_task(data_folder / name)
        assert task.splits["train"]
        assert task.splits["validation"]


def test_two_treebanks_and_one_intent_set_through_yaml(data_folder, tmp_path):
    (tmp_path / "pos.yml").write_text(
        f"""
        kind: token-classification
        files:
          train: [{data_folder}/ud_french_gsd/train.conllu.gz,
                  {data_folder}/ud_french_fqb/train.conllu.gz]
          validation: {data_folder}/ud_french_gsd/validation.conllu.gz
        """
    )
    assert sizes(load_task(tmp_path / "pos.yml")) == {"train": 1175 + 1678, "validation": 300}
    (tmp_path / "intents.yml").write_text(
        f"""
        kind: sequence-classification
        files: {{train: {data_folder}/snips/train.jsonl.gz,
                 validation: {data_folder}/snips/validation.jsonl}}
        columns: {{text: text, label: intent}}
        """
    )
    task = load_task(tmp_path / "intents.yml")
    assert (len(task.labels), sizes(task)["train"]) == (7, 12117)


def test_slots_sentence_types_and_relatedness_through_yaml(data_folder, tmp_path):
    for name, content in {
        "slots": f"""
            kind: token-classification
            files: {{train: {data_folder}/snips/train.conll.gz,
                     validation: {data_folder}/snips/validation.conll}}
            """,
        "types": f"""
            kind: sequence-classification
            files: {{train: {data_folder}/gum_en/train.conllu.gz,
                     validation: {data_folder}/gum_en/validation.conllu.gz}}
            columns: {{text: text, label: s_type}}
            """,
        "relations": f"""
            kind: token-classification
            files: {{train: {data_folder}/srl_en/train.jsonl.gz}}
            columns: {{tokens: tokens, tags: deprels}}
            """,
        "relatedness": f"""
            kind: regression
            files: {{train: {data_folder}/sick/train.tsv.gz, test: {data_folder}/sick/test.tsv}}
            columns: {{text: sentence1, pair: sentence2, label: relatedness}}
            """,
    }.items():
        (tmp_path / f"{name}.yml").write_text(content)
    slots = load_task(tmp_path / "slots.yml")
    assert (sizes(slots), slots.has_entities) == ({"train": 12117, "validation": 700}, True)
    assert len({tag[2:] for tag in slots.labels} - {""}) == 39
    types = load_task(tmp_path / "types.yml")
    assert sizes(types) == {"train": 6506, "validation": 991}
    assert {"decl", "q", "wh", "imp", "frag"} <= set(types.labels)
    assert sum(sizes(load_task(tmp_path / "relations.yml")).values()) == 2585
    relatedness = load_task(tmp_path / "relatedness.yml")
    assert sizes(relatedness) == {"train": 3978, "validation": 442, "test": 1999}
    assert all(1 <= example.label <= 5 for example in relatedness.splits["test"])


def test_glue_without_test_labels_as_fosse_2024_splits_it(data_folder):
    task = load_task(data_folder / "cola", validation="hold-out")
    assert sizes(task) == {"train": 6744, "validation": 749, "test": 527}
    labels = [example.label for example in task.splits["test"]]
    assert (labels.count(0), labels.count(1)) == (162, 365)
