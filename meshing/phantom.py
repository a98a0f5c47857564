"""Small analytic test anatomies as label volumes: known volumes, known surfaces, any orientation of the voxel axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from twin.volume import LABELS, LabelVolume

Labeller = Callable[[NDArray[np.float64]], NDArray[np.uint8]]


def voxelise(
    labeller: Labeller,
    low_mm: NDArray[np.float64],
    high_mm: NDArray[np.float64],
    spacing_mm: NDArray[np.float64],
    axes: NDArray[np.float64],
) -> LabelVolume:
    """Sample labels at voxel centres.

    labeller: (n, 3) LPS mm -> (n,) uint8; low_mm, high_mm (3,): corners of the box along the image axes; spacing_mm (3,);
    axes (3, 3): columns are the (orthonormal, right-handed) directions of the index axes in LPS.
    """
    shape = np.ceil((high_mm - low_mm) / spacing_mm).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing_mm
    affine[:3, 3] = axes @ low_mm
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    points = ijk @ affine[:3, :3].T + affine[:3, 3]
    return LabelVolume(labeller(points).reshape(tuple(shape)), affine, source="phantom")


def rotation(axis: tuple[float, float, float], degrees: float) -> NDArray[np.float64]:
    """Right-handed rotation matrix (3, 3) about an axis (Rodrigues)."""
    u = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def sphere_shell(inner_mm: float = 12.0, outer_mm: float = 20.0, voxel_mm: float = 1.0) -> LabelVolume:
    """Closed shell of muscle round LV blood; wall volume 4/3 pi (outer^3 - inner^3)."""

    def labels(p: NDArray[np.float64]) -> NDArray[np.uint8]:
        r = np.linalg.norm(p, axis=1)
        return np.select([r < inner_mm, r < outer_mm], [LABELS["lv_blood"], LABELS["myocardium"]], 0).astype(np.uint8)

    box = np.full(3, outer_mm + 3.3)
    return voxelise(labels, -box, box, np.full(3, voxel_mm), np.eye(3))


class Ventricles:
    """Half ellipsoids cut by the plane z = base_mm in their own frame: an LV shell and, optionally, an RV crescent beside it.

    scale multiplies every length; frame (3, 3): columns are the phantom's axes in LPS. Lengths at scale 1 are those of an adult heart.
    """

    lv_inner = np.array([23.0, 23.0, 62.0])
    lv_outer = np.array([33.0, 33.0, 72.0])
    rv_inner = np.array([44.0, 32.0, 58.0])
    rv_wall = 4.0
    rv_centre = np.array([-16.0, 0.0, 0.0])

    def __init__(
        self,
        scale: float = 1.0,
        rv: bool = True,
        base_mm: float = 12.0,
        frame: NDArray[np.float64] | None = None,
        scar_mm: float = 20.0,
        isthmus_mm: float = 5.0,
    ) -> None:
        self.scale, self.rv, self.base = scale, rv, base_mm * scale
        self.frame = np.eye(3) if frame is None else frame
        self.scar_mm, self.isthmus_mm = scar_mm, isthmus_mm

    def _local(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        return points_mm @ self.frame / self.scale

    def field(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Negative in the wall; vanishes on its surface; to first order the distance in mm, (n,)."""
        heart, lv, rv = self._parts(self._local(points_mm))
        base = points_mm @ self.frame[:, 2] - self.base
        return np.maximum.reduce([self.scale * heart, -self.scale * lv, -self.scale * rv, base])

    def _parts(self, q: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        lv = _ellipsoid(q, self.lv_inner)
        lv_epi = _ellipsoid(q, self.lv_outer)
        if not self.rv:
            return lv_epi, lv, np.full(len(q), 1e3)
        rv = np.maximum(_ellipsoid(q - self.rv_centre, self.rv_inner), -lv_epi)
        return np.minimum(lv_epi, _ellipsoid(q - self.rv_centre, self.rv_inner + self.rv_wall)), lv, rv

    def scar_field(self, points_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Scar with its border, scar, isthmus: negative inside; a sphere in the lateral LV wall with a channel along its long axis.

        scar_mm is the sphere's radius with its border zone of 4 mm, isthmus_mm the width of the channel.
        """
        q = self._local(points_mm) - np.array([28.0, 0.0, -18.0])
        r = np.linalg.norm(q, axis=1)
        isthmus = np.maximum(np.abs(q[:, 1]) - 0.5 * self.isthmus_mm, r - self.scar_mm)
        return self.scale * (r - self.scar_mm), self.scale * (r - self.scar_mm + 4.0), self.scale * isthmus

    def labels(self, points_mm: NDArray[np.float64], scar: bool = False) -> NDArray[np.uint8]:
        """Label of each point, (n,) uint8."""
        q = self._local(points_mm)
        heart, lv, rv = self._parts(q)
        septal = _ellipsoid(q, self.lv_outer) < 0
        out = np.where(septal, LABELS["lv_myocardium"], LABELS["rv_myocardium"]).astype(np.uint8)
        if scar:
            border, core, isthmus = self.scar_field(points_mm)
            for inside, name in ((border < 0, "border_zone"), (core < 0, "scar"), (isthmus < 0, "isthmus")):
                out[septal & inside] = LABELS[name]
        out[lv < 0] = LABELS["lv_blood"]
        out[rv < 0] = LABELS["rv_blood"]
        out[(heart > 0) | (points_mm @ self.frame[:, 2] > self.base)] = 0
        return out

    def volume(
        self,
        spacing_mm: float | tuple[float, float, float] = 1.0,
        axes: NDArray[np.float64] | None = None,
        scar: bool = False,
        offset_mm: float = 0.0,
    ) -> LabelVolume:
        """The phantom as labels; axes (3, 3): directions of the index axes in LPS (the phantom's frame if None).

        offset_mm: moves the slices along the third axis; without a turn, slices of 8 mm end at the base plane where it is -2.63.
        """
        turn = self.frame if axes is None else axes
        high = self.scale * np.array([36.0, 38.0, 14.0])
        low = self.scale * np.array([-66.0 if self.rv else -36.0, -38.0, -75.0])
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        seen = corners @ self.frame.T @ turn
        spacing = np.broadcast_to(np.asarray(spacing_mm, float), (3,))
        # an odd offset: no voxel centre falls on a plane of symmetry
        low = seen.min(axis=0) - 2.37 + np.array([0.0, 0.0, offset_mm])
        return voxelise(lambda p: self.labels(p, scar), low, seen.max(axis=0) + 2.37, spacing, turn)


def _ellipsoid(q: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """First-order distance to an ellipsoid, negative inside, (n,)."""
    k0 = np.linalg.norm(q / radii, axis=1)
    k1 = np.linalg.norm(q / radii**2, axis=1)
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-12)
