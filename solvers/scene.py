"""An experiment set up on its mesh: what each tetrahedron is made of, which nodes the stimuli excite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meshing.sites import sites_named
from solvers.experiment import Experiment, StimulusSpec, TissueSpec
from solvers.sim_mesh import SimMesh, load_mesh
from twin.errors import InputError
from twin.experiment import Stimulus
from twin.io.source import did_you_mean


@dataclass(frozen=True)
class Scene:
    """An experiment on its mesh: tissue (m,) index of each tetrahedron's [[tissue]] (-1: none), conducting (m,), stimuli as nodes."""

    mesh: SimMesh
    tissue: NDArray[np.int32]
    conducting: NDArray[np.bool_]
    stimuli: list[Stimulus]
    nearest: Nearest


def set_up(experiment: Experiment) -> Scene:
    """Read the mesh and find what each part of it is; InputError for regions, places or fibres that do not fit."""
    mesh = load_mesh(experiment.mesh)
    tissue = _tissue_of_tets(experiment, mesh)
    conducting = _conducting(experiment, mesh, tissue)
    touched = np.zeros(len(mesh.points_mm), bool)
    touched[mesh.tets[conducting]] = True
    stimuli = [_stimulus(experiment, i, s, mesh, touched) for i, s in enumerate(experiment.stimuli)]
    return Scene(mesh, tissue, conducting, stimuli, Nearest(mesh, touched))


class Nearest:
    """Finds the conducting node nearest to a place."""

    def __init__(self, mesh: SimMesh, touched: NDArray[np.bool_]) -> None:
        self.nodes = np.flatnonzero(touched)
        self.points_mm = mesh.points_mm[self.nodes]

    def node(self, at_mm: tuple[float, float, float]) -> tuple[int, float]:
        """Node number and distance in mm."""
        distance = np.linalg.norm(self.points_mm - np.asarray(at_mm), axis=1)
        best = int(np.argmin(distance))
        return int(self.nodes[best]), float(distance[best])


def _tissue_of_tets(experiment: Experiment, mesh: SimMesh) -> NDArray[np.int32]:
    """Which [[tissue]] each tetrahedron is made of, (m,); later sections overrule earlier ones, -1 where none applies."""
    tissue = np.full(len(mesh.tets), -1, np.int32)
    for index, spec in enumerate(experiment.tissue):
        tissue[_in_regions(experiment, index, spec, mesh)] = index
    missing = (tissue < 0) & ~mesh.blocked()
    if missing.any():
        regions = sorted(set(mesh.region[missing].tolist()))
        names = {number: name for name, number in mesh.names.items()}
        said = ", ".join(f"{r} ({names[r]})" if r in names else str(r) for r in regions)
        raise InputError(experiment.where, "tissue", f"nothing is said about region {said}", 'add a [[tissue]] for it, or region = "all"')
    return tissue


def _in_regions(experiment: Experiment, index: int, spec: TissueSpec, mesh: SimMesh) -> NDArray[np.bool_]:
    if not spec.regions:
        return np.ones(len(mesh.tets), bool)
    numbers = []
    for region in spec.regions:
        if isinstance(region, str) and region not in mesh.names:
            remedy = did_you_mean(region, mesh.names) if mesh.names else "this mesh knows numbers only: give the tag"
            raise InputError(experiment.where, f"tissue[{index}].region", f"{region!r} is not in the mesh", remedy)
        numbers.append(mesh.names[region] if isinstance(region, str) else region)
    found = np.isin(mesh.region, numbers)
    if not found.any():
        there = ", ".join(str(r) for r in sorted(set(mesh.region.tolist())))
        raise InputError(experiment.where, f"tissue[{index}].region", f"{list(spec.regions)} holds no tetrahedra", f"the mesh has {there}")
    return found


def _conducting(experiment: Experiment, mesh: SimMesh, tissue: NDArray[np.int32]) -> NDArray[np.bool_]:
    carries = np.array([t.d_l_mm2_ms > 0 or t.d_t_mm2_ms > 0 or t.speed_l_m_s is not None for t in experiment.tissue])
    conducting: NDArray[np.bool_] = ~mesh.blocked() & carries[tissue]
    if not conducting.any():
        raise InputError(experiment.where, "tissue", "nothing conducts", "give a region a conductivity above 0")
    needs_fibre = conducting & (np.abs(np.linalg.norm(mesh.fibre, axis=1) - 1.0) > 1e-3)
    if needs_fibre.any():
        where = experiment.mesh if isinstance(experiment.mesh, Path) else experiment.where
        problem = f"{int(needs_fibre.sum())} conducting tetrahedra have no unit fibre direction"
        raise InputError(where, "fibre", problem, "write the mesh with fibres")
    return conducting


def _stimulus(experiment: Experiment, index: int, s: StimulusSpec, mesh: SimMesh, touched: NDArray[np.bool_]) -> Stimulus:
    p, slack = mesh.points_mm, 1e-6
    if s.box is not None:
        low, high = np.asarray(s.box[0]), np.asarray(s.box[1])
        inside = ((p >= low - slack) & (p <= high + slack)).all(axis=1)
    elif s.sphere is not None:
        inside = np.linalg.norm(p - np.asarray(s.sphere[0]), axis=1) <= s.sphere[1] + slack
    elif s.site is not None:
        inside = _near_site(experiment, index, s, mesh)
    else:
        if max(s.nodes) >= len(p):
            raise InputError(
                experiment.where, f"stimulus[{index}].nodes", f"{max(s.nodes)} is not a node", f"the mesh has 0 to {len(p) - 1}"
            )
        inside = np.zeros(len(p), bool)
        inside[list(s.nodes)] = True
    nodes = np.flatnonzero(inside & touched).astype(np.int32)
    if not len(nodes):
        low, high = (np.round(f(p[touched], axis=0), 1).tolist() for f in (np.min, np.max))
        remedy = f"move or enlarge it; the tissue spans {low} to {high} mm"
        raise InputError(experiment.where, f"stimulus[{index}]", "holds no node of conducting tissue", remedy)
    return Stimulus(nodes, s.start_ms, s.duration_ms, s.strength_uA_mm3, s.name)


def _near_site(experiment: Experiment, index: int, s: StimulusSpec, mesh: SimMesh) -> NDArray[np.bool_]:
    """Nodes (n,) within the radius of a named pacing site."""
    if mesh.heart is None or not mesh.heart.coordinates:
        remedy = "use the heart.npz of `vtwin mesh`, or give a sphere"
        raise InputError(experiment.where, f"stimulus[{index}].site", "this mesh has no coordinates to find sites by", remedy)
    sites = sites_named(mesh.heart, [str(s.site)])
    if s.site not in sites:
        remedy = sites.notes.get(str(s.site)) or did_you_mean(str(s.site), sites)
        raise InputError(experiment.where, f"stimulus[{index}].site", f"{s.site!r} is no site of this heart", remedy)
    inside: NDArray[np.bool_] = np.linalg.norm(mesh.points_mm - mesh.points_mm[sites[str(s.site)]], axis=1) <= s.radius_mm
    return inside
