"""Finished outputs onto a URL: what makes a model loadable comes last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from alliage.checkpoints.digests import cache_folder, sha256
from alliage.checkpoints.remote import RemotePath, is_url, local_path
from alliage.errors import AlliageError, Problem, UsageError

_LAST = ("adapter_config.json", "config.json", "alliage.json")  # in this order, after indexes
_EXCLUSIVE = ("s3", "s3a", "gs", "gcs", "memory")  # never replace a file, whatever the race
_PATIENCE, _SLOWEST = 60.0, 250_000  # seconds for any file, and bytes per second


def destination(out: str | Path) -> Path | RemotePath:
    """Where an output goes: file:// is a local path.

    Raises:
        UsageError: the URL holds a secret, or names nothing.
    """
    if not is_url(out):
        return Path(out)
    return local_path(str(out)) or RemotePath.parse(str(out))


def local_destination(out: str | Path) -> Path:
    """Where an output goes that is made on this machine only.

    Raises:
        UsageError: it is to go to a URL.
    """
    place = destination(out)
    if isinstance(place, RemotePath):
        fix = "Write it to a folder here, and copy that."
        raise UsageError(Problem(str(place), "this output cannot go to a URL.", fix))
    return place


def local_home(url: str) -> Path:
    """Where an output for a URL is made on this machine, and found by a run that goes on with it.

    Its name is the URL's last one.
    """
    home = RemotePath.parse(url)
    place = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    return cache_folder() / "outputs" / place / home.name


def upload(folder: Path, url: str, *, resume: bool = False) -> None:
    """Copy a finished output to a URL where nothing lies yet.

    The files without which nothing loads come at the very end: whoever looks meanwhile finds no
    model. After an error what was put is removed again.

    Args:
        folder: the output.
        url: of its new folder.
        resume: whether an interrupted upload may have left files of the output there. They stay
            where their bytes are the output's; nothing is ever replaced.

    Raises:
        UsageError: something else lies there already, or nothing can be written there.
        AlliageError: the server cannot be reached, or refuses.
    """
    home, files = RemotePath.parse(url), _files(folder)
    there = refuse_existing(home, folder if resume else None)
    fix = "Choose another output or remove it first."
    differing = [
        Problem(str(home / name), f"exists already, with other bytes than {files[name]}.", fix)
        for name in there
        if (home / name).sha256() != sha256(files[name])
    ]
    if differing:
        raise UsageError(differing)
    put: list[RemotePath] = []
    try:
        for name in sorted(files.keys() - there, key=_turn):
            put.append(home / name)  # whatever happens, perhaps it is there, perhaps in part
            try:
                _put(files[name], home / name)
            except FileExistsError:
                put.pop()
                what = "appeared while the output was made."
                raise AlliageError(Problem(str(home / name), what, fix)) from None
    except BaseException as error:
        _remove(home, put, error)
        raise


def refuse_existing(home: RemotePath, ours: Path | None = None) -> set[str]:
    """Refuse a URL where something lies, or where nothing can be written.

    Args:
        home: of the new folder.
        ours: a finished output of which files may lie there: those of the same name and size.

    Returns:
        the names, relative to `home`, of the files of `ours` that lie there.

    Raises:
        UsageError: with what to do.
        AlliageError: the server cannot be reached, or refuses.
    """
    if home.protocol in ("http", "https"):
        what = "is a web address; expected one that can be written to, such as s3://bucket/folder."
        raise UsageError(Problem(str(home), what))
    fix = "Choose another output or remove it first."
    if home.is_file() or (ours is None and home.entries()):
        raise UsageError(Problem(str(home), "exists already.", fix))
    there: set[str] = set()
    if ours is not None:
        files = _files(ours)
        there = {path.url.removeprefix(f"{home}/") for path in _walk(home)}
        others = [
            name
            for name in sorted(there)
            if name not in files or (home / name).info()["size"] != files[name].stat().st_size
        ]
        if others:
            what = f"exists already, with files that are no part of {ours}: "
            raise UsageError(Problem(str(home), f"{what}{', '.join(others[:4])}.", fix))
    bucket = home
    while bucket.parent != bucket:
        bucket = bucket.parent
    if bucket == home:
        what = "is a whole bucket; expected a folder in one."
        raise UsageError(Problem(str(home), what, "Add a folder's name."))
    try:
        bucket.info()
    except FileNotFoundError:
        if home.protocol != "memory":  # which makes its folders as they are needed
            fix = "Make the bucket first, or check its name."
            raise UsageError(Problem(str(home), f"{bucket} does not exist.", fix)) from None
    return there


def _put(file: Path, target: RemotePath) -> None:
    """Upload a file.

    Raises:
        FileExistsError: something lies there.
        AlliageError: it did not arrive.
    """
    size = file.stat().st_size
    options = {"mode": "create"} if target.protocol in _EXCLUSIVE else {}
    try:
        target.call(
            lambda fs, path, **limit: fs.put_file(str(file), path, **options, **limit),
            wait=_PATIENCE + size / _SLOWEST,
        )
    except FileNotFoundError:
        raise AlliageError(Problem(str(target), "its bucket is gone.")) from None
    arrived = target.info()["size"]
    if arrived != size:
        what = f"{size} bytes were sent, {arrived} arrived."
        raise AlliageError(Problem(str(target), what, "Try again."))


def _remove(home: RemotePath, put: Sequence[RemotePath], error: BaseException) -> None:
    """Remove what was put before an error.

    Raises:
        AlliageError: something could not be removed, beside the problems of `error`.
    """
    left = []
    for path in reversed(put):  # what makes it loadable goes first
        try:
            path.call(lambda fs, place, **limit: fs.rm_file(place, **limit))
        except FileNotFoundError:
            continue
        except AlliageError:
            left.append(path)
    if left:
        what = f"{len(left)} files of an unfinished output could not be removed"
        problem = Problem(str(home), f"{what}: {', '.join(p.name for p in left[:4])}.")
        before = error.problems if isinstance(error, AlliageError) else ()
        raise AlliageError([*before, problem])


def _files(folder: Path) -> dict[str, Path]:
    """Every file in a folder, by its relative name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _walk(folder: RemotePath) -> Iterator[RemotePath]:
    """Every file in a folder on a URL."""
    for path, is_file in folder.entries().items():
        if is_file:
            yield path
        else:
            yield from _walk(path)


def _turn(name: str) -> tuple[int, int, str]:
    """When a file is uploaded: weights, the small files, indexes, and what makes it loadable."""
    if name in _LAST:
        return 3, _LAST.index(name), name
    if name.endswith(".index.json"):
        return 2, 0, name
    return int(not name.endswith(".safetensors")), 0, name
