"""How far repolarising tissue feels its neighbours: APD across the mouth of an isthmus, by monodomain and by the blend of the eikonal.

`python -m solvers.verify.reentry_profile` computes the monodomain side (a minute of one core), writes it, and prints the misfit of the
blend for every `blend_ms` that is tried.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.eikonal.reentrant import ReentrantEikonal, Settings
from solvers.verify.reentry_cases import BORDER, CASES, FOLDER, HEALTHY, Case, electrode, sheet_tables
from solvers.verify.reentry_data import SPACING_MM, load
from solvers.verify.reentry_sheet import Sheet
from twin.atomic import write_json
from twin.mesh import HeartMesh

FILE = FOLDER / "reentry_profile.json"
LINES_MM = {50.0: np.arange(6.0, 40.0, 1.0), 60.0: np.arange(4.0, 15.0, 1.0)}
"""Places y on two lines x: through the isthmus, and across the ring beside it."""
BLENDS_MS = (20.0, 50.0, 80.0, 110.0, 150.0, 200.0, 300.0)


def part(case: Case, spacing_mm: float) -> HeartMesh:
    """The near mouth of a sheet: all that one beat needs."""
    mesh = case.mesh(spacing_mm)
    x, y, _ = mesh.centroids_mm.T
    return mesh.with_region((y > 45.0) | (x < 25.0) | (x > 75.0), "scar")


def monodomain(case: Case) -> list[list[float]]:
    """[x, y, APD] of a beat at the steady cycle, mm and ms."""
    d = load(case)["d_mm2_ms"]
    mesh = part(case, SPACING_MM)
    healthy = mesh.in_region("healthy")
    sheet = Sheet(mesh, *(np.where(healthy, d["healthy"][i], d["border_zone"][i]) for i in (0, 1)))
    points = mesh.points_mm[: mesh.n_points // 2]
    log = sheet.run([(0.0, electrode(points, "mouth"))], 460.0)
    apd = np.full(len(points), np.nan)
    apd[log.node] = log.recovery_ms - log.activation_ms
    out = []
    for x, ys in LINES_MM.items():
        for y in ys:
            far = np.hypot(*(points[:, :2] - (x, y)).T)
            i = int(np.argmin(np.where(np.isnan(apd), np.inf, far)))
            if far[i] < SPACING_MM:
                out.append([round(float(points[i, 0]), 2), round(float(points[i, 1]), 2), round(float(apd[i]), 1)])
    return out


def blended(case: Case, blend_ms: float, at: NDArray[np.float64], spacing_mm: float = 1.0) -> NDArray[np.float64]:
    """Share of border zone by the eikonal's blend at places (k, 2) mm, of the nearest conducting node."""
    mesh = part(case, spacing_mm)
    model = ReentrantEikonal(mesh, {"healthy": HEALTHY, "border_zone": BORDER}, sheet_tables(), Settings(blend_ms=blend_ms))
    used = np.unique(mesh.tets[mesh.conducting()])
    near = used[np.argmin(np.hypot(*(mesh.points_mm[used, None, :2] - at).T), axis=1)]
    return np.asarray(model.weights[near, 1], np.float64)


def misfit(blend_ms: float) -> dict[str, float]:
    """Root mean square error in share of the APD difference, by sheet."""
    document = json.loads(FILE.read_text("utf-8"))
    low, high = document["healthy_ms"], document["border_zone_ms"]
    out = {}
    for case in CASES[:2]:
        known = np.array(document["profiles"][case.name])
        share = (known[:, 2] - low) / (high - low)
        out[case.name] = float(np.sqrt(np.mean((blended(case, blend_ms, known[:, :2]) - share) ** 2)))
    return out


def figure(path: Path) -> None:
    """Draw the profiles along the isthmus with the blend at 20 ms and at the default."""
    from matplotlib.figure import Figure

    document = json.loads(FILE.read_text("utf-8"))
    low, high = document["healthy_ms"], document["border_zone_ms"]
    picture = Figure((9.0, 3.6), layout="constrained")
    for axes, case in zip(picture.subplots(1, 2, sharey=True), CASES[:2]):
        known = np.array(document["profiles"][case.name])
        known = known[abs(known[:, 0] - 50.0) < 1.0]
        axes.plot(known[:, 1], known[:, 2], "k.", label="monodomain")
        for blend_ms, style in ((20.0, ":"), (Settings().blend_ms, "-")):
            share = blended(case, blend_ms, known[:, :2])
            axes.plot(known[:, 1], low + (high - low) * share, style, label=f"eikonal, blend {blend_ms:g} ms")
        axes.set(title=case.name.replace("_", ", "), xlabel="along the isthmus, mm (its mouth: 12.5)", ylabel="APD, ms")
    axes.legend()
    picture.savefig(path, dpi=110)


def main() -> None:
    """Compute the profiles if they are not there, try the blends, draw the picture into the folder named on the command line."""
    if not FILE.exists():
        profiles = {case.name: monodomain(case) for case in CASES[:2]}
        apd = np.concatenate([np.array(p)[:, 2] for p in profiles.values()])
        made = "python -m solvers.verify.reentry_profile"
        write_json(FILE, {"made": made, "healthy_ms": float(apd.min()), "border_zone_ms": float(apd.max()), "profiles": profiles})
    for blend_ms in BLENDS_MS:
        print(f"blend {blend_ms:g} ms: " + ", ".join(f"{name} rms {value:.3f}" for name, value in misfit(blend_ms).items()), flush=True)
    for folder in sys.argv[1:]:
        figure(Path(folder) / "reentry.png")


if __name__ == "__main__":
    main()
