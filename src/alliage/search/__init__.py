"""Choosing how to merge by running what a merge would make: points, soups, learned coefficients."""

from alliage.search.ada_merging import Settings as LearningSettings
from alliage.search.questions import Question, questions_of
from alliage.search.recipe_file import load_search
from alliage.search.running import (
    Machine,
    Outcome,
    learn_coefficients,
    search_points,
    search_soup,
)
from alliage.search.space import PRESETS, Space, parse_spaces, preset_spaces

__all__ = [
    "PRESETS",
    "LearningSettings",
    "Machine",
    "Outcome",
    "Question",
    "Space",
    "learn_coefficients",
    "load_search",
    "parse_spaces",
    "preset_spaces",
    "questions_of",
    "search_points",
    "search_soup",
]
