"""Values nobody expects, and changes to JSON documents and bytes."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

# Catastrophic for a backtracking matcher; also module names and paths.
TEXTS = (
    "", " ", ".", "..", "a", "0", "-1", "nan", "None", "\0", "a\0b", "\x1b[2J\x1b]0;x\x07", "a\nb",
    "\r", "\u202egnp", "ﬁ", "e\u0301", "模型", "\U0001f9e8", "\ud800", "\udcff", "a" * 300,
    "é" * 3000,
    "layers." + "9" * 5000, "../../etc/passwd", "/etc/passwd", "/dev/zero", "C:\\x", "~nobody/x",
    "file:///etc/passwd", "https://example.invalid/x", "model.safetensors", "__metadata__",
    "(a+)+$", "(.*)*x", ".*.*.*.*.*.*.*!", "(", "[", "(?P<n>a)(?P=n)", "{{7*7}}", "%s%n",
    "$(touch x)",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63,
    2**64 - 1, 2**64, -(2**63), 10**400, -(10**400), 0.5, -0.0, 1e308, 5e-324, float("nan"),
    float("inf"), float("-inf"),
)  # fmt: skip


def text(rng: Random) -> str:
    """A string, often a harmful one."""
    if rng.random() < 0.8:
        return rng.choice(TEXTS)
    return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x11000)))) for _ in range(9))


def value(rng: Random, depth: int = 3) -> Any:
    """Any JSON value."""
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind < 4:
        return text(rng)
    if kind == 4 or depth == 0:
        return rng.choice((None, True, False))
    if kind == 5:
        return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(4))}
    if kind == 6:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return nested(rng.choice((5, 90, 200, 2000)), rng.random() < 0.5)


def nested(depth: int, objects: bool) -> Any:
    """Brackets in brackets."""
    deep: Any = 0
    for _ in range(depth):
        deep = {"a": deep} if objects else [deep]
    return deep


def change(rng: Random, document: Any) -> Any:
    """The document with one thing replaced, removed, added or renamed."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.1:
        return value(rng)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = rng.choice(keys)
    items = dict(document) if isinstance(document, dict) else dict(enumerate(document))
    action = rng.randrange(6)
    if action == 0:
        del items[key]
    elif action == 1:
        items[text(rng) if isinstance(document, dict) else len(items)] = value(rng)
    elif action == 2 and isinstance(document, dict):
        items = {text(rng) if k == key else k: v for k, v in items.items()}
    elif action == 3:
        items[key] = items[rng.choice(keys)]
    else:
        items[key] = change(rng, items[key])
    return items if isinstance(document, dict) else list(items.values())


def dump(rng: Random, document: Any) -> bytes:
    """JSON text, now and then with a key twice, in another encoding or not JSON at all."""
    try:
        written = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    except RecursionError:
        written = "[" * 100_000
    if rng.random() < 0.05:
        keys = list(re.finditer(r'"[^"]*":', written))
        if keys:
            old, new = rng.choice(keys), rng.choice(keys)
            written = written[: old.start()] + new.group() + written[old.end() :]
    encoding = "utf-8" if rng.random() < 0.95 else rng.choice(("utf-16", "utf-8-sig", "utf-32-le"))
    encoded = written.encode(encoding, "surrogatepass")
    return damage(rng, encoded) if rng.random() < 0.05 else encoded


def damage(rng: Random, data: bytes) -> bytes:
    """The bytes with some of them changed, cut, repeated or inserted."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(damaged) + 1)
        stop = place + rng.choice((1, 2, 8, 100))
        action = rng.randrange(5)
        if action == 0:
            del damaged[place:]
        elif action == 1:
            del damaged[place:stop]
        elif action == 2:
            damaged[place:place] = damaged[place:stop]
        elif action == 3:
            damaged[place:place] = rng.randbytes(stop - place)
        elif damaged:
            damaged[place % len(damaged)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(damaged)
