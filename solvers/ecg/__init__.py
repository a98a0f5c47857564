"""Electrocardiograms and electrograms from voltages or arrival times, by lead fields: in an infinite medium, in a torso, at a catheter."""

from solvers.ecg.features import BeatFeatures, beat_features
from solvers.ecg.field import LeadField
from solvers.ecg.leads import lead_matrix, qrs_duration_ms, qrs_interval_ms
from solvers.ecg.torso import Torso, phantom, read_torso

__all__ = [
    "BeatFeatures",
    "LeadField",
    "Torso",
    "beat_features",
    "lead_matrix",
    "phantom",
    "qrs_duration_ms",
    "qrs_interval_ms",
    "read_torso",
]
