"""A smooth displacement, small by construction: Gaussians about centres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.params import Param

Array = NDArray[np.float64]

WIDTH_MM = Param(30.0, "mm", 20.0, 50.0, "chosen here: the displacement changes over such lengths (breathing, filling), not over less")
LIMIT_MM = Param(8.0, "mm", 5.0, 10.0, "chosen here: no point is moved by more; what needs more is a wrong pose or another heart")


def kernel(points: Array, centres: Array) -> Array:
    """Weight (n, k) of each centre (k, 3) at each point (n, 3), mm."""
    away = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-0.5 * away / float(WIDTH_MM) ** 2))


def limited(displacement: Array) -> Array:
    """Displacements (n, 3) bent smoothly so that none is longer than LIMIT_MM."""
    size = np.linalg.norm(displacement, axis=1, keepdims=True)
    limit = float(LIMIT_MM)
    return np.asarray(displacement * (limit * np.tanh(size / limit) / np.maximum(size, 1e-12)))
