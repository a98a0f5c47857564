"""The analysis that the protocol planned: endpoints, looks, subgroups, harms, power, sensitivity. The twin is the unit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from planners.trials.outcomes import Array, Outcomes, outcomes_of
from planners.trials.parameters import MEASURES, PARAMETERS
from planners.trials.statistics.looks import boundaries
from planners.trials.statistics.paired import over_posterior, paired_bootstrap
from planners.trials.statistics.proportions import (
    Pairs,
    holm,
    mcnemar_exact,
    mcnemar_power,
    mcnemar_sample_size,
    newcombe,
    non_inferior,
    wilson,
)
from planners.trials.statistics.sobol import surrogate_indices
from planners.trials.table import Table
from planners.trials.trial import OUTCOMES, Endpoint, Trial

POWER = 0.8
MOST_INPUTS = 6
FEWEST = 12
"""Twins below which no sensitivity is estimated."""


def analyse(table: Table, trial: Trial) -> dict[str, Any]:
    """Everything that the report says, as plain values."""
    data = outcomes_of(table, trial)
    primary = endpoint(data, trial.primary, trial)
    secondary = [endpoint(data, e, trial) for e in trial.secondary]
    tested = [e for e in secondary if e.get("p") is not None]
    for found, adjusted in zip(tested, holm([e["p"] for e in tested]) if tested else []):
        found["p_holm"] = float(adjusted)
    looks = looks_of(data, trial)
    primary |= _at_looks(primary, looks, trial)
    return {
        "headline": _headline(primary, trial, looks),
        "flow": _flow(data, trial),
        "baseline": _baseline(data),
        "primary": primary,
        "secondary": secondary,
        "looks": looks,
        "subgroups": _subgroups(data, trial),
        "harms": _harms(data, trial),
        "power": _power(primary, trial),
        "sensitivity": _sensitivity(data, trial),
        "failures": _failures(table),
    }


def endpoint(data: Outcomes, e: Endpoint, trial: Trial) -> dict[str, Any]:
    """One comparison: on the mode of each twin, and over its posterior samples."""
    first, second = data.pair(e.outcome, e.first, e.second)
    known = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0]) if len(first) else np.zeros(0, bool)
    found: dict[str, Any] = {**asdict(e), "label": OUTCOMES[e.outcome].label, "unit": OUTCOMES[e.outcome].unit}
    found |= {"n": int(known.sum()), "missing": int((~known).sum()), "kind": OUTCOMES[e.outcome].kind}
    if found["n"] < 2:
        return found | {"note": "fewer than two twins have a result in both arms"}
    if OUTCOMES[e.outcome].kind == "bool":
        found |= _binary(first[known, 0] > 0.5, second[known, 0] > 0.5, e, trial)
    else:
        found |= _continuous(first[known, 0], second[known, 0], e, trial)
    if trial.samples > 1:
        rng = np.random.default_rng([trial.seed, 3])
        both = (np.isfinite(first) & np.isfinite(second)).any(axis=1)
        estimate, share = over_posterior(first[both], second[both], rng, trial.analysis.bootstrap, 1.0 - trial.analysis.alpha)
        found["posterior"] = {**asdict(estimate), "samples": trial.samples, "share_of_variance": share}
    return found


def _binary(first: NDArray[np.bool_], second: NDArray[np.bool_], e: Endpoint, trial: Trial) -> dict[str, Any]:
    level = 1.0 - trial.analysis.alpha
    pairs = Pairs.of(first, second)
    low, high = newcombe(pairs, level)
    arms = [
        {
            "arm": name,
            "successes": int(v.sum()),
            "n": len(v),
            "value": float(v.mean()),
            "interval": list(wilson(int(v.sum()), len(v), level)),
        }
        for name, v in ((e.first, first), (e.second, second))
    ]
    found: dict[str, Any] = {"pairs": asdict(pairs), "arms": arms, "difference": pairs.difference, "interval": [low, high]}
    found |= {"p": mcnemar_exact(pairs), "test_name": "McNemar, exact; interval Newcombe"}
    if e.test == "non_inferiority":
        met, end = non_inferior(pairs, e.margin, trial.analysis.alpha / 2.0)
        found |= {"met": bool(met), "bound": float(end), "p": None, "p_difference": found["p"]}
    else:
        found["met"] = bool(found["p"] <= trial.analysis.alpha and pairs.difference > 0)
    return found


def _continuous(first: Array, second: Array, e: Endpoint, trial: Trial) -> dict[str, Any]:
    level = 1.0 - trial.analysis.alpha
    rng = np.random.default_rng([trial.seed, 2])
    estimate = paired_bootstrap(first, second, rng, trial.analysis.bootstrap, level)
    arms = [
        {"arm": name, "n": len(v), "value": float(v.mean()), "sd": float(v.std(ddof=1)), "median": float(np.median(v))}
        for name, v in ((e.first, first), (e.second, second))
    ]
    p = float(stats.wilcoxon(first, second).pvalue) if np.any(first != second) else 1.0
    sign = -1.0 if OUTCOMES[e.outcome].better == "lower" else 1.0
    found: dict[str, Any] = {"arms": arms, "difference": estimate.value, "interval": [estimate.low, estimate.high], "p": p}
    found["test_name"] = "Wilcoxon signed ranks; interval BCa bootstrap over twins"
    if e.test == "non_inferiority":
        worst = estimate.low if sign > 0 else -estimate.high
        found |= {"met": worst > -e.margin, "bound": sign * worst, "p": None, "p_difference": p}
    else:
        found["met"] = bool(p <= trial.analysis.alpha and sign * estimate.value > 0)
    return found


def _statistic(data: Outcomes, trial: Trial) -> float:
    """z of the primary endpoint: McNemar's for a binary one, the paired mean over its error otherwise; 0 where nothing differs."""
    first, second = data.pair(trial.primary.outcome, trial.primary.first, trial.primary.second)
    difference = first[:, 0] - second[:, 0]
    difference = difference[np.isfinite(difference)]
    if not np.any(difference):
        return 0.0
    if OUTCOMES[trial.primary.outcome].kind == "bool":
        return float(difference.sum() / math.sqrt(np.abs(difference).sum()))
    spread = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean() / spread) if spread > 0 else 0.0


def looks_of(data: Outcomes, trial: Trial) -> list[dict[str, Any]]:
    """Each look that has been reached: twins, statistic, boundary, whether it crosses."""
    total = trial.population.virtual or len(trial.population.cases)
    critical = boundaries(trial.analysis.looks, trial.analysis.alpha, trial.analysis.spending)
    out = []
    for share, limit in zip(trial.analysis.looks, critical):
        count = math.ceil(share * total)
        if len(data.twins) >= count:
            z = _statistic(data.head(count), trial)
            out.append({"share": share, "twins": count, "z": z, "boundary": float(limit), "crossed": bool(abs(z) >= limit)})
    return out


def _at_looks(primary: Mapping[str, Any], looks: Sequence[Mapping[str, Any]], trial: Trial) -> dict[str, Any]:
    """With several looks, superiority is met where the last look crosses its boundary the right way: alpha is spent over all of them."""
    if len(trial.analysis.looks) < 2 or trial.primary.test != "superiority" or "met" not in primary:
        return {}
    better = -1.0 if OUTCOMES[trial.primary.outcome].better == "lower" else 1.0
    return {"met": bool(looks) and looks[-1]["crossed"] and better * looks[-1]["z"] > 0.0}


def look_crossed(table: Table, trial: Trial, look: int) -> bool:
    """True if the results so far cross the boundary of a look (from 0)."""
    looks = looks_of(outcomes_of(table, trial), trial)
    return len(looks) > look and looks[look]["crossed"]


def _flow(data: Outcomes, trial: Trial) -> dict[str, Any]:
    states = Counter(t["state"] for t in data.all_twins)
    reasons = {
        state: dict(Counter(r for t in data.all_twins if t["state"] == state for r in t["reason"].split(", ")))
        for state in ("implausible", "excluded")
    }
    arms = []
    for arm in trial.arms:
        known = np.isfinite(data.values[arm.name, "non_inducible"])
        with_result = known.any(axis=1)
        arms.append(
            {
                "arm": arm.name,
                "title": arm.title or arm.name,
                "allocated": len(data.twins),
                "analysed": int(with_result.sum()),
                "missing": int((~with_result).sum()),
                "samples": int(known.sum()),
            }
        )
    return {
        "assessed": len(data.all_twins),
        **{s: states.get(s, 0) for s in ("enrolled", "implausible", "excluded", "failed")},
        "reasons": reasons,
        "arms": arms,
    }


def _baseline(data: Outcomes) -> list[dict[str, Any]]:
    """Each measure: of those enrolled and of those turned away, beside what is published."""
    rows = []
    for name, measure in MEASURES.items():
        groups = {}
        for group, members in (("enrolled", data.twins), ("turned_away", [t for t in data.all_twins if t["state"] != "enrolled"])):
            values = [t[name] for t in members if t[name] is not None]
            groups[group] = _summary(values, measure.kind)
        if groups["enrolled"]["n"] + groups["turned_away"]["n"] == 0:
            continue
        limit = measure.limit()
        published = None if limit is None else {"value": limit.value, "low": limit.low, "high": limit.high, "source": limit.source}
        rows.append({"name": name, "label": measure.label, "unit": measure.unit, "kind": measure.kind, **groups, "published": published})
    return rows


def _summary(values: Sequence[Any], kind: str) -> dict[str, Any]:
    if kind == "float":
        x = np.array(values, float)
        if not len(x):
            return {"n": 0}
        sd = float(x.std(ddof=1)) if len(x) > 1 else 0.0
        return {"n": len(x), "mean": float(x.mean()), "sd": sd, "low": float(x.min()), "high": float(x.max())}
    return {"n": len(values), "counts": {str(k): v for k, v in sorted(Counter(values).items(), key=lambda kv: str(kv[0]))}}


def _subgroups(data: Outcomes, trial: Trial) -> list[dict[str, Any]]:
    """The primary difference in each level of each planned subgroup."""
    e, level = trial.primary, 1.0 - trial.analysis.alpha
    first, second = data.pair(e.outcome, e.first, e.second)
    rows = []
    for name in trial.analysis.subgroups:
        for value in sorted({t[name] for t in data.twins if t[name] is not None}, key=str):
            inside = np.array([t[name] == value for t in data.twins])
            a, b = first[inside, 0], second[inside, 0]
            known = np.isfinite(a) & np.isfinite(b)
            a, b = a[known], b[known]
            row: dict[str, Any] = {"subgroup": MEASURES[name].label, "level": _word(value), "n": len(a)}
            if OUTCOMES[e.outcome].kind == "bool" and len(a):
                pairs = Pairs.of(a > 0.5, b > 0.5)
                row |= {"difference": pairs.difference, "interval": list(newcombe(pairs, level))}
            elif len(a) > 1:
                estimate = paired_bootstrap(a, b, np.random.default_rng([trial.seed, 4]), trial.analysis.bootstrap, level)
                row |= {"difference": estimate.value, "interval": [estimate.low, estimate.high]}
            rows.append(row)
    return rows


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _harms(data: Outcomes, trial: Trial) -> list[dict[str, Any]]:
    """What the lesions cost, per arm, on the mode of each twin."""
    rows = []
    for name, outcome in OUTCOMES.items():
        if outcome.harm:
            arms = {arm.name: _summary([v for v in data.values[arm.name, name][:, 0] if np.isfinite(v)], "float") for arm in trial.arms}
            rows.append({"name": name, "label": outcome.label, "unit": outcome.unit, "arms": arms})
    return rows


def _power(primary: Mapping[str, Any], trial: Trial) -> dict[str, Any] | None:
    """What a later trial would need, taking this one as its pilot; for a binary primary endpoint."""
    pairs = primary.get("pairs")
    if pairs is None:
        return None
    n, alpha = primary["n"], trial.analysis.alpha
    first, second = pairs["first_only"] / n, pairs["second_only"] / n
    found: dict[str, Any] = {"first_only": first, "second_only": second, "n": n, "target": POWER}
    if first + second > 0:
        found["power"] = mcnemar_power(n, first, second, alpha)
    try:
        found["needed"] = mcnemar_sample_size(first, second, POWER, alpha, 5000) if first + second > 0 else None
    except ValueError as error:
        found["note"] = str(error)
    return found


def _sensitivity(data: Outcomes, trial: Trial) -> list[dict[str, Any]]:
    """Sobol indices of a surrogate over the population's parameters: of the VT's cycle length, and of the primary difference."""
    if not trial.population.virtual:
        return []
    first, second = data.pair(trial.primary.outcome, trial.primary.first, trial.primary.second)
    cycle = np.array([np.nan if t["cycle_length_ms"] is None else t["cycle_length_ms"] for t in data.twins], float)
    with np.errstate(invalid="ignore"):
        effect = np.array([np.nan if not np.isfinite(r).any() else np.nanmean(r) for r in first - second], float)
    label = f"difference in {OUTCOMES[trial.primary.outcome].label}, {trial.primary.first} - {trial.primary.second}, mean over samples"
    return [_indices(data, "VT cycle length before treatment, ms", cycle), _indices(data, label, effect)]


def _indices(data: Outcomes, label: str, output: Array) -> dict[str, Any]:
    known = np.isfinite(output)
    n = int(known.sum())
    count = min(MOST_INPUTS, n // 4)
    if n < FEWEST or np.ptp(output[known]) == 0:
        return {"output": label, "n": n, "note": "too few twins, or all alike: no indices"}
    cube = np.array([[t[f"unit_{p.name}"] for p in PARAMETERS] for t in data.twins], float)[known]
    strength = np.array([abs(float(stats.spearmanr(cube[:, k], output[known]).statistic)) for k in range(cube.shape[1])])
    chosen = np.sort(np.argsort(-strength, kind="stable")[:count])
    found = surrogate_indices(cube[:, chosen], output[known])
    names = [PARAMETERS[k].name for k in chosen]
    trusted = found.q2 is not None and found.q2 >= 0.8
    return {
        "output": label,
        "n": n,
        "q2": found.q2,
        "trusted": trusted,
        "note": f"Gaussian process over the {count} parameters that go along with it most; enrolment makes the inputs not quite uniform",
        "inputs": [{"name": m, "first": float(a), "total": float(b)} for m, a, b in zip(names, found.first, found.total)],
    }


def _failures(table: Table) -> list[dict[str, Any]]:
    out = []
    for state in ("refused", "failed", "poison"):
        for entry in table.entries("twin", "arm", "toy_twin", "toy_arm", state=state):
            name = f"{entry.job.kind.removeprefix('toy_')} {entry.job.spec['candidate']}"
            out.append({"job": name, "key": entry.job.key, "state": state, "problem": entry.problem})
    return out


def _headline(primary: Mapping[str, Any], trial: Trial, looks: Sequence[Mapping[str, Any]]) -> str:
    if "difference" not in primary:
        return f"{primary['label']}: {primary['note']}."
    low, high = primary["interval"]
    level = f"{100 * (1 - trial.analysis.alpha):g} %"
    if primary["kind"] == "bool":
        a, b = primary["arms"]
        what = f"{a['successes']} of {a['n']} twins with {a['arm']} and {b['successes']} of {b['n']} with {b['arm']}"
        text = f"{primary['label'].capitalize()} in {what}: difference {100 * primary['difference']:.0f} percentage points"
        text += f" ({level} interval {100 * low:.0f} to {100 * high:.0f})"
    else:
        text = f"{primary['label'].capitalize()}: {primary['first']} - {primary['second']} = {primary['difference']:.3g} {primary['unit']}"
        text += f" ({level} interval {low:.3g} to {high:.3g})"
    if primary["test"] == "non_inferiority":
        return f"{text}; {'not inferior' if primary['met'] else 'non-inferiority was not shown'} at the margin of {primary['margin']:g}."
    p = primary["p"]
    text += f", p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}"
    if len(trial.analysis.looks) > 1 and looks:
        text += f"; the boundary of look {len(looks)} is {'crossed' if looks[-1]['crossed'] else 'not crossed'}"
    return f"{text}."
