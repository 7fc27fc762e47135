"""SHA-256 of files, which takes longer than merging them: remembered, and begun early.

A digest is remembered under what the file system knows of the file: device, inode, size, times of
modification and of change. The last one no program can set back, so a file whose bytes changed is
hashed again. What changed within the last seconds is not remembered, or only for one job that holds
it open: the clock of a file system may be too coarse to tell the next change from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from alliage.checkpoints.remote import RemotePath

_CHUNK = 2**20
_LEAST = 2**20  # bytes; smaller files are hashed as fast as looked up
_SETTLED = 3.0  # seconds

_found: dict[str, Future[str]] = {}  # by this process; a second one waits for the first
_young: set[str] = set()  # of them, forgotten when the jobs that began early are done
_jobs: set[object] = set()
_lock = threading.Lock()


def cache_folder() -> Path:
    """Where Alliage remembers things: ALLIAGE_CACHE, or the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ALLIAGE_CACHE") or Path(home) / "alliage")


def sha256(path: Path | RemotePath) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; remembered where the file is unchanged."""
    if isinstance(path, RemotePath):
        return path.sha256()
    status = path.stat()
    if status.st_size < _LEAST:
        return recomputed(path)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    key = ":".join(map(str, (status.st_dev, status.st_ino, status.st_size, *times)))
    with _lock:
        known = _found.get(key)
        mine = known is None
        known = known or _found.setdefault(key, Future())
    if not mine:
        return known.result()
    try:
        note = cache_folder() / "sha256" / hashlib.sha256(key.encode()).hexdigest()[:32]
        digest = _read(note)
        if digest is None:
            digest = recomputed(path)
            if time.time() - max(times) / 1e9 > _SETTLED:
                _write(note, digest)
            else:
                with _lock:
                    _young.add(key)
        known.set_result(digest)
        _forget_young()
    except BaseException as error:
        with _lock:
            del _found[key]
        known.set_exception(error)
        raise
    return digest


def recomputed(path: Path | RemotePath) -> str:
    """The SHA-256 of a file's bytes, from the bytes, whatever is remembered."""
    if isinstance(path, RemotePath):
        return path.sha256()
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


@contextlib.contextmanager
def begun_early(paths: Iterable[Path | RemotePath]) -> Iterator[None]:
    """Hash local files, one after the other, beside what the block does; `sha256` has them then."""

    def work(path: Path) -> None:
        with contextlib.suppress(OSError):  # whoever asks for it will see
            sha256(path)

    job = object()
    _jobs.add(job)
    pool = ThreadPoolExecutor(1, thread_name_prefix="alliage-sha256")
    for path in paths:
        if isinstance(path, Path):
            pool.submit(work, path)
    try:
        yield
    finally:
        pool.shutdown(cancel_futures=True)
        _jobs.discard(job)
        _forget_young()


def _forget_young() -> None:
    with _lock:
        while _young and not _jobs:
            _found.pop(_young.pop(), None)


def _read(note: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        digest = note.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", digest):
            return digest
    return None


def _write(note: Path, digest: str) -> None:
    """Remember, where there is room and permission."""
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        try:
            draft.write_text(digest, encoding="ascii")
            draft.replace(note)
        except OSError:
            draft.unlink(missing_ok=True)
