"""Radiomics by the definitions of the Image Biomarker Standardisation Initiative (Zwanenburg et al., Radiology 295:328, 2020).

Intensities, shape of the mesh and of the cloud of voxels, and texture (co-occurrence and run lengths over the 13 directions of a volume,
matrices merged). Checked against the initiative's digital phantom.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.imaging.lge import Enhancement

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DIRECTIONS: tuple[tuple[int, int, int], ...] = tuple(
    (i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) > (0, 0, 0)
)
BINS = 32
"""Grey levels for texture where the caller does not choose (fixed bin number)."""
LEAST_VOXELS = 8
"""Regions of fewer voxels have no texture worth a number (chosen here)."""


def features(
    values: NDArray[Any], mask: Mask, spacing_mm: tuple[float, float, float], bins: int | None = BINS
) -> dict[str, dict[str, float]]:
    """Every family for the voxels of a mask.

    values, mask: (ni, nj, nk); bins: grey levels by a fixed bin number, None where values are whole numbers from 1. Raises
    InputError for a mask that is empty or leaves only values that are not finite.
    """
    inside = mask & np.isfinite(values)
    if not inside.any():
        raise InputError("radiomics", "mask", "holds no voxel with a value", "give the mask of a region that the image shows")
    box = tuple(slice(int(ends.min()), int(ends.max()) + 1) for ends in np.nonzero(inside))
    values, inside = values[box], inside[box]
    levels = discretise(values, inside, bins)
    out = {"intensity": first_order(values[inside].astype(np.float64)), "shape": shape(inside, spacing_mm)}
    return out | {"glcm": glcm_features(glcm(levels)), "glrlm": glrlm_features(glrlm(levels), int(inside.sum()))}


def of_enhancement(found: Enhancement, method: str) -> dict[str, Any]:
    """Radiomics of scar core, border zone and whole wall in late enhancement, and the border's entropy; empty regions are left out."""
    chosen, spacing = found.methods[method], np.linalg.norm(found.volume.affine[:3, :3], axis=0)
    size = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    out: dict[str, Any] = {"grey_levels": BINS, "aggregation": "3-D, matrices of the 13 directions merged"}
    for name, mask in (("scar_core", chosen.core), ("border_zone", chosen.border), ("wall", found.wall)):
        if (mask & np.isfinite(found.values)).sum() >= LEAST_VOXELS:
            families = features(found.values, mask, size)
            out[name] = {family: {key: round(value, 5) for key, value in row.items()} for family, row in families.items()}
    if chosen.border.any():
        out["border_zone_entropy_bits"] = round(found.entropy_bits(chosen.border), 3)
    return out


def discretise(values: NDArray[Any], mask: Mask, bins: int | None) -> NDArray[np.int64]:
    """Grey levels from 1, 0 outside the mask."""
    out = np.zeros(values.shape, np.int64)
    inside = values[mask].astype(np.float64)
    if bins is None:
        if (inside != np.round(inside)).any() or inside.min() < 1:
            raise InputError("radiomics", "values", "are not whole numbers from 1", "give a number of bins")
        out[mask] = inside.astype(np.int64)
        return out
    low, high = float(inside.min()), float(inside.max())
    out[mask] = 1 if high == low else np.minimum((bins * (inside - low) / (high - low)).astype(np.int64) + 1, bins)
    return out


def first_order(x: Array) -> dict[str, float]:
    """Intensity statistics of values (n,); percentiles by the lower rank, as the phantom's."""
    mean, variance = float(x.mean()), float(x.var())
    p10, q1, median, q3, p90 = (float(v) for v in np.percentile(x, [10, 25, 50, 75, 90], method="inverted_cdf"))
    robust = x[(x >= p10) & (x <= p90)]
    centred = x - mean
    _, counts = np.unique(x, return_counts=True)
    share = counts / len(x)
    return {
        "mean": mean,
        "variance": variance,
        "skewness": float((centred**3).mean() / variance**1.5) if variance > 0 else 0.0,
        "excess_kurtosis": float((centred**4).mean() / variance**2 - 3.0) if variance > 0 else 0.0,
        "median": median,
        "minimum": float(x.min()),
        "percentile_10": p10,
        "percentile_90": p90,
        "maximum": float(x.max()),
        "interquartile_range": q3 - q1,
        "range": float(np.ptp(x)),
        "mean_absolute_deviation": float(np.abs(centred).mean()),
        "robust_mean_absolute_deviation": float(np.abs(robust - robust.mean()).mean()),
        "median_absolute_deviation": float(np.abs(x - median).mean()),
        "coefficient_of_variation": float(np.sqrt(variance) / mean) if mean else 0.0,
        "quartile_dispersion": (q3 - q1) / (q3 + q1) if q3 + q1 else 0.0,
        "energy": float((x**2).sum()),
        "root_mean_square": float(np.sqrt((x**2).mean())),
        "entropy_of_values": float(-(share * np.log2(share)).sum()),
        "uniformity_of_values": float((share**2).sum()),
    }


def shape(mask: Mask, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Mesh volume and area (marching cubes at one half), what follows from them, and principal axes of the voxels; mm, mm2, mm3."""
    points, triangles = _mesh(mask, spacing_mm)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    volume = abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum())) / 6.0
    area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2.0
    voxels = np.argwhere(mask) * np.asarray(spacing_mm)
    axes = 4.0 * np.sqrt(np.maximum(np.sort(np.linalg.eigvalsh(np.cov(voxels.T)))[::-1], 0.0)) if len(voxels) > 1 else np.zeros(3)
    return {
        "mesh_volume_mm3": volume,
        "voxel_volume_mm3": float(mask.sum() * np.prod(spacing_mm)),
        "surface_mm2": area,
        "surface_to_volume_1_mm": area / volume,
        "compactness_1": volume / (np.sqrt(np.pi) * area**1.5),
        "compactness_2": 36 * np.pi * volume**2 / area**3,
        "sphericity": float((36 * np.pi * volume**2) ** (1 / 3) / area),
        "asphericity": float((area**3 / (36 * np.pi * volume**2)) ** (1 / 3) - 1.0),
        "spherical_disproportion": float(area / (36 * np.pi * volume**2) ** (1 / 3)),
        "maximum_diameter_mm": _diameter(points),
        "major_axis_mm": float(axes[0]),
        "minor_axis_mm": float(axes[1]),
        "least_axis_mm": float(axes[2]),
        "elongation": float(axes[1] / axes[0]) if axes[0] > 0 else 1.0,
        "flatness": float(axes[2] / axes[0]) if axes[0] > 0 else 1.0,
        "fractal_dimension": fractal_dimension(mask),
    }


def _mesh(mask: Mask, spacing_mm: tuple[float, float, float]) -> tuple[Array, NDArray[np.int64]]:
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    # a float copy: at one half of 0 and 1 every crossing lies in the middle of an edge
    padded = np.pad(mask, 1).astype(np.float32)
    image = vtk.vtkImageData()
    image.SetDimensions(*padded.shape)
    image.SetSpacing(*(float(s) for s in spacing_mm))
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel(order="F"), deep=1))
    cubes = vtk.vtkMarchingCubes()
    cubes.SetInputData(image)
    cubes.SetValue(0, 0.5)
    cubes.ComputeNormalsOff()
    cubes.Update()
    surface = cubes.GetOutput()
    triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    return vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float64), triangles


def _diameter(points: Array) -> float:
    """Largest distance of two surface points, found among the corners of their convex hull."""
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    try:
        corners = points[ConvexHull(points).vertices]
    except QhullError:
        corners = points
    return float(pdist(corners).max())


def fractal_dimension(mask: Mask) -> float:
    """Box-counting dimension of the region's surface voxels: slope of log count against log size over boxes of 1, 2, 4, ... voxels."""
    from scipy import ndimage

    surface = mask & ~ndimage.binary_erosion(mask)
    sizes, counts = [], []
    size = 1
    while size <= max(2, min(mask.shape) // 4):
        cells = np.unique(np.argwhere(surface) // size, axis=0)
        sizes.append(size)
        counts.append(len(cells))
        size *= 2
    return float(-np.polyfit(np.log(sizes), np.log(counts), 1)[0])


def _window(size: tuple[int, ...], offset: tuple[int, int, int], steps: int = 1) -> tuple[slice, ...]:
    """The part of an array from which `steps` offsets further is still inside it."""
    return tuple(slice(max(0, -d * steps), n - max(0, d * steps)) for n, d in zip(size, offset, strict=True))


def _pair(levels: NDArray[np.int64], offset: tuple[int, int, int], steps: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The volume and itself `steps` offsets further, where both are inside the array."""
    i, j, k = offset
    return levels[_window(levels.shape, offset, steps)], levels[_window(levels.shape, (-i, -j, -k), steps)]


def glcm(levels: NDArray[np.int64]) -> Array:
    """Co-occurrence of grey levels at distance 1, symmetric, all directions in one matrix, (g, g), sum 1."""
    top = int(levels.max())
    matrix = np.zeros((top + 1, top + 1))
    for offset in DIRECTIONS:
        a, b = _pair(levels, offset)
        both = (a > 0) & (b > 0)
        np.add.at(matrix, (a[both], b[both]), 1.0)
    matrix = (matrix + matrix.T)[1:, 1:]
    return np.asarray(matrix / max(matrix.sum(), 1.0))


def _entropy(p: Array) -> float:
    q = p[p > 0]
    return float(-(q * np.log2(q)).sum())


def glcm_features(p: Array) -> dict[str, float]:
    """Features of a co-occurrence matrix."""
    g = len(p)
    i, j = np.meshgrid(np.arange(1, g + 1), np.arange(1, g + 1), indexing="ij")
    apart, together = np.abs(i - j), i + j
    minus = np.array([p[apart == k].sum() for k in range(g)])
    plus = np.array([p[together == k].sum() for k in range(2, 2 * g + 1)])
    k_minus, k_plus = np.arange(g), np.arange(2, 2 * g + 1)
    row = p.sum(axis=1)
    mean = float((i * p).sum())
    variance = float(((i - mean) ** 2 * p).sum())
    far = apart > 0
    product = np.outer(row, row)
    seen = (p > 0) & (product > 0)
    hxy, hx = _entropy(p), _entropy(row)
    hxy1 = float(-(p[seen] * np.log2(product[seen])).sum())
    hxy2 = _entropy(product)
    cluster = i + j - 2 * mean
    return {
        "joint_maximum": float(p.max()),
        "joint_average": mean,
        "joint_variance": variance,
        "joint_entropy": hxy,
        "difference_average": float((k_minus * minus).sum()),
        "difference_variance": float(((k_minus - (k_minus * minus).sum()) ** 2 * minus).sum()),
        "difference_entropy": _entropy(minus),
        "sum_average": float((k_plus * plus).sum()),
        "sum_variance": float(((k_plus - (k_plus * plus).sum()) ** 2 * plus).sum()),
        "sum_entropy": _entropy(plus),
        "angular_second_moment": float((p**2).sum()),
        "contrast": float(((i - j) ** 2 * p).sum()),
        "inverse_difference": float((p / (1 + apart)).sum()),
        "inverse_difference_normalised": float((p / (1 + apart / g)).sum()),
        "inverse_difference_moment": float((p / (1 + apart**2)).sum()),
        "inverse_difference_moment_normalised": float((p / (1 + apart**2 / g**2)).sum()),
        "inverse_variance": float((p[far] / apart[far] ** 2).sum()),
        "correlation": float((((i - mean) * (j - mean)) * p).sum() / variance) if variance > 0 else 1.0,
        "autocorrelation": float((i * j * p).sum()),
        "cluster_tendency": float((cluster**2 * p).sum()),
        "cluster_shade": float((cluster**3 * p).sum()),
        "cluster_prominence": float((cluster**4 * p).sum()),
        "information_correlation_1": (hxy - hxy1) / hx if hx > 0 else 0.0,
        "information_correlation_2": float(np.sqrt(max(0.0, 1 - np.exp(-2 * (hxy2 - hxy))))),
    }


def glrlm(levels: NDArray[np.int64]) -> Array:
    """Runs by grey level and length over all directions in one matrix, (g, longest), counts."""
    top, longest = int(levels.max()), int(max(levels.shape))
    matrix = np.zeros((top + 1, longest + 2))
    for offset in DIRECTIONS:
        before = np.zeros_like(levels)
        i, j, k = offset
        before[_window(levels.shape, (-i, -j, -k))] = _pair(levels, offset)[0]
        alive = (levels > 0) & (before != levels)
        for length in range(1, longest + 2):
            # voxels that start a run of at least this length
            matrix[:, length] += np.bincount(levels[alive], minlength=top + 1)
            matrix[:, length - 1] -= np.bincount(levels[alive], minlength=top + 1) if length > 1 else 0
            further = np.zeros(levels.shape, bool)
            if all(length * abs(d) < n for d, n in zip(offset, levels.shape, strict=True)):
                a, b = _pair(levels, offset, length)
                further[_window(levels.shape, offset, length)] = a == b
            alive = alive & further
            if not alive.any():
                break
    return np.asarray(matrix[1:, 1 : longest + 1])


def glrlm_features(runs: Array, voxels: int) -> dict[str, float]:
    """Features of a run-length matrix over `voxels` voxels and all directions."""
    total = runs.sum()
    i, j = np.meshgrid(np.arange(1, runs.shape[0] + 1.0), np.arange(1, runs.shape[1] + 1.0), indexing="ij")
    p = runs / total
    mean_level, mean_length = float((i * p).sum()), float((j * p).sum())
    by_level, by_length = runs.sum(axis=1), runs.sum(axis=0)
    return {
        "short_runs_emphasis": float((p / j**2).sum()),
        "long_runs_emphasis": float((p * j**2).sum()),
        "low_grey_level_run_emphasis": float((p / i**2).sum()),
        "high_grey_level_run_emphasis": float((p * i**2).sum()),
        "short_run_low_grey_level_emphasis": float((p / (i**2 * j**2)).sum()),
        "short_run_high_grey_level_emphasis": float((p * i**2 / j**2).sum()),
        "long_run_low_grey_level_emphasis": float((p * j**2 / i**2).sum()),
        "long_run_high_grey_level_emphasis": float((p * i**2 * j**2).sum()),
        "grey_level_non_uniformity": float((by_level**2).sum() / total),
        "grey_level_non_uniformity_normalised": float((by_level**2).sum() / total**2),
        "run_length_non_uniformity": float((by_length**2).sum() / total),
        "run_length_non_uniformity_normalised": float((by_length**2).sum() / total**2),
        "run_percentage": float(total / (voxels * len(DIRECTIONS))),
        "grey_level_variance": float(((i - mean_level) ** 2 * p).sum()),
        "run_length_variance": float(((j - mean_length) ** 2 * p).sum()),
        "run_entropy": _entropy(p),
    }
