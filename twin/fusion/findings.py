"""What a reader of a fusion report must know before the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SENSITIVITY_GAP = 0.10
EMPTINESS = 0.60
PERFECT_AUC = 0.98
TELLING = 0.58
LEAK_GAIN = 0.01
SLOPE = (0.8, 1.25)
MISLED = 0.25
"""Share by which the mean prediction may be off when a block is emptied in all rows."""


def findings(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the figures, one sentence each."""
    out: list[str] = []
    main, gain = result["models"]["default"], result["gains_over_best_single"]["default"]
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
            and name != "default"
            and other is not None
            and other > 1.5
            and figures["auc"] >= main["auc"] - 0.01
        ):
            out.append(f"{name} ranks as well but its probabilities are wrong (slope {other:.1f}): not for decisions.")
    out += _about_emptiness(result)
    out += _about_suspects(result["leakage"])
    out += [f"{column} predicts the outcome almost perfectly by itself: is it the outcome?" for column in result["leakage"]["near_perfect"]]
    return [*out, *_about_groups(result)]


def _about_suspects(leakage: Mapping[str, Any]) -> list[str]:
    """What was kept out because it may answer the outcome, and what it would have gained."""
    suspects = leakage["suspects"]
    telling = [column for column, value in suspects.items() if value >= TELLING]
    out = [f"{column} was kept out: it may follow from the outcome or treat it (AUC alone {suspects[column]:.2f})." for column in telling]
    if others := [column for column in suspects if column not in telling]:
        out.append(f"Kept out for the same reason: {', '.join(others)}.")
    without, with_them = leakage["auc_without_suspects"], leakage["auc_with_suspects"]
    if with_them is not None and with_them > without + LEAK_GAIN:
        out.append(f"With what was kept out early fusion would have AUC {with_them:.3f} in place of {without:.3f}: it does not count.")
    return out


def _about_emptiness(result: Mapping[str, Any]) -> list[str]:
    """Whether empty cells predict, whether the default uses that, and what happens if a block is empty for another reason."""
    leakage = result["leakage"]
    if leakage["auc_told_of_emptiness"] is None:
        return []
    using, without = leakage["auc_using_emptiness"], leakage["auc_without_emptiness"]
    uses = {
        "use": f'The default may use it and has AUC {using:.3f}; without it ([fusion] emptiness = "report") {without:.3f}',
        "cells": f'The default may use it within blocks and has AUC {using:.3f}; without it ([fusion] emptiness = "report") {without:.3f}',
        "report": f'The default does not use it and has AUC {without:.3f}; with it ([fusion] emptiness = "use") {using:.3f}',
    }[result["emptiness"]]
    out = [
        f"Which cells are empty predicts the outcome by itself (AUC {leakage['emptiness_auc']:.2f}): care, not biology, may be what is "
        f"learnt. {uses}; told of every empty cell, early fusion has {leakage['auc_told_of_emptiness']:.3f}."
    ]
    observed = result["events"] / result["patients"]
    for name, row in result["missing"]["everywhere"].items():
        if result["emptiness"] == "use" and abs(row["mean_prediction"] - observed) > MISLED * observed:
            out.append(
                f"Where {name} is missing for another reason than in these patients the default is misled: with it emptied in all, "
                f"{row['mean_prediction']:.2f} predicted, {observed:.2f} observed."
            )
    return out


def _about_groups(result: Mapping[str, Any]) -> list[str]:
    """Which group is missed more often, and at which site the model is off."""
    out = []
    for kind, parts in result["subgroups"].items():
        found = {name: g["sensitivity"] for name, g in parts.items() if g["sensitivity"] is not None}
        if kind != "site" and len(found) > 1 and max(found.values()) - min(found.values()) > SENSITIVITY_GAP:
            worst = min(found, key=lambda name: found[name])
            out.append(f"Sensitivity differs by {kind}: {found[worst]:.2f} in {kind} {worst}, {max(found.values()):.2f} elsewhere.")
    for site, row in result.get("sites", {}).items():
        if not SLOPE[0] <= row["all"]["calibration_slope"] <= SLOPE[1] or abs(row["all"]["observed"] - row["all"]["predicted"]) > 0.1:
            one = row["all"]
            text = f"observed {one['observed']:.2f}, predicted {one['predicted']:.2f}, slope {one['calibration_slope']:.2f}"
            out.append(f"At site {site} the others' model is off ({text}): recalibrate on some of its own patients first.")
    return out
