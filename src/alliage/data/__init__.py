"""Data sets into examples: tables, CoNLL, CoNLL-U, images, and tasks that ship with packages."""

from alliage.data.loading import load_task
from alliage.data.task import Example, Kind, Task

__all__ = ["Example", "Kind", "Task", "load_task"]
