"""Colours that stay apart for every kind of colour vision (Okabe and Ito 2008; viridis for ordered quantities)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.mesh import REGIONS, HeartMesh

Array = NDArray[np.float64]

TISSUE = {
    "healthy": (0.90, 0.80, 0.74),
    "border_zone": (0.90, 0.62, 0.00),
    "isthmus": (0.94, 0.89, 0.26),
    "scar": (0.36, 0.30, 0.42),
    "lesion": (0.00, 0.45, 0.70),
}
CIRCUIT = (0.84, 0.37, 0.00)
TARGET = (0.00, 0.45, 0.70)
SITE = (0.00, 0.62, 0.45)
NOT_ACTIVATED = (0.72, 0.72, 0.72)


def tissue_colours(mesh: HeartMesh) -> Array:
    """Colour of each node by the tissue that most of its tetrahedra are made of, (n, 3) in 0..1."""
    names = list(TISSUE)
    votes = np.zeros((mesh.n_points, len(names)))
    for column, name in enumerate(names):
        votes[:, column] = np.bincount(mesh.tets[mesh.region == REGIONS[name]].ravel(), minlength=mesh.n_points)
    return np.array([TISSUE[name] for name in names])[votes.argmax(axis=1)]


def activation_colours(node_ms: Array, low: float, high: float) -> Array:
    """Viridis in ten isochrones from early (dark) to late (bright), grey where no wave came, (n, 3)."""
    from matplotlib import colormaps

    steps = np.clip(np.floor((node_ms - low) / max(high - low, 1e-9) * 10) / 10 + 0.05, 0.0, 1.0)
    colours = np.asarray(colormaps["viridis"](np.nan_to_num(steps)))[:, :3]
    colours[~np.isfinite(node_ms)] = NOT_ACTIVATED
    return np.asarray(colours, np.float64)
