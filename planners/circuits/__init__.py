"""Reentry circuits from activation logs: `describe` one, `merge` equal ones, `collect` those of a run."""

from planners.circuits.describe import Likeness, Reentry, describe, merge, same
from planners.circuits.episode import Collected, Episode, collect

__all__ = ["Collected", "Episode", "Likeness", "Reentry", "collect", "describe", "merge", "same"]
