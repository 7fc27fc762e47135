"""Training science: what decides how a model learns, one technique in one file (course 002).

Recipes reach the techniques by their keys. `signal_by_depth` and `compositions` are for notebooks:
they probe how signals pass through any network, and numbers through one function.
"""

from alliage.tuning.science.probes import Signal, compositions, signal_by_depth

__all__ = ["Signal", "compositions", "signal_by_depth"]
