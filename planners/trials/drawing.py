"""A few shapes of SVG as text, in the colours of every vtwin report."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from planners.report.palette import CIRCUIT, SITE, TARGET


def colour(rgb: tuple[float, float, float]) -> str:
    """Hexadecimal form of a colour of the palette."""
    return "#" + "".join(f"{round(255 * c):02x}" for c in rgb)


BLUE, ORANGE, GREEN = colour(TARGET), colour(CIRCUIT), colour(SITE)
SERIES = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000")
INK, SOFT, LINE, GROUND = "#1b1b1f", "#5c5c66", "#dcdce2", "#f6f6f8"


@dataclass
class Drawing:
    """Shapes in pixels, drawn in the order in which they are added; `title` is read to those who do not see it."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = INK, width: float = 1.0, dash: str = "") -> None:
        """A straight line."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width:g}"{dashed}/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A line with a head at its end, straight down or to the right."""
        self.line(x1, y1, x2, y2, SOFT, 1.4)
        head = (
            f"{x2 - 4:.1f},{y2 - 7:.1f} {x2 + 4:.1f},{y2 - 7:.1f}" if x1 == x2 else f"{x2 - 7:.1f},{y2 - 4:.1f} {x2 - 7:.1f},{y2 + 4:.1f}"
        )
        self.parts.append(f'<polygon points="{x2:.1f},{y2:.1f} {head}" fill="{SOFT}"/>')

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none", radius: float = 0.0, opacity: float = 1.0
    ) -> None:
        """A rectangle."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{stroke}" fill-opacity="{opacity:g}"/>'
        )

    def dot(self, x: float, y: float, radius: float, fill: str, tip: str = "", opacity: float = 1.0) -> None:
        """A filled circle with an optional tooltip."""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" fill-opacity="{opacity:g}">{inside}</circle>')

    def text(self, x: float, y: float, text: str, size: float = 13, anchor: str = "start", fill: str = INK, weight: str = "normal") -> None:
        """One line of text, its baseline at y."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{fill}" font-weight="{weight}">{escape(text)}</text>'
        )

    def svg(self) -> str:
        """The whole drawing."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" role="img" '
            f'font-family="system-ui, sans-serif"><title>{escape(self.title)}</title>{"".join(self.parts)}</svg>'
        )


@dataclass(frozen=True)
class Axis:
    """A linear horizontal scale from values to pixels."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> float:
        """Pixel of a value, kept within the axis."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.left + min(max(share, 0.0), 1.0) * (self.right - self.left)

    def draw(self, on: Drawing, y: float, label: str, form: str = "{:g}", count: int = 5) -> None:
        """The axis with round ticks, at height y."""
        on.line(self.left, y, self.right, y, SOFT)
        for tick in round_ticks(self.low, self.high, count):
            on.line(self(tick), y, self(tick), y + 4, SOFT)
            on.text(self(tick), y + 17, form.format(tick), 11, "middle", SOFT)
        on.text((self.left + self.right) / 2, y + 34, label, 12, "middle", SOFT)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within a range."""
    import math

    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
