"""Contact electrograms: what a catheter's electrodes record on or near the muscle, and voltage maps made of them.

The potential of an electrode is -integral of (sigma_i grad Vm) . grad Z, Z the potential of a unit current spread along the electrode.
The medium is infinite and of the mean conductivity of muscle and blood: at a flat border between two conductors the potential of a
source in one, seen on the border, is that in a medium of their mean (image charges).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt, sosfiltfilt

from solvers.ecg import kernels
from solvers.ecg.field import source_matrix
from solvers.eikonal.reaction import ReactionEikonal
from twin.errors import InputError
from twin.experiment import Activations
from twin.mesh import HeartMesh
from twin.params import Param

Array = NDArray[np.float64]

SIGMA_CONTACT = Param(0.45, "S/m", 0.3, 0.65, "mean of muscle as a bulk (about 0.25) and blood (0.65, Gabriel 1996, Phys Med Biol 41:2251)")
SOURCE_SHARE = {
    "border_zone": Param(
        0.25, "1", 0.1, 0.7, "chosen here: share of surviving, coupled fibres; puts the border at 0.5-1.5 mV as defined clinically"
    ),
    "isthmus": Param(0.2, "1", 0.05, 0.5, "chosen here: channels are thinner than the border zone (Marchlinski 2000: below 0.5-1 mV)"),
}
"""Intracellular conductivity of thinned-out tissue against healthy muscle: fewer fibres drive less current."""

HEALTHY_MV = Param(1.5, "mV", 1.3, 2.0, "bipolar voltage of healthy LV endocardium is above (Marchlinski 2000, Circulation 101:1288)")
DENSE_SCAR_MV = Param(0.5, "mV", 0.3, 0.7, "bipolar voltage of dense scar is below (Marchlinski 2000, Circulation 101:1288)")
BAND_HZ = (
    Param(30.0, "Hz", 16.0, 30.0, "high pass of bipolar mapping (Marchlinski 2000: 30 or 10 Hz; 16-30 Hz on current systems)"),
    Param(300.0, "Hz", 240.0, 500.0, "low pass of bipolar mapping"),
)
ORDER = 2
BLOCK = 64
"""Electrodes that are summed together: their weights (n, 64) stay small on any mesh."""


@dataclass(frozen=True)
class Catheter:
    """The first pair of a catheter: lengths of the two electrodes and the gap between their edges, and their diameter, mm."""

    name: str
    first_mm: float
    second_mm: float
    gap_mm: float
    diameter_mm: float

    @property
    def spacing_mm(self) -> float:
        """Distance between the electrodes' centres."""
        return self.gap_mm + 0.5 * (self.first_mm + self.second_mm)


CATHETERS = {
    "ablation": Catheter("ablation", 3.5, 1.0, 1.0, 2.5),
    "multielectrode": Catheter("multielectrode", 1.0, 1.0, 2.0, 1.0),
    "grid": Catheter("grid", 1.0, 1.0, 3.0, 0.8),
}
"""Common kinds, to 0.5 mm as their makers give them: an irrigated tip, a spline of 1 mm electrodes, a square grid of them."""


@dataclass(frozen=True)
class Electrode:
    """A cylinder: ends of its axis (3,) mm and its radius."""

    start_mm: tuple[float, float, float]
    end_mm: tuple[float, float, float]
    radius_mm: float


def point_electrode(place_mm: Array, radius_mm: float = 0.5) -> Electrode:
    """A small ball at a place (3,) mm."""
    x, y, z = (float(c) for c in place_mm)
    return Electrode((x, y, z), (x, y, z), radius_mm)


def bipole(catheter: Catheter, site_mm: Array, normal: Array, direction: Array | None = None) -> tuple[Electrode, Electrode]:
    """Both electrodes of a catheter that touches the tissue at a site.

    normal (3,) away from the tissue. direction (3,) of the shaft from the first to the second electrode: across the normal it lies flat,
    the pair's middle over the site; None: along the normal, the tip pressing on the site.
    """
    out = np.asarray(normal, float) / np.linalg.norm(normal)
    radius = 0.5 * catheter.diameter_mm
    if direction is None:
        axis, begin = out, np.asarray(site_mm, float)
    else:
        axis = np.asarray(direction, float) - (np.asarray(direction, float) @ out) * out
        length = float(np.linalg.norm(axis))
        if not length > 1e-9:
            raise InputError(
                "electrogram", "direction", "runs along the normal", "give a direction in the surface, or none for a pressing tip"
            )
        axis = axis / length
        begin = np.asarray(site_mm, float) + radius * out - 0.5 * (catheter.first_mm + catheter.spacing_mm) * axis
    return tuple(
        Electrode(tuple((begin + a * axis).tolist()), tuple((begin + (a + length) * axis).tolist()), radius)
        for a, length in ((0.0, catheter.first_mm), (catheter.first_mm + catheter.gap_mm, catheter.second_mm))
    )  # type: ignore[return-value]


def contact_weights(mesh: HeartMesh, electrodes: Sequence[Electrode], share: Mapping[str, float] | None = None) -> Array:
    """Weights (n, k) of nodal Vm in the electrodes' unipolar signals against a far reference, mV per mV.

    Give them to `ReactionEikonal.signals`, or take frames of any solver times them (NaN of tissue that does not conduct set to 0).
    share: factor on the current of regions, `SOURCE_SHARE` if None. Electrodes may lie in, on or off the muscle; what is nearer to
    an electrode's axis than its radius counts as at the radius.
    """
    _check(electrodes)
    matrix = source_matrix(mesh, {k: float(v) for k, v in SOURCE_SHARE.items()} if share is None else share)
    return _weights(mesh, matrix, electrodes)


def _weights(mesh: HeartMesh, matrix: object, electrodes: Sequence[Electrode]) -> Array:
    potential = np.empty((mesh.n_points, len(electrodes)))
    for k, e in enumerate(electrodes):
        start, end = np.array(e.start_mm), np.array(e.end_mm)
        kernels.segment_potential(mesh.points_mm, start, end, e.radius_mm, 4.0 * np.pi * float(SIGMA_CONTACT), potential[:, k])
    return np.ascontiguousarray(-(matrix @ potential))  # type: ignore[operator]


def _check(electrodes: Sequence[Electrode]) -> None:
    for e in electrodes:
        if not (np.isfinite([*e.start_mm, *e.end_mm]).all() and e.radius_mm > 0):
            raise InputError("electrogram", "electrode", "has no finite place and positive radius", "give mm")


def band_passed(signals_mv: Array, fs_hz: float, low_hz: float | None = None, high_hz: float | None = None, causal: bool = False) -> Array:
    """Signals (k, t) through a Butterworth band (30-300 Hz), forwards and back so that nothing shifts; causal: once, as hardware does.

    Raises InputError when the sampling is too slow for the band.
    """
    low, high = float(BAND_HZ[0]) if low_hz is None else low_hz, float(BAND_HZ[1]) if high_hz is None else high_hz
    if not 0.0 < low < high < 0.5 * fs_hz:
        raise InputError(
            "electrogram", "band", f"{low:g} to {high:g} Hz does not fit samples at {fs_hz:g} Hz", "sample faster or lower the band"
        )
    sections = butter(ORDER, [low, high], btype="bandpass", fs=fs_hz, output="sos")
    # the record is taken to hold still before and after, so that its ends make no step
    pad = round(3.0 * fs_hz / low)
    padded = np.pad(np.asarray(signals_mv, np.float64), [(0, 0)] * (np.ndim(signals_mv) - 1) + [(pad, pad)], mode="edge")
    if causal:
        first = padded[..., :1]
        return np.asarray(sosfilt(sections, padded - first, axis=-1)[..., pad:-pad], np.float64)
    return np.asarray(sosfiltfilt(sections, padded, axis=-1, padlen=0)[..., pad:-pad], np.float64)


def peak_to_peak_mv(signals_mv: Array) -> Array:
    """Largest minus smallest value of signals (k, t), (k,) mV."""
    return np.asarray(signals_mv.max(axis=-1) - signals_mv.min(axis=-1), np.float64)


@dataclass(frozen=True)
class VoltageMap:
    """Peak-to-peak voltages of contact points: points_mm (k, 3), unipolar_mv (k,) of the first electrode, bipolar_mv (k,)."""

    points_mm: Array
    unipolar_mv: Array
    bipolar_mv: Array


def surface_sites(mesh: HeartMesh, surface: str, spacing_mm: float) -> tuple[Array, Array]:
    """Sites (k, 3) mm on a named surface, at least a spacing apart, and the directions (k, 3) away from the tissue there."""
    triangles = mesh.surfaces[surface]
    corner = mesh.points_mm[triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    at_node = np.zeros((mesh.n_points, 3))
    for i in range(3):
        np.add.at(at_node, triangles[:, i], normal)
    kept: list[int] = []
    free = np.zeros(mesh.n_points, bool)
    free[triangles] = True
    for node in np.flatnonzero(free):
        if free[node]:
            kept.append(int(node))
            free &= ((mesh.points_mm - mesh.points_mm[node]) ** 2).sum(axis=1) >= spacing_mm**2
    length = np.linalg.norm(at_node[kept], axis=1, keepdims=True)
    return mesh.points_mm[kept], at_node[kept] / np.maximum(length, 1e-300)


def voltage_map(
    mesh: HeartMesh,
    model: ReactionEikonal,
    log: Activations,
    time_ms: Array,
    sites_mm: Array,
    normals: Array,
    catheter: Catheter = CATHETERS["ablation"],
    directions: Array | None = None,
    share: Mapping[str, float] | None = None,
) -> VoltageMap:
    """Voltages of one beat at sites (k, 3) mm with normals (k, 3) away from the tissue: bipolar at 30-300 Hz, unipolar as it is.

    time_ms (t,) uniform, 1 ms or finer, over the whole depolarisation. directions (k, 3) of the shaft in the surface; None: the larger
    of two flat placements across one another counts, since no real map holds one direction.
    """
    steps = np.diff(time_ms)
    if len(time_ms) < 10 or not np.allclose(steps, steps[0], rtol=1e-6) or not 0 < steps[0] <= 1.0:
        raise InputError("electrogram", "time_ms", "is not uniform and at most 1 ms apart", "give np.arange(start, end, 0.5)")
    fs = 1000.0 / float(steps[0])
    turns = [_tangents(normals), np.cross(normals, _tangents(normals))] if directions is None else [directions]
    unipolar, bipolar = np.zeros(len(sites_mm)), np.zeros(len(sites_mm))
    for turn in turns:
        pairs = [bipole(catheter, *row) for row in zip(sites_mm, normals, turn, strict=True)]
        done = 0
        for first, second in _signals(mesh, model, log, time_ms, pairs, share):
            rows = slice(done, done + len(first))
            done += len(first)
            unipolar[rows] = np.maximum(unipolar[rows], peak_to_peak_mv(first))
            bipolar[rows] = np.maximum(bipolar[rows], peak_to_peak_mv(band_passed(first - second, fs)))
    return VoltageMap(sites_mm, unipolar, bipolar)


def _signals(
    mesh: HeartMesh,
    model: ReactionEikonal,
    log: Activations,
    time_ms: Array,
    pairs: Sequence[tuple[Electrode, Electrode]],
    share: Mapping[str, float] | None,
) -> Iterator[tuple[Array, Array]]:
    matrix = source_matrix(mesh, {k: float(v) for k, v in SOURCE_SHARE.items()} if share is None else share)
    half = BLOCK // 2
    for begin in range(0, len(pairs), half):
        block = pairs[begin : begin + half]
        weights = _weights(mesh, matrix, [p[0] for p in block] + [p[1] for p in block])
        signals = model.signals(log, weights, time_ms)
        yield signals[: len(block)], signals[len(block) :]


def _tangents(normals: Array) -> Array:
    """One direction (k, 3) across each normal."""
    axis = np.eye(3)[np.abs(normals).argmin(axis=1)]
    out = np.cross(normals, axis)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float64)
