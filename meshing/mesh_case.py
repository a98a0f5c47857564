"""A mesh case: a surface that becomes a heart with fibres and coordinates without hand work, and what is expected of it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.anatomy import complete
from meshing.mesh_labels import mesh_heart
from meshing.transfer import coordinates_at, places_of
from meshing.voxelise import read_closed, surface_to_labels
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.units import quantity

EXPECT = ("volume_within_percent", "genus", "dihedral_min_deg", "dihedral_p1_deg", "jumps_at_most_percent", "round_trip_mm", "repairs")
ROUND_TRIPS = 3000


@dataclass(frozen=True)
class MeshCase:
    """surface: file, or a pattern of pieces; edge_mm, spacing_mm: of the mesh and of the labels between; expect: keys of EXPECT."""

    name: str
    surface: Path
    edge_mm: float
    spacing_mm: float
    expect: Mapping[str, Any]


def load_case(path: Path) -> MeshCase:
    """Read a mesh case (TOML); `$NAME` in its file name is taken from the environment. Raises InputError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(path, "case", str(error), "give a readable TOML file") from None
    table, edge, expect = raw.get("surface", {}), raw.get("mesh", {}), raw.get("expect", {})
    unknown = set(expect) - set(EXPECT)
    if unknown:
        raise InputError(path, f"expect.{min(unknown)}", "is not known", f"use {', '.join(EXPECT)}")
    if not isinstance(table.get("file"), str):
        raise InputError(path, "surface.file", "is missing", "name the surface, or a pattern of its pieces")
    file = os.path.expandvars(table["file"])
    if "$" in file:
        raise InputError(path, "surface.file", f"{file}: the variable is not set", "set it to the folder of the data")
    return MeshCase(
        path.parent.name,
        path.parent / file,
        quantity(edge.get("edge", "1.5 mm"), "mm", str(path), "mesh.edge"),
        quantity(table.get("spacing", "1 mm"), "mm", str(path), "surface.spacing"),
        expect,
    )


def run_case(case: MeshCase) -> tuple[HeartMesh, list[str]]:
    """The finished heart, and one line for every expectation it misses. `quality` also names the surface's own volume and the repairs."""
    surface, notes = read_closed(case.surface)
    labels, _ = surface_to_labels(surface.points_mm, surface.triangles, case.spacing_mm, surface.point_data, case.name)
    heart = complete(mesh_heart(labels, case.edge_mm))
    found = {
        "volume_within_percent": 100.0 * abs(heart.quality["volume_ml"] / surface.volume_ml - 1.0),
        "genus": heart.quality["surface_genus"],
        "dihedral_min_deg": heart.quality["dihedral_min_deg"],
        "dihedral_p1_deg": heart.quality["dihedral_p1_deg"],
        "jumps_at_most_percent": 100.0 * share_of_jumps(heart),
        "round_trip_mm": round_trip_mm(heart),
        "repairs": len(notes),
    }
    heart = replace(heart, quality={**heart.quality, "surface_volume_ml": surface.volume_ml, "surface_repairs": notes, "case": found})
    at_least = ("dihedral_min_deg", "dihedral_p1_deg")
    missed = []
    for key, wanted in case.expect.items():
        value = found[key]
        good = value == wanted if key in ("genus", "repairs") else (value >= wanted if key in at_least else value <= wanted)
        if not good:
            missed.append(f"{case.name}: {key}: expected {wanted:g}, found {value:.4g}")
    return heart, missed


def share_of_jumps(mesh: HeartMesh) -> float:
    """Share of face neighbours whose fibres differ by more than 45 degrees."""
    a, b = neighbours(mesh.tets)
    return float((np.abs(np.einsum("mi,mi->m", mesh.fibre[a], mesh.fibre[b])) < np.cos(np.pi / 4.0)).mean())


def neighbours(tets: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of tetrahedra that share a face, (k,) and (k,)."""
    faces = np.sort(np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 2, 3]], tets[:, [0, 1, 3]], tets[:, [0, 1, 2]]]), axis=1)
    n = int(tets.max()) + 1
    # three node numbers do not fit one integer: the first two make a key, the third breaks ties
    order = np.lexsort((faces[:, 2], faces[:, 0].astype(np.int64) * n + faces[:, 1]))
    twin = (faces[order][1:] == faces[order][:-1]).all(axis=1)
    owner = np.tile(np.arange(len(tets)), 4)[order]
    return owner[:-1][twin], owner[1:][twin]


def round_trip_mm(mesh: HeartMesh, seed: int = 0) -> float:
    """95th percentile of the distance between random places and those that their coordinates lead back to, mm."""
    rng = np.random.default_rng(seed)
    tets = mesh.tets[rng.integers(0, len(mesh.tets), ROUND_TRIPS)]
    places = np.einsum("ka,kai->ki", rng.dirichlet(np.ones(4), ROUND_TRIPS), mesh.points_mm[tets])
    return float(np.percentile(np.linalg.norm(places_of(mesh, coordinates_at(mesh, places)) - places, axis=1), 95))
