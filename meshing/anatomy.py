"""From a bare mesh to one with fibres, sheets, ventricular coordinates and AHA segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meshing.coordinates import Wall, coordinates, wall
from meshing.fibres import FibreAngles, fibres
from meshing.segments import aha_segments
from twin.mesh import HeartMesh

FibreRule = Callable[[HeartMesh, Wall], tuple[NDArray[np.float64], NDArray[np.float64]]]


def complete(mesh: HeartMesh, angles: FibreAngles | None = None, rule: FibreRule | None = None) -> HeartMesh:
    """The mesh with fibre, sheet, coordinates and aha_segment filled in; the wall's Laplace problems are solved once for all.

    rule: fibre and sheet (m, 3) from the mesh and its fields, in place of the linear rule with `angles`.
    Raises InputError if the LV endocardium, the epicardium or the base is missing, RunFailed if a solve does not converge.
    """
    fields = wall(mesh)
    fibre, sheet = fibres(mesh, angles, fields) if rule is None else rule(mesh, fields)
    values = coordinates(mesh, fields)
    return replace(mesh, fibre=fibre, sheet=sheet, coordinates=values, aha_segment=aha_segments(values))
