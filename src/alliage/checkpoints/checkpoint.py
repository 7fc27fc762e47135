"""An open checkpoint: what it holds, from headers alone, and any slice of any tensor."""

from __future__ import annotations

import shutil
import weakref
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from alliage.checkpoints import dtypes, reference, remote
from alliage.checkpoints.adapter import (
    AdapterModule,
    AdapterSettings,
    group_tensors,
    parse_settings,
)
from alliage.checkpoints.remote import RemotePath
from alliage.checkpoints.safetensors_file import SafetensorsFile
from alliage.checkpoints.spec import TensorSpec
from alliage.checkpoints.ties import declared_ties
from alliage.checkpoints.torch_file import TorchFile
from alliage.errors import AlliageError, Problem

if TYPE_CHECKING:
    import torch

_COMPANIONS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "spiece.model", "sentencepiece*.model", "*.tiktoken", "chat_template*",
    "preprocessor_config.json", "processor_config.json", "image_processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "[0-9]_*/config.json",
)  # fmt: skip
_SETTINGS = (
    reference.CONFIG, reference.ADAPTER_CONFIG, "alliage.json", "calibration.json",
    f"{reference.HEADS}/*/*",
)  # fmt: skip


def open(  # noqa: A001  the verb of the public API, used as checkpoints.open
    ref: str | Path | Checkpoint, *, base: str | Path | Checkpoint | None = None
) -> Checkpoint:
    """Open a checkpoint: headers and settings are read, no tensor is.

    Args:
        ref: a folder, a .safetensors or .bin file, an index, a hub id "org/name@revision", a
            PEFT adapter folder, or an fsspec URL of any of these (safetensors only); an open
            checkpoint is returned as it is.
        base: for an adapter, the model it adapts; by default the one its settings name.

    Raises:
        UsageError: the reference means nothing.
        AlliageError: the files are damaged, contradict each other or cannot be trusted; every
            problem found is named.
    """
    if isinstance(ref, Checkpoint):
        return ref
    return Checkpoint(str(ref), reference.locate(ref), base)


class Checkpoint:
    """Weights with their configuration. Made by `open`; a context manager.

    Attributes:
        ref: what the user wrote.
        path: the folder or file it means.
        home: where configuration and tokenizer lie; None for a file by itself.
        config: config.json, or nothing.
        adapter: settings of a PEFT adapter, or nothing.
    """

    def __init__(
        self, ref: str, path: Path | RemotePath, base: str | Path | Checkpoint | None = None
    ) -> None:
        self.ref = ref
        self.path = path
        weights = reference.find_weights(path)
        self.home = weights.folder
        self.weight_files = weights.files
        self._base_ref = base
        self.config: dict[str, Any] | None = self._json(reference.CONFIG)
        adapter = self._json(reference.ADAPTER_CONFIG)
        self.adapter: AdapterSettings | None = (
            parse_settings(adapter, str(path / reference.ADAPTER_CONFIG)) if adapter else None
        )
        self._files: dict[Path | RemotePath, SafetensorsFile | TorchFile] = {}
        try:
            self._specs = self._read_headers(weights)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """A short name for tables: the folder's or file's own."""
        path = self.path if self.home is None else self.home
        if isinstance(path, RemotePath):
            return path.name.removesuffix(".safetensors")
        if path.parent.name == "snapshots":  # the hub's cache: models--org--name/snapshots/hash
            return self.ref
        return path.resolve().name.removesuffix(".safetensors").removesuffix(".bin")

    @property
    def location(self) -> str:
        """What finds it from any folder: its absolute path, its URL, or the hub id as written."""
        if isinstance(self.path, RemotePath) or not Path(self.ref).exists():
            return self.ref
        return str(self.path.resolve())

    @cached_property
    def folder(self) -> Path | None:
        """`home` on this machine.

        Of a URL, a copy that lasts as long as this object, made on first use: settings, heads and
        companions, and an adapter's weights, which PEFT reads from there.
        """
        if not isinstance(self.home, RemotePath):
            return self.home
        weights = [file.name for file in self.weight_files] if self.adapter is not None else []
        copy = remote.fetch(self.home, (*_SETTINGS, *_COMPANIONS, *weights))
        weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)
        return copy

    def specs(self) -> Mapping[str, TensorSpec]:
        """Every tensor's name, shape, type and place, in the order of the names."""
        return MappingProxyType(self._specs)

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> torch.Tensor:
        """One tensor as stored, or elements [start, stop) of it, flat.

        Returns:
            the tensor with its shape, or 1-D where a slice was asked for. A new tensor each time.

        Raises:
            KeyError: no such tensor.
            IndexError: the slice is not inside the tensor.
        """
        import torch

        spec = self._specs[name]
        first, last = start or 0, spec.numel if stop is None else stop
        if not 0 <= first <= last <= spec.numel:
            raise IndexError(f"[{first}, {last}) is not inside {spec}")
        dtype = dtypes.torch_dtype(spec.dtype)
        shape = spec.shape if start is None and stop is None else (last - first,)
        tensor = torch.empty(shape, dtype=dtype)
        if first < last:
            raw = tensor.reshape(-1).view(torch.uint8).numpy()
            self.read_into(name, first, raw.data)
        return tensor

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with a tensor's bytes from element `start` on; any thread may call it."""
        spec = self._specs[name]
        self._files[spec.file].read_into(spec, start, buffer)

    @property
    def sources(self) -> list[SafetensorsFile | TorchFile]:
        """The open weight files, with the metadata of their headers."""
        return list(self._files.values())

    @cached_property
    def ties(self) -> Mapping[str, str]:
        """Names that stand for the same weights as another: later name -> the one that counts."""
        shared: dict[str, str] = {}
        for file in self._files.values():
            if isinstance(file, TorchFile):
                shared |= file.shared()
        return declared_ties(self._specs, self.config) | shared

    @cached_property
    def adapter_modules(self) -> Mapping[str, AdapterModule]:
        """The modules that an adapter changes, by their names in the adapted model."""
        return self._adapter_tensors[0]

    @cached_property
    def adapter_saved(self) -> Mapping[str, str]:
        """An adapter's tensors saved whole: name in the adapted model -> name in the file."""
        return self._adapter_tensors[1]

    @cached_property
    def _adapter_tensors(self) -> tuple[dict[str, AdapterModule], dict[str, str]]:
        if self.adapter is None:
            return {}, {}
        return group_tensors(self._specs, self.adapter, str(self.path))

    @cached_property
    def base(self) -> Checkpoint | None:
        """The model that an adapter adapts: the one given on opening, else the one it names."""
        if self._base_ref is not None:
            return open(self._base_ref)
        if self.adapter is None or not self.adapter.base:
            return None
        return open(self.adapter.base)

    @property
    def companions(self) -> list[Path]:
        """Files beside the weights that belong to the model: tokenizer, processor, pooling."""
        if self.folder is None:
            return []
        found = {file for pattern in _COMPANIONS for file in self.folder.glob(pattern)}
        return sorted(file for file in found if file.is_file())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self._specs.values())

    @property
    def numel(self) -> int:
        """Elements of all weights, tied ones counted once; integer buffers not counted."""
        return sum(
            spec.numel
            for name, spec in self._specs.items()
            if spec.is_weight and name not in self.ties
        )

    @property
    def versions(self) -> dict[str, Any]:
        """What tells these weight files from later ones of the same names: file -> plain values."""
        return {str(path): file.version for path, file in self._files.items()}

    def check_unchanged(self) -> None:
        """Look whether the weight files are still the ones that were opened.

        Raises:
            AlliageError: one is not: what was read may be of two versions.
        """
        for file in self._files.values():
            file.check_unchanged()

    def close(self) -> None:
        """Close the files; reading afterwards fails."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        kind = f"{self.adapter.kind} adapter" if self.adapter else "checkpoint"
        return f"<{kind} {self.ref}: {len(self._specs)} tensors, {self.nbytes / 1e6:.1f} MB>"

    def _json(self, name: str) -> dict[str, Any] | None:
        if self.home is None or not (self.home / name).is_file():
            return None
        return reference.read_json(self.home / name)

    def _read_headers(self, weights: reference.WeightFiles) -> dict[str, TensorSpec]:
        problems: list[Problem] = []
        homes: defaultdict[str, list[TensorSpec]] = defaultdict(list)
        for path in weights.files:
            try:
                file = _open_weights(path)
            except AlliageError as error:
                problems += error.problems
                continue
            self._files[path] = file
            for name, spec in file.specs.items():
                homes[name].append(spec)
        if not problems and weights.index is not None:
            problems += _index_problems(weights.index, homes)
        for name, specs in homes.items():
            if len(specs) > 1:
                files = ", ".join(spec.file.name for spec in specs)
                problems.append(
                    Problem(f"{self.ref}: {name}", f"stands in several files: {files}.")
                )
        if problems:
            raise AlliageError(problems)
        return {name: homes[name][0] for name in sorted(homes)}


def _open_weights(path: Path | RemotePath) -> SafetensorsFile | TorchFile:
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if isinstance(path, RemotePath):
        what = "is a pickle on a URL; only safetensors are read from URLs."
        raise AlliageError(Problem(str(path), what, "Fetch it first, and open it from the disk."))
    return TorchFile(path)


def _index_problems(
    index: Mapping[str, Path | RemotePath], homes: Mapping[str, list[TensorSpec]]
) -> list[Problem]:
    problems = [
        Problem(
            f"{path}: {name}", "the index places it here, the file lacks it.", "Fetch it again."
        )
        for name, path in index.items()
        if path not in [spec.file for spec in homes.get(name, [])]
    ]
    problems += [
        Problem(f"{specs[0].file}: {name}", "is in the file but not in the index.")
        for name, specs in homes.items()
        if name not in index
    ]
    return problems
