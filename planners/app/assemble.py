"""The plan as a noun, from what the stages gave: numbers, limits, and where each number comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshing.sites import sites_named
from planners.app.clinical import ClinicalTwin
from planners.calibration import Calibration
from planners.circuits.channels import potential_channels
from planners.lesions.avoid import statements
from planners.lesions.gaps import GAP
from planners.lesions.result import LesionPlan
from planners.outcome import Outcome
from planners.pacing.engine import InductionRun
from twin.mesh import HeartMesh
from twin.patient import Patient
from twin.plan import Circuit, Plan, PlanRequest
from twin.run import RunRecord
from twin.tissue import Tissue

ALWAYS = (
    "Research software: no part of this plan has been tested in patients.",
    "Fibres follow a rule (Bayer 2012, made linear in depth); they were not measured.",
    "Inducibility comes from a reduced (re-excitable eikonal) model: curvature, source-sink mismatch and memory are not in it.",
    "Restitution of healthy and border tissue was computed from the ten Tusscher-Panfilov 2006 model, not measured in this patient.",
    "Recovery is blended where tissues meet, and fronts are blocked, as fitted to monodomain sheets with one isthmus; not to whole hearts.",
    "A lesion is taken as a non-conducting ellipsoid of the stated radius and depth.",
)

SOURCES = {
    "patient": "the case file; stage evidence",
    "patient.clinical": "the [clinical] table: published priors, updated by each piece of evidence (twin/calibrate/evidence_priors.py)",
    "patient.clinical.risk": "published scores from the case's facts (twin/records/scores), and stage outcome; labelled, never combined",
    "mesh": "labels named in the case; stage mesh (isosurface stuffing, Labelle and Shewchuk 2007)",
    "tissue": "map and ECG named in the case; stage tissue (registration, eikonal fit with log-normal priors, Laplace approximation)",
    "inductions": "stage induction: programmed stimulation of the mode of the tissue posterior with the re-excitable eikonal model",
    "circuits": "activation logs of stage induction: parents of each activation traced back over one cycle",
    "circuits.cycle_length_ms": "median interval between activations of the circuit's own nodes; stage induction",
    "circuits.isthmus_width_mm": "shortest cut through conducting tissue across the circuit inside scar; stage induction",
    "circuits.evidence": "stage evidence: the tachycardia started again, left to settle, paced 10-30 ms faster from its isthmus and the "
    "remotest pacing site; pace-maps of the quiet heart at its cycle (planners/pacing/entrain.py)",
    "clinical_vts": "stage evidence: mean correlation of the leads over one cycle, and difference of the settled cycle lengths",
    "targets": "stage lesions: sets proposed by each strategy, re-tested with the whole protocol, smallest non-inducible one chosen",
    "alternatives": "stage lesions: every set that was tested; stage comparison: the strategies that it is compared with",
    "alternatives.minutes": "lesions times seconds per lesion, and access to each surface; values chosen here (planners/lesions/scores.py)",
    "alternatives.risk_ml": "healthy muscle lost, with what epicardial access and nearness count as (planners/lesions/scores.py)",
    "targets.transmural_probability": "wall thickness against the depth of the energy setting and its spread (planners/lesions/energy.py)",
    "channels": "conducting tissue within 6 mm of dense scar on both sides (closing of the scar); planners/circuits/channels.py",
    "outcome.lesion_volume_ml": "volume of the mesh's tetrahedra inside the lesions; stage lesions",
    "outcome.non_inducible_at_mode": "whole protocol from all sites after the lesions, mode of the posterior; stage lesions",
    "outcome.probability_non_inducible": "share of samples of tissue and lesion depth that are non-inducible after lesions; stage outcome",
    "outcome.interval": "95 % interval of that share for the number of samples; stage outcome",
    "limits": "what the stages said they assumed",
    "run": "the run record",
}


def _mesh(mesh: HeartMesh, paced: Sequence[str]) -> dict[str, Any]:
    sites = {name: mesh.points_mm[node].round(3).tolist() for name, node in sorted(sites_named(mesh, paced).items())}
    quality = dict(mesh.quality)
    return {
        "nodes": mesh.n_points,
        "tets": len(mesh.tets),
        "spacing_mm": round(float(quality["mean_edge_mm"]), 3),
        "quality": quality,
        "sites": sites,
    }


def _tissue(tissue: Tissue) -> dict[str, Any]:
    regions: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(tissue.names):
        region, quantity = name.split("/")
        low, high = tissue.interval(name)
        regions.setdefault(region, {})[quantity] = {
            "mean": round(tissue.mean(name), 4),
            "mode": round(float(tissue.samples[0, column]), 4),
            "interval": [round(low, 4), round(high, 4)],
            "prior": [round(float(tissue.prior_low[column]), 4), round(float(tissue.prior_high[column]), 4)],
            "unit": "m/s",
            "evidence": tissue.evidence[name],
        }
    return {"regions": regions, "fit": dict(tissue.fit)}


def _limits(patient: Patient, calibration: Calibration, request: PlanRequest, plan: LesionPlan) -> list[str]:
    limits = list(ALWAYS)
    fit: dict[str, Any] = dict(calibration.twin.tissue.fit)
    if patient.eam is None:
        limits.append("No map was given: conduction velocities are the literature's, with all their spread.")
    if patient.ecg is None:
        limits.append("No ECG was given: nothing constrains right-ventricular activation.")
    if fit.get("rv_breakthrough"):
        limits.append(f"{fit['rv_breakthrough']}.")
    likeness = fit.get("ecg", {}).get("mean_lead_correlation")
    if likeness is not None and likeness < 0.5:
        limits.append(
            f"The ECG is not reproduced (mean lead correlation {likeness:.2f}): the frame of the images, the electrodes' places or the "
            "activation differ from what is assumed. No lesion of this plan rests on it."
        )
    if fit.get("registration_ambiguity"):
        limits.append(f"Registration: {fit['registration_ambiguity']}.")
    epi = "epi" in request.access
    limits.append(f"Lesions were allowed from: {', '.join(request.access)}{'' if epi else ' (no epicardial access)'}.")
    if plan.targets:
        limits.append(
            f"Tissue that a lesion leaves narrower than {GAP.value:g} mm, to a scar, a surface or the next lesion, is taken not to conduct."
        )
    limits += statements(request.avoid, plan.targets)
    limits += [f"Mesh: {w}" for w in calibration.twin.mesh.quality.get("warnings", [])]
    limits += [f"Labels: {r}" for r in calibration.twin.mesh.quality.get("repairs", [])]
    return [*limits, *plan.notes, *patient.notes]


def unmatched(clinical: Sequence[Mapping[str, Any]]) -> list[str]:
    """One limit for each recorded VT that no simulated one is like: the plan may not treat it."""
    return [
        f"The recorded VT {vt['name']!r} was not found again: {vt['verdict']}. This plan may not treat it."
        for vt in clinical
        if not vt["match"]
    ]


def assemble(
    patient: Patient,
    virtual: Sequence[str],
    calibration: Calibration,
    run: InductionRun,
    circuits: Sequence[Circuit],
    lesions: LesionPlan,
    outcome: Outcome,
    request: PlanRequest,
    record: RunRecord,
    clinical: Sequence[Mapping[str, Any]] = (),
    informed: ClinicalTwin | None = None,
) -> Plan:
    """Put the plan together; the run record goes in without its times, so that equal runs give equal bytes."""
    informed = informed or ClinicalTwin()
    evidence = {
        "segmentation": patient.labels.source,
        "map": patient.eam.source if patient.eam else None,
        "ecg": patient.ecg.source if patient.ecg else None,
        "record": dict(patient.record.value) if patient.record else None,
    }
    return Plan(
        patient={"name": patient.name, "virtual": list(virtual), "evidence": evidence, "clinical": informed.as_dict(outcome.as_dict())},
        mesh=_mesh(calibration.twin.mesh, [i.site for i in run.inductions]),
        tissue=_tissue(calibration.twin.tissue),
        inductions=run.inductions,
        circuits=circuits,
        targets=lesions.targets,
        alternatives=lesions.alternatives,
        outcome={**outcome.as_dict(), "lesion_volume_ml": round(lesions.volume_ml, 4), "non_inducible_at_mode": lesions.non_inducible},
        limits=_limits(patient, calibration, request, lesions) + unmatched(clinical) + list(informed.notes),
        run=record.as_dict(timed=False),
        sources=SOURCES,
        channels=potential_channels(calibration.twin.mesh, calibration.twin.tissue.velocities(), circuits),
        clinical_vts=clinical,
    )


def explain(plan: dict[str, Any], key: str) -> str | None:
    """Where a number of plan.json comes from: its own entry, else that of what encloses it; None if there is no such key."""
    parts = [p for p in key.replace("[", ".").replace("]", "").split(".") if p]
    value: Any = plan
    for part in parts:
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, list) and value and isinstance(value[0], dict) and part in value[0]:
            value = [item[part] for item in value]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return None
    names = [p for p in parts if not p.isdigit()]
    for length in range(len(names), 0, -1):
        source = plan["sources"].get(".".join(names[:length]))
        if source is not None:
            shown = str(value) if isinstance(value, (str, int, float, bool)) or value is None else f"{type(value).__name__} of {len(value)}"
            return f"{key} = {shown}: {source}"
    return f"{key}: no source is recorded"
