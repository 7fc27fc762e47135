"""Small models made on the spot, shared by all tests. Nothing is downloaded."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # pytest's workers are the parallelism
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Digests remembered by tests are nobody else's, and gone with them.
if "ALLIAGE_CACHE" not in os.environ:
    os.environ["ALLIAGE_CACHE"] = tempfile.mkdtemp(prefix="alliage-tests-")
    atexit.register(shutil.rmtree, os.environ["ALLIAGE_CACHE"], ignore_errors=True)

DATA = Path(os.environ.get("ALLIAGE_DATA", Path(__file__).parents[2] / "shared" / "data"))

WORDS = "the a film book was is very not good bad great awful long short sun rain goal team"
WORDS = WORDS.split()
LABELS = {"sentiment": ["negative", "positive"], "topics": ["weather", "sport", "arts"]}


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data sets, where they are."""
    if not DATA.is_dir():
        pytest.skip(f"no real data in {DATA}: set ALLIAGE_DATA")
    return DATA


def bert_config(**changes):
    """A BERT of two layers."""
    from transformers import BertConfig

    settings = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 5 + len(WORDS),
        "max_position_embeddings": 32,
    }
    return BertConfig(**(settings | changes))


def shift(model, seed: int, size: float = 0.02) -> None:
    """Move every weight a little, as tuning would."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def save_tokenizer(folder: Path) -> None:
    """A word-level tokenizer over `WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a server on this machine that speaks S3."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch) -> Iterator[Any]:
    """An empty bucket of that server, and the environment in which s3:// means it."""
    from s3fs import S3FileSystem

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # instances remember the environment
    fs = S3FileSystem(use_listings_cache=False)
    fs.mkdir("bucket")
    yield fs
    S3FileSystem.clear_instance_cache()
    urlopen(Request(f"{s3_server}/moto-api/reset", method="POST")).close()


@pytest.fixture(scope="session")
def family(tmp_path_factory) -> Path:
    """A folder with a base, two full models and two LoRA adapters tuned from it.

    base, sentiment, topics, sentiment-lora, topics-lora.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import BertForSequenceClassification, BertModel

    home = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    base = BertModel(bert_config())
    base.save_pretrained(home / "base")
    save_tokenizer(home / "base")
    for seed, (name, labels) in enumerate(LABELS.items(), start=1):
        config = bert_config(
            id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}
        )
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
        model.bert.load_state_dict(base.state_dict())
        shift(model, seed)
        model.save_pretrained(home / name)
        save_tokenizer(home / name)

        model = BertForSequenceClassification(config)
        model.bert.load_state_dict(base.state_dict())
        adapted = get_peft_model(
            model,
            LoraConfig(
                r=2, lora_alpha=4, target_modules=["query", "value"], modules_to_save=["classifier"]
            ),
        )
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=0.1)
        adapted.peft_config["default"].base_model_name_or_path = str(home / "base")
        adapted.save_pretrained(home / f"{name}-lora")
    return home


@pytest.fixture
def install_plug_in(tmp_path, monkeypatch) -> Iterator[Callable[..., None]]:
    """Install packages of merge methods: (module, source, name=attribute of an entry point).

    An attribute of another module is written "module:attribute".
    """
    from alliage.merging import list_methods
    from alliage.merging.registry import _REGISTRY, _load_all

    list_methods()
    before, modules = dict(_REGISTRY), []
    home = tmp_path / "site-packages"
    home.mkdir()

    def put(module: str, source: str, **entries: str) -> None:
        modules.append(module.partition(".")[0])
        file = home / f"{module.replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        info = home / f"{module}-1.2.dist-info"
        info.mkdir()
        name = module.replace("_", "-")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        values = {k: v if ":" in v else f"{module}:{v}" for k, v in entries.items()}
        lines = [f"{key} = {value}" for key, value in values.items()]
        (info / "entry_points.txt").write_text("\n".join(["[alliage.merge_methods]", *lines]))
        _load_all.cache_clear()

    monkeypatch.syspath_prepend(home)
    yield put
    for module in [each for each in sys.modules if each.partition(".")[0] in modules]:
        del sys.modules[module]
    _REGISTRY.clear()
    _REGISTRY.update(before)
    _load_all.cache_clear()
