"""Reentry circuits from activation logs: `describe` one, `merge` equal ones."""

from planners.circuits.describe import Reentry, describe, merge, same

__all__ = ["Reentry", "describe", "merge", "same"]
