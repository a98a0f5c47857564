"""From a bare mesh to one with fibres, sheets, ventricular coordinates and AHA segments."""

from __future__ import annotations

from dataclasses import replace

from meshing.coordinates import coordinates, wall
from meshing.fibres import FibreAngles, fibres
from meshing.segments import aha_segments
from twin.mesh import HeartMesh


def complete(mesh: HeartMesh, angles: FibreAngles | None = None) -> HeartMesh:
    """The mesh with fibre, sheet, coordinates and aha_segment filled in; the wall's Laplace problems are solved once for all.

    Raises InputError if the LV endocardium, the epicardium or the base is missing, RunFailed if a solve does not converge.
    """
    fields = wall(mesh)
    fibre, sheet = fibres(mesh, angles, fields)
    values = coordinates(mesh, fields)
    return replace(mesh, fibre=fibre, sheet=sheet, coordinates=values, aha_segment=aha_segments(values))
