"""What models know of their data, collected once: merges read it beside the weights."""

from alliage.statistics.collecting import collect_fisher, collect_regmean
from alliage.statistics.layerwise import collect_regmean_plus_plus
from alliage.statistics.preparing import StatisticsRecord

__all__ = [
    "StatisticsRecord",
    "collect_fisher",
    "collect_regmean",
    "collect_regmean_plus_plus",
]
