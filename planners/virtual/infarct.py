"""A virtual infarct in any label volume: dense scar crossed by isthmuses, with a border zone, and the truth about it.

The infarct is drawn on a chart of the left ventricle's mid-wall around its centre: `s` mm along the circumference (towards
growing theta), `t` mm along the meridian (towards the base). Lengths along both are true; that is all the drawing needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planners.virtual.statistics import MUSCLE_G_PER_ML, TERRITORIES
from twin.errors import InputError
from twin.imaging.aha import HeartAxes, heart_axes
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


MOUTH_MM = 1.0
"""The corridors reach this far beyond the scar's outline, so that their mouths surely open into healthy muscle."""


@dataclass(frozen=True)
class IsthmusSpec:
    """A corridor of surviving tissue through the scar.

    offset_mm: distance of its middle from the scar's centre, across the corridor; angle_deg: direction in the chart, 0 along the
    circumference, 90 along the meridian; width_mm at the narrowest; flare: how much wider the mouths are, as a fraction;
    bow_mm: sideways bow of the middle; depth: part of the wall that survives, from 0 (endocardium) to 1 (epicardium).
    """

    offset_mm: float = 0.0
    angle_deg: float = 90.0
    width_mm: float = 6.5
    flare: float = 0.4
    bow_mm: float = 2.0
    depth: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class InfarctSpec:
    """Where the infarct lies, how large it is, and what survives in it.

    theta_deg: angle of the centre round the long axis, 0 the middle of the septum, 90 anterior, 180 lateral, -90 inferior;
    depth: of the centre along the LV cavity, 0 base, 1 apex; circumferential_mm, meridional_mm: extent (whole, not half);
    transmurality: dense scar from the endocardium to this fraction of the wall, from `spared_endo` on (above 0: intramural); patchy: share
    of the scar that survives in blobs of about patch_mm (0: none); rv_reach_mm: the RV's wall nearer than this to the scar is scar too;
    rim_mm: width of the border zone, which lies in
    `rim_patches` patches round the scar (0: a closed ring) and leaves rim_gap_mm free on both sides of an isthmus' mouth;
    wobble: relative irregularity of the outline; seed: of that irregularity.

    A closed ring of thin slow tissue is a delay line: waves creep along it and end every reentry after a beat or two at any
    resolution of the reduced model (measured here and in design/reentry.md 3 B), where real tissue is coupled to its neighbours.
    """

    theta_deg: float = 180.0
    depth: float = 0.45
    circumferential_mm: float = 50.0
    meridional_mm: float = 46.0
    transmurality: float = 1.0
    rim_mm: float = 2.0
    rim_gap_mm: float = 12.0
    rim_patches: int = 10
    wobble: float = 0.05
    seed: int = 1
    spared_endo: float = 0.0
    patchy: float = 0.0
    patch_mm: float = 6.0
    rv_reach_mm: float = 0.0
    isthmuses: Sequence[IsthmusSpec] = (IsthmusSpec(),)


def _mm(volume: LabelVolume, index: NDArray[np.integer]) -> Array:
    """Centres of voxels (n, 3) in LPS mm."""
    return volume.to_mm(index.astype(np.float64))


@dataclass(frozen=True)
class _Chart:
    """The LV wall around the infarct: voxel indices (n, 3), chart s, t (n,) mm, depth in the wall (n,) 0 endo - 1 epi."""

    index: NDArray[np.int64]
    s_mm: Array
    t_mm: Array
    depth: Array
    thickness_mm: Array


def _chart(volume: LabelVolume, axes: HeartAxes, theta0: float, depth0: float) -> _Chart:
    from scipy import ndimage

    wall = volume.mask("lv_myocardium")
    index = np.argwhere(wall)
    theta, h, radius = axes.polar(_mm(volume, index))
    around = (theta - theta0 + np.pi) % (2.0 * np.pi) - np.pi

    # above the base nothing is known: there the wall is cut, not bounded
    everywhere = _mm(volume, np.argwhere(np.ones(volume.data.shape, bool)))
    below = (axes.polar(everywhere)[1] > 0.0).reshape(volume.data.shape)
    outside = ~(wall | volume.mask("lv_blood")) & below
    spacing = volume.spacing_mm
    endo, epi = (
        ndimage.distance_transform_edt(~m, sampling=spacing)[wall] - 0.5 * spacing.mean() for m in (volume.mask("lv_blood"), outside)
    )

    # radius of the mid-wall over h in the infarct's sector, then arc length along the meridian
    step = 2.0
    edges = np.arange(-step, h.max() + step, step)
    # a real base is not flat: wall may stand above its middle
    sector = (np.abs(around) < np.radians(40.0)) & (np.abs(endo - epi) < 1.5 * spacing.mean()) & (h >= -step)
    which = np.digitize(h[sector], edges) - 1
    total, count = (np.bincount(which, w, minlength=len(edges)) for w in (radius[sector], None))
    known = count > 0
    centre = edges + 0.5 * step
    profile = ndimage.gaussian_filter1d(np.interp(centre, centre[known], total[known] / count[known]), 2.0, mode="nearest")
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(profile), np.diff(centre)))])
    t = np.interp(depth0 * axes.length_mm, centre, arc) - np.interp(h, centre, arc)
    return _Chart(index, np.interp(h, centre, profile) * around, t, np.clip(endo / np.maximum(endo + epi, 1e-9), 0.0, 1.0), endo + epi)


def _outline_distance(spec: InfarctSpec, s: Array, t: Array) -> Array:
    """Distance in mm from the irregular outline of the scar in the chart, negative inside (first order)."""
    a, b = 0.5 * spec.circumferential_mm, 0.5 * spec.meridional_mm
    angle = np.arctan2(t / b, s / a)
    rng = np.random.default_rng(spec.seed)
    shape = np.ones_like(s)
    for k in (2, 3, 4, 5):
        shape += spec.wobble * rng.normal() / np.sqrt(k) * np.cos(k * angle + rng.uniform(0.0, 2.0 * np.pi))
    level = np.sqrt((s / a) ** 2 + (t / b) ** 2)
    slope = np.sqrt((s / a**2) ** 2 + (t / b**2) ** 2) / np.maximum(level, 1e-9)
    return (level - shape) / np.maximum(slope, 1e-9)


def _along(spec: InfarctSpec, isthmus: IsthmusSpec, s: Array, t: Array) -> tuple[Array, Array, Array]:
    """Position along the corridor, distance from its centre line, half its width there (all mm)."""
    phi = np.radians(isthmus.angle_deg)
    u, v = s * np.cos(phi) + t * np.sin(phi), -s * np.sin(phi) + t * np.cos(phi) - isthmus.offset_mm
    half = 0.5 * np.hypot(spec.circumferential_mm * np.cos(phi), spec.meridional_mm * np.sin(phi))
    x = np.clip(u / half, -1.0, 1.0)
    return u, np.abs(v - isthmus.bow_mm * (1.0 - x * x)), 0.5 * isthmus.width_mm * (1.0 + isthmus.flare * x**4)


def add_infarct(volume: LabelVolume, spec: InfarctSpec) -> tuple[LabelVolume, dict[str, object]]:
    """Label an infarct in the LV wall as imaging would show it, and return the truth about it.

    volume: lv_blood, rv_blood, lv_myocardium are needed; only lv_myocardium is relabelled, to `scar` and `border_zone` (the
    surviving corridors are border_zone like the rim: an image does not know that they are isthmuses).
    truth: `isthmuses` (polyline_mm, length_mm, width_mm, mass_g), volumes and masses, the spec, and `virtual`: True.
    Raises InputError if labels are missing or the infarct touches no wall.
    """
    axes = heart_axes(volume)
    chart = _chart(volume, axes, np.radians(spec.theta_deg), spec.depth)
    distance = _outline_distance(spec, chart.s_mm, chart.t_mm)
    scar = (distance < 0.0) & (chart.depth <= spec.transmurality) & (chart.depth >= spec.spared_endo)
    rim = (distance < spec.rim_mm) & ~scar & (chart.depth <= spec.transmurality + spec.rim_mm / np.maximum(chart.thickness_mm, 1.0))
    if not scar.any():
        raise InputError(volume.source, "infarct", "no LV wall lies at its place", "move its centre (theta_deg, depth)")
    if spec.rim_patches:
        rim &= np.cos(spec.rim_patches * np.arctan2(chart.t_mm, chart.s_mm)) > 0.0
    corridors: list[Mask] = []
    for isthmus in spec.isthmuses:
        _, off, half = _along(spec, isthmus, chart.s_mm, chart.t_mm)
        low, high = isthmus.depth
        rim &= off > half + spec.rim_gap_mm
        corridors.append((off < half) & (distance < MOUTH_MM) & (chart.depth >= low) & (chart.depth <= high))
    survives = np.logical_or.reduce(corridors) if corridors else np.zeros(len(scar), bool)
    if spec.patchy > 0.0:
        survives = survives | (scar & _patches(volume, spec, chart, scar))

    data = volume.data.copy()
    for mask, name in ((scar & ~survives, "scar"), (rim | survives, "border_zone")):
        where = chart.index[mask]
        data[where[:, 0], where[:, 1], where[:, 2]] = LABELS[name]
    if spec.rv_reach_mm > 0.0:
        data[_beside(volume, data == LABELS["scar"], spec.rv_reach_mm)] = LABELS["scar"]
    names = {**volume.names, "scar": LABELS["scar"], "border_zone": LABELS["border_zone"]}
    out = replace(volume, data=data, names=names, source=f"{volume.source} with a virtual infarct")
    segments = _segments(chart, axes, volume, scar & ~survives)
    truth: dict[str, object] = {
        "virtual": True,
        "scar_share_of_aha_segments": segments,
        "territory": max(TERRITORIES, key=lambda name: sum(segments.get(k, 0.0) for k in TERRITORIES[name])),
        "spec": asdict(spec),
        "scar_ml": out.volume_ml("scar"),
        "scar_g": out.volume_ml("scar") * MUSCLE_G_PER_ML.value,
        "border_zone_ml": out.volume_ml("border_zone"),
        "isthmuses": [_isthmus_truth(volume, spec, i, chart, m & (distance < 0.0)) for i, m in zip(spec.isthmuses, corridors, strict=True)],
    }
    return out, truth


def _patches(volume: LabelVolume, spec: InfarctSpec, chart: _Chart, scar: Mask) -> Mask:
    """The share `patchy` of the scar where a smooth random field is highest, (n,) of the chart."""
    from scipy import ndimage

    rng = np.random.default_rng([spec.seed, 1])
    field = ndimage.gaussian_filter(rng.normal(size=volume.data.shape), 0.4 * spec.patch_mm / volume.spacing_mm)
    value = field[tuple(chart.index.T)]
    return np.asarray(value > np.quantile(value[scar], 1.0 - spec.patchy), bool)


def _beside(volume: LabelVolume, scar: Mask, reach_mm: float) -> Mask:
    """RV wall nearer than this to the scar."""
    from scipy import ndimage

    away = ndimage.distance_transform_edt(~scar, sampling=volume.spacing_mm)
    return np.asarray(volume.mask("rv_myocardium") & (away < reach_mm), bool)


def _segments(chart: _Chart, axes: HeartAxes, volume: LabelVolume, mask: Mask) -> dict[int, float]:
    """Share of the marked wall in each AHA segment, by thirds of the cavity's length and angle from the septum."""
    segment = axes.segments(_mm(volume, chart.index[mask]))
    return {int(k): round(float((segment == k).mean()), 3) for k in np.unique(segment)}


def _isthmus_truth(volume: LabelVolume, spec: InfarctSpec, isthmus: IsthmusSpec, chart: _Chart, mask: Mask) -> dict[str, object]:
    """Centre line, length, width and mass of one corridor, measured on its voxels."""
    points = _mm(volume, chart.index[mask])
    u, _, _ = _along(spec, isthmus, chart.s_mm[mask], chart.t_mm[mask])
    step = 2.0
    bins = np.arange(u.min(), u.max() + step, step)
    which = np.digitize(u, bins) - 1
    full = [k for k in range(len(bins)) if (which == k).sum() >= 8]
    line = np.array([points[which == k].mean(axis=0) for k in full])
    width = [(which == k).sum() * volume.voxel_mm3 / (step * chart.thickness_mm[mask][which == k].mean()) for k in full]
    share = isthmus.depth[1] - isthmus.depth[0]
    return {
        "polyline_mm": np.round(line, 2).tolist(),
        "length_mm": round(float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum()), 2),
        "width_mm": round(float(np.median(width)) / share, 2),
        "asked_width_mm": isthmus.width_mm,
        "volume_ml": round(float(mask.sum()) * volume.voxel_mm3 / 1000.0, 3),
        "mass_g": round(float(mask.sum()) * volume.voxel_mm3 / 1000.0 * MUSCLE_G_PER_ML.value, 3),
    }


def spec_from(table: Mapping[str, Any]) -> InfarctSpec:
    """An InfarctSpec from a table of a recipe (TOML); raises TypeError for a key that does not exist."""
    values = dict(table)
    rows: list[dict[str, Any]] = [
        {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in values.pop("isthmuses", [])
    ]
    return InfarctSpec(**values, isthmuses=tuple(IsthmusSpec(**row) for row in rows))
