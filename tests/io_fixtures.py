"""A small heart that passes every check, for the tests of readers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.patient import LEADS, Ecg, ElectroanatomicalMap
from twin.volume import LABELS, LabelVolume


def heart(spacing_mm: float = 2.0, affine: NDArray[np.float64] | None = None) -> LabelVolume:
    """Two nested half ellipsoids, LV wall 10 mm with a scar, RV beside it with a wall of 6 mm; base plane at z = 0."""
    n = (np.array([120.0, 90.0, 90.0]) / spacing_mm).astype(int)
    x, y, z = np.meshgrid(*(np.arange(k) * spacing_mm for k in n), indexing="ij")
    x, y, z = x - 45.0, y - 45.0, z - 10.0

    def inside(cx: float, a: float, c: float) -> NDArray[np.bool_]:
        return ((x - cx) / a) ** 2 + (y / a) ** 2 + (z / c) ** 2 < 1

    data = np.zeros(n, np.uint8)
    data[inside(28, 28, 60)] = LABELS["rv_myocardium"]
    data[inside(28, 22, 54)] = LABELS["rv_blood"]
    data[inside(0, 32, 70)] = LABELS["lv_myocardium"]
    data[inside(0, 22, 60)] = LABELS["lv_blood"]
    data[z < 0] = 0
    scar = (data == LABELS["lv_myocardium"]) & (x < -15) & (z > 20) & (z < 45)
    data[scar] = LABELS["scar"]
    return LabelVolume(data, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0]) if affine is None else affine)


def ecg() -> Ecg:
    """A QRS-like wave that obeys Einthoven."""
    t = np.arange(200.0)
    i, ii = np.exp(-(((t - 80) / 15) ** 2)), 1.5 * np.exp(-(((t - 90) / 15) ** 2))
    limb = {"I": i, "II": ii, "III": ii - i, "aVR": -(i + ii) / 2, "aVL": i - ii / 2, "aVF": ii - i / 2}
    chest = {f"V{k}": (k - 3.5) * np.exp(-(((t - 70 - 5 * k) / 15) ** 2)) for k in range(1, 7)}
    leads = limb | chest
    return Ecg({name: np.round(leads[name], 4) for name in LEADS}, 1000.0)


def eam(seed: int = 1, n: int = 300) -> ElectroanatomicalMap:
    """A map on the LV endocardium of `heart` with some values missing."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(n, 3))
    direction[:, 2] = abs(direction[:, 2])
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    points = direction * [22, 22, 60] + [45, 45, 10]
    lat = points[:, 2] / 0.6 - 30
    volts = rng.uniform(0.2, 6, n)
    lat[::17], volts[::13] = np.nan, np.nan
    marks = {"lv_apex": np.array([45.0, 45.0, 70.0]), "lv_base": np.array([45.0, 45.0, 10.0])}
    return ElectroanatomicalMap(points.round(3), lat.round(3), volts.round(3), "lv_endo", "sinus", marks)
