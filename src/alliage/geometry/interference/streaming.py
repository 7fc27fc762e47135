"""Task vectors read block by block: first the thresholds of trimming, then the counts."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, groupby
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from alliage.checkpoints.names import module_of
from alliage.errors import AlliageError, Problem
from alliage.geometry.interference import kernels
from alliage.geometry.interference.counting import MOST_TALLIED, SignCounts, SignTally, kept_signs
from alliage.geometry.interference.steps import Magnitudes
from alliage.order_statistics import Search, trim_rank
from alliage.vectors import LowRankVector, Vector
from alliage.vectors.scaling import ScaleOffsets

Notify = Callable[[str, int, int], None]
Found = TypeVar("Found")

_BLOCK = 2**16  # elements: all models' blocks, and what is made of them, stay in the cache
_CHUNK = 16 * _BLOCK  # what a worker takes at a time
_SAMPLE = 2**20  # elements of each model that the search for thresholds begins with
_SLICE = 2**12  # of the sample, in one place
_NOT_FINITE = 0x7F800000  # the smallest magnitude's bits that are no number


class Range(NamedTuple):
    """Elements [start, stop) of a parameter."""

    parameter: str
    start: int
    stop: int


class Counts(NamedTuple):
    """What was counted.

    Attributes:
        modules: module -> for each share of `Reader`'s thresholds, its counts.
        magnitudes: of the whole, at the share that was asked for.
    """

    modules: Mapping[str, list[SignCounts]]
    magnitudes: Magnitudes


class Reader:
    """Some parameters of task vectors, as one long vector of each model."""

    def __init__(self, vectors: Sequence[Vector], parameters: Sequence[str], threads: int) -> None:
        """Read `parameters`, which all vectors have."""
        modules: dict[str, list[str]] = {}
        for parameter in parameters:
            modules.setdefault(module_of(parameter), []).append(parameter)
        sizes = {name: math.prod(vectors[0].shapes[name]) for name in parameters}
        self.sizes = {name: sizes[name] for names in modules.values() for name in names}
        self.numel = sum(sizes.values())
        self.vectors = vectors
        self._threads = threads
        bases = {id(vector.base): vector.base for vector in vectors}
        needed = not all(isinstance(vector, LowRankVector | ScaleOffsets) for vector in vectors)
        self._base = next(iter(bases.values())) if needed and len(bases) == 1 else None

    def block(self, place: Range) -> NDArray[np.float32]:
        """All models' elements, [n, m]."""
        parameter, start, stop = place
        shared = self._base.read(parameter, start, stop).float() if self._base else None
        rows = [vector.block(parameter, start, stop, shared).numpy() for vector in self.vectors]
        return np.stack(rows)

    def each(
        self, places: Sequence[Range], work: Callable[[Range], Found], stage: str, notify: Notify
    ) -> Iterator[tuple[Range, Found]]:
        """Work on all places in some threads; what was found, in order of the places."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="alliage") as pool:
            waiting: deque[tuple[Range, Future[Found]]] = deque()
            for done, place in enumerate(places, 1):
                waiting.append((place, pool.submit(work, place)))
                if len(waiting) > 2 * self._threads:
                    found, future = waiting.popleft()
                    yield found, future.result()
                    notify(stage, done - len(waiting), len(places))
            while waiting:
                found, future = waiting.popleft()
                yield found, future.result()
                notify(stage, len(places) - len(waiting), len(places))

    def chunks(self) -> list[Range]:
        """All elements, module by module, in the pieces that workers take."""
        return [
            Range(name, start, min(start + _CHUNK, numel))
            for name, numel in self.sizes.items()
            for start in range(0, numel, _CHUNK)
        ]

    def blocks(self, chunk: Range) -> Iterator[NDArray[np.float32]]:
        """A piece, block by block."""
        for start in range(chunk.start, chunk.stop, _BLOCK):
            stop = min(start + _BLOCK, chunk.stop)
            yield self.block(Range(chunk.parameter, start, stop))

    def sample(self) -> list[Range]:
        """Slices at even distances; all elements where they are few."""
        if self.numel <= _SAMPLE:
            return self.chunks()
        names, ends = list(self.sizes), list(accumulate(self.sizes.values()))
        count, places = _SAMPLE // _SLICE, []
        for number in range(count):
            place = number * self.numel // count
            index = bisect.bisect_right(ends, place)
            start = place - (ends[index - 1] if index else 0)
            stop = min(start + _SLICE, self.sizes[names[index]])
            places.append(Range(names[index], start, stop))
        return places

    def flaws(self, place: Range) -> list[Problem]:
        """What holds NaN or infinity: the base's tensor where that is to blame."""
        what = "holds NaN or infinity."
        parameter, start, stop = place
        if self._base and not bool(self._base.read(parameter, start, stop).isfinite().all()):
            return [Problem(f"{self._base.specs()[parameter].file}: {parameter}", what)]
        sources = [
            vector.source(parameter)
            for vector, row in zip(self.vectors, self.block(place), strict=True)
            if not np.isfinite(row).all()
        ]
        return [Problem(f"{source.file}: {source.name}", what) for source in sources]


def find_thresholds(reader: Reader, shares: Sequence[float], notify: Notify) -> NDArray[np.float32]:
    """The smallest magnitudes that trimming keeps, exactly.

    They are arXiv:2306.01708's: the (d − ⌊dK⌋)-th smallest of d magnitudes.

    Args:
        reader: of n vectors.
        shares: K, of entries to be kept, in (0, 1].
        notify: told how far it is.

    Returns:
        [shares, n].

    Raises:
        AlliageError: NaN or infinity; every tensor that was seen to hold some.
    """
    ranks = [trim_rank(reader.numel, share, "threshold") for share in shares]
    searches = [[Search(rank, reader.numel) for _ in reader.vectors] for rank in ranks]
    problems: dict[Problem, None] = {}

    def look(place: Range, deltas: NDArray[np.float32]) -> NDArray[np.uint32]:
        patterns = np.abs(deltas).view(np.uint32)
        patterns.sort(axis=1)
        if patterns.size and patterns[:, -1].max() >= _NOT_FINITE:
            problems.update(dict.fromkeys(reader.flaws(place)))
        return patterns

    def sample(place: Range) -> NDArray[np.uint32]:
        return look(place, reader.block(place))

    def measure(chunk: Range) -> None:
        for deltas in reader.blocks(chunk):
            ordered = look(chunk, deltas)
            for row in searches:
                for patterns, search in zip(ordered, row, strict=True):
                    if not search.found:
                        search.add_sorted(patterns)

    def refuse_flaws() -> None:
        if problems:
            raise AlliageError(list(problems))

    slices = [found for _, found in reader.each(reader.sample(), sample, "sampling", notify)]
    refuse_flaws()
    for row in searches:
        for number, search in enumerate(row):
            if not search.found:
                search.place_by([patterns[number] for patterns in slices])
    del slices
    while open_searches := [one for row in searches for one in row if not one.found]:
        for _ in reader.each(reader.chunks(), measure, "thresholds", notify):
            pass
        refuse_flaws()
        for search in open_searches:
            search.narrow()
    return np.array([[one.low for one in row] for row in searches], np.uint32).view(np.float32)


def count(
    reader: Reader,
    thresholds: NDArray[np.float32],
    at: int,
    subsets: NDArray[np.bool_],
    notify: Notify,
) -> Counts:
    """Count signs module by module, and magnitudes.

    Args:
        reader: of n vectors.
        thresholds: [shares, n].
        at: the place of the share at which magnitudes and all subsets are measured; the others
            look at the last subset alone.
        subsets: [s, n], the last one with all models.
        notify: told how far it is.
    """
    models = len(reader.vectors)
    looked_at = [subsets if place == at else subsets[-1:] for place in range(len(thresholds))]

    def new_tallies() -> list[SignTally]:
        return [SignTally(models, some) for some in looked_at]

    def work(chunk: Range) -> tuple[list[SignTally], Magnitudes]:
        tallies, sizes = new_tallies(), Magnitudes.none(models)
        few = models <= MOST_TALLIED
        times = np.zeros((len(thresholds), 3**models if few else 0), np.int64)
        for deltas in reader.blocks(chunk):
            sizes = sizes.plus(kernels.measure(deltas, thresholds[at]))
            if few:
                kernels.tally(deltas, thresholds, times)
                continue
            for tally, signs in zip(tallies, kept_signs(deltas, thresholds), strict=True):
                tally.add(signs)
        if few:
            for tally, found in zip(tallies, times, strict=True):
                tally.add_times(found)
        return tallies, sizes

    modules: dict[str, list[SignCounts]] = {}
    magnitudes = Magnitudes.none(models)
    counted = reader.each(reader.chunks(), work, "counting", notify)
    for module, chunks in groupby(counted, key=lambda item: module_of(item[0].parameter)):
        tallies = new_tallies()
        for _, (found, sizes) in chunks:
            magnitudes = magnitudes.plus(sizes)
            for tally, more in zip(tallies, found, strict=True):
                tally.absorb(more)
        modules[module] = [tally.counts() for tally in tallies]
    return Counts(modules, magnitudes)
