"""Task metrics, calibration, size and speed."""

from alliage.evaluation.answers import Answers, predict
from alliage.evaluation.calibrating import CalibrationRecord, calibrate
from alliage.evaluation.heads import Misfit
from alliage.evaluation.models import load_classifier
from alliage.evaluation.scores import Scores, TaskScores
from alliage.evaluation.scoring import Unlabelled, evaluate

__all__ = [
    "Answers",
    "CalibrationRecord",
    "Misfit",
    "Scores",
    "TaskScores",
    "Unlabelled",
    "calibrate",
    "evaluate",
    "load_classifier",
    "predict",
]
