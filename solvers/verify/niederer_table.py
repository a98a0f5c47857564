"""The table and the diagonal plot of the slab benchmark, beside what other codes have published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.monodomain.solver import STABLE_SHARE, Settings
from solvers.verify.niederer import POINTS, SIZE_MM, first_ms, run_slab
from twin.atomic import write_bytes, write_text

SPACINGS_MM, STEPS_MS = (0.5, 0.2, 0.1), (0.05, 0.01, 0.005)
UNTIL_MS = 160.0
_CSV = "Niederer et al. 2011 set-up, first crossing of 0 mV"


@dataclass(frozen=True)
class Published:
    """Activation times of another code, ms, at points in the order of POINTS (NaN: not published)."""

    code: str
    spacing_mm: float
    dt_ms: float
    times_ms: tuple[float, ...]
    source: str


_NO = float("nan")
PUBLISHED = (
    Published(
        *("Chaste, P1 FEM, state-variable interpolation", 0.5, 0.01),
        *((1.226, 27.912, 37.434, 38.15, 7.945, 25.082, 36.38, 36.296, 17.615), "Chaste heart/test/data/benchmark_data_orig (BSD-3)"),
    ),
    Published(
        *("openCARP 18.1, P1 FEM, lumped mass", 0.5, 0.05),
        *((1.355, *(_NO,) * 6, 126.45, _NO), "svcHeidi/omniD docs/solver-learning/opencarp.md"),
    ),
    Published(
        *("7-point finite differences", 0.1, 0.01),
        *((1.3, 30.1, 31.9, 42.9, 9.1, 31.5, 33.0, 43.8, 19.9), "RallypointOne MatrixFreeOperators.jl niederer_benchmark.jl"),
    ),
    Published(
        *("11 codes of the paper, lowest", 0.1, 0.005),
        *((*(_NO,) * 7, 37.8, _NO), "Niederer et al., Phil Trans R Soc A 369:4331 (2011)"),
    ),
    Published(
        *("11 codes of the paper, highest", 0.1, 0.005),
        *((*(_NO,) * 7, 48.7, _NO), "Niederer et al., Phil Trans R Soc A 369:4331 (2011)"),
    ),
)


@dataclass(frozen=True)
class Row:
    """One run of ours: what was asked and used, times at POINTS, and along the diagonal: distance (k,) mm, time (k,) ms."""

    spacing_mm: float
    dt_ms: float
    used_dt_ms: float
    times_ms: tuple[float, ...]
    distance_mm: NDArray[np.float64]
    diagonal_ms: NDArray[np.float64]


def run_row(spacing_mm: float, dt_ms: float) -> Row:
    """Run the default scheme; a step above the stability limit is cut to what is safe."""
    try_first = Settings(dt_ms=dt_ms, threshold_mv=0.0)
    limit = STABLE_SHARE.value * run_slab(spacing_mm, try_first, 0.0)[0].limit_ms
    used = dt_ms if dt_ms <= limit else limit
    solver, _ = run_slab(spacing_mm, Settings(dt_ms=used, threshold_mv=0.0), UNTIL_MS)
    first, points = first_ms(solver), solver.points_mm

    def at(place: NDArray[np.float64]) -> float:
        return float(first[np.argmin(np.linalg.norm(points - place, axis=1))])

    share = np.linspace(0.0, 1.0, 41)
    diagonal = np.array([at(s * np.array(SIZE_MM)) for s in share])
    times = tuple(at(np.array(p)) for p in POINTS.values())
    return Row(spacing_mm, dt_ms, used, times, share * float(np.linalg.norm(SIZE_MM)), diagonal)


def write(rows: Sequence[Row], folder: Path) -> None:
    """niederer.md and niederer.png in `folder`."""
    head = ["code", "dx mm", "dt ms", *POINTS, "source"]
    lines = [f"# Slab benchmark: {_CSV}, ms", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows:
        used = f"{r.dt_ms:g}" if r.used_dt_ms == r.dt_ms else f"{r.dt_ms:g} (run with {r.used_dt_ms:.3g}, the stable step)"
        lines.append(_line(["vtwin, theta 0.3, explicit", f"{r.spacing_mm:g}", used, *_texts(r.times_ms), "this run"]))
    for p in PUBLISHED:
        lines.append(_line([p.code, f"{p.spacing_mm:g}", f"{p.dt_ms:g}", *_texts(p.times_ms), p.source]))
    write_text(folder / "niederer.md", "\n".join(lines) + "\n")
    write_bytes(folder / "niederer.png", _picture(rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _texts(times: Sequence[float]) -> list[str]:
    return [f"{t:.1f}" if np.isfinite(t) else "" for t in times]


def _picture(rows: Sequence[Row]) -> bytes:
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5))
    axes = figure.add_subplot()
    for r in rows:
        axes.plot(r.distance_mm, r.diagonal_ms, label=f"vtwin, dx {r.spacing_mm:g} mm, dt {r.used_dt_ms:.3g} ms")
    length = float(np.linalg.norm(SIZE_MM))
    for p in PUBLISHED:
        (line,) = axes.plot([length], [p.times_ms[7]], "o", label=f"{p.code}, dx {p.spacing_mm:g} mm")
        axes.plot([0.5 * length], [p.times_ms[8]], "o", color=line.get_color())
    axes.set(xlabel="distance from P1 to P8 (mm)", ylabel="activation (ms)", title=_CSV)
    axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def report(folder: Path, fast: bool = True) -> None:
    """Run and write the table; `fast` leaves out 0.1 mm (a quarter of an hour)."""
    write([run_row(h, dt) for h in (SPACINGS_MM[:2] if fast else SPACINGS_MM) for dt in STEPS_MS], folder)
