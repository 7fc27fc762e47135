"""Hostile .bin files: pickles that run code, and state dicts that lie about their storage."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import torch

import alliage
from tests.fuzz import hostile
from tests.fuzz.checkpoint_files import look_at
from tests.fuzz.verdict import Violation

NAME = "pytorch_model.bin"


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def payloads(canary: Path) -> list[bytes]:
    """Pickles that make the file `canary` where anything executes them."""
    touch = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    calls = [Call(os.system, touch), Call(eval, code), Call(exec, code),
             Call(open, str(canary), "w"), Call(Path.touch, canary)]  # fmt: skip
    pickles = [pickle.dumps(call, protocol) for call in calls for protocol in (0, 2, 4)]
    line = touch.encode()
    pickles += [
        b"cos\nsystem\n(V" + line + b"\ntR.",
        b"(V" + line + b"\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nV" + line + b"\no.",  # OBJ
        b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(Vos\ntRVsystem\ntR(V"
        + line
        + b"\ntR.",
        b"ccollections\nOrderedDict\n(tRcos\nsystem\n(V" + line + b"\ntRb.",  # BUILD with a call
    ]
    nested = pickle.dumps(Call(exec, code))
    pickles.append(pickle.dumps(Call(pickle.loads, nested)))
    # Functions that torch itself names in old files, and that unpickle again.
    pickles.append(pickle.dumps(Call(torch.storage._load_from_bytes, _zipped(nested))))
    return pickles


def _zipped(data: bytes, storages: dict[str, bytes] | None = None, how: int = 0) -> bytes:
    """PyTorch's archive around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


class _Storage:
    """Pickles as a persistent id, as torch writes storages."""

    def __init__(self, identity: Any) -> None:
        self.identity = identity


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.identity if isinstance(value, _Storage) else None


def _rebuilt(rng: Random) -> Any:
    """A tensor of one stored float that claims any size, stride, offset or type."""
    identity: Any = ("storage", torch.FloatStorage, "0", "cpu", 1)
    kind = rng.randrange(7)
    size: Any = rng.choice(((1,), (2**40,), (2**20, 2**20), (2**62, 4), (-1,), (), (0, 2**62), "x"))
    stride: Any = rng.choice(((1,), (0,), (0, 0), (1, 1), (-1,), (2**62, 1), (), None))
    offset: Any = rng.choice((0, 0, 0, 1, -1, 2**40, 2**63, None))
    if kind == 0:
        identity = hostile.value(rng)
    elif kind == 1:
        identity = ("storage", torch.FloatStorage, rng.choice(("9", "../0", "", 0)), "cpu", 1)
    elif kind == 2:
        identity = ("storage", torch.FloatStorage, "0", "cpu", rng.choice((0, 2, 2**40, 2**62, -1)))
    elif kind == 3:
        identity = ("storage", rng.choice((torch.BoolStorage, dict, 5)), "0", "cpu", 1)
    function = torch._utils._rebuild_tensor_v2
    arguments = (_Storage(identity), offset, size, stride, False, OrderedDict())
    if kind == 6:
        return Call(
            rng.choice(_BUILDERS), *(hostile.value(rng, 1) for _ in range(rng.randrange(8)))
        )
    return Call(function, *arguments)


_BUILDERS: tuple[Callable[..., Any], ...] = (
    torch._utils._rebuild_parameter, torch._utils._rebuild_qtensor, torch.Size, bytearray, set,
    torch._utils._rebuild_sparse_tensor, torch._utils._rebuild_meta_tensor_no_storage,
    torch._utils._rebuild_nested_tensor, torch._tensor._rebuild_from_type_v2, OrderedDict,
)  # fmt: skip
_ODD = (
    lambda: {"a": torch.zeros(2), 5: torch.zeros(1)},
    lambda: {("a", "b"): torch.zeros(2), "a": torch.zeros(1)},
    lambda: {None: torch.zeros(2)},
    lambda: [torch.zeros(2)],
    lambda: torch.zeros(2),
    dict,
    lambda: {"a": torch.zeros(2, device="meta")},
    lambda: {"a": torch.eye(3).to_sparse()},
    lambda: {"a": torch.zeros(2, dtype=torch.complex64)},
    lambda: {"a": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)},
    lambda: {"a": torch.zeros(1).expand(3, 4), "b": torch.arange(12.0).reshape(3, 4).t()},
    lambda: {"a": torch.ones(4)[1:], "b": torch.ones(4)[::2], "c": torch.tensor(3.0)},
    lambda: {"a": torch.nn.Parameter(torch.ones(2)), "e": torch.ones(0, 3)},
    lambda: {"x\x1b[2J": torch.ones(2), "": torch.ones(1), "a\0b": torch.ones(1)},
    lambda: {"\ud800": torch.ones(2)},
    lambda: {"a": torch.ones(2), "_metadata": OrderedDict()},
    lambda: {"a": torch.tensor([True, False]), "b": torch.arange(3, dtype=torch.int16)},
    lambda: {"a": torch.complex(torch.ones(2), torch.ones(2)).imag},
    lambda: {"a": torch.view_as_complex(torch.ones(2, 2)).conj().imag},
    lambda: OrderedDict(a=torch.randn(2, 3, dtype=torch.float64), b=torch.ones(3).bfloat16()),
)  # fmt: skip


def make_pickle(rng: Random, folder: Path) -> None:
    """A payload, a lying state dict, an odd one, or a good one damaged."""
    kind = rng.randrange(5)
    if kind == 0:
        payload = rng.choice(payloads(folder.parent / "canary"))
        content = payload if rng.random() < 0.3 else _zipped(payload, {"0": b"\0" * 4})
    elif kind == 1:
        buffer = io.BytesIO()
        with suppress(RecursionError):  # a value too deep for the pickler itself
            _Pickler(buffer, 2).dump({"a": _rebuilt(rng)})
        how = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
        content = _zipped(buffer.getvalue(), {"0": b"\0" * rng.choice((4, 4, 0, 64))}, how)
    elif kind == 2:
        content = _zipped(_bomb(rng), how=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    else:
        buffer = io.BytesIO()
        torch.save(rng.choice(_ODD)(), buffer, _use_new_zipfile_serialization=rng.random() < 0.8)
        content = buffer.getvalue()
        if kind == 4:
            content = hostile.damage(rng, content)
    (folder / NAME).write_bytes(content)


def _bomb(rng: Random) -> bytes:
    """A pickle that asks for memory, depth or impossible opcodes."""
    return rng.choice((
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02]" + b"(" * 1_000_000 + b".",
        b"\x80\x04\x8e" + (2**50).to_bytes(8, "little") + b"x.",
        b"\x80\x02T\xff\xff\xff\x7fx.",
        b"\x80\x02\x8b\xff\xff\xff\x7fx.",
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x10\x85R.",
        b"\x80\x02]q\0" + b"(" + b"h\0" * 1000 + b"e.",
        b"\x80\x02}q\0h\0h\0s.",
        b"\x80\x02]" + b"2(l" * 500 + b".",
        b"V" + b"x" * 10_000_000 + b"\n.",
        b"\x80\x02j\xff\xff\xff\xff.",
        b"\x80\x02.", b"", b".", b"\x80\xff.", b"0", b"R.", b"s.", b"b.", b"Q.", b"\x80\x02NQ.",
        b"\x80\x02X\x02\0\0\0\xff\xfe.", b"I9x\n.", b"Fx\n.", b"cos\n", b"c\xff\n\xff\n.",
    ))  # fmt: skip


def check_pickle(folder: Path) -> str:
    """What is accepted is what torch reads without running anything."""
    canary = folder.parent / "canary"
    try:
        with alliage.open(folder / NAME) as checkpoint:
            try:
                expected = torch.load(folder / NAME, "cpu", weights_only=True)
            except Exception as error:
                if any(spec.numel for spec in checkpoint.specs().values()):
                    raise Violation(f"torch refuses it: {error}") from None
                return "accepted without any element, torch refuses"
            if checkpoint.specs().keys() != expected.keys():
                raise Violation(f"read {sorted(checkpoint.specs())}, torch {sorted(expected)}")
            for name, tensor in expected.items():
                found = checkpoint.read(name)
                plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
                if found.dtype != plain.dtype or not torch.equal(
                    found.view(-1).view(torch.uint8), plain.view(-1).view(torch.uint8)
                ):
                    raise Violation(f"{name} is {found}, torch reads {tensor}")
            assert checkpoint.ties is not None
        look_at(folder / NAME)
    finally:
        if canary.exists():
            canary.unlink()
            raise Violation("a pickle was executed")
    return "accepted, equal"
