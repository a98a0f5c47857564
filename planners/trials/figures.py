"""The pictures of a trial's report: flow, endpoints, forest, looks, distributions, sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from planners.trials.drawing import BLUE, GREEN, GROUND, INK, LINE, ORANGE, SERIES, SOFT, Axis, Drawing
from planners.trials.outcomes import Array, Outcomes
from planners.trials.parameters import MEASURES

WIDTH = 860.0


def _box(on: Drawing, x: float, y: float, width: float, lines: Sequence[str], fill: str = GROUND) -> float:
    """A box of centred text about x, its upper edge at y; returns its height."""
    height = 14 + 18 * len(lines)
    on.rect(x - width / 2, y, width, height, fill, LINE, 6)
    for k, line in enumerate(lines):
        on.text(x, y + 21 + 18 * k, line, 13, "middle", weight="600" if k == 0 else "normal")
    return height


def flow(found: Mapping[str, Any]) -> str:
    """The way of the candidates, as in a CONSORT diagram; every enrolled twin goes into every arm."""
    reasons = [("implausible", "not plausible"), ("excluded", "not meeting the inclusion rules"), ("failed", "could not be computed")]
    aside: list[str] = []
    for state, words in reasons:
        if found[state]:
            aside.append(f"{found[state]} {words}")
            for measure, count in found["reasons"].get(state, {}).items():
                label = MEASURES[measure].label if measure in MEASURES else measure
                aside.append(f"  {label}: {count}")
    arms = found["arms"]
    side = max(1, len(aside)) + 1
    height = 110 + 18 * side + 250
    on = Drawing(WIDTH, height, "Flow of candidates through the trial")
    middle = 300.0
    down = 10 + _box(on, middle, 10, 250, [f"{found['assessed']} candidates assessed"])
    turned = found["assessed"] - found["enrolled"]
    top = down + 24
    boxed = 14 + 18 * side
    on.rect(480, top, 360, boxed, "#ffffff", LINE, 6)
    on.text(494, top + 21, f"{turned} not enrolled", 13, weight="600")
    for k, line in enumerate(aside or ["-"]):
        on.text(
            494 + (14 if line.startswith("  ") else 0), top + 39 + 18 * k, line.strip(), 12.5, fill=SOFT if line.startswith("  ") else INK
        )
    after = top + boxed + 24
    on.arrow(middle, down, middle, after)
    on.arrow(middle, top + boxed / 2, 480, top + boxed / 2)
    bottom = after + _box(on, middle, after, 250, [f"{found['enrolled']} twins enrolled", "each gets every arm"], "#e8f1f8")
    step = WIDTH / len(arms)
    rail = bottom + 22
    on.line(middle, bottom, middle, rail, SOFT, 1.4)
    centres = [step * (k + 0.5) for k in range(len(arms))]
    on.line(min([*centres, middle]), rail, max([*centres, middle]), rail, SOFT, 1.4)
    for x, arm in zip(centres, arms):
        on.arrow(x, rail, x, rail + 24)
        lines = [arm["title"], f"{arm['analysed']} twins analysed", f"{arm['samples']} outcomes over posterior samples"]
        if arm["missing"]:
            lines.append(f"{arm['missing']} without a result")
        _box(on, x, rail + 24, min(step - 16, 270), lines)
    on.height = rail + 24 + 14 + 18 * 4 + 10
    return on.svg()


def proportions(found: Mapping[str, Any]) -> str:
    """Share of successes per arm with its Wilson interval, and how the pairs fell."""
    on = Drawing(WIDTH, 150, f"{found['label']} by arm")
    axis = Axis(0.0, 1.0, 190, 560)
    for k, arm in enumerate(found["arms"]):
        y = 30 + 38 * k
        on.text(180, y + 5, arm["arm"], 13, "end")
        on.rect(axis(0), y - 10, axis(arm["value"]) - axis(0), 20, SERIES[k], opacity=0.35)
        low, high = arm["interval"]
        on.line(axis(low), y, axis(high), y, SERIES[k], 2)
        on.dot(axis(arm["value"]), y, 5, SERIES[k], f"{arm['successes']} of {arm['n']}")
    axis.draw(on, 98, f"share of twins: {found['label']}", "{:.0%}")
    pairs = found["pairs"]
    for k, (words, count) in enumerate(
        (
            ("both arms", pairs["both"]),
            (f"{found['first']} only", pairs["first_only"]),
            (f"{found['second']} only", pairs["second_only"]),
            ("neither", pairs["neither"]),
        )
    ):
        on.text(610, 26 + 22 * k, str(count), 15, "end", weight="600")
        on.text(620, 26 + 22 * k, words, 13, fill=SOFT)
    return on.svg()


def paired(found: Mapping[str, Any], first: Array, second: Array, names: Sequence[str]) -> str:
    """Every twin's value in both arms, joined."""
    known = np.isfinite(first) & np.isfinite(second)
    both = np.concatenate([first[known], second[known]])
    low, high = float(min(both.min(), 0.0)), float(both.max())
    axis = Axis(low, high + 0.02 * (high - low) if high > low else low + 1.0, 190, 820)
    on = Drawing(WIDTH, 170, f"{found['label']} by arm, each twin joined")
    for a, b, name in zip(first[known], second[known], [n for n, k in zip(names, known) if k]):
        on.line(axis(a), 36, axis(b), 96, "#9a9aa5", 0.8)
        on.dot(axis(a), 36, 4, SERIES[0], f"{name}: {a:.3g}", 0.75)
        on.dot(axis(b), 96, 4, SERIES[1], f"{name}: {b:.3g}", 0.75)
    for y, arm in ((36, found["arms"][0]), (96, found["arms"][1])):
        on.text(180, y + 5, arm["arm"], 13, "end")
        on.line(axis(arm["value"]), y - 13, axis(arm["value"]), y + 13, INK, 2.5)
    axis.draw(on, 120, f"{found['label']}{', ' + found['unit'] if found['unit'] else ''} (bars: means)")
    return on.svg()


def forest(primary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Difference of the primary endpoint in all twins and in each subgroup."""
    shown: list[Mapping[str, Any]] = [
        {"subgroup": "All twins", "level": "", "n": primary["n"], **{k: primary[k] for k in ("difference", "interval")}}
    ]
    shown += [r for r in rows if "difference" in r]
    ends = [v for r in shown for v in r["interval"]]
    binary = primary["kind"] == "bool"
    low, high = (-1.0, 1.0) if binary else (min([*ends, 0.0]), max([*ends, 0.0]))
    axis = Axis(low, high, 330, 700)
    height = 40 + 26 * len(shown) + 56
    on = Drawing(WIDTH, height, "Forest plot of the primary endpoint by subgroup")
    on.text(10, 20, "Subgroup", 12, fill=SOFT)
    on.text(300, 20, "twins", 12, "end", SOFT)
    on.text(850, 20, "difference (interval)", 12, "end", SOFT)
    on.line(axis(0), 28, axis(0), height - 50, SOFT, 1, "4 3")
    for k, row in enumerate(shown):
        y = 46 + 26 * k
        name = row["subgroup"] if not row["level"] else f"{row['subgroup']}: {row['level']}"
        on.text(10, y + 4, name, 13, weight="600" if k == 0 else "normal")
        on.text(300, y + 4, str(row["n"]), 13, "end")
        a, b = row["interval"]
        on.line(axis(a), y, axis(b), y, BLUE, 1.8)
        size = 3.5 + 5.0 * (row["n"] / max(primary["n"], 1)) ** 0.5
        on.rect(axis(row["difference"]) - size / 2, y - size / 2, size, size, ORANGE if k == 0 else BLUE)
        scale = 100.0 if binary else 1.0
        on.text(850, y + 4, f"{scale * row['difference']:.3g} ({scale * a:.3g} to {scale * b:.3g})", 12, "end")
    axis.draw(on, height - 48, f"{primary['first']} - {primary['second']}", "{:+.0%}" if binary else "{:g}")
    return on.svg()


def looks(found: Sequence[Mapping[str, Any]]) -> str:
    """Statistic of the primary endpoint at each look against its boundary."""
    if not found:
        return ""
    top = max(abs(v) for k in found for v in (k["z"], k["boundary"])) * 1.15
    on = Drawing(WIDTH, 210, "Sequential looks")
    axis = Axis(0.0, 1.0, 70, 620)

    def y(z: float) -> float:
        return 90.0 - 75.0 * z / top

    on.line(70, y(0), 620, y(0), LINE)
    for sign in (1.0, -1.0):
        points = [(axis(k["share"]), y(sign * k["boundary"])) for k in found]
        for (x1, y1), (x2, y2) in pairwise(points):
            on.line(x1, y1, x2, y2, ORANGE, 1.6, "5 3")
        for px, py in points:
            on.line(px - 7, py, px + 7, py, ORANGE, 2.4)
    for k in found:
        on.dot(axis(k["share"]), y(k["z"]), 5, BLUE, f"z = {k['z']:.2f}")
        on.text(axis(k["share"]) + 9, y(k["z"]) + 4, f"{k['z']:.2f}", 12)
    for tick in (-top / 1.15, 0.0, top / 1.15):
        on.text(60, y(tick) + 4, f"{tick:.1f}", 11, "end", SOFT)
    axis.draw(on, 170, "share of the planned twins", "{:.0%}")
    on.text(650, 60, "statistic", 13, fill=BLUE)
    on.text(650, 80, "boundary", 13, fill=ORANGE)
    return on.svg()


def distribution(data: Outcomes, row: Mapping[str, Any]) -> str:
    """Histogram of a measure among the enrolled and those turned away, over the published range."""
    name = row["name"]
    groups = [
        [t[name] for t in data.twins if t[name] is not None],
        [t[name] for t in data.all_twins if t["state"] != "enrolled" and t[name] is not None],
    ]
    everything = [*groups[0], *groups[1]]
    published = row["published"]
    low, high = min([*everything, published["low"]]), max([*everything, published["high"]])
    axis = Axis(low, high, 20, 390)
    on = Drawing(410, 150, f"{row['label']}: distribution against the literature")
    on.rect(axis(published["low"]), 12, axis(published["high"]) - axis(published["low"]), 92, GREEN, opacity=0.10)
    on.line(axis(published["value"]), 12, axis(published["value"]), 104, GREEN, 1.5, "4 3")
    edges = np.linspace(low, high, 19)
    counts = [np.histogram(g, edges)[0] for g in groups]
    most = max(1, int((counts[0] + counts[1]).max()))
    for k in range(18):
        x, width = axis(edges[k]), axis(edges[k + 1]) - axis(edges[k]) - 1
        first, second = 88.0 * counts[0][k] / most, 88.0 * counts[1][k] / most
        on.rect(x, 104 - first, width, first, BLUE, opacity=0.8)
        on.rect(x, 104 - first - second, width, second, "#9a9aa5", opacity=0.7)
    axis.draw(on, 106, f"{row['label']}{', ' + row['unit'] if row['unit'] else ''}")
    return on.svg()


def sensitivity(found: Mapping[str, Any]) -> str:
    """First-order and total indices of each input."""
    inputs = sorted(found["inputs"], key=lambda i: -i["total"])
    on = Drawing(WIDTH, 20 + 30 * len(inputs) + 46, f"Sobol indices: {found['output']}")
    axis = Axis(0.0, max(1.0, *(i["total"] for i in inputs)), 220, 700)
    for k, item in enumerate(inputs):
        y = 14 + 30 * k
        on.text(210, y + 14, item["name"].replace("_", " "), 12.5, "end")
        on.rect(axis(0), y, axis(item["total"]) - axis(0), 9, ORANGE, opacity=0.75)
        on.rect(axis(0), y + 10, axis(item["first"]) - axis(0), 9, BLUE, opacity=0.85)
    axis.draw(on, 20 + 30 * len(inputs), "share of variance")
    on.text(730, 24, "total", 13, fill=ORANGE)
    on.text(730, 44, "first order", 13, fill=BLUE)
    return on.svg()
