"""Scar and border zone from every source that saw the wall, as one probability per region and tetrahedron.

Each source gives the likelihood of what it saw under healthy muscle, border zone and scar. The logarithms are added with a weight each
(log-linear pooling): errors of one source go together over the wall, so no source counts as often as it has samples. A source that is
missing, or did not see a place, leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import ndtr

from twin.calibrate.thresholds import HEALTHY_MV, SCAR_MV
from twin.mesh import REGIONS, HeartMesh
from twin.params import Param

Array = NDArray[np.float64]

CLASSES = ("healthy", "border_zone", "scar")
SOURCES = ("labels", "bipolar", "unipolar", "enhancement", "thickness")

_SCARRED = (
    "endocardial voltage over scar on MRI, within 1 cm of it and remote: unipolar 4.94 +- 3.25, 6.59 +- 3.81, 8.32 +- 3.39 mV, bipolar "
    "1.62 +- 1.73, 2.12 +- 2.15, 2.83 +- 2.34 mV, 15 patients, J Cardiovasc Magn Reson 15 Suppl 1:P65 (2013)"
)
UNIPOLAR_SCAR_MV = Param(4.94, "mV", 3.0, 6.0, _SCARRED)
UNIPOLAR_BORDER_MV = Param(6.59, "mV", 5.0, 8.3, _SCARRED)
UNIPOLAR_REMOTE_SD_MV = Param(3.39, "mV", 2.5, 4.0, _SCARRED)
UNIPOLAR_NORMAL_MV = Param(
    12.0,
    "mV",
    9.5,
    15.0,
    "chosen here so that 8.3 mV, below which 5 % of normal LV points lie (Hutchinson 2011, Circ Arrhythm Electrophysiol 4:49), is the "
    "limit: between the remote muscle of patients above (8.32 mV) and normal hearts",
)
BIPOLAR_LOG_SD = Param(0.7, "1", 0.4, 1.0, "spread of log voltage within one tissue; from the coefficients of variation of 0.8 to 1 above")
WALL_HEALTHY_MM = Param(9.0, "mm", 6.0, 12.0, "usual LV wall; the heart's own median takes its place where the scan gives it")
WALL_SPREAD = Param(0.25, "1", 0.15, 0.35, "spread of a healthy wall's thickness over its median (chosen here)")
WALL_RIDGE_MM = Param(4.2, "mm", 3.0, 5.4, "CT ridges that mark isthmuses, 4.2 +- 1.2 mm, design/clinical.md")
WALL_THIN_MM = Param(2.6, "mm", 1.5, 3.7, "CT wall beside them, 2.6 +- 1.1 mm, design/clinical.md")
LABEL_TRUST = Param(0.85, "1", 0.7, 0.95, "chance that a drawn region is what is there; readers' Dice for scar is 0.7-0.9 (chosen here)")
SPECIFIC_UNSEEN = Param(0.02, "1", 0.005, 0.05, "likelihood that any source gives whatever the tissue is: gross errors (chosen here)")
REACH_MM: Mapping[str, float] = {"bipolar": 4.0, "unipolar": 10.0}
"""How deep an electrode looks into the wall; the likelihood fades with a Gaussian of that width."""
ALONG_MM = 4.0
WEIGHT: Mapping[str, float] = {"labels": 0.87, "bipolar": 0.83, "unipolar": 0.2, "enhancement": 0.4, "thickness": 0.5}
"""What a source's log likelihood counts. Labels and bipolar voltage as fitted on three simulated hearts
(`planners.calibration.fusion_weights`). That fit gave unipolar voltage and enhancement next to nothing (4 mm slices, walls of 6 mm),
which is not transferred to other images: these two and thickness are chosen here."""
SLOWER_PER_QUARTER = Param(
    1.34,
    "1",
    1.2,
    1.5,
    "conduction velocity falls by this factor per 25 % of normalised LGE intensity: design/clinical.md after Aronis 2020 "
    "(doi 10.1161/CIRCEP.119.007792, its abstract read in part: 0.81 m/s without visible fibrosis)",
)


@dataclass(frozen=True)
class Fused:
    """probability (m, 3) of CLASSES per tetrahedron; sources: name -> (m, 3) each alone, NaN where it saw nothing.

    Tetrahedra outside the left ventricle keep their region with certainty.
    """

    probability: Array
    sources: Mapping[str, Array]
    wall: NDArray[np.bool_]

    def classes(self) -> NDArray[np.int64]:
        """Index into CLASSES per tetrahedron: scar where it is likelier than not, else border zone where both together are."""
        scar, sick = self.probability[:, 2], self.probability[:, 1] + self.probability[:, 2]
        return np.where(scar > 0.5, 2, np.where(sick > 0.5, 1, 0))

    def disagreement(self) -> Array:
        """Largest difference of two sources in the probability of any scar or border zone, (m,); NaN where fewer than two saw it."""
        sick = np.stack([p[:, 1] + p[:, 2] for p in self.sources.values()]) if self.sources else np.zeros((0, len(self.wall)))
        seen = np.isfinite(sick).sum(axis=0) >= 2
        out = np.full(len(self.wall), np.nan)
        out[seen] = np.nanmax(sick[:, seen], axis=0) - np.nanmin(sick[:, seen], axis=0)
        return out

    def regions(self, mesh: HeartMesh) -> HeartMesh:
        """The mesh with fused regions in the wall; a drawn isthmus stays one where scar or border zone is found."""
        found = np.array([REGIONS[name] for name in CLASSES], np.int16)[self.classes()]
        keep = mesh.in_region("isthmus") & (self.classes() > 0)
        region = np.where(self.wall & ~keep, found, mesh.region).astype(np.int16)
        out = mesh
        for name in (*CLASSES, "isthmus"):
            out = out.with_region(region == REGIONS[name], name)
        return out

    def by_segment(self, mesh: HeartMesh) -> dict[str, dict[str, float | None]]:
        """AHA segment -> share of its volume that is scar or border zone by each source and fused, and the mean disagreement."""
        volume = np.where(self.wall, mesh.tet_volumes_mm3, 0.0)
        segment = np.sort(mesh.aha_segment[mesh.tets], axis=1)[:, 1]
        apart = self.disagreement()
        out: dict[str, dict[str, float | None]] = {}
        for number in range(1, 18):
            here = (segment == number) & self.wall
            if not here.any():
                continue
            row = {name: _mean(p[:, 1] + p[:, 2], volume, here) for name, p in (*self.sources.items(), ("fused", self.probability))}
            out[str(number)] = {**row, "disagreement": _mean(apart, volume, here)}
        return out


def drawn_classes(mesh: HeartMesh) -> NDArray[np.int64]:
    """Index into CLASSES of every tetrahedron's region, (m,); an isthmus is border zone."""
    return np.asarray(np.select([mesh.in_region("scar"), mesh.in_region("border_zone", "isthmus")], [2, 1], 0), np.int64)


def _mean(values: Array, volume: Array, here: NDArray[np.bool_]) -> float | None:
    seen = here & np.isfinite(values)
    return round(float(np.average(values[seen], weights=volume[seen])), 3) if seen.any() and volume[seen].sum() > 0 else None


def normal(x: Array, mean: float, sd: float) -> Array:
    """Density of a normal distribution."""
    return np.asarray(np.exp(-0.5 * ((x - mean) / sd) ** 2) / sd, np.float64)


def likelihood(kind: str, values: Array, usual_mm: float = WALL_HEALTHY_MM.value) -> Array:
    """Likelihood of measured values (k,) under CLASSES, (k, 3), each row summing to 1: bipolar or unipolar mV, or thickness mm."""
    if kind == "bipolar":
        low, high = float(SCAR_MV), float(HEALTHY_MV)
        # medians so placed that the published cut-offs are where two tissues are equally likely
        middle = np.sqrt(low * high)
        medians = (high**2 / middle, middle, low**2 / middle)
        rows = [normal(np.log(np.maximum(values, 1e-3)), float(np.log(m)), float(BIPOLAR_LOG_SD)) for m in medians]
        # beyond the medians no tissue becomes less likely: a very high voltage is healthy, a very low one scar
        rows[0] = np.where(values > medians[0], rows[0].max(), rows[0])
        rows[2] = np.where(values < medians[2], rows[2].max(), rows[2])
    elif kind == "unipolar":
        sd = float(UNIPOLAR_REMOTE_SD_MV)
        rows = [normal(values, float(m), sd) for m in (UNIPOLAR_NORMAL_MV, UNIPOLAR_BORDER_MV, UNIPOLAR_SCAR_MV)]
        rows[0] = np.where(values > float(UNIPOLAR_NORMAL_MV), 1.0 / sd, rows[0])
    else:
        sd = float(WALL_SPREAD) * usual_mm
        # a spread that shrinks to nothing would make normal thin walls impossible
        rows = [normal(np.minimum(values, usual_mm), usual_mm, sd), normal(values, float(WALL_RIDGE_MM), 1.2)]
        rows.append(normal(np.maximum(values, float(WALL_THIN_MM)), float(WALL_THIN_MM), 1.1))
    out = np.stack(rows, axis=1)
    out /= np.maximum(out.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray((1.0 - float(SPECIFIC_UNSEEN)) * out + float(SPECIFIC_UNSEEN) / 3.0, np.float64)


def from_labels(mesh: HeartMesh) -> Array:
    """What drawn regions say, (m, 3): the drawn class with LABEL_TRUST, the others share the rest, its neighbour more than its opposite."""
    trust = float(LABEL_TRUST)
    table = np.array([[trust, 0.75 * (1 - trust), 0.25 * (1 - trust)], [0.5 * (1 - trust), trust, 0.5 * (1 - trust)]])
    table = np.vstack([table, [0.25 * (1 - trust), 0.75 * (1 - trust), trust]])
    return np.asarray(table[drawn_classes(mesh)], np.float64)


def from_voltage(mesh: HeartMesh, kind: str, points_mm: Array, values_mv: Array) -> Array:
    """What electrodes at points (k, 3) mm in mesh space say of every tetrahedron, (m, 3): neighbours averaged in the logarithm, then faded
    with depth to what says nothing; NaN where no point lies within three reaches."""
    good = np.isfinite(values_mv) & (values_mv > 0.0)
    out = np.full((len(mesh.tets), 3), np.nan)
    if not good.any():
        return out
    tree, logs = cKDTree(points_mm[good]), np.log(likelihood(kind, values_mv[good]))
    reach = REACH_MM[kind]
    centre = mesh.centroids_mm
    k = min(8, int(good.sum()))
    distance, near = (np.asarray(v).reshape(len(centre), k) for v in tree.query(centre, k=k))
    seen = distance[:, 0] < 2.0 * reach + ALONG_MM
    weight = np.exp(-0.5 * ((distance - distance[:, :1]) / ALONG_MM) ** 2)
    mean = np.einsum("mk,mkc->mc", weight, logs[near]) / weight.sum(axis=1, keepdims=True)
    fade = np.exp(-0.5 * (np.maximum(distance[:, 0] - 0.5 * reach, 0.0) / reach) ** 2)[:, None]
    out[seen] = _normalised(fade * mean)[seen]
    return out


def from_voxels(mesh: HeartMesh, volume_affine: Array, likelihoods: NDArray[np.floating]) -> Array:
    """Likelihoods on a voxel grid (ni, nj, nk, 3; NaN unseen) at the nearest voxel of every tetrahedron's centre, (m, 3)."""
    ijk = np.rint((mesh.centroids_mm - volume_affine[:3, 3]) @ np.linalg.inv(volume_affine[:3, :3]).T).astype(np.int64)
    shape = np.array(likelihoods.shape[:3])
    inside = ((ijk >= 0) & (ijk < shape)).all(axis=1)
    out = np.full((len(ijk), 3), np.nan)
    out[inside] = likelihoods[tuple(ijk[inside].T)]
    # the mesh is smooth, voxels are not: centres just outside the wall take the nearest seen voxel within 2 mm
    missing, seen = np.flatnonzero(~np.isfinite(out[:, 0])), np.argwhere(np.isfinite(likelihoods[..., 0]))
    if len(missing) and len(seen):
        places = seen @ volume_affine[:3, :3].T + volume_affine[:3, 3]
        distance, at = (np.asarray(v) for v in cKDTree(places).query(mesh.centroids_mm[missing], distance_upper_bound=2.0))
        hit = np.isfinite(distance)
        out[missing[hit]] = likelihoods[tuple(seen[at[hit]].T)]
    return out


def from_enhancement(values: Array, levels: tuple[float, float, float]) -> Array:
    """Likelihood (k, 3) of LGE intensities (k,) under CLASSES for levels (remote, its SD, robust maximum).

    Every published rule is a threshold between remote and maximum: fractions 40/60 of maximum, half maximum, remote + 5 SD. A voxel is scar
    to the extent that the rules for cores call it so, border zone to the extent that those for borders do, blurred by the noise.
    """
    remote, sd, top = levels
    if top <= remote + 5.0 * sd:
        # nothing enhances, so the fractions are fractions of noise
        return np.tile([0.96, 0.02, 0.02], (len(values), 1))
    core = np.mean([ndtr((values - cut) / sd) for cut in (0.6 * top, 0.5 * top, max(remote + 6.0 * sd, 0.55 * top))], axis=0)
    any_ = np.mean([ndtr((values - cut) / sd) for cut in (0.4 * top, remote + 3.0 * sd, remote + 5.0 * sd)], axis=0)
    any_ = np.maximum(any_, core)
    out = np.stack([1.0 - any_, any_ - core, core], axis=1)
    return np.asarray((1.0 - 3.0 * float(SPECIFIC_UNSEEN)) * out + float(SPECIFIC_UNSEEN), np.float64)


def fuse(mesh: HeartMesh, sources: Mapping[str, Array], weights: Mapping[str, float] = WEIGHT) -> Fused:
    """Pool what the sources say, {name: (m, 3)}; places that none saw, and the right ventricle, keep their drawn region."""
    own = np.eye(3)[drawn_classes(mesh)]
    wall = np.ones(len(mesh.tets), bool)
    if "transventricular" in mesh.coordinates:
        wall = mesh.coordinates["transventricular"][mesh.tets].mean(axis=1) < 0.5
    total, seen = np.zeros((len(mesh.tets), 3)), np.zeros(len(mesh.tets), bool)
    for name, p in sources.items():
        here = np.isfinite(p).all(axis=1) & wall
        total[here] += weights[name] * np.log(np.maximum(p[here], 1e-6))
        seen |= here
    kept = {name: np.where(wall[:, None], p, np.nan) for name, p in sources.items()}
    return Fused(np.where(seen[:, None], _normalised(total), own), kept, wall)


def _normalised(logs: Array) -> Array:
    out = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(out / out.sum(axis=1, keepdims=True), np.float64)


def slowing(normalised_intensity: float) -> tuple[float, float, float]:
    """Factor on conduction velocity at a normalised LGE intensity (0 remote, 1 maximum): value, low, high of the published law."""
    quarters = max(normalised_intensity, 0.0) / 0.25
    law = SLOWER_PER_QUARTER
    return float(law.value**-quarters), float(law.high**-quarters), float(law.low**-quarters)
