"""A parametric biventricular heart: cavities of asked volume, wall of asked thickness per AHA segment, written as labels.

The heart has its own frame: origin in the middle of the LV's base plane, `h` towards the apex, `s` towards the septum, `a`
towards the anterior wall; theta = atan2(a, s), so 0 is the middle of the septum and +-60 degrees are the RV insertions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planners.virtual.statistics import LV_EDV_ML, LV_SPHERICITY, LV_WALL_MM, RV_BELOW_BASE, RV_EDV_ML, RV_REACH, RV_SPAN_DEG, RV_WALL_MM
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]

WIDEST = 0.32
"""Depth of the LV's widest place as a fraction of its length."""
FILLET_MM = 4.0
"""Fat in the interventricular grooves: the outer surfaces of the two ventricles blend over this distance."""
MARGIN_MM = 6.0
FAR_MM = 15.0
"""Thicker than any wall: distances are computed up to here."""


@dataclass(frozen=True)
class Anatomy:
    """Parameters of one heart; lengths in mm, volumes in mL, angles in degrees.

    wall_mm: thickness per AHA segment 1-17; apex_lps, septum_lps: directions (normalised, made orthogonal) of the long axis and of
    the septum; oval: relative ellipticity of the LV's cross-section, at angle oval_deg; bend_mm: how far the LV's axis curves to the
    septum at the apex; conus_mm: extra bulge of the RV towards its outflow tract; rv_reach: depth of the RV's apex as a fraction of the
    LV's length; rv_span_deg: how far the RV wraps round the LV at the base, in all.
    """

    sex: str = "male"
    lv_edv_ml: float = LV_EDV_ML["male"].value
    rv_edv_ml: float = RV_EDV_ML["male"].value
    sphericity: float = LV_SPHERICITY.value
    wall_mm: Mapping[int, float] = field(default_factory=lambda: {k: p.value for k, p in LV_WALL_MM["male"].items()})
    rv_wall_mm: float = RV_WALL_MM.value
    apex_lps: tuple[float, float, float] = (0.66, -0.58, -0.48)
    septum_lps: tuple[float, float, float] = (-0.65, -0.65, 0.30)
    base_lps_mm: tuple[float, float, float] = (22.0, -18.0, 31.0)
    oval: float = 0.05
    oval_deg: float = 75.0
    bend_mm: float = 3.0
    conus_mm: float = 14.0
    rv_reach: float = RV_REACH.value
    rv_span_deg: float = RV_SPAN_DEG.value

    @staticmethod
    def sample(rng: np.random.Generator, sex: str = "male") -> Anatomy:
        """Draw a heart: volumes and thickness normal within their published ranges, correlated through one size."""
        size = float(np.clip(rng.normal(), -1.5, 1.5))
        wall_scale = float(np.clip(rng.normal(1.0, 0.1), 0.8, 1.25))

        def around(param_value: float, low: float, high: float, z: float, sd: float) -> float:
            return float(np.clip(param_value * (1.0 + sd * z), low, high))

        lv, rv, sph = LV_EDV_ML[sex], RV_EDV_ML[sex], LV_SPHERICITY
        axis = np.array(Anatomy.apex_lps) + rng.normal(0.0, 0.08, 3)
        return Anatomy(
            sex=sex,
            lv_edv_ml=around(lv.value, lv.low, lv.high, size, 0.18),
            rv_edv_ml=around(rv.value, rv.low, rv.high, 0.8 * size + 0.2 * rng.normal(), 0.18),
            sphericity=around(sph.value, sph.low, sph.high, float(rng.normal()), 0.10),
            wall_mm={k: p.value * wall_scale * float(rng.normal(1.0, 0.04)) for k, p in LV_WALL_MM[sex].items()},
            apex_lps=(float(axis[0]), float(axis[1]), float(axis[2])),
            oval=float(rng.uniform(0.02, 0.07)),
            oval_deg=float(rng.uniform(0.0, 180.0)),
            bend_mm=float(rng.uniform(1.0, 5.0)),
            conus_mm=float(rng.uniform(10.0, 17.0)),
        )

    @property
    def length_mm(self) -> float:
        """Length of the LV cavity from the base plane to the endocardial apex."""
        return float((6000.0 * self.lv_edv_ml / (np.pi * self.sphericity)) ** (1.0 / 3.0))

    @property
    def radius_mm(self) -> float:
        """Mean radius of the LV cavity at its widest place, from the volume and the length."""
        x: Array = (np.arange(2000, dtype=np.float64) + 0.5) / 2000.0
        per_length = np.pi * (_profile(x) ** 2).mean() * (1.0 + self.oval**2 / 2.0)
        return float(np.sqrt(1000.0 * self.lv_edv_ml / (per_length * self.length_mm)))

    def axes(self) -> Array:
        """Rows: unit vectors s (septum), a (anterior), h (apex) in LPS; seen from the apex the septum is left, anterior up."""
        h = np.asarray(self.apex_lps) / np.linalg.norm(self.apex_lps)
        s = np.asarray(self.septum_lps) - np.dot(self.septum_lps, h) * h
        s /= np.linalg.norm(s)
        return np.stack([s, np.cross(s, h), h])

    def to_heart(self, points_mm: Array) -> Array:
        """LPS mm (n, 3) to the heart's frame (s, a, h) mm."""
        return (points_mm - np.asarray(self.base_lps_mm)) @ self.axes().T

    def to_lps(self, heart_mm: Array) -> Array:
        """The heart's frame (n, 3) mm to LPS mm."""
        return heart_mm @ self.axes() + np.asarray(self.base_lps_mm)

    def axis_mm(self, depth: Array) -> Array:
        """Centre of the LV's cross-section at relative depth (n,): (n, 2) offsets along s and a."""
        shift = self.bend_mm * np.clip(depth, 0.0, None) ** 2
        return np.stack([shift, -0.3 * shift], axis=-1)

    def cavity_radius_mm(self, theta: Array, depth: Array) -> Array:
        """Radius of the LV cavity about its own centre line."""
        return self.radius_mm * _profile(depth) * (1.0 + self.oval * np.cos(2.0 * (theta - np.radians(self.oval_deg))))

    def thickness_mm(self, theta: Array, depth: Array) -> Array:
        """Wall thickness at an endocardial place: the AHA segments' values, blended smoothly between their centres."""
        rings = [
            _around(theta, np.radians([90, 30, -30, -90, -150, 150]), [self.wall_mm[k] for k in range(1, 7)]),
            _around(theta, np.radians([90, 30, -30, -90, -150, 150]), [self.wall_mm[k] for k in range(7, 13)]),
            _around(theta, np.radians([90, 0, -90, 180]), [self.wall_mm[k] for k in range(13, 17)]),
            np.full_like(theta, self.wall_mm[17]),
        ]
        # cosine steps leave the middle of every ring at its own value, which plain linear blending would not
        centres, half_step = (1 / 6, 1 / 2, 5 / 6, 1.0), (0.11, 0.11, 0.07)
        out = rings[0]
        for k in range(3):
            middle = 0.5 * (centres[k] + centres[k + 1])
            u = np.clip((depth - middle) / (2 * half_step[k]) + 0.5, 0.0, 1.0)
            out = out + (rings[k + 1] - out) * (0.5 - 0.5 * np.cos(np.pi * u))
        return out


def _profile(depth: Array) -> Array:
    """Radius of the LV cavity over depth, 1 at the widest place, 0 at the apex; narrower again at the mitral valve."""
    d = np.asarray(depth, float)
    below = np.clip((d - WIDEST) / (1.0 - WIDEST), 0.0, 1.0)
    above = np.clip((WIDEST - d) / WIDEST, 0.0, 1.5)
    return np.where(d > WIDEST, np.sqrt(1.0 - below**2.25), 1.0 - 0.13 * above**2)


def _around(theta: Array, centres: Array, values: list[float]) -> Array:
    """Blend values given at angles round a ring: raised cosines between neighbours, exact at the centres."""
    step = 2.0 * np.pi / len(values)
    gap = np.abs((theta[..., None] - centres + np.pi) % (2.0 * np.pi) - np.pi)
    weight = np.where(gap < step, 0.5 + 0.5 * np.cos(np.pi * gap / step), 0.0)
    return (weight * np.asarray(values)).sum(axis=-1) / weight.sum(axis=-1)


def _polar(anatomy: Anatomy, heart_mm: Array) -> tuple[Array, Array, Array]:
    """Angle, relative depth, distance from the LV's centre line of points in the heart's frame."""
    depth = heart_mm[:, 2] / anatomy.length_mm
    centre = anatomy.axis_mm(depth)
    s, a = heart_mm[:, 0] - centre[:, 0], heart_mm[:, 1] - centre[:, 1]
    return np.arctan2(a, s), depth, np.hypot(s, a)


def _place(anatomy: Anatomy, theta: Array, depth: Array, radius: Array) -> Array:
    """Inverse of `_polar`."""
    centre = anatomy.axis_mm(depth)
    return np.stack(
        [centre[:, 0] + radius * np.cos(theta), centre[:, 1] + radius * np.sin(theta), depth * anatomy.length_mm],
        axis=1,
    )


def _lv_distance(anatomy: Anatomy, heart_mm: Array) -> tuple[Array, Array]:
    """Distance to the LV's endocardium (cut off at +FAR_MM, -FAR_MM in the cavity) and the wall thickness at the nearest place on it."""
    from scipy.spatial import cKDTree

    # equal steps of the angle psi crowd the rings towards the apex, where the surface turns fastest
    psi = np.arcsin(np.linspace(0.0, 1.0, 170) ** (2.25 / 2))
    depth = np.concatenate([np.linspace(-0.2, WIDEST, 90)[:-1], WIDEST + (1 - WIDEST) * np.sin(psi) ** (2 / 2.25)])
    depth = np.unique(np.concatenate([depth, 1.0 - np.geomspace(1e-4, 0.05, 25)]))
    theta = np.linspace(-np.pi, np.pi, 360, endpoint=False)
    tt, dd = (g.ravel() for g in np.meshgrid(theta, depth))
    surface = _place(anatomy, tt, dd, anatomy.cavity_radius_mm(tt, dd))
    angle, rel, radius = _polar(anatomy, heart_mm)
    inside = (radius < anatomy.cavity_radius_mm(angle, rel)) & (rel < 1.0)
    distance = np.where(inside, -FAR_MM, FAR_MM)
    thickness = np.zeros(len(heart_mm))
    # only the outside near the wall needs a distance: in the blood the sign is enough
    ask = np.flatnonzero(~inside)
    found, nearest = (np.asarray(x) for x in cKDTree(surface).query(heart_mm[ask], distance_upper_bound=FAR_MM))
    hit = np.isfinite(found)
    distance[ask[hit]] = found[hit]
    thickness[ask[hit]] = anatomy.thickness_mm(tt, dd)[nearest[hit]]
    return distance, thickness


def _rv_shape(anatomy: Anatomy, theta: Array, depth: Array) -> tuple[Array, Array]:
    """Relative height of the RV's free wall over the septum, and the conus' bulge in mm; both 0 outside the RV's sector."""
    reach, wider = anatomy.rv_reach, anatomy.rv_span_deg / RV_SPAN_DEG.value
    d = np.clip(depth, 0.0, reach)
    front = np.radians(wider * (84.0 - 30.0 * (d / reach) ** 2))
    back = np.radians(wider * (74.0 - 22.0 * (d / reach) ** 2))
    u = np.clip(theta / np.where(theta > 0, front, back), -1.0, 1.0)
    dome = (1.0 - u * u) ** 0.6
    taper = (1.0 - (d / reach) ** 2.6) ** 0.8
    conus = anatomy.conus_mm * np.exp(-(((theta - np.radians(42.0)) / np.radians(24.0)) ** 2)) * np.exp(-((d / 0.28) ** 2)) * dome
    return dome * taper, conus


def labels(anatomy: Anatomy, spacing_mm: float = 1.0) -> LabelVolume:
    """Label volume of the heart: LV and RV blood and wall, axis-aligned LPS voxels, the heart itself oblique, flat base.

    Raises ValueError for a thickness or volume that is not positive.
    """
    if min(anatomy.lv_edv_ml, anatomy.rv_edv_ml, anatomy.rv_wall_mm, *anatomy.wall_mm.values()) <= 0:
        raise ValueError("volumes and thickness must be positive")
    from scipy import ndimage

    shape, origin = _grid(anatomy, spacing_mm)
    index = np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape), axis=1)
    points = anatomy.to_heart(index * spacing_mm + origin)
    reach = 1.2 * anatomy.radius_mm + 85.0
    near = np.flatnonzero((points[:, 2] > 0) & (np.hypot(points[:, 0], points[:, 1]) < reach))
    data = np.zeros(len(index), np.uint8)
    data[near] = _label(anatomy, points[near], spacing_mm)
    volume = data.reshape(shape)

    # voxels of blood cut off in the sharp corners of the crescent belong to the wall
    for name, wall in (("rv_blood", "rv_myocardium"), ("lv_blood", "lv_myocardium")):
        parts, count = ndimage.label(volume == LABELS[name])
        if count > 1:
            largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
            volume[(parts > 0) & (parts != largest)] = LABELS[wall]
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    margin = int(np.ceil(MARGIN_MM / spacing_mm))
    used = np.argwhere(volume > 0)
    low, high = np.maximum(used.min(axis=0) - margin, 0), used.max(axis=0) + margin + 1
    affine[:3, 3] = origin + low * spacing_mm
    volume = np.ascontiguousarray(volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]])
    return LabelVolume(volume, affine, source="virtual patient", names=_names())


def _names() -> dict[str, int]:
    return {name: LABELS[name] for name in ("lv_blood", "rv_blood", "lv_myocardium", "rv_myocardium")}


def _grid(anatomy: Anatomy, spacing_mm: float) -> tuple[tuple[int, int, int], Array]:
    """Voxel counts and the centre of the first voxel of a box that surely holds the heart, on whole multiples of the spacing."""
    wide, r = 85.0, anatomy.radius_mm + 16.0
    corners = np.array([[s, a, h] for s in (-r, r + wide) for a in (-r - 12, r + 25) for h in (0.0, anatomy.length_mm + 14.0)])
    box = anatomy.to_lps(corners)
    low = np.floor(box.min(axis=0) / spacing_mm) * spacing_mm
    counts = np.ceil((box.max(axis=0) - low) / spacing_mm).astype(int) + 1
    return (int(counts[0]), int(counts[1]), int(counts[2])), low


def _label(anatomy: Anatomy, points: Array, spacing_mm: float) -> NDArray[np.uint8]:
    """Labels of points (n, 3) in the heart's frame, all on the apical side of the base plane."""
    distance, thickness = _lv_distance(anatomy, points)
    wall = distance - thickness
    theta, depth, radius = _polar(anatomy, points)

    # the free wall's height over the septum is chosen so that the crescent holds the asked volume
    outside = np.flatnonzero((wall > 0) & (np.abs(theta) < np.radians(110.0)) & (depth < 1.2))
    theta, depth, radius = theta[outside], depth[outside], radius[outside]
    dome, conus = _rv_shape(anatomy, theta, depth)
    above = radius - anatomy.cavity_radius_mm(theta, depth) - anatomy.thickness_mm(theta, depth) - conus
    need = np.full(len(points), np.inf)
    need[outside] = np.where((dome > 0.02) & (depth < anatomy.rv_reach), above / np.maximum(dome, 0.02), np.inf)
    count = round(1000.0 * anatomy.rv_edv_ml * RV_BELOW_BASE.value / spacing_mm**3)
    height = float(np.partition(need, count)[count])
    rv_blood = need < height
    rv_wall = np.where(rv_blood, -FAR_MM, FAR_MM)
    ask = outside[~rv_blood[outside]]
    rv_wall[ask] = _rv_free_distance(anatomy, points[ask], height)
    rv_wall -= anatomy.rv_wall_mm

    # smooth minimum (quadratic): fat rounds the grooves where the RV's wall joins the LV's
    gap = np.clip(0.5 + 0.5 * (rv_wall - wall) / FILLET_MM, 0.0, 1.0)
    heart = rv_wall + (wall - rv_wall) * gap - FILLET_MM * gap * (1.0 - gap)
    out = np.zeros(len(points), np.uint8)
    out[heart < 0] = LABELS["rv_myocardium"]
    out[wall < 0] = LABELS["lv_myocardium"]
    out[(heart < 0) & (wall >= 0) & (wall < rv_wall)] = LABELS["lv_myocardium"]
    out[rv_blood] = LABELS["rv_blood"]
    out[distance < 0] = LABELS["lv_blood"]
    return out


def _rv_free_distance(anatomy: Anatomy, points: Array, height_mm: float) -> Array:
    """Distance to the RV's free wall from outside, cut off at FAR_MM."""
    from scipy.spatial import cKDTree

    theta, depth = (
        g.ravel()
        for g in np.meshgrid(
            np.radians(
                np.linspace(
                    -75.0 * max(1.0, anatomy.rv_span_deg / RV_SPAN_DEG.value), 85.0 * max(1.0, anatomy.rv_span_deg / RV_SPAN_DEG.value), 300
                )
            ),
            np.linspace(-0.1, anatomy.rv_reach, 230),
        )
    )
    dome, conus = _rv_shape(anatomy, theta, depth)
    radius = anatomy.cavity_radius_mm(theta, depth) + anatomy.thickness_mm(theta, depth) + height_mm * dome + conus
    keep = dome > 0.02
    surface = _place(anatomy, theta[keep], depth[keep], radius[keep])
    distance, _ = cKDTree(surface).query(points, distance_upper_bound=anatomy.rv_wall_mm + 2.0 * FILLET_MM)
    return np.minimum(distance, FAR_MM)
