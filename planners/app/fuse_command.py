"""`vtwin fuse`: fusion models of one table, evaluated, with a model card and a report."""

from __future__ import annotations

from pathlib import Path

from planners.app.console import Console
from planners.app.output import claim, finish
from planners.report.fusion import write_fusion_report
from twin.atomic import write_json
from twin.errors import InputError
from twin.fusion.evaluate import DEFAULT, evaluate
from twin.fusion.models.registry import MODELS, available
from twin.fusion.protocol import Settings
from twin.fusion.study import Study, load_study
from twin.fusion.table import load_table
from twin.io.source import did_you_mean
from twin.run import content_hash


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


def fuse(path: Path, out: Path, seed: int | None, fresh: bool, console: Console) -> int:
    """Evaluate, and leave fusion.json, model_card.json and report.html."""
    study = load_study(path)
    settings = settings_of(study, seed)
    table = load_table(study)
    inputs = {"study": content_hash(path), **{name: content_hash(file) for name, file in study.files().items()}}
    identity = {"command": "fuse", "inputs": inputs, "seed": settings.seed}
    if claim(out, identity, fresh) and (out / "fusion.json").exists():
        console.progress(f"{out} holds this evaluation already")
        console.result({"out": str(out)}, [f"report: {out / 'report.html'}"])
        return 0
    result = evaluate(table, settings, console.progress)
    write_json(out / "fusion.json", result)
    write_json(out / "model_card.json", _card(study, result))
    write_fusion_report(study.name, result, out / "report.html")
    finish(out, identity, {})
    main = result["models"][DEFAULT]
    lines = [f"default: AUC {main['auc']:.3f}, Brier {main['brier']:.3f}, calibration slope {main['calibration_slope']:.2f}"]
    console.result(result, [*lines, *result["findings"], f"report: {out / 'report.html'}"])
    return 0


def _card(study: Study, result: dict[str, object]) -> dict[str, object]:
    """The model card: what it was made from, how well it does and for what it must not be used."""
    return {
        "name": study.name,
        "model": "simplest of early, late stacking, product of experts and graph smoothing within one standard error, pattern submodels",
        "trained_on": {"patients": result["patients"], "events": result["events"], "blocks": list(study.blocks)},
        "evaluation": result["protocol"],
        "performance": result["models"][DEFAULT],  # type: ignore[index]
        "findings": result["findings"],
        "not_for": "decisions about patients: research software, not validated outside the table that it was made from",
    }
