"""Evaluation of fusion models on one table: nested, repeated, and honest about what is missing, shifted, leaking or unfair.

Outer folds are stratified and repeated; the default chooses inside the training rows. Intervals are percentile bootstraps over patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.fusion import metrics
from twin.fusion.blocks import Array, Block, Encoder
from twin.fusion.models.base import FusionModel
from twin.fusion.models.early import Early
from twin.fusion.models.registry import default, model
from twin.fusion.survival import concordance, heads
from twin.fusion.table import Table

DEFAULT = "default"
STAGED_REPEATS = 1
LEVEL = 0.90
SENSITIVITY_GAP = 0.10
EMPTINESS = 0.60
PERFECT_AUC = 0.98
SLOPE = (0.8, 1.25)
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a table is evaluated; drop: the block that is emptied in half of the test rows."""

    repeats: int = 10
    folds: int = 5
    seed: int = 0
    models: tuple[str, ...] = ("early", "late_mean", "late_stack")
    drop: str | None = None


def evaluate(table: Table, settings: Settings, tell: Tell) -> dict[str, Any]:
    """Every figure of fusion.json. Raises InputError for a drop block that the study does not have."""
    if settings.drop is not None and settings.drop not in table.blocks:
        raise InputError("study", "evaluate.drop", f"{settings.drop!r} is not a block", f"known: {', '.join(table.blocks)}")
    y, weight = table.outcome, metrics.bootstrap_weights(len(table))
    out_of_fold = {f"only {name}": _out_of_fold(Early({name: block}), table, settings, tell, name) for name, block in table.blocks.items()}
    for name in settings.models:
        out_of_fold[name] = _out_of_fold(model(name, table.blocks), table, settings, tell, name)
    main = _default(table, settings, tell)
    out_of_fold[DEFAULT] = main.plain
    figures = {name: metrics.summary(y, p, weight) for name, p in out_of_fold.items()}
    best = max((name for name in figures if name.startswith("only ")), key=lambda name: float(str(figures[name]["auc"])))
    gains = {name: metrics.gain(y, p, out_of_fold[best], weight) for name, p in out_of_fold.items() if not name.startswith("only ")}
    result: dict[str, Any] = {
        "patients": len(table),
        "events": int(y.sum()),
        "protocol": f"{settings.repeats} repeats of stratified {settings.folds}-fold, seed {settings.seed}",
        "models": figures,
        "best_single": best,
        "gains_over_best_single": gains,
        "chosen_by_default": main.chosen,
        "calibration_curve": metrics.calibration_curve(y, main.plain[0]),
        "decision_curve": _decision(y, main.plain),
        "conformal": conformal(y, main.plain, settings),
        "missing": _missing(table, main, weight),
        "subgroups": _subgroups(table, main.plain),
        "attribution": {name: _drop_in_auc(y, main.plain[: len(p)], p) for name, p in main.permuted.items()},
        "stages": _stages(table, settings, tell),
        "next_test": next_tests(table, settings),
        "leakage": _leakage(table, settings),
        "notes": list(table.notes),
    }
    if table.site is not None and len(np.unique(table.site)) > 1:
        result["sites"] = site_shift(table, tell)
    if table.time is not None:
        result["survival"] = _survival(table, settings)
    result["findings"] = findings(result)
    return result


def _folds(table: Table, settings: Settings) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """(repeat, training rows, test rows); rows of one patient stay together."""
    from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedGroupKFold

    grouped = len(np.unique(table.group)) < len(table) if len(table.group) else False
    blank = np.zeros(len(table))
    if not grouped:
        splits = RepeatedStratifiedKFold(n_splits=settings.folds, n_repeats=settings.repeats, random_state=settings.seed)
        for k, (train, test) in enumerate(splits.split(blank, table.outcome)):
            yield k // settings.folds, train, test
        return
    for repeat in range(settings.repeats):
        parts = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed + repeat)
        for train, test in parts.split(blank, table.outcome, table.group):
            yield repeat, train, test


def _out_of_fold(made: FusionModel, table: Table, settings: Settings, tell: Tell, name: str) -> Array:
    """Probabilities (repeats, n) of rows that the model was not fitted to."""
    from sklearn.base import clone

    tell(f"{name} ...")
    out = np.zeros((settings.repeats, len(table)))
    for repeat, train, test in _folds(table, settings):
        fitted = clone(made).fit(table.frame.iloc[train], table.outcome[train])
        out[repeat, test] = fitted.predict_proba(table.frame.iloc[test])[:, 1]
    return out


@dataclass(frozen=True)
class _Default:
    """Out-of-fold probabilities of the default: as the rows are, with each block emptied, with each block shuffled, with the drop."""

    plain: Array
    emptied: Mapping[str, Array]
    permuted: Mapping[str, Array]
    dropped: Array | None
    drop_rows: NDArray[np.bool_]
    drop: str | None
    chosen: dict[str, int]


def _default(table: Table, settings: Settings, tell: Tell) -> _Default:
    tell("the default, nested ...")
    rng = np.random.default_rng(settings.seed)
    rows = rng.random((settings.repeats, len(table))) < 0.5
    shape, few = (settings.repeats, len(table)), (min(STAGED_REPEATS, settings.repeats), len(table))
    plain, dropped = np.zeros(shape), np.zeros(shape)
    emptied = {name: np.zeros(few) for name in table.blocks}
    permuted = {name: np.zeros(few) for name in table.blocks}
    chosen: dict[str, int] = {}
    for repeat, train, test in _folds(table, settings):
        fitted = default(table.blocks).fit(table.frame.iloc[train], table.outcome[train])
        chosen[fitted.chosen_] = chosen.get(fitted.chosen_, 0) + 1
        frame = table.frame.iloc[test]
        plain[repeat, test] = fitted.predict_proba(frame)[:, 1]
        for name, block in table.blocks.items() if repeat < few[0] else ():
            emptied[name][repeat, test] = fitted.predict_proba(_emptied(frame, block, np.ones(len(test), bool)))[:, 1]
            permuted[name][repeat, test] = fitted.predict_proba(_shuffled(frame, block, rng))[:, 1]
        if settings.drop is not None:
            part = _emptied(frame, table.blocks[settings.drop], rows[repeat, test])
            dropped[repeat, test] = fitted.predict_proba(part)[:, 1]
    return _Default(plain, emptied, permuted, dropped if settings.drop else None, rows, settings.drop, chosen)


def _emptied(frame: Any, block: Block, rows: NDArray[np.bool_]) -> Any:
    out = frame.copy()
    out.loc[out.index[rows], list(block.columns)] = np.nan
    return out


def _shuffled(frame: Any, block: Block, rng: np.random.Generator) -> Any:
    out = frame.copy()
    out[list(block.columns)] = frame[list(block.columns)].to_numpy()[rng.permutation(len(frame))]
    return out


def _mean_auc(y: Array, p: Array) -> float:
    return float(np.mean([metrics.auc(y, q) for q in p]))


def _drop_in_auc(y: Array, plain: Array, other: Array) -> float:
    return _mean_auc(y, plain) - _mean_auc(y, other)


def _missing(table: Table, main: _Default, weight: Array) -> dict[str, Any]:
    """The default with each block missing everywhere, and with one missing in half of the rows."""
    y = table.outcome
    out: dict[str, Any] = {"everywhere": {name: metrics.summary(y, p, weight) for name, p in main.emptied.items()}}
    if main.dropped is not None:
        half = main.drop_rows
        aucs = [metrics.auc(y[r], p[r]) for p, r in zip(main.dropped, half)]
        out["half"] = {
            "block": main.drop,
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


def _stages(table: Table, settings: Settings, tell: Tell) -> list[dict[str, Any]]:
    """The default on what is known after each stage, and what the next one is worth."""
    few = replace(settings, repeats=min(STAGED_REPEATS, settings.repeats))
    out: list[dict[str, Any]] = []
    before: float | None = None
    for stage in sorted(set(table.stages.values())):
        known = {name: block for name, block in table.blocks.items() if table.stages[name] <= stage}
        p = _out_of_fold(default(known), replace_blocks(table, known), few, tell, f"stage {stage}")
        loss = float(-np.mean(np.log(np.clip(np.where(table.outcome == 1, p, 1 - p), 1e-6, 1.0))))
        found = {"stage": stage, "blocks": list(known), "auc": _mean_auc(table.outcome, p), "log_loss": loss}
        # information gained per patient, in bits: what the test was expected to add
        out.append({**found, "gained_bits": None if before is None else (before - loss) / np.log(2.0)})
        before = loss
    return out


def next_tests(table: Table, settings: Settings) -> list[dict[str, Any]]:
    """After each stage, what every block that is not known yet is expected to add if it is the next test.

    bits: mean gain in log loss per patient with its 95 % interval over patients; net_benefit: gain per 1000 patients when all above the
    prevalence are treated. By early fusion, out of fold: the order of the tests matters here, not the finest model.
    """
    few, y = replace(settings, repeats=min(STAGED_REPEATS, settings.repeats)), table.outcome
    threshold = np.array([float(y.mean())])

    def judged(blocks: Mapping[str, Block]) -> tuple[Array, float]:
        p = _out_of_fold(model("early", blocks), replace_blocks(table, blocks), few, lambda line: None, "")
        loss = -np.log2(np.clip(np.where(y == 1, p, 1 - p), 1e-6, 1.0)).mean(axis=0)
        return loss, float(np.mean([metrics.net_benefit(y, q, threshold)[0] for q in p]))

    out: list[dict[str, Any]] = []
    for stage in sorted(set(table.stages.values()))[:-1]:
        known = {name: block for name, block in table.blocks.items() if table.stages[name] <= stage}
        loss, benefit = judged(known)
        for name in (name for name in table.blocks if name not in known):
            then, with_it = judged({**known, name: table.blocks[name]})
            gain = loss - then
            half = 1.96 * float(gain.std(ddof=1)) / np.sqrt(len(y))
            bits = float(gain.mean())
            row = {"known": list(known), "next": name, "bits": bits, "interval": [bits - half, bits + half]}
            out.append({**row, "net_benefit_per_1000": 1000 * (with_it - benefit)})
    return out


def replace_blocks(table: Table, blocks: Mapping[str, Block]) -> Table:
    """The same patients with some of the blocks."""
    return replace(table, blocks=blocks, stages={name: table.stages[name] for name in blocks})


def _leakage(table: Table, settings: Settings) -> dict[str, Any]:
    """Suspect columns and near-perfect predictors by name, what emptiness alone predicts, and rows that stand twice."""
    y = table.outcome
    columns = [c for block in table.blocks.values() for c in (*block.numeric, *block.log)]
    alone = {c: _alone(table.frame[c].to_numpy(float), y) for c in (*columns, *table.suspects)}
    flags = table.frame[[c for block in table.blocks.values() for c in block.columns]].isna()
    varied = [c for c in flags if 0 < flags[c].mean() < 1]
    emptiness = with_flags = None
    if varied:
        block = Block("flags", numeric=tuple(varied))
        held = replace(table, frame=flags[varied].astype(float), blocks={"flags": block}, stages={"flags": 1})
        few = replace(settings, repeats=min(STAGED_REPEATS, settings.repeats))
        emptiness = _mean_auc(y, _out_of_fold(Early({"flags": block}), held, few, lambda line: None, "flags"))
        if emptiness > EMPTINESS:
            with_flags = _with_flags(table, flags[varied], few)
    return {
        "suspects": {c: alone[c] for c in table.suspects},
        "near_perfect": [c for c in columns if alone[c] >= PERFECT_AUC],
        "emptiness_auc": emptiness,
        "auc_with_emptiness": with_flags,
        "rows_of_the_same_patient": int(len(table) - len(np.unique(table.group))) if len(table.group) else 0,
    }


def _with_flags(table: Table, flags: Any, settings: Settings) -> float:
    """AUC of early fusion when it is told which cells are empty."""
    named = flags.astype(float).add_prefix("empty: ")
    blocks = {**table.blocks, "flags": Block("flags", numeric=tuple(named.columns))}
    told = replace(table, frame=table.frame.join(named), blocks=blocks, stages={**table.stages, "flags": 1})
    return _mean_auc(table.outcome, _out_of_fold(Early(blocks), told, settings, lambda line: None, "flags"))


def _alone(x: Array, y: Array) -> float:
    """AUC of one column by itself, whichever way it points; empty cells at its median."""
    filled = np.where(np.isfinite(x), x, np.nanmedian(x) if np.isfinite(x).any() else 0.0)
    value = metrics.auc(y, filled)
    return max(value, 1 - value)


def site_shift(table: Table, tell: Tell) -> dict[str, Any]:
    """Every site predicted by the default of the others, and by the default without each block that the site lacks."""
    assert table.site is not None
    out: dict[str, Any] = {}
    for site in np.unique(table.site):
        tell(f"site {site} left out ...")
        test = np.flatnonzero(table.site == site)
        train = np.flatnonzero(table.site != site)
        y = table.outcome[test]
        if len(np.unique(y)) < 2 or len(np.unique(table.outcome[train])) < 2:
            continue
        lacking = [n for n, b in table.blocks.items() if table.frame.iloc[test][list(b.columns)].isna().to_numpy().mean() > 0.5]
        kept = {n: b for n, b in table.blocks.items() if n not in lacking}
        row = {"all": _elsewhere(table.blocks, table, train, test), "lacks": lacking}
        if lacking and kept:
            row["without_lacking_blocks"] = _elsewhere(kept, table, train, test)
        out[str(site)] = row
    return out


def _elsewhere(blocks: Mapping[str, Block], table: Table, train: NDArray[Any], test: NDArray[Any]) -> dict[str, float]:
    y = table.outcome[test]
    p = default(blocks).fit(table.frame.iloc[train], table.outcome[train]).predict_proba(table.frame.iloc[test])[:, 1]
    slope = metrics.calibration(y, p)[1]
    return {
        "auc": metrics.auc(y, p),
        "brier": float(((p - y) ** 2).mean()),
        "calibration_slope": float(slope) if np.isfinite(slope) else 0.0,
        "observed": float(y.mean()),
        "predicted": float(p.mean()),
    }


def _survival(table: Table, settings: Settings) -> dict[str, float]:
    """Concordance of each survival head, out of fold, mean over repeats."""
    assert table.time is not None
    risk: dict[str, Array] = {}
    for repeat, train, test in _folds(table, settings):
        encoder = Encoder(table.blocks).fit(table.frame.iloc[train])
        known, new = (encoder.transform(table.frame.iloc[rows]) for rows in (train, test))
        for name, value in heads(known, new, table.time[train], table.outcome[train]).items():
            risk.setdefault(name, np.zeros((settings.repeats, len(table))))[repeat, test] = value
    return {name: float(np.mean([concordance(table.time, table.outcome, r) for r in p])) for name, p in risk.items()}


def findings(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the figures, one sentence each."""
    out: list[str] = []
    main, gain = result["models"][DEFAULT], result["gains_over_best_single"][DEFAULT]
    low, high = gain["interval"]
    verdict = "is better than" if low > 0 else "cannot be told from" if high > 0 else "is worse than"
    out.append(
        f"The default {verdict} the best single block ({result['best_single'][5:]}): AUC {gain['value']:+.3f} ({low:+.3f} to {high:+.3f})."
    )
    slope = main["calibration_slope"]
    if slope is not None and not SLOPE[0] <= slope <= SLOPE[1]:
        out.append(f"The default is badly calibrated here (slope {slope:.2f}).")
    for name, figures in result["models"].items():
        other = figures["calibration_slope"]
        if (
            name in result["gains_over_best_single"]
            and name != DEFAULT
            and other is not None
            and other > 1.5
            and figures["auc"] >= main["auc"] - 0.01
        ):
            out.append(f"{name} ranks as well but its probabilities are wrong (slope {other:.1f}): not for decisions.")
    emptiness = result["leakage"]["emptiness_auc"]
    if emptiness is not None and emptiness > EMPTINESS:
        told = result["leakage"]["auc_with_emptiness"]
        out.append(
            f"Which cells are empty predicts the outcome by itself (AUC {emptiness:.2f}): care, not biology, may be what is learnt. "
            f"The default sees values, and emptiness only where a block is missing; told of every empty cell, early fusion has {told:.3f}."
        )
    for column, value in result["leakage"]["suspects"].items():
        out.append(f"{column} was kept out: it may follow from the outcome or treat it (AUC alone {value:.2f}).")
    out += [f"{column} predicts the outcome almost perfectly by itself: is it the outcome?" for column in result["leakage"]["near_perfect"]]
    for kind, parts in result["subgroups"].items():
        found = {name: g["sensitivity"] for name, g in parts.items() if g["sensitivity"] is not None}
        if kind != "site" and len(found) > 1 and max(found.values()) - min(found.values()) > SENSITIVITY_GAP:
            worst = min(found, key=lambda name: found[name])
            out.append(f"Sensitivity differs by {kind}: {found[worst]:.2f} in {kind} {worst}, {max(found.values()):.2f} elsewhere.")
    for site, row in result.get("sites", {}).items():
        if not SLOPE[0] <= row["all"]["calibration_slope"] <= SLOPE[1] or abs(row["all"]["observed"] - row["all"]["predicted"]) > 0.1:
            text = f"observed {row['all']['observed']:.2f}, predicted {row['all']['predicted']:.2f}"
            out.append(f"At site {site} the others' model is off ({text}): recalibrate on some of its own patients first.")
    return out
