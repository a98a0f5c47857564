"""`summary.pdf`: the plan on three sheets of A4 for a folder or a wall, drawn by matplotlib; equal plans give equal bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from planners.circuits.likeness import STEP_MS
from planners.report import charts, pictures, summary
from planners.report.story import Story
from twin.atomic import write_bytes
from twin.plan import Target

A4_IN = (8.27, 11.69)
INK, SOFT = "#1b1b1f", "#55555f"
LEFT, RIGHT, BOTTOM = 0.07, 0.93, 0.05
ELSEWHERE = "report.html"
"""Where the reader finds what had no room on a sheet."""

NOTICE = "Research software. Not a medical device; not for decisions about patients."


class _Sheet:
    """One page that is filled from the top; `y` is where the next line goes, as a share of the page's height."""

    def __init__(self, title: str, story: Story, number: int) -> None:
        from matplotlib.figure import Figure

        self.figure: Any = Figure(figsize=A4_IN)
        self.y = 0.965
        virtual = f" Virtual: {', '.join(story.virtual)}." if story.virtual else ""
        self.text(NOTICE + virtual, 8, colour="#7a5600", weight="bold")
        self.text(title, 15, weight="bold", gap=0.006)
        stages = story.plan.run.get("stages", {})
        made = f"vtwin {story.plan.run.get('versions', {}).get('vtwin', '')}, plan {stages.get('lesions', '')}, sheet {number}"
        self.figure.text(LEFT, 0.022, f"{made}. The whole plan with its sources: report.html.", fontsize=7, color=SOFT)

    def text(
        self, text: str, size: float = 9.5, colour: str = INK, weight: str = "normal", gap: float = 0.004, indent: float = 0.0
    ) -> None:
        """A paragraph, wrapped to the width of the sheet."""
        lines = _wrapped(text, size * (1.08 if weight == "bold" else 1.0), RIGHT - LEFT - indent)
        self.figure.text(
            LEFT + indent,
            self.y,
            "\n".join(lines),
            fontsize=size,
            color=colour,
            weight=weight,
            va="top",
            linespacing=1.25,
            parse_math=False,
        )
        self.y -= _height(lines, size) + gap

    def heading(self, text: str) -> None:
        """A heading with room above."""
        self.y -= 0.008
        self.text(text, 11.5, weight="bold")

    def lines(self, lines: Sequence[str], mark: str = "-", size: float = 9.0, floor: float = BOTTOM) -> None:
        """A list; where it has no room above `floor`, it says how many are left out."""
        for count, line in enumerate(lines):
            last = count + 1 == len(lines)
            if self.y - _height(_wrapped(line, size, RIGHT - LEFT - 0.025), size) < floor + (0.0 if last else 0.016):
                self.left_out(len(lines) - count)
                return
            self.figure.text(LEFT, self.y, f"{count + 1}." if mark == "1" else mark, fontsize=size, color=INK, va="top")
            self.text(line, size, indent=0.025)

    def left_out(self, count: int, where: str = ELSEWHERE) -> None:
        """Say that a list goes on elsewhere: nobody may take a part of the plan for the whole."""
        self.text(f"{count} more: {where}", 8, SOFT, "bold")

    def images(self, images: dict[str, bytes], height: float) -> None:
        """Pictures side by side with their titles, each cut to what is drawn on it."""
        from matplotlib.image import imread

        width = (RIGHT - LEFT) / len(images)
        for k, (title, data) in enumerate(images.items()):
            axes = self.figure.add_axes((LEFT + k * width, self.y - height, width * 0.97, height))
            axes.imshow(imread(io.BytesIO(data)), interpolation="antialiased")
            axes.set_axis_off()
            caption = "\n".join(_wrapped(title, 7.5, width))
            self.figure.text(LEFT + k * width, self.y - height - 0.004, caption, fontsize=7.5, color=SOFT, va="top", parse_math=False)
        self.y -= height + 0.034

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        widths: Sequence[float],
        most: int = 1000,
        where: str = ELSEWHERE,
        size: float = 8.0,
    ) -> None:
        """A table in columns of the given shares of the width; of rows beyond `most` or without room it says where they are."""
        places = LEFT + (RIGHT - LEFT) * np.concatenate([[0.0], np.cumsum(widths)[:-1]])
        for count, row in enumerate([head, *rows]):
            wrapped = [_wrapped(cell, size, w * (RIGHT - LEFT)) for cell, w in zip(row, widths)]
            tall = max(_height(cell, size) for cell in wrapped) + 0.004
            room = BOTTOM + (0.0 if count == len(rows) else 0.016)
            if count > most or self.y - tall < room:
                self.left_out(len(rows) - max(count - 1, 0), where)
                return
            for place, cell in zip(places, wrapped):
                style: dict[str, Any] = {"weight": "bold", "color": SOFT} if count == 0 else {"color": INK}
                self.figure.text(place, self.y, "\n".join(cell), fontsize=size, va="top", linespacing=1.25, parse_math=False, **style)
            self.y -= tall
            self.figure.add_artist(_rule(self.y + 0.002))
        self.y -= 0.006

    def chart(self, draw: Any, height: float) -> None:
        """A chart over the width of the sheet."""
        from matplotlib.transforms import Bbox

        draw(self.figure, Bbox.from_extents(LEFT, self.y - height, RIGHT, self.y))
        self.y -= height + 0.012


def _wrapped(text: str, size: float, width: float) -> list[str]:
    """Lines of text of a font size in points that fit into a share of the sheet's width; one at least."""
    # half an em per letter is what DejaVu Sans takes on average
    return textwrap.wrap(text, max(3, int(width * A4_IN[0] * 72 / (0.53 * size)))) or [""]


def _height(lines: Sequence[str], size: float) -> float:
    """Room of lines of text, as a share of the sheet's height."""
    return len(lines) * size * 1.3 / 72 / A4_IN[1]


def _rule(y: float) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([LEFT, RIGHT], [y, y], color="#d4d4dc", lw=0.6)


def _first(story: Story) -> _Sheet:
    """What to do, and what to doubt."""
    sheet = _Sheet(f"Ablation plan: {story.plan.patient['name']}", story, 1)
    sheet.text(summary.headline(story), 11, gap=0.014)
    found = summary.facts(story)
    for k, fact in enumerate(found):
        x = LEFT + k * (RIGHT - LEFT) / len(found)
        sheet.figure.text(x, sheet.y, fact["value"], fontsize=15, weight="bold", color=INK, va="top")
        label = "\n".join(textwrap.wrap(fact["label"], 24))
        sheet.figure.text(x, sheet.y - 0.022, label, fontsize=7.5, color=SOFT, va="top", linespacing=1.2)
    sheet.y -= 0.062
    sheet.images(pictures.plan(story) if story.plan.targets else pictures.anatomy(story), 0.36)
    if story.plan.targets:
        sheet.heading("In order")
        sheet.lines(summary.todo(story), "1", floor=0.2)
    sheet.heading("Before you trust it")
    sheet.lines(summary.doubts(story))
    return sheet


def size_of(target: Target) -> str:
    """Radius and depth of a target's lesions, mm."""
    return f"{summary.millimetres(target.radius_mm)} / {summary.millimetres(target.depth_mm)}"


def _second(story: Story) -> _Sheet:
    """Positions, circuits, alternatives and the ECG of the VT."""
    plan = story.plan
    sheet = _Sheet("Targets, circuits and alternatives", story, 2)
    if plan.targets:
        places = [
            (f"{t.id}.{n}", summary.SURFACES.get(t.surface, t.surface), *(f"{x:.1f}" for x in p), size_of(t))
            for t in plan.targets
            for n, p in enumerate(t.positions_mm, 1)
        ]
        head = ("Lesion", "Surface", "x", "y", "z (LPS, mm)", "Radius / depth, mm")
        sheet.table(head, places, (0.12, 0.26, 0.12, 0.12, 0.16, 0.22), 24, "overlay/csv/targets.csv")
    if plan.circuits:
        sheet.heading("Circuits")
        rows = [
            (
                c.id,
                f"{c.cycle_length_ms:.0f} ms",
                f"{c.isthmus_width_mm:.1f} mm",
                summary.segment(c.segment),
                c.depth,
                summary.named(summary.listed(c.sites)),
            )
            for c in plan.circuits
        ]
        head = ("", "Cycle", "Isthmus, wide", "AHA segment of exit", "Depth", "Induced from")
        sheet.table(head, rows, (0.08, 0.1, 0.14, 0.24, 0.14, 0.3))
    if plan.alternatives:
        sheet.heading("Alternatives on the same heart")
        rows = [
            (
                ("* " if a.get("chosen") else "") + str(a.get("strategy", "")).replace("_", " "),
                str(a.get("lesions", "")),
                f"{a['volume_ml']:.1f}" if a.get("volume_ml") is not None else "",
                f"{a['minutes']:.0f}" if a.get("minutes") is not None else "",
                "yes" if a.get("non_inducible") else "no",
                str(a.get("best_in") or ""),
            )
            for a in plan.alternatives
        ]
        head = ("Strategy (* chosen)", "Lesions", "mL", "Minutes", "Non-inducible", "Best in")
        sheet.table(head, rows, (0.28, 0.1, 0.08, 0.1, 0.14, 0.3))
    first = next(iter(story.vt_ecgs.values()), None)
    if first is not None and sheet.y > 0.36:
        sheet.heading("Simulated ECG of the VT (two cycles; shapes count, amplitudes do not)")
        series = [(STEP_MS * np.arange(first.shape[1], dtype=np.float64), first, charts.MODEL, "twin")]
        sheet.chart(lambda figure, box: charts.leads_in(figure, box, series), 0.26)
    elif first is not None:
        sheet.text(f"Simulated ECGs of the VTs: {ELSEWHERE}", 8, SOFT, "bold")
    return sheet


def _third(story: Story) -> _Sheet:
    """Uncertainty, credibility, assumptions."""
    sheet = _Sheet("What it rests on", story, 3)
    uncertain = summary.uncertainty(story)
    if uncertain:
        sheet.heading("Uncertain")
        sheet.lines(uncertain)
    sheet.heading("Credibility")
    sheet.table(("Of what", "What is known"), summary.credibility(story), (0.18, 0.82))
    sheet.heading("Assumed, or not known")
    sheet.lines(list(story.plan.limits), size=8.0)
    return sheet


def pdf(story: Story) -> bytes:
    """The sheets as one PDF, without time of making, so that its bytes depend on the plan alone."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    buffer = io.BytesIO()
    about = {"Title": f"vtwin plan {story.plan.patient['name']}", "Subject": NOTICE, "Creator": "vtwin", "CreationDate": None}
    with rc_context({"font.family": "sans-serif", "pdf.fonttype": 42}), PdfPages(buffer, metadata=about) as pages:
        for make in (_first, _second, _third):
            pages.savefig(make(story).figure)
    return buffer.getvalue()


def write_pdf(story: Story, path: Path) -> None:
    """Write `summary.pdf` atomically."""
    write_bytes(path, pdf(story))
