"""Short-axis images as a bright-blood cine shows a heart, of drawn anatomies whose labels are known: what the network is tried on.

No patient's image looks like these. Partial volume, noise, coil bias, contrast, tilt, papillary muscles, fat, lung, liver and blood above
the base plane vary from image to image; motion, flow and other artefacts are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from planners.virtual.anatomy import Anatomy, labels
from planners.virtual.family import GROUPS, draw_anatomy
from planners.virtual.late_enhancement import write_scan
from twin.atomic import write_json
from twin.image import Image
from twin.imaging.segmentation.dataset import PHANTOM
from twin.io.nrrd import write_nrrd
from twin.params import Param
from twin.volume import LABELS, LabelVolume

Array = NDArray[np.float64]

_OWN = "chosen here: arbitrary units, order of tissues as in balanced steady-state cine, no published set"
SIGNAL = {
    "blood": Param(230.0, "1", 170.0, 280.0, _OWN),
    "muscle": Param(85.0, "1", 60.0, 120.0, _OWN),
    "fat": Param(160.0, "1", 110.0, 200.0, _OWN),
    "lung": Param(20.0, "1", 5.0, 40.0, _OWN),
    "liver": Param(100.0, "1", 60.0, 130.0, _OWN),
}
PIXEL_MM = (1.4, 1.9)
SLICE_MM = (6.0, 9.0)
NOISE = (0.02, 0.08)
"""SD as a share of the blood's signal."""
BIAS = 0.25
"""Largest relative change of the coil's sensitivity from the middle to an edge."""
TILT_DEG = 4.0
LABEL_MM = 2.0
"""Voxels of the labels that a heart is drawn with; what is sampled from them is smoothed over them."""
ATRIA_MM, ANNULUS = 14.0, 0.7
"""Blood above the base plane that slices there show, as wide as the valves: this share of the ventricles' width."""
NAMES = ("lv_blood", "rv_blood", "lv_myocardium", "rv_myocardium")


@dataclass(frozen=True)
class _Grid:
    """Slices across the long axis: affine (4, 4) voxel to LPS mm, shape and how many parts a voxel is averaged over."""

    affine: Array
    shape: tuple[int, int, int]
    parts: int

    def places(self, part: int) -> Array:
        """LPS mm of one part of every voxel along the slice's thickness, (n, 3)."""
        ijk = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in self.shape), indexing="ij"), axis=-1).reshape(-1, 3)
        ijk[:, 2] += (part + 0.5) / self.parts - 0.5
        return ijk @ self.affine[:3, :3].T + self.affine[:3, 3]


def cine_like(rng: np.random.Generator, label_mm: float = LABEL_MM) -> tuple[Image, LabelVolume]:
    """One image and its labels (the likeliest of each voxel) on the same grid; the same generator state gives the same bytes."""
    anatomy = draw_anatomy(rng, group=str(rng.choice(sorted(GROUPS))))
    heart = labels(anatomy, label_mm)
    grid = _slices(anatomy, heart, rng)
    share, atria = _shares(anatomy, heart, grid)
    image = _signal(share, atria, grid, rng)
    drawn = np.argmax(np.concatenate([1.0 - share.sum(axis=0, keepdims=True), share]), axis=0)
    data = np.array([0, *(LABELS[name] for name in NAMES)], np.uint8)[drawn]
    spacing = float(np.linalg.norm(grid.affine[:3, 2]))
    made = LabelVolume(data, grid.affine, "labels of a cine-like phantom", {name: LABELS[name] for name in NAMES})
    return Image(image, grid.affine, "MR", spacing, "cine-like phantom"), made


def _slices(anatomy: Anatomy, heart: LabelVolume, rng: np.random.Generator) -> _Grid:
    """Slices from one or two above the base to below the apex, tilted and turned a little, with free space round the heart."""
    s, a, h = anatomy.axes()
    turn, tilt, way = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(0, TILT_DEG)), rng.uniform(0, 2 * np.pi)
    side = np.cos(way) * s + np.sin(way) * a
    across = np.cos(tilt) * h + np.sin(tilt) * side
    first = np.cross(across, np.cos(turn) * s + np.sin(turn) * a)
    first /= np.linalg.norm(first)
    frame = np.stack([first, np.cross(across, first), across], axis=1)
    pixel, thick = rng.uniform(*PIXEL_MM), rng.uniform(*SLICE_MM)
    seen = heart.to_mm(np.argwhere(heart.data > 0).astype(float)) @ frame
    room = np.array(
        [[*rng.uniform(12.0, 35.0, 2), thick * rng.uniform(0.6, 1.9)], [*rng.uniform(12.0, 35.0, 2), thick * rng.uniform(0.6, 1.9)]]
    )
    low, high = seen.min(axis=0) - room[0], seen.max(axis=0) + room[1]
    spacing = np.array([pixel, pixel, thick])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = frame * spacing, frame @ low
    shape = np.ceil((high - low) / spacing).astype(int)
    return _Grid(affine, (int(shape[0]), int(shape[1]), int(shape[2])), max(2, round(thick / LABEL_MM)))


def _shares(anatomy: Anatomy, heart: LabelVolume, grid: _Grid) -> tuple[Array, Array]:
    """Share of each label in every voxel, (4, ni, nj, nk), and that of blood above the base, (ni, nj, nk)."""
    masks = [ndimage.gaussian_filter(heart.mask(name).astype(np.float32), 0.4) for name in NAMES]
    share, atria = np.zeros((len(NAMES), int(np.prod(grid.shape)))), np.zeros(int(np.prod(grid.shape)))
    along = anatomy.axes()[2]
    for part in range(grid.parts):
        places = grid.places(part)
        local = anatomy.to_heart(places)
        above = -local[:, 2]
        # above the base the cavities go on as atria, narrower, without ventricular wall
        local[above > 0, :2] /= ANNULUS
        places = anatomy.to_lps(local) + np.maximum(above + LABEL_MM, 0.0)[:, None] * along
        at = heart.to_ijk(places).T
        here = np.stack([ndimage.map_coordinates(mask, at, order=1, mode="constant") for mask in masks])
        share += np.where(above > 0, 0.0, here)
        atria += np.where((above > 0) & (above < ATRIA_MM), here[0] + here[1], 0.0)
    return share.reshape(-1, *grid.shape) / grid.parts, atria.reshape(grid.shape) / grid.parts


def _signal(share: Array, atria: Array, grid: _Grid, rng: np.random.Generator) -> NDArray[np.float32]:
    """Intensities: tissue by share, papillary muscles in the LV, patches of fat, lung and liver around, bias, Rician noise."""
    tone = {name: float(rng.uniform(p.low, p.high)) for name, p in SIGNAL.items()}
    size = [7.0 / float(np.linalg.norm(grid.affine[:3, axis])) for axis in range(3)]
    patches = _noise(rng, grid.shape, [3.0 * s for s in size])
    around = np.select([patches < -0.3, patches < 0.5], [tone["lung"], tone["liver"]], tone["fat"])
    around = ndimage.gaussian_filter(around, [0.7, 0.7, 0.0])
    heart = share.sum(axis=0)
    # fat in the grooves of some hearts, lung right beside others
    near = ndimage.gaussian_filter((heart > 0.5).astype(float), [s * 0.6 for s in size])
    around = np.where(near > 0.15, tone["fat"] * rng.uniform(0.4, 1.0) + around * 0.3, around)
    papillary = np.clip(4.0 * (_noise(rng, grid.shape, [0.5 * s for s in size]) - 1.5), 0.0, 1.0) * rng.uniform(0.0, 1.0)
    blood = share[0] * (1.0 - papillary) + share[1] + atria
    muscle = share[2] + share[3] + share[0] * papillary
    texture = 1.0 + 0.04 * _noise(rng, grid.shape, [0.4 * s for s in size])
    clear = (blood * tone["blood"] + muscle * tone["muscle"] + np.clip(1.0 - heart - atria, 0.0, 1.0) * around) * texture
    x, y = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in grid.shape[:2]), indexing="ij")
    a, b, c = rng.uniform(-BIAS, BIAS, 3) / np.array([1.5, 1.5, 3.0])
    clear *= (1.0 + a * x + b * y + c * x * y)[:, :, None]
    noise = rng.uniform(*NOISE) * tone["blood"]
    measured = np.hypot(clear + rng.normal(0.0, noise, clear.shape), rng.normal(0.0, noise, clear.shape))
    return (measured * rng.uniform(0.3, 6.0)).astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: list[float]) -> Array:
    """Smooth noise of mean 0 and SD 1."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-12))


def write_phantoms(
    folder: Path, count: int, seed: int, progress: Callable[[int, int, str], None] = lambda done, total, what: None
) -> list[Path]:
    """Write images/phantom_NNN.nrrd and labels/phantom_NNN.nrrd, each image marked as a phantom in its header; the paths of the images.

    Each image has its own stream of the seed: more images do not change the first ones.
    """
    paths = []
    for k, child in enumerate(np.random.SeedSequence(seed).spawn(count)):
        image, made = cine_like(np.random.default_rng(child))
        path = folder / "images" / f"phantom_{k:03d}.nrrd"
        write_scan(path, image, {PHANTOM: str(seed)})
        write_nrrd(folder / "labels" / path.name, made)
        paths.append(path)
        progress(k + 1, count, "phantoms")
    write_json(
        folder / "phantoms.json", {"count": count, "seed": seed, "what": "generated images: nothing learned from them is for patients"}
    )
    return paths
