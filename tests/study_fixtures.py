"""A small mapped ventricle, unlike along all axes, with electrograms and an ECG, for the tests of mapping systems' formats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from io_fixtures import ecg
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, cKDTree

from twin.io.surfaces import Surface
from twin.study import MappingStudy, Recording

CENTRE, RADII = np.array([35.0, -50.0, 20.0]), np.array([20.0, 26.0, 45.0])
REFERENCE_MS = 1000.0


def shell(n: int = 250) -> Surface:
    """An ellipsoid of evenly spread vertices, with times from one pole, a patch of low voltage, and a hole of missing values."""
    k = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * k / n), np.pi * (1 + 5**0.5) * k
    unit = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    hull = ConvexHull(unit)
    triangles = hull.simplices.astype(np.int32)
    corner = unit[triangles]
    inward = np.einsum("ij,ij->i", np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), corner[:, 0]) < 0
    triangles[inward] = triangles[inward][:, [0, 2, 1]]
    points = (unit * RADII + CENTRE).round(3)
    lat = np.round((points[:, 2] - CENTRE[2] + RADII[2]) / 0.7 - 40.0, 3)
    low = unit[:, 0] > 0.7
    bipolar = np.round(np.where(low, 0.3, 3.0) + 0.1 * np.sin(k), 3)
    unipolar = np.round(np.where(low, 2.0, 8.0) + 0.1 * np.cos(k), 3)
    lat[:3] = np.nan
    return Surface(points, triangles, {"lat_ms": lat, "bipolar_mv": bipolar, "unipolar_mv": unipolar})


@dataclass
class Waves:
    """Electrograms made when they are asked for: a sharp deflection at the point's time, of the stated amplitude, and an ECG."""

    lat_ms: NDArray[np.float64]
    bipolar_mv: NDArray[np.float64]
    unipolar_mv: NDArray[np.float64]
    samples: int = 2500
    with_ecg: bool = True

    def __len__(self) -> int:
        return len(self.lat_ms)

    def read(self, index: int) -> Recording | None:
        """Every eleventh point has none."""
        if index % 11 == 10:
            return None
        t = np.arange(float(self.samples))
        lat = self.lat_ms[index] if np.isfinite(self.lat_ms[index]) else 0.0
        at = REFERENCE_MS + lat
        half = 0.5 * self.bipolar_mv[index] / 0.4288819
        channels = {
            "M1": -0.5 * self.unipolar_mv[index] * np.tanh((t - at) / 4.0),
            "M2": -0.4 * self.unipolar_mv[index] * np.tanh((t - at - 3.0) / 4.0),
            "M1-M2": -half * ((t - at) / 4.0) * np.exp(-(((t - at) / 4.0) ** 2)),
            "CS1-CS2": np.exp(-(((t - REFERENCE_MS) / 5.0) ** 2)),
        }
        if self.with_ecg:
            beat = ecg()
            for lead, values in beat.leads.items():
                channels[lead] = np.zeros(self.samples)
                channels[lead][900 : 900 + len(values)] = values
        return Recording(1000.0, channels, "M1-M2", "M1", "CS1-CS2", REFERENCE_MS, at)


def study(points: int = 120, vertices: int = 250, samples: int = 2500, with_ecg: bool = True, name: str = "1-LV") -> MappingStudy:
    """Points near the shell's vertices with their values, numbered from 3; every seventeenth carries no time."""
    surface = shell(vertices)
    rng = np.random.default_rng(5)
    near = rng.integers(3, vertices, points)
    places = (surface.points_mm[near] + rng.normal(size=(points, 3))).round(3)
    _, at = cKDTree(surface.points_mm[3:]).query(places)
    at += 3
    lat = surface.point_data["lat_ms"][at].round(2)
    lat[::17] = np.nan
    bipolar, unipolar = surface.point_data["bipolar_mv"][at], surface.point_data["unipolar_mv"][at]
    reference = np.full(points, REFERENCE_MS)
    return MappingStudy(
        name,
        "phantom",
        places,
        lat,
        bipolar,
        unipolar,
        np.arange(3, 3 + points),
        surface,
        surface.points_mm[at],
        reference,
        reference + lat,
        np.tile([-150.0, 200.0], (points, 1)),
        {"lv_apex": places[4], "Some scar": places[9]},
        Waves(lat, bipolar, unipolar, samples, with_ecg),
    )
