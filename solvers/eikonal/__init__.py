"""Eikonal solvers: first arrival of a wave, and its re-excitable form for re-entry."""

from solvers.eikonal.forward import EikonalForward
from solvers.eikonal.mesh import Arrival, EikonalMesh, solve
from solvers.eikonal.reentrant import Log, ReentrantEikonal, Settings, State, Sustained
from solvers.eikonal.restitution import RestitutionTable, load_tables

__all__ = [
    "Arrival",
    "EikonalForward",
    "EikonalMesh",
    "Log",
    "ReentrantEikonal",
    "RestitutionTable",
    "Settings",
    "State",
    "Sustained",
    "load_tables",
    "solve",
]
