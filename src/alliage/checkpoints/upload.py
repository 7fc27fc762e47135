"""Finished outputs onto a URL: what makes a model loadable comes last."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from alliage.checkpoints.digests import cache_folder
from alliage.checkpoints.remote import RemotePath
from alliage.errors import AlliageError, Problem, UsageError

_LAST = ("adapter_config.json", "config.json", "alliage.json")  # in this order, after indexes
_EXCLUSIVE = ("s3", "s3a", "gs", "gcs", "memory")  # never replace a file, whatever the race
_PATIENCE, _SLOWEST = 60.0, 250_000  # seconds for any file, and bytes per second


class Uploader:
    """A new folder on a URL, filled file by file.

    Files of weights may be put as soon as they are finished, and removed from the disk then.
    `finish` puts the rest, the files without which nothing loads at the very end: whoever looks
    meanwhile finds no model. Leaving the `with` block before that, with an error or without,
    removes whatever was put.
    """

    def __init__(self, url: str) -> None:
        """Ask whether `url` is free; nothing is written.

        Raises:
            UsageError: something lies there already, its bucket does not exist, or nothing can be
                written to such URLs.
            AlliageError: the server cannot be reached, or refuses.
        """
        self.home = RemotePath.parse(url)
        self._put: list[RemotePath] = []
        self._finished = False
        refuse_existing(self.home)

    def put(self, file: Path, name: str | None = None) -> None:
        """Upload a file under a name in the folder, by default its own.

        Raises:
            AlliageError: it did not arrive.
        """
        target = self.home / (name or file.name)
        size = file.stat().st_size
        options = {"mode": "create"} if target.protocol in _EXCLUSIVE else {}
        try:
            target.call(
                lambda fs, path, **limit: fs.put_file(str(file), path, **options, **limit),
                wait=_PATIENCE + size / _SLOWEST,
            )
        except FileExistsError:
            what = "appeared while the output was made."
            raise AlliageError(Problem(str(target), what, "Choose another output.")) from None
        except FileNotFoundError:
            raise AlliageError(Problem(str(target), "its bucket is gone.")) from None
        except BaseException:
            self._put.append(target)  # perhaps it is there, perhaps in part
            raise
        self._put.append(target)
        arrived = target.info()["size"]
        if arrived != size:
            what = f"{size} bytes were sent, {arrived} arrived."
            raise AlliageError(Problem(str(target), what, "Try again."))

    def finish(self, folder: Path) -> None:
        """Upload every file of a folder that was not put before.

        Raises:
            AlliageError: one did not arrive.
        """
        done = {path.url.removeprefix(f"{self.home}/") for path in self._put}
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        for name in sorted(files, key=_turn):
            if files[name].is_file() and name not in done:
                self.put(files[name], name)
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        if self._finished and kind is None:
            return
        left = []
        for path in reversed(self._put):  # what makes it loadable goes first
            try:
                path.call(lambda fs, place, **limit: fs.rm_file(place, **limit))
            except FileNotFoundError:
                continue
            except AlliageError:
                left.append(path)
        if left:
            what = f"{len(left)} files of an unfinished output could not be removed"
            problem = Problem(str(self.home), f"{what}: {', '.join(p.name for p in left[:4])}.")
            before = error.problems if isinstance(error, AlliageError) else ()
            raise AlliageError([*before, problem])


def local_home(url: str) -> Path:
    """Where an output for a URL is made on this machine, and found by a run that goes on with it.

    Its name is the URL's last one.
    """
    home = RemotePath.parse(url)
    place = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    return cache_folder() / "outputs" / place / home.name


def upload(folder: Path, url: str) -> None:
    """Copy a finished output to a URL where nothing lies yet; after an error nothing is left there.

    Raises:
        UsageError: something lies there already, or nothing can be written there.
        AlliageError: the server cannot be reached, or refuses.
    """
    with Uploader(url) as uploader:
        uploader.finish(folder)


def refuse_existing(home: RemotePath) -> None:
    """Refuse a URL where something lies, or where nothing can be written.

    Raises:
        UsageError: with what to do.
        AlliageError: the server cannot be reached, or refuses.
    """
    if home.protocol in ("http", "https"):
        what = "is a web address; expected one that can be written to, such as s3://bucket/folder."
        raise UsageError(Problem(str(home), what))
    if home.is_file() or home.entries():
        fix = "Choose another output or remove it first."
        raise UsageError(Problem(str(home), "exists already.", fix))
    bucket = home
    while bucket.parent != bucket:
        bucket = bucket.parent
    if bucket == home:
        fix = "Add a folder's name."
        raise UsageError(Problem(str(home), "is a whole bucket; expected a folder in one.", fix))
    try:
        bucket.info()
    except FileNotFoundError:
        if home.protocol != "memory":  # which makes its folders as they are needed
            fix = "Make the bucket first, or check its name."
            raise UsageError(Problem(str(home), f"{bucket} does not exist.", fix)) from None


def _turn(name: str) -> tuple[int, int, str]:
    """When a file is uploaded: weights, the small files, indexes, and what makes it loadable."""
    if name in _LAST:
        return 3, _LAST.index(name), name
    if name.endswith(".index.json"):
        return 2, 0, name
    return int(not name.endswith(".safetensors")), 0, name
