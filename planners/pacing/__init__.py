"""Programmed stimulation: protocols as data, induction from all sites."""

from planners.pacing.engine import InductionRun, induce_model
from planners.pacing.induce import PacingSettings, induce
from planners.pacing.protocol import Protocol, load_protocol, protocol_names

__all__ = ["InductionRun", "PacingSettings", "Protocol", "induce", "induce_model", "load_protocol", "protocol_names"]
