"""From mesh and evidence to a twin: registration, fit, posterior, and its update when new evidence comes."""

from planners.calibration.line import calibrate, without_infarct
from planners.calibration.noun import Calibration
from planners.calibration.update import NewEvidence, update

__all__ = ["Calibration", "NewEvidence", "calibrate", "update", "without_infarct"]
