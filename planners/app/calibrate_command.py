"""`vtwin calibrate`: evidence to posterior tissue parameters, with what the data could not tell."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba
from numpy.typing import NDArray

from planners.app import expect
from planners.app.clinical import clinical_twin
from planners.app.console import Console
from planners.app.dry_run import dry_run
from planners.app.evidence import gather
from planners.app.output import check, claim, finish
from planners.app.pipeline import Line
from planners.calibration import Calibration
from planners.calibration.members import SAMPLERS, ensemble_posterior
from planners.calibration.picture import write_picture
from twin.atomic import write_json, write_npz
from twin.case import load_case
from twin.errors import InputError
from twin.run import RunRecord
from twin.stages import Stages


def calibrate(path: Path, out: Path, console: Console, *, sampler: str, seed: int, fresh: bool, dry: bool = False) -> int:
    """Write posterior.json, samples.npz and calibration.png; status 3 if an [expect] about calibration was missed."""
    if sampler not in SAMPLERS:
        raise InputError("command line", "--sampler", f"{sampler!r} is not known", f"use {' or '.join(SAMPLERS)}")
    case = load_case(path)
    expect.check(case)
    settings = {**case.mesh_asked, "tissue": dict(case.tissue), "accept": list(case.accept), "sampler": sampler}
    inputs = case.inputs()
    identity = {"command": "calibrate", "seed": seed, "inputs": inputs, "settings": settings}
    if dry:
        check(out, identity, fresh)
        with tempfile.TemporaryDirectory() as folder:
            patient = gather(case, Path(folder), lambda line: console.progress(f"  {line}"))
            return dry_run(case, patient, console, last="registration and tissue")
    if claim(out, identity, fresh):
        console.progress(f"{out} holds this run: finished stages are reused")
    patient = gather(case, out / "stages", lambda line: console.progress(f"  {line}"))
    informed = clinical_twin(case, patient, console.progress)
    case = informed.case(case)
    line = Line(Stages(out / "stages", console.progress), console, seed, numba.get_num_threads())
    mesh = line.mesh(patient, case)
    found = line.calibration(mesh, patient, case)
    if sampler == "ensemble":
        found = ensemble_posterior(found, patient, out / "stages" / "ensemble", seed, line.threads, console.progress)
    posterior = as_dict(found, sampler)
    write_json(out / "posterior.json", posterior)
    samples: dict[str, NDArray[Any]] = {
        "samples": found.twin.tissue.samples,
        "source_nodes": found.twin.tissue.source_nodes,
        "arrival_ms": found.arrival_ms,
    }
    samples |= {"map_points_mm": found.map_points_mm, "map_lat_ms": found.map_lat_ms, "map_predicted_ms": found.map_predicted_ms}
    write_npz(out / "samples.npz", samples, {"names": list(found.twin.tissue.names)})
    write_picture(found, out / "calibration.png")
    missed = expect.missed_by_fit(case, posterior["fit"])
    record = RunRecord("calibrate", seed, inputs, {**settings, **informed.recorded()}, line.stages.keys)
    finish(out, identity, {**record.as_dict(), "expect_missed": missed})
    console.result({**posterior, "expect_missed": missed}, [*lines(posterior), *(f"expected, but not met: {m}" for m in missed)])
    return 3 if missed else 0


def as_dict(found: Calibration, sampler: str) -> dict[str, Any]:
    """posterior.json: unknowns with prior and posterior side by side, fit to the evidence, doubts."""
    registration = None
    if found.registration is not None:
        registration = {
            "median_mm": round(found.registration.median_mm, 2),
            "landmark_error_mm": {k: round(v, 2) for k, v in found.registration.landmark_error_mm.items()},
            "ambiguity": found.registration.ambiguity,
        }
    return {
        "sampler": sampler,
        "unknowns": found.unknowns,
        "not_identified": [name for name, row in found.unknowns.items() if not row["identified"]],
        "fit": dict(found.twin.tissue.fit),
        "registration": registration,
        "doubts": list(found.doubts),
        "belief": {"names": list(found.belief.names), "mean": found.belief.mean.tolist(), "sd": found.belief.sd.tolist()},
        "samples": len(found.twin.tissue.samples),
    }


def lines(posterior: Mapping[str, Any]) -> list[str]:
    """For people: one row per unknown, then the fit and the doubts."""
    out = [f"{'':34s}{'mode':>8s}  {'95 % after':>17s}  {'95 % before':>17s}"]
    for name, row in posterior["unknowns"].items():
        if "interval_95" in row:
            low, high = row["interval_95"]
            before = row["prior_95"]
            flag = "" if row["identified"] else "  not identified"
            out.append(f"{name:34s}{row['mode']:8.3f}  {low:7.3f} - {high:7.3f}  {before[0]:7.3f} - {before[1]:7.3f} {row['unit']}{flag}")
        elif "place_mm" in row:
            wide = "" if row["place_sd_mm"] is None else f" +- {row['place_sd_mm']} mm"
            out.append(f"{name:34s}at {row['place_mm']}{wide}, {row['time_ms']} ms ({row['set_by']})")
    for key in ("held_out_rms_ms", "breakthrough_sites", "ecg_pose"):
        if key in posterior["fit"]:
            out.append(f"{key}: {posterior['fit'][key]}")
    ecg = posterior["fit"].get("ecg")
    if ecg:
        out.append(f"ECG: mean lead correlation {ecg['mean_lead_correlation']}")
    return [*out, *(f"doubtful: {d}" for d in posterior["doubts"])]
