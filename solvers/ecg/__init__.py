"""Electrocardiograms from transmembrane potentials or arrival times by lead fields: in an infinite medium or in a torso."""

from solvers.ecg.field import LeadField
from solvers.ecg.leads import lead_matrix, qrs_duration_ms

__all__ = ["LeadField", "lead_matrix", "qrs_duration_ms"]
