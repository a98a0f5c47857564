"""The work of a trial: a twin with its inductions, built once; then each arm on it, over nested posterior samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from meshing.anatomy import complete
from meshing.mesh_labels import mesh_heart
from planners.calibration import Calibration, calibrate
from planners.circuits import Reentry, collect
from planners.circuits.episode import Collected
from planners.lesions.energy import check_request, with_energy
from planners.lesions.geometry import LesionMaker, lesion_count
from planners.lesions.search import plan_lesions
from planners.lesions.strategy import strategy
from planners.pacing.engine import InductionRun
from planners.pacing.induce import PacingSettings, induce, stimulus_sites
from planners.pacing.protocol import load_protocol
from planners.trials.job import Row
from planners.trials.parameters import LARGE_SCAR_PERCENT
from planners.trials.population import excluded, given, implausible, person
from planners.trials.trial import Population
from solvers.eikonal.forward import EikonalForward
from solvers.eikonal.purkinje import entry_sites, sheet_layer
from solvers.eikonal.restitution import load_tables
from twin.atomic import write_npz
from twin.errors import RunFailed
from twin.mesh import HeartMesh
from twin.model import Twin
from twin.patient import Evidence, Patient
from twin.plan import PlanRequest, Target
from twin.tissue import Tissue
from twin.volume import LabelVolume

LABEL_SPACING_MM = 1.5
"""Labels of a quick twin: a quarter of the time of 1 mm, and still finer than the 2.5 mm mesh."""
SAMPLE_SITES = 1
"""Posterior samples are paced from the first site that induces: there the plan can fail."""
NEAR_BASE_MM = 10.0
"""A lesion this near to the base on the septum is counted as near the conduction system, whose true course is not known."""
SEPTUM = (2, 3)


def twin(spec: Row, needs: Sequence[Path], folder: Path) -> Row:
    """Build one candidate's twin, measure it, check it, and pace it if it is plausible."""
    population = Population(**spec["population"])
    built = _virtual(spec) if "values" in spec else _case(spec, folder)
    calibration, volume, measured = built
    model = calibration.twin
    measured |= _measured(calibration, volume, "values" in spec)
    row: dict[str, Any] = {"measured": measured, "implausible": implausible(measured, population), "excluded": []}
    if row["implausible"]:
        return row
    early = [name for name in excluded(measured, population) if name in measured]
    if early:
        return row | {"excluded": early}
    folder.mkdir(parents=True, exist_ok=True)
    run = _untreated(model, spec, folder)
    found = _collected(model, run)
    measured |= {
        "inducible": run.induced,
        "inducing_sites": len(run.inducing_sites),
        "circuits": len(found.circuits),
        "cycle_length_ms": round(min(c.cycle_length_ms for c in found.circuits), 3) if found.circuits else None,
    }
    row["excluded"] = excluded(measured, population)
    if not row["excluded"]:
        kept = replace(model, tissue=_few(model.tissue, spec["samples"]))
        kept.save(folder)
        write_npz(folder / "activation.npz", {"arrival_ms": np.nan_to_num(calibration.arrival_ms, posinf=-1.0).astype(np.float32)})
    return row


def _few(tissue: Tissue, samples: int) -> Tissue:
    return replace(tissue, samples=tissue.samples[:samples])


def _virtual(spec: Row) -> tuple[Calibration, LabelVolume, dict[str, Any]]:
    from planners.virtual.anatomy import labels
    from planners.virtual.infarct import add_infarct

    who = person(spec["values"], spec["seed"], spec["candidate"])
    volume, truth = add_infarct(labels(who.anatomy, LABEL_SPACING_MM), who.infarct)
    mesh = complete(mesh_heart(volume, spec["edge_mm"]))
    patient = Patient(spec["name"], Evidence(volume, "virtual", virtual=True), None, None, None, ())
    calibration = calibrate(mesh, patient, given(who.velocities), spec["seed"], lambda line: None)
    count = len(who.infarct.isthmuses)
    return (
        calibration,
        volume,
        {
            "sex": who.sex,
            "territory": truth["territory"],
            "isthmuses": count,
            "two_isthmuses": count == 2,
        },
    )


def _case(spec: Row, folder: Path) -> tuple[Calibration, LabelVolume, dict[str, Any]]:
    from planners.app.evidence import gather
    from twin.case import load_case

    case = load_case(Path(spec["place"]))
    patient = gather(case, folder / "labels", lambda line: None)
    mesh = complete(mesh_heart(patient.labels.value, spec["edge_mm"]))
    calibration = calibrate(mesh, patient, case.tissue, spec["seed"], lambda line: None, case.virtual_infarct is not None)
    said = patient.record.value.get("sex") if patient.record else None
    # of whom no record says it, it is not known: subgroups by sex leave them out, limits are those of either
    sex = said if said in ("female", "male") else None
    return calibration, patient.labels.value, {"sex": sex, "territory": _territory(calibration.twin.mesh)}


def _territory(mesh: HeartMesh) -> str:
    """The territory with most of the scar."""
    from planners.virtual.statistics import TERRITORIES

    scar = mesh.in_region("scar", "border_zone", "isthmus")
    if not scar.any():
        return "none"
    segments = mesh.aha_segment[mesh.tets[scar][:, 0]]
    return max(TERRITORIES, key=lambda name: int(np.isin(segments, TERRITORIES[name]).sum()))


def _measured(calibration: Calibration, volume: LabelVolume, virtual: bool) -> dict[str, Any]:
    """What is measured in every twin before it is paced; a virtual one has no map, its sinus rhythm is the textbook's."""
    mesh, tissue = calibration.twin.mesh, calibration.twin.tissue
    muscle = np.unique(mesh.tets[mesh.in_region("healthy")])
    arrival = (_sinus_ms(calibration.twin) if virtual else calibration.arrival_ms)[muscle]
    reached = arrival[np.isfinite(arrival)]
    velocity = tissue.velocities(0)
    wall_ml = volume.volume_ml("lv_myocardium", "scar", "border_zone", "isthmus")
    scar_ml = volume.volume_ml("scar")
    percent = 100.0 * scar_ml / wall_ml if wall_ml else None
    border = velocity.get("border_zone")
    lv = mesh.tet_volumes_mm3[mesh.coordinates["transventricular"][mesh.tets].mean(axis=1) < 0.5].sum()
    area = _area_mm2(mesh, "lv_endo")
    return {
        "lv_edv_ml": round(volume.volume_ml("lv_blood"), 3),
        "rv_edv_ml": round(volume.volume_ml("rv_blood"), 3),
        "wall_mm": round(_shell_mm(float(lv), area), 3),
        "qrs_ms": round(float(reached.max() - reached.min()), 3),
        "healthy_along_m_s": round(velocity["healthy"].longitudinal_m_s, 5),
        "healthy_across_m_s": round(velocity["healthy"].transverse_m_s, 5),
        "border_along_m_s": None if border is None else round(border.longitudinal_m_s, 5),
        "scar_ml": round(scar_ml, 3),
        "scar_percent": None if percent is None else round(percent, 3),
        "large_scar": None if percent is None else percent >= LARGE_SCAR_PERCENT,
        "border_zone_ml": round(volume.volume_ml("border_zone", "isthmus"), 3),
        "nodes": mesh.n_points,
    }


def _area_mm2(mesh: HeartMesh, surface: str) -> float:
    corner = mesh.points_mm[mesh.surfaces[surface]]
    return float(0.5 * np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).sum())


def _shell_mm(volume_mm3: float, area_mm2: float) -> float:
    """Thickness of a shell over this area that has this volume, curved like a sphere of the area (an open one: two thirds of it)."""
    radius = float(np.sqrt(area_mm2 / (4.0 * np.pi * 0.8)))
    return float((radius**3 + 3.0 * volume_mm3 / (4.0 * np.pi * 0.8)) ** (1.0 / 3.0) - radius)


def _untreated(model: Twin, spec: Row, folder: Path) -> InductionRun:
    protocol = load_protocol(spec["protocol"])
    return induce(model, protocol, tuple(spec["sites"]), folder=folder / "untreated", threads=numba.get_num_threads())


def _collected(model: Twin, run: InductionRun) -> Collected:
    return collect(Reentry.of(model.mesh), run.inductions, run.episodes, ())


def arm(spec: Row, needs: Sequence[Path], folder: Path) -> Row:
    """One arm on a built twin: lesions planned on the mode, then every posterior sample paced with them."""
    model, arm_spec = Twin.load(needs[0]), spec["arm"]
    untreated = _untreated(model, spec, needs[0])  # every site is found done there
    found = _collected(model, untreated)
    folder.mkdir(parents=True, exist_ok=True)
    treated = replace(model, tissue=_slowed(model.tissue, arm_spec["velocity"]))
    settings = _settings(arm_spec)
    request = PlanRequest(**{**arm_spec["request"], "compare": (), "protocol": spec["protocol"], "sites": tuple(spec["sites"])})
    request = with_energy(request)
    if arm_spec["strategy"] != "none" and untreated.induced:
        request = replace(request, strategies=(arm_spec["strategy"],))
        seen = _perceived(treated, arm_spec["scar_shift_mm"])
        if arm_spec["search"]:
            made = _searched(treated, untreated, found, request, settings, folder)
        else:
            made = _proposed(treated, seen, untreated, found, request, settings, folder)
    else:
        made = _Lesions([], np.zeros(len(model.mesh.tets), bool), untreated, found, 0)
        if arm_spec["velocity"] != 1.0 or arm_spec["apd_ms"] != 0.0:
            made = _tested(treated, made, request, settings, folder)
    write_npz(folder / "lesions.npz", {"blocked": made.blocked})
    same = _harm(model, treated, made.blocked) | {
        "lesions": lesion_count(made.targets),
        "lesions_near_septal_base": _near_base(model.mesh, [p for t in made.targets for p in t.positions_mm]),
    }
    samples = [_seen(made.run.induced, made.left)]
    for sample in range(1, spec["samples"]):
        samples.append(_sampled(treated, spec, untreated, settings, sample, made.blocked, folder))
    _forget(folder)
    return {"samples": [{**s, **same} for s in samples], "rounds": made.rounds}


@dataclass(frozen=True)
class _Lesions:
    """What an arm did to the mode: targets, tetrahedra taken, the stimulation afterwards and the circuits that it found."""

    targets: Sequence[Target]
    blocked: NDArray[np.bool_]
    run: InductionRun
    left: Collected
    rounds: int


def _perceived(model: Twin, shift_mm: float) -> Twin:
    """The twin as whoever plans sees it: the scar larger (or smaller) by a distance, as a lower (higher) threshold would show it."""
    if shift_mm == 0.0:
        return model
    from scipy.spatial import cKDTree

    mesh = model.mesh
    scar, lv = mesh.in_region("scar"), mesh.coordinates["transventricular"][mesh.tets].mean(axis=1) < 0.5
    there, other = (scar, ~scar & lv) if shift_mm > 0 else (~scar & lv, scar)
    if not scar.any() or not other.any():
        return model
    away, _ = cKDTree(mesh.centroids_mm[there]).query(mesh.centroids_mm[other])
    changed = np.zeros(len(scar), bool)
    changed[np.flatnonzero(other)[away <= abs(shift_mm)]] = True
    return replace(model, mesh=mesh.with_region(changed, "scar" if shift_mm > 0 else "border_zone"))


def _proposed(
    treated: Twin, seen: Twin, untreated: InductionRun, found: Collected, request: PlanRequest, settings: PacingSettings, folder: Path
) -> _Lesions:
    """Lesions as the strategy proposes them on the heart as it is seen, made once on the heart as it is."""
    check_request(request)
    chosen = strategy(request.strategies[0])
    maker = LesionMaker(treated.mesh)
    unfit = chosen.available(seen, request)
    targets = [] if unfit else chosen.propose(seen, found.circuits, request, LesionMaker(seen.mesh), [])
    blocked = maker.mask(targets)
    if maker.volume_ml(blocked) > request.max_volume_ml:
        targets, blocked = [], np.zeros_like(blocked)  # more than is allowed: nothing is made
    made = _Lesions(targets, blocked, untreated, found, 1)
    return _tested(treated, made, request, settings, folder) if targets else made


def _tested(treated: Twin, made: _Lesions, request: PlanRequest, settings: PacingSettings, folder: Path) -> _Lesions:
    """Stimulation of the mode with the lesions: sites that induced before come first, and the first that induces ends it."""
    protocol = load_protocol(request.protocol)
    sites = tuple(dict.fromkeys((*made.run.inducing_sites, *stimulus_sites(treated, protocol, request.sites))))
    run = induce(
        treated,
        protocol,
        sites,
        settings,
        blocked=made.blocked,
        folder=folder / "mode",
        threads=numba.get_num_threads(),
        stop_at_first=True,
    )
    return replace(made, run=run, left=collect(Reentry.of(treated.mesh, made.blocked), run.inductions, run.episodes, ()))


def _searched(
    treated: Twin, untreated: InductionRun, found: Collected, request: PlanRequest, settings: PacingSettings, folder: Path
) -> _Lesions:
    """Lesions re-tested, grown and pruned."""
    plan = plan_lesions(treated, untreated, found.circuits, request, settings, folder=folder / "search", threads=numba.get_num_threads())
    run = replace(untreated, inductions=plan.inductions, episodes=() if plan.non_inducible else untreated.episodes)
    left = replace(found, circuits=plan.residual)
    rounds = max((int(a["rounds"]) for a in plan.alternatives), default=0)
    return _Lesions(plan.targets, plan.blocked, run, left, rounds)


def _seen(induced: bool, found: Collected) -> dict[str, Any]:
    return {"non_inducible": not induced, "vt_cycle_length_ms": _fastest(found), "residual_circuits": len(found.circuits)}


def _sampled(
    treated: Twin, spec: Row, untreated: InductionRun, settings: PacingSettings, sample: int, blocked: NDArray[np.bool_], folder: Path
) -> dict[str, Any]:
    sites = (untreated.inducing_sites or tuple(dict.fromkeys(i.site for i in untreated.inductions)))[:SAMPLE_SITES]
    run = induce(
        treated,
        load_protocol(spec["protocol"]),
        sites,
        settings,
        tissue_sample=sample,
        blocked=blocked,
        folder=folder / f"sample-{sample}",
        stop_at_first=True,
    )
    return _seen(run.induced, collect(Reentry.of(treated.mesh, blocked), run.inductions, run.episodes, ()))


def _fastest(found: Collected) -> float | None:
    return round(min(c.cycle_length_ms for c in found.circuits), 3) if found.circuits else None


def _settings(arm_spec: Mapping[str, Any]) -> PacingSettings:
    """Restitution of every tissue with the action potential longer by what the drug does."""
    if arm_spec["apd_ms"] == 0.0:
        return PacingSettings()
    tables = load_tables()
    if any((t.apd_ms + arm_spec["apd_ms"]).min() <= 0 for t in tables.values()):
        raise RunFailed(f"an action potential cannot be {-arm_spec['apd_ms']:g} ms shorter")
    return PacingSettings(tables={name: replace(t, apd_ms=t.apd_ms + arm_spec["apd_ms"]) for name, t in tables.items()})


def _slowed(tissue: Tissue, factor: float) -> Tissue:
    return tissue if factor == 1.0 else replace(tissue, samples=tissue.samples * factor)


def _harm(model: Twin, treated: Twin, blocked: NDArray[np.bool_]) -> dict[str, Any]:
    """Tissue taken by the lesions, and how much later the last muscle is reached in sinus rhythm with them."""
    maker = LesionMaker(model.mesh)
    everything = np.ones(len(blocked), bool)
    lost, whole = maker.volume_ml(blocked, "healthy"), maker.volume_ml(everything, "healthy")
    before, after = _last_ms(model), _last_ms(replace(treated, mesh=model.mesh.with_region(blocked, "lesion")))
    return {
        "lesion_volume_ml": round(maker.volume_ml(blocked), 4),
        "healthy_lost_ml": round(lost, 4),
        "healthy_lost_percent": round(100.0 * lost / whole, 4),
        "activation_delay_ms": round(after - before, 3),
    }


def _last_ms(model: Twin) -> float:
    """Time at which the last muscle is reached in sinus rhythm; what lesions cut off does not count."""
    arrival = _sinus_ms(model)
    return float(arrival[np.isfinite(arrival)].max())


def _sinus_ms(model: Twin) -> NDArray[np.float64]:
    """Activation in sinus rhythm, (n,) ms: through the conduction system's usual entries and a fast endocardial sheet."""
    return EikonalForward(model.mesh, sheet_layer(model.mesh)).arrival_ms(model.tissue.velocities(0), *entry_sites(model.mesh))


def _near_base(mesh: HeartMesh, positions: list[Sequence[float]]) -> int:
    """Lesions within NEAR_BASE_MM of the base's septal part."""
    from scipy.spatial import cKDTree

    base = mesh.surface_nodes("base")
    septal = base[np.isin(mesh.aha_segment[base], SEPTUM)]
    if not len(septal) or not positions:
        return 0
    away, _ = cKDTree(mesh.points_mm[septal]).query(np.asarray(positions, float))
    return int(np.count_nonzero(away < NEAR_BASE_MM))


def _forget(folder: Path) -> None:
    """Remove what was only kept for an arm that is cut off."""
    import shutil

    for name in ("search", "mode", *(p.name for p in folder.glob("sample-*"))):
        shutil.rmtree(folder / name, ignore_errors=True)
