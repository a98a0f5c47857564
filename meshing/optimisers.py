"""Meshers of others that the user may have installed, behind one protocol: they improve a mesh of vtwin's, and vtwin measures it again.

None of them is part of vtwin or needed by it. Each runs in a process of its own and only when it is asked for by name, under its own
licence, which is said when it is missing and in the quality of every mesh that it made.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshing.quality import tet_volumes
from meshing.surfaces import boundary_faces
from twin.errors import InputError, RunFailed
from twin.io.source import did_you_mean
from twin.mesh import SURFACES
from twin.params import Param

HAUSDORFF = Param(0.03, "1", 0.01, 0.1, "chosen here: how far Mmg may move the surface, in mean edges; 0.05 mm at 1.5 mm")
RADIUS_EDGE = Param(
    1.4, "1", 1.1, 2.0, "TetGen's -q: largest radius-edge ratio; its manual promises an end for 2 and finds 1.4 in practice"
)
LEAST_DIHEDRAL_DEG = Param(14.0, "degrees", 0.0, 18.0, "TetGen's -q/14: asked for, not promised")


@dataclass(frozen=True)
class Body:
    """points (n, 3) mm; tets (m, 4) int32, positive; triangles (k, 3) int32: its boundary, outward; name (k,): index into SURFACES."""

    points: NDArray[np.float64]
    tets: NDArray[np.int32]
    triangles: NDArray[np.int32]
    name: NDArray[np.int64]

    @staticmethod
    def of(points: NDArray[np.float64], tets: NDArray[np.int32], surfaces: Mapping[str, NDArray[np.int32]]) -> Body:
        """From named triangles."""
        name = np.repeat(np.arange(len(SURFACES)), [len(surfaces[one]) for one in SURFACES])
        return Body(points, tets, np.concatenate([surfaces[one] for one in SURFACES]), name)

    def surfaces(self) -> dict[str, NDArray[np.int32]]:
        """Triangles by name."""
        return {name: self.triangles[self.name == number] for number, name in enumerate(SURFACES)}


Improve = Callable[[Body, float], Body]
"""What an optimiser does: a body and the mean edge asked for (mm) to a better body of the same shape; points, tetrahedra and triangles may
all be new, names are carried over."""


@dataclass(frozen=True)
class Optimiser:
    """One optimiser: its name, the package on PyPI that brings it, the licence of the program itself, and how it is called."""

    name: str
    package: str
    licence: str
    improve: Improve

    def check(self) -> None:
        """Raise InputError that says how to install it, and under which licence, if it is not there."""
        if find_spec(self.package) is None:
            remedy = f"pip install {self.package} ({self.licence}; no part of vtwin)"
            raise InputError("command line", "--optimise", f"{self.name} is not installed", remedy)

    def __call__(self, body: Body, edge_mm: float) -> Body:
        """A better body, checked: RunFailed if it is inverted, open, or has lost a named surface."""
        self.check()
        found = self.improve(body, edge_mm)
        _check(self.name, found, body)
        return found

    def described(self) -> dict[str, str]:
        """For quality.json: name, package with its version, licence."""
        return {"name": self.name, "package": f"{self.package} {version(self.package)}", "licence": self.licence}


def optimiser_named(name: str) -> Optimiser:
    """The optimiser of that name. Raises InputError."""
    if name not in OPTIMISERS:
        raise InputError("command line", "--optimise", f"{name!r} is not known", did_you_mean(name, tuple(OPTIMISERS)))
    return OPTIMISERS[name]


def _check(who: str, found: Body, before: Body) -> None:
    if not len(found.tets) or not np.isfinite(found.points).all():
        raise RunFailed(f"{who} gave no mesh")
    if (tet_volumes(found.points, found.tets) <= 0).any():
        raise RunFailed(f"{who} gave inverted tetrahedra")
    whole = boundary_faces(found.tets, np.ones(len(found.points), bool))
    if not np.array_equal(_in_order(whole), _in_order(found.triangles)):
        raise RunFailed(f"{who} gave a mesh whose surface is not that of its tetrahedra")
    if lost := set(np.unique(before.name)) - set(np.unique(found.name)):
        raise RunFailed(f"{who} lost the surface {SURFACES[int(min(lost))]}")


def _in_order(triangles: NDArray[np.integer]) -> NDArray[np.integer]:
    """The same triangles (k, 3), whatever their order and that of their nodes."""
    nodes = np.sort(triangles, axis=1)
    return nodes[np.lexsort(nodes.T)]


def _body(points: NDArray[Any], tets: NDArray[Any], named: NDArray[Any], name: NDArray[Any]) -> Body:
    """A body from what a program returned: unused nodes dropped, tetrahedra turned positive, every boundary face with the name it had."""
    used, tets = np.unique(tets, return_inverse=True)
    points, tets = np.ascontiguousarray(points[used], np.float64), tets.reshape(-1, 4).astype(np.int32)
    turned = tet_volumes(points, tets) < 0
    tets[turned] = tets[turned][:, [0, 2, 1, 3]]
    triangles = boundary_faces(tets, np.ones(len(points), bool))
    number = np.full(int(max(used.max(), named.max())) + 1, -1)
    number[used] = np.arange(len(used))
    known = {tuple(sorted(row)): int(label) for row, label in zip(number[named].tolist(), name.tolist())}
    label = np.array([known.get(tuple(sorted(row)), -1) for row in triangles.tolist()])
    if (label < 0).any():
        raise RunFailed(f"{int((label < 0).sum())} faces of the surface came back without their name")
    return Body(points, tets, triangles, label)


def _mmg(package: Any, body: Body, edge_mm: float) -> Body:
    """Mmg (C. Dapogny, C. Dobrzynski, P. Frey, J Comput Phys 262 (2014) 358): edges swapped and collapsed, nodes moved, none added; the
    surface moves by less than HAUSDORFF, its names and rims are kept."""
    mesh = package.MmgMesh3D()
    mesh.set_mesh_size(vertices=len(body.points), tetrahedra=len(body.tets), triangles=len(body.triangles))
    mesh.set_vertices(body.points)
    mesh.set_tetrahedra(body.tets, np.ones(len(body.tets), np.int64))
    mesh.set_triangles(body.triangles, body.name + 1)
    mesh.remesh(optim=True, noinsert=True, hausd=float(HAUSDORFF) * edge_mm, verbose=-1)
    named, name = mesh.get_triangles_with_refs()
    return _body(mesh.get_vertices(), mesh.get_tetrahedra(), named, np.asarray(name) - 1)


def _tetgen(package: Any, body: Body, edge_mm: float) -> Body:
    """TetGen (H. Si, ACM Trans Math Softw 41 (2015) 11): the inside anew by Delaunay refinement, the surface untouched."""
    surface, triangles = np.unique(body.triangles, return_inverse=True)
    triangles = triangles.reshape(-1, 3).astype(np.int32)
    maker = package.TetGen(np.ascontiguousarray(body.points[surface]), triangles)
    # a regular tetrahedron of that edge; refinement keeps below the limit, so its mean is smaller
    largest = 1.6 * edge_mm**3 / (6.0 * np.sqrt(2.0))
    points, tets, *_ = maker.tetrahedralize(
        nobisect=True, minratio=float(RADIUS_EDGE), mindihedral=float(LEAST_DIHEDRAL_DEG), fixedvolume=True, maxvolume=largest, quiet=True
    )
    return _body(points, tets, triangles, body.name)


def _gmsh(package: Any, body: Body, edge_mm: float) -> Body:
    """Gmsh's Netgen optimiser (C. Geuzaine, J.-F. Remacle, Int J Numer Meth Eng 79 (2009) 1309): the inside smoothed and swapped."""
    package.initialize(interruptible=False)
    try:
        package.option.setNumber("General.Terminal", 0)
        package.option.setNumber("General.NumThreads", 1)
        package.model.add("heart")
        present = np.unique(body.name)
        for number in present:
            package.model.addDiscreteEntity(2, int(number) + 1)
        package.model.addDiscreteEntity(3, 1, [int(number) + 1 for number in present])
        package.model.mesh.addNodes(3, 1, np.arange(1, len(body.points) + 1), body.points.ravel())
        for number in present:
            package.model.mesh.addElementsByType(int(number) + 1, 2, [], body.triangles[body.name == number].ravel() + 1)
        package.model.mesh.addElementsByType(1, 4, [], body.tets.ravel() + 1)
        before = package.model.mesh.getMaxElementTag()
        package.model.mesh.reclassifyNodes()
        package.model.mesh.optimize("Netgen", True)
        tags, places, _ = package.model.mesh.getNodes()
        # an entity without a geometry keeps its old tetrahedra beside the new ones
        elements, nodes = package.model.mesh.getElementsByType(4)
    finally:
        package.finalize()
    order = np.argsort(tags)
    points, tets = places.reshape(-1, 3)[order], np.searchsorted(tags[order], nodes.reshape(-1, 4)[elements > before])
    # numbers are new, but the surface stays where it is: its nodes are those at the same places
    inside = np.unique(tets)
    return _body(points, tets, inside[cKDTree(points[inside]).query(body.points)[1]][body.triangles], body.name)


_PROGRAMS: tuple[tuple[str, str, str, Callable[[Any, Body, float], Body]], ...] = (
    ("mmg", "mmgpy", "Mmg: LGPL-3.0-or-later", _mmg),
    ("tetgen", "tetgen", "TetGen: AGPL-3.0-or-later, or a licence of WIAS Berlin", _tetgen),
    ("gmsh", "gmsh", "Gmsh: GPL-2.0-or-later", _gmsh),
)


def _apart(name: str, body: Body, edge_mm: float) -> Body:
    """Run one of the programs in a process of its own: what crashes there ends there. Raises RunFailed."""
    with tempfile.TemporaryDirectory(prefix="vtwin-") as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        np.savez(given, **vars(body))
        code = "import sys; from meshing.optimisers import child; child(*sys.argv[1:])"
        call = [sys.executable, "-c", code, name, str(given), str(made), repr(edge_mm)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not made.exists():
            last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
            raise RunFailed(f"{name} failed: {last[:200]}")
        with np.load(made, allow_pickle=False) as arrays:
            return Body(arrays["points"], arrays["tets"], arrays["triangles"], arrays["name"])


def child(name: str, given: str, made: str, edge_mm: str) -> None:
    """The process of its own: read, improve, save; one line on standard error and status 1 for whatever goes wrong."""
    package, improve = next((package, improve) for known, package, _, improve in _PROGRAMS if known == name)
    try:
        with np.load(given, allow_pickle=False) as arrays:
            body = Body(arrays["points"], arrays["tets"], arrays["triangles"], arrays["name"])
        found = improve(import_module(package), body, float(edge_mm))
    except Exception as error:
        # programs of others raise what they like
        sys.exit((str(error).splitlines() or [type(error).__name__])[-1])
    np.savez(made, **vars(found))


OPTIMISERS = {name: Optimiser(name, package, licence, partial(_apart, name)) for name, package, licence, _ in _PROGRAMS}
"""Those that vtwin knows by name; another is one more line in `_PROGRAMS`, or an `Optimiser` given to `mesh_heart`."""
