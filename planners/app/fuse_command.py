"""`vtwin fuse`: fusion models of a table, or of every table that a folder has a study for: evaluated, with model cards and reports."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from planners.app.console import Console
from planners.app.output import check, claim, finish
from planners.report.fusion import write_fusion_report
from twin.atomic import write_json
from twin.errors import InputError
from twin.fusion.evaluate import DEFAULT, evaluate
from twin.fusion.models.registry import CANDIDATES, MODELS, available
from twin.fusion.protocol import Settings, Spread, one_thread
from twin.fusion.study import Study, load_study
from twin.fusion.table import load_table
from twin.io.source import did_you_mean
from twin.run import content_hash

SECONDS = 1.5e-3
"""CPU seconds per fold and patient (measured on Cleveland's 303 patients, 50 folds, on a busy machine, 2026-11-25)."""


def settings_of(study: Study, seed: int | None) -> Settings:
    """What the study file asks for. Raises InputError for a model that is not known or cannot run here."""
    part = dict(study.evaluate)
    names = tuple(part.pop("models", Settings.models))
    for name in names:
        if name not in MODELS:
            raise InputError(study.path, "evaluate.models", f"unknown model {name!r}", did_you_mean(name, MODELS))
        if name not in available():
            raise InputError(study.path, "evaluate.models", f"{name} needs torch", "pip install 'vtwin[ml]'")
    part["seed"] = part.get("seed", 0) if seed is None else seed
    return Settings(models=names, **part)


def fuse(path: Path, out: Path, seed: int | None, fresh: bool, console: Console, workers: int | None = None) -> int:
    """Evaluate a study, and leave fusion.json, model_card.json and report.html; of a folder, these for each of its studies.

    workers: processes that share the folds (default: as many as there are cores); the figures do not depend on their number.
    """
    with _spread(workers or _cores()) as spread:
        if path.is_dir():
            return _fuse_folder(path, out, seed, fresh, console, spread)
        result = _fuse_one(path, out, seed, fresh, console, spread)
    lines = [] if result is None else [_line(result), *result["findings"]]
    console.result(result or {"out": str(out)}, [*lines, f"report: {out / 'report.html'}"])
    return 0


def dry_run(path: Path, out: Path, seed: int | None, fresh: bool, console: Console) -> int:
    """Read and check every study and its table, and say what would be fitted and about how long it takes."""
    studies = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not studies:
        raise InputError(path, "folder", "holds no study", "name a folder with study files (TOML), or one of them")
    found: list[dict[str, Any]] = []
    for one in studies:
        study = load_study(one)
        settings, table = settings_of(study, seed), load_table(study)
        patients, folds = len(table.outcome), settings.folds * settings.repeats
        found.append(
            {
                "name": study.name,
                "patients": patients,
                "events": int(table.outcome.sum()),
                "blocks": list(table.blocks),
                "folds": folds,
                "models": list(settings.models),
                "seconds": max(1, round(folds * patients * SECONDS / _cores())),
            }
        )
        if not path.is_dir():
            check(out, _identity(path, study, settings), fresh)
    said = "{name}: {patients} patients, {events} events, blocks {blocks}; {folds} folds, about {seconds} s"
    console.result(found, [said.format(**{**row, "blocks": ", ".join(row["blocks"])}) for row in found])
    return 0


def _identity(path: Path, study: Study, settings: Settings) -> dict[str, Any]:
    """What makes a folder that of one evaluation."""
    inputs = {"study": content_hash(path), **{name: content_hash(file) for name, file in study.files().items()}}
    return {"command": "fuse", "inputs": inputs, "seed": settings.seed}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _spread(workers: int) -> Iterator[Spread]:
    """How folds are gone through: here, or by a pool of processes that starts with the first of them."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as pool:
        try:
            yield pool.map
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fuse_folder(path: Path, out: Path, seed: int | None, fresh: bool, console: Console, spread: Spread) -> int:
    """Every study of a folder in turn, and summary.json. All study files are read before the first is evaluated."""
    studies = sorted(path.glob("*.toml"))
    if not studies:
        raise InputError(path, "folder", "holds no study", "name a folder with study files (TOML), or one of them")
    for study in studies:
        settings_of(load_study(study), seed)
    identity = {"command": "fuse", "inputs": {study.stem: content_hash(study) for study in studies}, "seed": seed}
    claim(out, identity, fresh)
    summary: dict[str, Any] = {}
    seconds: dict[str, dict[str, float]] = {}
    for study in studies:
        console.progress(f"{study.stem} ...")
        wall = time.perf_counter()
        _fuse_one(study, out / study.stem, seed, fresh, console, spread)
        seconds[study.stem] = {"wall_s": time.perf_counter() - wall}
        summary[study.stem] = _summary(json.loads((out / study.stem / "fusion.json").read_text(encoding="utf-8")))
    write_json(out / "summary.json", summary)
    finish(out, identity, {"seconds": seconds})
    lines = [f"{name:18s} {_line(found)}  {seconds[name]['wall_s']:4.0f} s" for name, found in summary.items()]
    console.result(summary, [*lines, f"reports: {out}/*/report.html"])
    return 0


def _summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """What one line of a folder's summary says of a study."""
    kept = (
        "patients",
        "events",
        "protocol",
        "models",
        "best_single",
        "gains_over_best_single",
        "chosen_by_default",
        "conformal",
        "findings",
    )
    return {key: result[key] for key in kept}


def _line(result: Mapping[str, Any]) -> str:
    main, gain = result["models"][DEFAULT], result["gains_over_best_single"][DEFAULT]["value"]
    slope = "none" if main["calibration_slope"] is None else f"{main['calibration_slope']:.2f}"
    figures = f"default: AUC {main['auc']:.3f}, Brier {main['brier']:.3f}, calibration slope {slope}"
    return f"{figures}, {gain:+.3f} over {result['best_single']}"


def _fuse_one(path: Path, out: Path, seed: int | None, fresh: bool, console: Console, spread: Spread) -> dict[str, Any] | None:
    """The figures of one study, all files written; None where the folder holds them already."""
    study = load_study(path)
    settings = settings_of(study, seed)
    table = load_table(study)
    identity = _identity(path, study, settings)
    if claim(out, identity, fresh) and (out / "fusion.json").exists():
        console.progress(f"{out} holds this evaluation already")
        return None
    result = evaluate(table, settings, console.progress, spread)
    write_json(out / "fusion.json", result)
    write_json(out / "model_card.json", _card(study, result))
    write_fusion_report(study.name, result, out / "report.html")
    finish(out, identity, {})
    return result


def _card(study: Study, result: dict[str, object]) -> dict[str, object]:
    """The model card: what it was made from, how well it does and for what it must not be used."""
    return {
        "name": study.name,
        "model": f"simplest of {', '.join(CANDIDATES)} within one standard error, recalibrated, a submodel for each set of blocks",
        "trained_on": {"patients": result["patients"], "events": result["events"], "blocks": list(study.blocks)},
        "evaluation": result["protocol"],
        "performance": result["models"][DEFAULT],  # type: ignore[index]
        "findings": result["findings"],
        "not_for": "decisions about patients: research software, not validated outside the table that it was made from",
    }
