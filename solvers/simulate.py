"""Runs one experiment of `vtwin simulate`: builds the mesh and the solver, runs, writes, and compares with what was expected."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.box import box_mesh, box_tets
from solvers.experiment import BoxSpec, Experiment, StimulusSpec, TissueSpec, load_experiment
from solvers.monodomain.correction import calibrate
from solvers.monodomain.solver import STABLE_SHARE, Monodomain, Settings
from twin.atomic import write_json, write_npz, write_text
from twin.errors import InputError, RunFailed
from twin.experiment import Activations, Result, Status, Stimulus
from twin.io import opencarp
from twin.io.source import did_you_mean
from twin.io.volume_mesh import SUFFIXES, read_volume
from twin.mesh import NON_CONDUCTING, REGIONS, HeartMesh

__all__ = ["Experiment", "Scene", "SimMesh", "load_experiment", "load_mesh", "run_experiment", "set_up"]

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class SimMesh:
    """What a solver needs of a mesh: points_mm (n, 3), tets (m, 4), fibre (m, 3), region (m,); names: region name -> number."""

    points_mm: NDArray[np.float64]
    tets: NDArray[np.int32]
    fibre: NDArray[np.float64]
    region: NDArray[np.int32]
    names: dict[str, int]

    def blocked(self) -> NDArray[np.bool_]:
        """Tetrahedra of scar and lesions by name, (m,) bool; files that only know numbers have none."""
        return np.isin(self.region, [self.names[name] for name in NON_CONDUCTING if name in self.names])


def load_mesh(source: BoxSpec | Path) -> SimMesh:
    """A box, a HeartMesh .npz, a .vtu, .msh, .exo or .vtk with fibres, or an openCARP prefix. Raises InputError."""
    if isinstance(source, BoxSpec):
        return _of_heart(box_mesh(source.size_mm, source.spacing_mm, source.fibre, source.variant))
    if source.suffix in SUFFIXES and source.suffix not in opencarp.TEXT + opencarp.BINARY:
        return _read_volume(source)
    if source.suffix == ".npz":
        if not source.is_file():
            raise InputError(source, "file", "does not exist", "check the path and the spelling")
        try:
            mesh = HeartMesh.load(source)
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(source, "file", f"is not a mesh saved by vtwin ({error})", "save it again") from None
        mesh.check(str(source))
        return _of_heart(mesh)
    if opencarp.exists(source):
        carp = opencarp.read(source)
        return SimMesh(carp.points_mm, carp.tets, carp.fibre, carp.tag, {})
    raise InputError(
        source,
        "mesh.file",
        "no .npz, .vtu, .msh, .exo, .vtk or openCARP mesh (.pts, .bpts) of this name",
        "check the path and the spelling",
    )


def _of_heart(mesh: HeartMesh) -> SimMesh:
    return SimMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.region.astype(np.int32), dict(REGIONS))


def _read_volume(path: Path) -> SimMesh:
    mesh = read_volume(path)
    if mesh.fibre is None:
        raise InputError(path, "fibre", "is not in the file", "write the mesh with `vtwin mesh`, or convert it with its fibres")
    # a .vtu without names is one that was made for vtwin: its numbers are vtwin's
    names = dict(mesh.names) or (dict(REGIONS) if path.suffix == ".vtu" else {})
    return SimMesh(mesh.points_mm, mesh.tets, mesh.fibre, mesh.region, names)


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


def run_experiment(experiment: Experiment, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run and write summary.json, activation.npz and, where probes are asked for, probes.csv into `out`.

    Returns the summary: status, message, expect (each with what was found) and expect_met, mesh and solver numbers. progress receives
    what is being done and the fraction of it. Raises InputError before computing, RunFailed (after writing) if the solver diverged.
    """
    tell = progress or (lambda _what, _fraction: None)
    tell("mesh", 0.0)
    scene = set_up(experiment)
    mesh, nearest = scene.mesh, scene.nearest
    if experiment.method == "eikonal":
        result = _eikonal(experiment, mesh, scene.tissue, scene.conducting, scene.stimuli)
    else:
        result = _monodomain(experiment, mesh, scene.tissue, scene.conducting, scene.stimuli, nearest, tell)
    return _write(experiment, mesh, result, nearest, out)


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


def _monodomain(
    experiment: Experiment,
    mesh: SimMesh,
    tissue: NDArray[np.int32],
    conducting: NDArray[np.bool_],
    stimuli: list[Stimulus],
    nearest: Nearest,
    tell: Progress,
) -> Result:
    from solvers.ionic import Cells, ionic_model

    models = []
    for index, t in enumerate(experiment.tissue):
        try:
            models.append(ionic_model(t.ionic or "", cell=t.cell, scale=t.scale))
        except InputError as error:
            raise InputError(experiment.where, f"tissue[{index}]: {error.field}", error.problem, error.remedy) from None
    of_node = _majority(mesh, tissue, conducting, len(models))
    d_l, d_t = (np.array([getattr(t, name) for t in experiment.tissue])[tissue] for name in ("d_l_mm2_ms", "d_t_mm2_ms"))
    capacitance = experiment.tissue[0].membrane.capacitance_uF_mm3
    settings = Settings(
        experiment.dt_ms,
        experiment.theta,
        scheme=experiment.scheme,
        threshold_mv=experiment.threshold_mv,
        recovery_mv=experiment.recovery_mv,
        capacitance_uF_mm3=capacitance,
    )
    kappa_l, kappa_t, corrections = _corrections(experiment, models, settings, tell)
    tell("assembly", 0.0)
    solver = Monodomain(
        mesh.points_mm,
        mesh.tets,
        mesh.fibre,
        d_l,
        d_t,
        lambda nodes: Cells(models=models, region_of_node=of_node[nodes], precision=experiment.precision),
        settings,
        conducting=conducting,
        kappa_l=kappa_l[tissue],
        kappa_t=kappa_t[tissue],
    )
    if experiment.scheme == "explicit" and solver.dt_ms > solver.limit_ms:
        safe = STABLE_SHARE.value * solver.limit_ms
        problem = f"{solver.dt_ms:g} ms is above the stability limit of this mesh, {solver.limit_ms:.3g} ms"
        raise InputError(experiment.where, "solver.dt", problem, f"use {safe:.2g} ms or less, or leave dt out")
    result = solver.run(
        stimuli,
        experiment.duration_ms,
        probes=np.array([nearest.node(p)[0] for p in experiment.probes_mm], np.int64),
        probe_every_ms=experiment.probe_every_ms,
        quiet_ms=experiment.quiet_ms,
        progress=lambda fraction: tell("monodomain", fraction),
    )
    return replace(result, summary={**result.summary, "correction": corrections})


def _corrections(
    experiment: Experiment, models: list[Any], settings: Settings, tell: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[dict[str, Any]]]:
    """Factors on the conductivities of each tissue, and how they were found; ones unless the file asks for `correction = "planar"`."""
    from solvers.ionic import Cells

    kappa = np.ones((2, len(models)))
    found: list[dict[str, Any]] = []
    box = experiment.mesh
    if experiment.correction == "none" or not isinstance(box, BoxSpec):
        return kappa[0], kappa[1], found
    fibre = np.asarray(box.fibre) / np.linalg.norm(box.fibre)
    for index, (t, model) in enumerate(zip(experiment.tissue, models)):
        if min(t.d_l_mm2_ms, t.d_t_mm2_ms) <= 0:
            continue
        tell(f"correction of tissue {index}", 0.0)

        def cells(nodes: NDArray[np.int32], model: Any = model) -> Cells:
            return Cells([model], np.zeros(len(nodes), np.int32), experiment.precision)

        c = calibrate(
            lambda size: box_tets((size, size, size), box.spacing_mm, box.variant),
            box.spacing_mm,
            fibre,
            t.d_l_mm2_ms,
            t.d_t_mm2_ms,
            cells,
            settings,
        )
        kappa[:, index] = c.kappa_l, c.kappa_t
        found.append({"tissue": index, **asdict(c)})
    return kappa[0], kappa[1], found


def _majority(mesh: SimMesh, tissue: NDArray[np.int32], conducting: NDArray[np.bool_], count: int) -> NDArray[np.int32]:
    """Tissue of each node, (n,): the one that fills most of the conducting volume around it."""
    p = mesh.points_mm[mesh.tets]
    volume = np.abs(np.einsum("ij,ij->i", p[:, 1] - p[:, 0], np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 0])))
    n = len(mesh.points_mm)
    share = [
        np.bincount(mesh.tets[conducting].ravel(), np.repeat(np.where(tissue == k, volume, 0.0)[conducting], 4), minlength=n)
        for k in range(count)
    ]
    return np.argmax(share, axis=0).astype(np.int32)


def _eikonal(
    experiment: Experiment, mesh: SimMesh, tissue: NDArray[np.int32], conducting: NDArray[np.bool_], stimuli: list[Stimulus]
) -> Result:
    from solvers import eikonal

    if experiment.probes_mm:
        raise InputError(experiment.where, "record.probes", "the eikonal method has no voltages", 'remove it or use method = "monodomain"')
    if any(len(s.start_ms) > 1 for s in stimuli):
        remedy = 'remove count and extra, or use method = "monodomain"'
        raise InputError(experiment.where, "stimulus", "the eikonal method knows one wave, not a train", remedy)
    speeds = [np.array([getattr(t, name) for t in experiment.tissue], float)[tissue] for name in ("speed_l_m_s", "speed_t_m_s")]
    sources = np.concatenate([s.nodes for s in stimuli])
    times = np.concatenate([np.full(len(s.nodes), s.start_ms[0]) for s in stimuli])
    arrival = eikonal.solve(mesh.points_mm, mesh.tets, mesh.fibre, speeds[0], speeds[1], sources, times, conducting)
    node = np.flatnonzero(np.isfinite(arrival) & (arrival <= experiment.duration_ms)).astype(np.int32)
    node = node[np.argsort(arrival[node], kind="stable")]
    when = arrival[node]
    used = len(np.unique(mesh.tets[conducting]))
    beats = Activations(node, when, np.full(len(node), np.nan))
    summary = {"nodes": used, "nodes_excluded": len(mesh.points_mm) - used, "scheme": "eikonal", "end_ms": experiment.duration_ms}
    message = f"{len(node)} of {used} nodes reached within {experiment.duration_ms:g} ms"
    return Result(Status.DONE, message, beats, np.zeros(0), np.zeros((0, 0)), summary)


def _write(experiment: Experiment, mesh: SimMesh, result: Result, nearest: Nearest, out: Path) -> dict[str, Any]:
    first = result.activations.first_ms(len(mesh.points_mm))
    expected = []
    for e in experiment.expected:
        node, distance = nearest.node(e.at_mm)
        value = float(first[node])
        reached = bool(np.isfinite(value))
        expected.append(
            {
                "at_mm": list(e.at_mm),
                "node": node,
                "distance_mm": distance,
                "expected_ms": e.value_ms,
                "within_ms": e.within_ms,
                "found_ms": value if reached else None,
                "met": reached and abs(value - e.value_ms) <= e.within_ms,
            }
        )
    summary: dict[str, Any] = {
        "status": result.status.value,
        "message": result.message,
        "method": experiment.method,
        "mesh": {"points": len(mesh.points_mm), "tets": len(mesh.tets)},
        "solver": dict(result.summary),
        "activated_nodes": int(np.isfinite(first).sum()),
        "last_first_activation_ms": float(np.nanmax(first)) if np.isfinite(first).any() else None,
        "probes": [{"at_mm": list(p), "node": nearest.node(p)[0], "distance_mm": nearest.node(p)[1]} for p in experiment.probes_mm],
        "expect": expected,
        "expect_met": all(e["met"] for e in expected),
    }
    beats = result.activations
    arrays: dict[str, NDArray[Any]] = {"points_mm": mesh.points_mm, "first_ms": first, "node": beats.node}
    arrays |= {"activation_ms": beats.activation_ms, "recovery_ms": beats.recovery_ms}
    write_npz(out / "activation.npz", arrays)
    if experiment.probes_mm:
        write_text(out / "probes.csv", _probes_csv(result))
    write_json(out / "summary.json", summary)
    if result.status is Status.DIVERGED:
        raise RunFailed(result.message)
    return summary


def _probes_csv(result: Result) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time_ms", *(f"probe_{i}" for i in range(result.probes_mv.shape[1]))])
    for time, row in zip(result.probes_time_ms, result.probes_mv):
        writer.writerow([f"{time:.6g}", *(f"{v:.4f}" for v in row)])
    return text.getvalue()
