"""Evaluation of fusion models on one table: nested, repeated, and honest about what is missing, shifted, leaking or unfair.

Outer folds are stratified and repeated; the default chooses inside the training rows. Intervals are percentile bootstraps over patients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.fusion import metrics
from twin.fusion.blocks import Array, Block
from twin.fusion.findings import EMPTINESS, PERFECT_AUC, findings
from twin.fusion.models.early import Early
from twin.fusion.models.registry import default, model
from twin.fusion.protocol import Job, Judged, Settings, Split, Spread, Tell, fold_of, judge, one_thread, splits, walk
from twin.fusion.survival import concordance, heads
from twin.fusion.table import Table

DEFAULT = "default"
LEVEL = 0.90
OTHER = "the default with the other use of emptiness"
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)


def evaluate(table: Table, settings: Settings, tell: Tell, spread: Spread = map) -> dict[str, Any]:
    """Every figure of fusion.json. Raises InputError for a drop block that the study does not have.

    spread: how the folds and the other parts are gone through; a process pool's `map` gives the same figures.
    """
    if settings.drop is not None and settings.drop not in table.blocks:
        raise InputError("study", "evaluate.drop", f"{settings.drop!r} is not a block", f"known: {', '.join(table.blocks)}")
    with one_thread():
        return _evaluated(table, settings, tell, spread)


def _evaluated(table: Table, settings: Settings, tell: Tell, spread: Spread) -> dict[str, Any]:
    y, leakage, jobs = table.outcome, _leakage(table, settings), _jobs(table, settings)
    if leakage["auc_told_of_emptiness"] is not None:
        jobs[OTHER] = Job(
            default(table.blocks, "use" if table.emptiness == "report" else "report"), tuple(table.blocks), settings.few().repeats
        )
    found = judge(table, settings, jobs, tell, spread)
    named = [f"only {name}" for name in table.blocks] + list(settings.models)
    out_of_fold = {name: found.jobs[name] for name in named} | {DEFAULT: found.plain}
    drawn = dict(zip(out_of_fold, spread(partial(_figures, y), list(out_of_fold.values()))))
    figures = {name: found_for[0] for name, found_for in drawn.items()}
    best = max((name for name in figures if name.startswith("only ")), key=lambda name: float(str(figures[name]["auc"])))
    gains = {
        name: metrics.gain(y, p, out_of_fold[best], drawn[name][1], drawn[best][1])
        for name, p in out_of_fold.items()
        if not name.startswith("only ")
    }
    result: dict[str, Any] = {
        "patients": len(table),
        "events": int(y.sum()),
        "protocol": f"{settings.repeats} repeats of stratified {settings.folds}-fold, seed {settings.seed}",
        "models": figures,
        "best_single": best,
        "gains_over_best_single": gains,
        "chosen_by_default": found.chosen,
        "emptiness": table.emptiness,
        "calibration_curve": metrics.calibration_curve(y, found.plain[0]),
        "decision_curve": _decision(y, found.plain),
        "conformal": conformal(y, found.plain, settings),
        "missing": _missing(table, settings, found),
        "subgroups": _subgroups(table, found.plain),
        "attribution": {name: _drop_in_auc(y, found.plain[: len(p)], p) for name, p in found.permuted.items()},
        "stages": _stages(table, found),
        "next_test": _next_tests(table, found),
        "leakage": leakage | _by_emptiness(table, found),
        "notes": list(table.notes),
    }
    if table.site is not None and len(np.unique(table.site)) > 1:
        result["sites"] = site_shift(table, spread)
    if table.time is not None:
        result["survival"] = _survival(table, settings, spread)
    result["findings"] = findings(result)
    return result


def _figures(y: Array, p: Array) -> tuple[dict[str, object], Array]:
    """The figures of one model, and the bootstrap draws of its AUC."""
    draws = metrics.auc_draws(y, p, metrics.bootstrap_weights(len(y)))
    return metrics.summary(y, p, draws), draws


def _jobs(table: Table, settings: Settings) -> dict[str, Job]:
    """What is judged beside the default: every block alone, the models asked for, each stage, and each stage with one more test."""
    whole, few = tuple(table.blocks), settings.few().repeats
    jobs = {f"only {name}": Job(Early({name: block}), (name,), settings.repeats) for name, block in table.blocks.items()}
    jobs |= {name: Job(model(name, table.blocks), whole, settings.repeats) for name in settings.models}
    for known in _known_by_stage(table):
        jobs |= (
            {_stage(known): Job(default({name: table.blocks[name] for name in known}, table.emptiness), known, few)}
            if known != whole
            else {}
        )
        for names in _with_next(table, known) if known != whole else ():
            jobs[_next(names)] = Job(model("early", {name: table.blocks[name] for name in names}), names, few)
    return jobs


def _known_by_stage(table: Table) -> list[tuple[str, ...]]:
    """The blocks that are known after each stage."""
    return [tuple(name for name in table.blocks if table.stages[name] <= stage) for stage in sorted(set(table.stages.values()))]


def _with_next(table: Table, known: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What is known, alone and with each of the other blocks."""
    return [known, *((*known, name) for name in table.blocks if name not in known)]


def _stage(names: tuple[str, ...]) -> str:
    return "stage: " + ", ".join(names)


def _next(names: tuple[str, ...]) -> str:
    return "next: " + ", ".join(names)


def _mean_auc(y: Array, p: Array) -> float:
    return float(np.mean([metrics.auc(y, q) for q in p]))


def _drop_in_auc(y: Array, plain: Array, other: Array) -> float:
    return _mean_auc(y, plain) - _mean_auc(y, other)


def _missing(table: Table, settings: Settings, main: Judged) -> dict[str, Any]:
    """The default with each block missing everywhere, and with one missing in half of the rows."""
    y = table.outcome
    out: dict[str, Any] = {"everywhere": {name: _figures(y, p)[0] for name, p in main.emptied.items()}}
    if settings.drop is not None:
        half = main.drop_rows
        aucs = [metrics.auc(y[r], p[r]) for p, r in zip(main.dropped, half)]
        out["half"] = {
            "block": settings.drop,
            "auc": _mean_auc(y, main.dropped),
            "brier": float(((main.dropped - y) ** 2).mean()),
            "auc_dropped_rows": float(np.mean(aucs)),
            "brier_dropped_rows": float(np.mean([((p[r] - y[r]) ** 2).mean() for p, r in zip(main.dropped, half)])),
        }
    return out


def _decision(y: Array, p: Array) -> list[dict[str, float]]:
    """Net benefit of acting on the default, and on everybody, over thresholds."""
    ours = np.mean([metrics.net_benefit(y, q, THRESHOLDS) for q in p], axis=0)
    everybody = metrics.net_benefit(y, np.ones(len(y)), THRESHOLDS)
    return [{"threshold": float(t), "default": float(a), "everybody": float(b)} for t, a, b in zip(THRESHOLDS, ours, everybody)]


def conformal(y: Array, p: Array, settings: Settings) -> dict[str, float]:
    """Cross-conformal sets at LEVEL: each row against the scores of the others (Vovk, Ann Math Artif Intell 2015;74:9).

    Coverage, mean size, and the share of rows whose set does not decide.
    """
    hits, sizes = [], []
    for row in p:
        score = np.where(y == 1, 1 - row, row)
        rank = np.searchsorted(np.sort(score), [1 - row, row], side="left")
        # p-value of each class: share of scores at least as strange, the row itself counted
        value = (len(y) - rank + 1) / (len(y) + 1)
        inside = value > 1 - LEVEL
        hits.append(inside[0][y == 1].sum() + inside[1][y == 0].sum())
        sizes.append(inside.sum(axis=0))
    size = np.array(sizes)
    return {
        "level": LEVEL,
        "coverage": float(np.mean(hits) / len(y)),
        "mean_size": float(size.mean()),
        "undecided": float((size == 2).mean()),
    }


def _subgroups(table: Table, p: Array) -> dict[str, Any]:
    """Discrimination, errors at 0.5 and mean prediction by sex, age and site."""
    groups: dict[str, dict[str, NDArray[np.bool_]]] = {}
    if table.sex is not None:
        groups["sex"] = {f"{value:g}": table.sex == value for value in np.unique(table.sex[np.isfinite(table.sex)])}
    if table.age is not None:
        middle = float(np.nanmedian(table.age))
        groups["age"] = {f"under {middle:g}": table.age < middle, f"{middle:g} and over": table.age >= middle}
    if table.site is not None:
        groups["site"] = {str(value): table.site == value for value in np.unique(table.site)}
    return {
        kind: {name: _group(table.outcome, p, rows) for name, rows in parts.items() if rows.sum() >= 10} for kind, parts in groups.items()
    }


def _group(y: Array, p: Array, rows: NDArray[np.bool_]) -> dict[str, float | None]:
    events, others = rows & (y == 1), rows & (y == 0)
    both = events.any() and others.any()
    return {
        "n": float(rows.sum()),
        "prevalence": float(y[rows].mean()),
        "auc": _mean_auc(y[rows], p[:, rows]) if both else None,
        "sensitivity": float((p[:, events] >= 0.5).mean()) if events.any() else None,
        "false_positives": float((p[:, others] >= 0.5).mean()) if others.any() else None,
        "mean_prediction": float(p[:, rows].mean()),
    }


def _stages(table: Table, found: Judged) -> list[dict[str, Any]]:
    """The default on what is known after each stage, and what the next one is worth."""
    out: list[dict[str, Any]] = []
    before: float | None = None
    for stage, known in zip(sorted(set(table.stages.values())), _known_by_stage(table)):
        p = found.jobs[_stage(known)] if _stage(known) in found.jobs else found.plain[: len(next(iter(found.emptied.values())))]
        loss = float(-np.mean(np.log(np.clip(np.where(table.outcome == 1, p, 1 - p), 1e-6, 1.0))))
        row = {"stage": stage, "blocks": list(known), "auc": _mean_auc(table.outcome, p), "log_loss": loss}
        # information gained per patient, in bits: what the test was expected to add
        out.append({**row, "gained_bits": None if before is None else (before - loss) / np.log(2.0)})
        before = loss
    return out


def _next_tests(table: Table, found: Judged) -> list[dict[str, Any]]:
    """After each stage, what every block that is not known yet is expected to add if it is the next test.

    bits: mean gain in log loss per patient with its 95 % interval over patients; net_benefit: gain per 1000 patients when all above the
    prevalence are treated. By early fusion, out of fold: the order of the tests matters here, not the finest model.
    """
    y = table.outcome
    threshold = np.array([float(y.mean())])

    def judged(names: tuple[str, ...]) -> tuple[Array, float]:
        p = found.jobs[_next(names)]
        loss = -np.log2(np.clip(np.where(y == 1, p, 1 - p), 1e-6, 1.0)).mean(axis=0)
        return loss, float(np.mean([metrics.net_benefit(y, q, threshold)[0] for q in p]))

    out: list[dict[str, Any]] = []
    for known in _known_by_stage(table)[:-1]:
        loss, benefit = judged(known)
        for names in _with_next(table, known)[1:]:
            then, with_it = judged(names)
            gain = loss - then
            half = 1.96 * float(gain.std(ddof=1)) / np.sqrt(len(y))
            bits = float(gain.mean())
            row = {"known": list(known), "next": names[-1], "bits": bits, "interval": [bits - half, bits + half]}
            out.append({**row, "net_benefit_per_1000": 1000 * (with_it - benefit)})
    return out


def _leakage(table: Table, settings: Settings) -> dict[str, Any]:
    """Suspect columns and near-perfect predictors by name, what emptiness alone predicts, and rows that stand twice."""
    y = table.outcome
    columns = [c for block in table.blocks.values() for c in (*block.numeric, *block.log)]
    alone = {c: _alone(table.frame[c].to_numpy(float), y) for c in (*columns, *table.suspects)}
    flags = table.frame[[c for block in table.blocks.values() for c in block.plain]].isna()
    varied = [c for c in flags if 0 < flags[c].mean() < 1]
    emptiness = told = None
    if varied:
        block = Block("flags", numeric=tuple(varied))
        held = replace(table, frame=flags[varied].astype(float), blocks={"flags": block}, stages={"flags": 1})
        emptiness = _early_auc(held, settings)
        if emptiness > EMPTINESS:
            told = _with_flags(table, flags[varied], settings)
    without = _early_auc(table, settings) if table.suspects else None
    return {
        "suspects": {c: alone[c] for c in table.suspects},
        "auc_without_suspects": without,
        "auc_with_suspects": _with_suspects(table, settings) if table.suspects else None,
        "near_perfect": [c for c in columns if alone[c] >= PERFECT_AUC],
        "emptiness_auc": emptiness,
        "auc_told_of_emptiness": told,
        "rows_of_the_same_patient": int(len(table) - len(np.unique(table.group))) if len(table.group) else 0,
    }


def _by_emptiness(table: Table, found: Judged) -> dict[str, float | None]:
    """AUC of the default with and without the use of emptiness, on the same folds; None where emptiness hardly predicts."""
    if OTHER not in found.jobs:
        return {"auc_using_emptiness": None, "auc_without_emptiness": None}
    other = found.jobs[OTHER]
    pair = (_mean_auc(table.outcome, found.plain[: len(other)]), _mean_auc(table.outcome, other))
    using, without = pair[::-1] if table.emptiness == "report" else pair
    return {"auc_using_emptiness": using, "auc_without_emptiness": without}


def _with_flags(table: Table, flags: Any, settings: Settings) -> float:
    """AUC of early fusion when it is told which cells are empty."""
    named = flags.astype(float).add_prefix("empty: ")
    blocks = {**table.blocks, "flags": Block("flags", numeric=tuple(named.columns))}
    told = replace(table, frame=table.frame.join(named), blocks=blocks, stages={**table.stages, "flags": 1})
    return _early_auc(told, settings)


def _with_suspects(table: Table, settings: Settings) -> float:
    """AUC of early fusion when it is given what was kept out."""
    blocks = {**table.blocks, "suspects": Block("suspects", numeric=table.suspects)}
    return _early_auc(replace(table, blocks=blocks, stages={**table.stages, "suspects": 1}), settings)


def _early_auc(table: Table, settings: Settings) -> float:
    """AUC of early fusion of all blocks, out of fold."""
    made, few = Early(table.blocks), settings.few()
    out = np.zeros((few.repeats, len(table)))
    for fold in walk(table, few):
        out[fold.repeat, fold.test] = fold.judge(made, tuple(table.blocks))
    return _mean_auc(table.outcome, out)


def _alone(x: Array, y: Array) -> float:
    """AUC of one column by itself, whichever way it points; empty cells at its median."""
    filled = np.where(np.isfinite(x), x, np.nanmedian(x) if np.isfinite(x).any() else 0.0)
    value = metrics.auc(y, filled)
    return max(value, 1 - value)


def site_shift(table: Table, spread: Spread) -> dict[str, Any]:
    """Every site predicted by the default of the others, and by the default without each block that the site lacks."""
    tasks = list(_sites_left_out(table))
    out: dict[str, Any] = {}
    for (site, _, kept), found in zip(tasks, spread(partial(_elsewhere, table), tasks)):
        lacking = [name for name in table.blocks if name not in kept]
        if site not in out:
            out[site] = {"all": found, "lacks": []}
        else:
            out[site] |= {"lacks": lacking, "without_lacking_blocks": found}
    return out


def _sites_left_out(table: Table) -> Iterator[tuple[str, NDArray[np.bool_], tuple[str, ...]]]:
    """(site, its rows, blocks to use): all blocks, and where it lacks some, the others."""
    assert table.site is not None
    for site in np.unique(table.site):
        own = table.site == site
        if len(np.unique(table.outcome[own])) < 2 or len(np.unique(table.outcome[~own])) < 2:
            continue
        here = table.frame[own]
        kept = tuple(n for n, b in table.blocks.items() if here[list(b.columns)].isna().to_numpy().mean() <= 0.5)
        yield str(site), own, tuple(table.blocks)
        if 0 < len(kept) < len(table.blocks):
            yield str(site), own, kept


def _elsewhere(table: Table, task: tuple[str, NDArray[np.bool_], tuple[str, ...]]) -> dict[str, float]:
    """How the default of the other sites does at one site."""
    _, own, names = task
    with one_thread():
        fitted = default({name: table.blocks[name] for name in names}, table.emptiness).fit(table.frame[~own], table.outcome[~own])
        y, p = table.outcome[own], fitted.predict_proba(table.frame[own])[:, 1]
    slope = metrics.calibration(y, p)[1]
    return {
        "auc": metrics.auc(y, p),
        "brier": float(((p - y) ** 2).mean()),
        "calibration_slope": float(slope) if np.isfinite(slope) else 0.0,
        "observed": float(y.mean()),
        "predicted": float(p.mean()),
    }


def _survival(table: Table, settings: Settings, spread: Spread) -> dict[str, float]:
    """Concordance of each survival head, out of fold, mean over repeats."""
    assert table.time is not None
    time, risk, parts = table.time, dict[str, Array](), list(splits(table, settings))
    for (repeat, _, test), found in zip(parts, spread(partial(_survival_fold, table), parts)):
        for name, value in found.items():
            risk.setdefault(name, np.zeros((settings.repeats, len(table))))[repeat, test] = value
    return {name: float(np.mean([concordance(time, table.outcome, r) for r in p])) for name, p in risk.items()}


def _survival_fold(table: Table, split: Split) -> dict[str, Array]:
    """Risk of the test rows of one fold by each survival head."""
    assert table.time is not None
    with one_thread():
        fold = fold_of(table, split)
        return heads(fold.known, fold.new, table.time[fold.train], fold.outcome)
