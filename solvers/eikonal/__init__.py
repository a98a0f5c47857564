"""Eikonal solvers: first arrival of a wave, and its re-excitable form for re-entry."""

from solvers.eikonal.mesh import Arrival, EikonalMesh, solve

__all__ = ["Arrival", "EikonalMesh", "solve"]
