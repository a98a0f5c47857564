"""Decide what to do: pacing, circuits, lesions, outcome, guidance, trials, reports; and four verbs for scripts."""

from planners.verbs import build, export, load, plan

__all__ = ["build", "export", "load", "plan"]
