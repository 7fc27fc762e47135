"""Checkpoints on URLs: paths that fsspec reaches (s3://, gs://, https://, memory://).

Nothing is cached: a listing or a header that is out of date would be worse than a request more.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from alliage.checkpoints.filesystems import WEB, connect, explained
from alliage.errors import AlliageError, Problem, TransientError, UsageError, nearest

_PIECE = 16 * 2**20  # bytes of one request
_PATIENCE = 60.0  # seconds that one request may take
_RECHECK = 5.0  # seconds between looks whether a file is still the one that was opened
_CHANGED = "changed since it was opened."
_FINGERPRINT = (
    "size", "ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified",
    "Last-Modified", "mtime", "created",
)  # fmt: skip
# Of a web server that lists nothing, what can be asked for by name.
_USUAL = (
    "config.json", "adapter_config.json", "alliage.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "chat_template.jinja", "preprocessor_config.json",
    "processor_config.json", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class RemotePath:
    """A file or folder on a URL, with as much of `pathlib.Path` as checkpoints need.

    Every method but the names asks the server, and raises AlliageError where it cannot be reached
    or refuses; the message says whose credentials were used.
    """

    url: str

    @classmethod
    def parse(cls, text: str) -> RemotePath:
        """A URL as the user wrote it.

        Raises:
            UsageError: it holds a secret, which provenance would publish, or names nothing.
        """
        parts = urlsplit(text)
        shown = f"{parts.scheme}://{parts.hostname}{parts.path}"
        if "::" in text:
            raise UsageError(Problem(text, "chained URLs are not supported.", "Fetch it first."))
        if parts.password is not None:
            what = "holds a password, which would end up in the output's provenance."
            raise UsageError(Problem(shown, what, "Leave credentials to the environment."))
        if parts.scheme in WEB and (parts.query or parts.fragment):
            what = "has a query; a signed URL would end up in the output's provenance."
            raise UsageError(Problem(shown, what, "Fetch it first, or give the bare URL."))
        if not (parts.netloc or parts.path.strip("/")):
            raise UsageError(Problem(text, "names no bucket or host."))
        return cls(text.rstrip("/"))

    @property
    def protocol(self) -> str:
        """What stands before "://"."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last part's ending, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder around it; a bucket is its own."""
        above = self.url.rpartition("/")[0]
        return self if above.endswith("/") else RemotePath(above)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def is_file(self) -> bool:
        """Whether a file of this name is there."""
        try:
            return bool(self.info()["type"] == "file")
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether it holds anything; taken for granted of a web server, which need not list."""
        return self.protocol in WEB or bool(self.entries())

    def entries(self) -> dict[RemotePath, bool]:
        """What lies in a folder -> whether it is a file; nothing where there is no such folder."""
        try:
            found = self.call(lambda fs, path, **limit: fs.ls(path, detail=True, **limit))
        except (FileNotFoundError, NotADirectoryError):
            found = []
        except AlliageError:
            if self.protocol not in WEB:
                raise
            found = []
        listed = {}
        for item in sorted(found, key=lambda item: str(item["name"])):
            above, _, name = item["name"].rstrip("/").rpartition("/")
            # S3 lists a folder's own marker, and a file as if it were in itself.
            if name not in ("", ".", "..") and above.rpartition("/")[2] == self.name:
                listed[self / name] = item["type"] == "file"
        if self.protocol in WEB and not any(listed.values()):
            return {self / name: True for name in _USUAL if (self / name).is_file()}
        return listed

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies in a folder."""
        return iter(self.entries())

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The files that match, each part of the pattern by itself."""
        return _matching(self.entries(), pattern)

    def info(self) -> dict[str, Any]:
        """What the server says of it.

        Raises:
            FileNotFoundError: nothing of this name.
        """
        found = self.call(lambda fs, path, **limit: fs.info(path, **limit))
        return dict(found)

    def read_bytes(self, most: int | None = None) -> bytes:
        """The content, or the first `most` bytes of a longer one.

        Raises:
            FileNotFoundError: nothing of this name.
        """
        if most is not None and (self.info()["size"] or 0) > most:
            return self.read_range(0, most)
        return bytes(self.call(lambda fs, path, **limit: fs.cat_file(path, **limit)))

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), or fewer where the file ends."""
        data: bytes = self.call(
            lambda fs, path, **limit: fs.cat_file(path, start=start, end=stop, **limit)
        )
        if len(data) > stop - start:
            what = f"{stop - start} bytes asked for, {len(data)} sent: the server ignores ranges."
            raise AlliageError(Problem(self.url, what, "Fetch the file first."))
        return data

    def sha256(self) -> str:
        """The SHA-256 of its bytes, read once from first to last."""
        digest, size = hashlib.sha256(), int(self.info()["size"])
        for start in range(0, size, _PIECE):
            piece = self.read_range(start, min(start + _PIECE, size))
            digest.update(piece)
        return digest.hexdigest()

    def call(self, operation: Callable[..., Any], wait: float | None = None) -> Any:
        """What `operation(fs, path, **limit)` returns, within `wait` seconds (60).

        Raises:
            FileNotFoundError, NotADirectoryError, FileExistsError: as the operation says.
            AlliageError: any other failure, explained.
        """
        limit = _PATIENCE if wait is None else wait
        try:
            fs, path = connect(self.url)
            return operation(fs, path, **({"timeout": limit} if fs.async_impl else {}))
        except Exception as error:  # each backend has exceptions of its own
            raise explained(self.url, error, limit) from None


class RemoteBytes:
    """An open file on a URL, read by ranges. Any thread may read."""

    def __init__(self, path: RemotePath) -> None:
        """Ask for the file's size and version.

        Raises:
            AlliageError: it is not there, or the server does not say how long it is.
        """
        self.path = path
        try:
            info = path.info()
        except FileNotFoundError:
            raise AlliageError(Problem(str(path), "does not exist.")) from None
        if info.get("size") is None:
            what = "the server does not say how long it is."
            raise AlliageError(Problem(str(path), what, "Fetch the file first."))
        self.size = int(info["size"])
        self.version = _fingerprint(info)
        self._checked = time.monotonic()

    def read(self, offset: int, buffer: memoryview) -> int:
        """Fill the front of `buffer` from `offset` on.

        Returns:
            how many bytes; fewer than asked for only of large reads.

        Raises:
            AlliageError: the file changed since it was opened, or the server stopped answering.
        """
        if time.monotonic() - self._checked > _RECHECK:
            self.check_unchanged()
        count = min(len(buffer), _PIECE)
        try:
            data = self.path.read_range(offset, offset + count)
        except FileNotFoundError:
            data = b""
        except AlliageError as error:
            try:
                self.check_unchanged()  # which would explain it
            except AlliageError as reason:
                if _CHANGED in str(reason):
                    raise
            raise error from None
        if len(data) < count:
            self.check_unchanged()
            what = f"{count} bytes asked for at {offset}, {len(data)} received."
            raise TransientError(Problem(str(self.path), what, "Try again."))
        buffer[:count] = data
        return count

    def check_unchanged(self) -> None:
        """Look whether the file is still the one that was opened.

        Raises:
            AlliageError: it is not.
        """
        try:
            now = _fingerprint(self.path.info())
        except FileNotFoundError:
            now = {}
        if now != self.version:
            fix = "Start again when nobody writes to it."
            raise AlliageError(Problem(str(self.path), _CHANGED, fix))
        self._checked = time.monotonic()

    def close(self) -> None:
        """Nothing is held open."""


def is_url(ref: object) -> bool:
    """Whether a reference is a URL."""
    return "://" in str(ref)


def local_path(url: str) -> Path | None:
    """The local path that a file:// URL means; nothing for any other URL."""
    if not url.startswith(("file://", "local://")):
        return None
    from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

    return Path(LocalFileSystem._strip_protocol(url))


def locate(text: str, *, is_file: bool) -> Path | RemotePath:
    """What a URL means: file:// is a local path.

    Raises:
        UsageError: nothing there, with the nearest names where the server lists any.
        AlliageError: the server cannot be reached, or refuses.
    """
    here = local_path(text)
    if here is not None:
        return here
    path = RemotePath.parse(text)
    if not (path.is_file() if is_file else path.is_dir()):
        raise UsageError(Problem(text, "does not exist.", _neighbours(path)))
    return path


def fetch(folder: RemotePath, patterns: Iterable[str]) -> Path:
    """Copy the files that match any pattern to a new temporary folder, which is returned."""
    entries = folder.entries()
    copy = Path(tempfile.mkdtemp(prefix="alliage-"))
    try:
        for file in {file for pattern in patterns for file in _matching(entries, pattern)}:
            target = copy / file.url.removeprefix(f"{folder.url}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    return copy


def _matching(entries: dict[RemotePath, bool], pattern: str) -> Iterator[RemotePath]:
    first, _, rest = pattern.partition("/")
    for path, is_file in entries.items():
        if is_file != bool(rest) and fnmatchcase(path.name, first):
            yield from path.glob(rest) if rest else [path]


def _fingerprint(info: dict[str, Any]) -> dict[str, str]:
    return {key: str(info[key]) for key in _FINGERPRINT if info.get(key) is not None}


def _neighbours(path: RemotePath) -> str:
    """Names like the missing one beside it; which part of the path is missing otherwise."""
    parent = path.parent
    try:
        if parent == path:
            names = [item.name for item in RemotePath(f"{path.protocol}://").entries()]
            return f"There is no such bucket. {nearest(path.name, names[:1000])}".rstrip()
        names = [item.name for item in parent.entries()]
    except AlliageError:  # the first error counts
        return ""
    if not names:
        return f"{parent} does not exist either, or is empty. {_neighbours(parent)}".rstrip()
    suggestion = nearest(path.name, names[:1000])
    return suggestion if suggestion.startswith("Did") else ""
