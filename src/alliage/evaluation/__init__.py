"""Task metrics, calibration, size and speed."""

from alliage.evaluation.evaluation import evaluate, predict
from alliage.evaluation.models import Misfit, load_classifier
from alliage.evaluation.scores import Scores, TaskScores

__all__ = ["Misfit", "Scores", "TaskScores", "evaluate", "load_classifier", "predict"]
