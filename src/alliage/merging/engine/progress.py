"""A merge by blocks on its way, from what the journal knows to the complete output."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import alliage
from alliage.checkpoints.journal import JournaledFolder
from alliage.checkpoints.writer import TensorWriter
from alliage.merging.engine.blocks import Block, PartSeen, for_each, parts_of
from alliage.merging.engine.computing import Computing, TorchComputing
from alliage.merging.engine.passes import OnEvent, Statistics, measure
from alliage.merging.planning.plan import Plan
from alliage.merging.registry import plug_in_of
from alliage.merging.rules import rule_of


class Merge:
    """The state of a merge by blocks; workers of this process compute them."""

    def __init__(
        self,
        plan: Plan,
        computing: Computing,
        writer: TensorWriter,
        folder: JournaledFolder,
        notify: OnEvent,
    ) -> None:
        self.plan, self.computing, self.writer = plan, computing, writer
        self.folder, self.notify = folder, notify
        known: dict[str, Any] = {}
        self.done: dict[int, dict[str, Any]] = {}
        self.settled_parts: set[int] = set()
        for entry in folder.entries:
            if "part" in entry:
                self.done[entry["part"]] = entry
            elif "settled" in entry:
                self.settled_parts.add(entry["settled"])
            else:
                known |= entry
        # Blocks are cut as they were begun, whatever the memory is now.
        self.size: int = folder.choices["block"]
        self.kept = len(self.done)
        self.redone = 0
        self.cut = parts_of(plan, self.size)
        self.statistics: Statistics | None = (
            Statistics.from_json(plan, self.size, known["statistics"])
            if "statistics" in known
            else None
        )

    @property
    def passes(self) -> int:
        """Over the inputs."""
        return 1 + (self.statistics.passes if self.statistics is not None else 0)

    def first_passes(self) -> None:
        """Measure what the method needs to know of whole tensors or models."""
        if self.plan.method.first_pass is None or self.statistics is not None:
            return
        self.statistics = self._measure()
        self.folder.add({"statistics": self.statistics.to_json()})

    def _measure(self) -> Statistics:
        return measure(self.plan, self.computing, self.size, self.notify)

    def parts(self) -> None:
        """Merge, convert and copy every part that is not done yet."""
        waiting = [part for part in self.cut if part.number not in self.done]
        for number in self.done:
            self.writer.skip(self.cut[number].nbytes)
        seen = {part.number: PartSeen(part) for part in waiting}
        blocks = [(part.number, place) for part in waiting for place in range(len(part.blocks))]

        with self._journaling() as finish:

            def work(item: tuple[int, int]) -> None:
                number, place = item
                part = seen[number]
                guessed = part.guess(self._guess)
                block = part.part.blocks[place]
                found = self.computing.compute(block, self.given(block, guessed))
                if part.add(place, found.count, found.depends):
                    self.done[number] = part.entry()
                    finish(part)

            self._each("merging", blocks, work)
            # Parts with flaws must not be taken for done.
            self.computing.raise_flaws()

    def _guess(self) -> dict[str, Any]:
        """The best guess so far: what all parts together would settle, if they were all."""
        guess = self.plan.method.guess
        if guess is None:
            return {}
        count = sum(entry["count"] for entry in list(self.done.values()))
        return dict(guess.settle(count) if count else guess.guessed)

    def guessed(self) -> None:
        """Merge the blocks again that depended on a guess, where it was wrong."""
        guess = self.plan.method.guess
        if guess is None:
            return
        settled = guess.settle(sum(entry["count"] for entry in self.done.values()))
        doubtful = {
            number: entry["doubtful"]
            for number, entry in self.done.items()
            if entry["doubtful"] and entry["guessed"] != settled
        }
        waiting = [number for number in sorted(doubtful) if number not in self.settled_parts]
        self.redone = sum(map(len, doubtful.values()))
        again = {
            number: [self.cut[number].blocks[place] for place in doubtful[number]]
            for number in waiting
        }
        self._again(again, settled)
        self.computing.raise_flaws()
        self.writer.sync()
        for number in waiting:
            self.folder.add({"settled": number})

    def _again(self, parts: Mapping[int, list[Block]], settled: Mapping[str, Any]) -> None:
        def work(number: int) -> None:
            for block in parts[number]:
                self.computing.compute(block, self.given(block, settled), again=True)

        self._each("merging, again", list(parts), work)

    def given(self, block: Block, guessed: Mapping[str, Any]) -> dict[str, Any]:
        """What a block is merged with, beside its tensor's own arguments."""
        measured = self.statistics.arguments(block) if self.statistics is not None else {}
        return {**measured, **guessed}

    @contextlib.contextmanager
    def _journaling(self) -> Iterator[Callable[[PartSeen], None]]:
        """Sync finished parts and write them down, beside the workers."""
        finished: queue.SimpleQueue[PartSeen | None] = queue.SimpleQueue()
        failures: list[BaseException] = []

        def keep() -> None:
            ending = False
            while not ending:
                parts = [finished.get()]
                while not finished.empty():
                    parts.append(finished.get())
                ending = None in parts
                if failures:  # what a failed sync lost, the next one does not bring back
                    continue
                try:
                    self.writer.sync()
                    if not self.computing.flaws:
                        for part in parts:
                            if part is not None:
                                self.folder.add(part.entry())
                except BaseException as error:
                    failures.append(error)

        def finish(part: PartSeen) -> None:
            if failures:
                raise failures[0]
            finished.put(part)

        keeper = threading.Thread(target=keep, name="alliage-journal", daemon=True)
        keeper.start()
        try:
            yield finish
        finally:
            finished.put(None)
            keeper.join()
        if failures:
            raise failures[0]

    def _each(self, stage: str, items: list[Any], work: Callable[[Any], object]) -> None:
        total = len(items)
        for_each(items, work, self.plan.workers, lambda done: self.notify(stage, done, total))


def subject(plan: Plan) -> dict[str, Any]:
    """What makes two runs the same: recipe, inputs as they are now, output's form, plug-ins."""
    assert plan.base is not None
    assert plan.layout is not None
    inputs = {file: v for checkpoint in plan.checkpoints for file, v in checkpoint.versions.items()}
    return {
        "recipe": plan.recipe.model_dump(mode="json", exclude_none=True),
        "inputs": inputs,
        "output": {name: header.hex() for name, header in plan.layout.headers.items()},
        "plug-ins": plug_in_versions(plan),
    }


def plug_in_versions(plan: Plan) -> dict[str, str]:
    """The packages that the plan's method and its rule come from, where they are not built in."""
    rule = rule_of(plan.method, plan.arguments)
    used = [plan.method.name] + ([rule.name] if rule is not None else [])
    return {each.package: each.version for name in used if (each := plug_in_of(name)) is not None}


def software() -> dict[str, str]:
    """The versions of what decides the last bits."""
    packages = {name: version(name) for name in ("numba", "numpy", "torch")}
    return {"alliage": alliage.__version__, **packages}


@contextlib.contextmanager
def torch_alone(computing: Computing) -> Iterator[None]:
    """Keep torch, where it is used, to one thread for each worker."""
    if not isinstance(computing, TorchComputing):
        yield
        return
    from alliage.threads import one_torch_thread

    with one_torch_thread():
        yield
