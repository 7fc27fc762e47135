"""Task metrics, calibration, size and speed."""

from alliage.evaluation.models import Misfit, load_classifier
from alliage.evaluation.scores import Scores, TaskScores
from alliage.evaluation.scoring import evaluate, predict

__all__ = ["Misfit", "Scores", "TaskScores", "evaluate", "load_classifier", "predict"]
