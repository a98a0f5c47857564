"""A small software renderer: shaded triangles to pixels, so that a report needs no display, driver or GPU.

VTK can draw without a screen only where the system has OpenGL libraries; a plan must also end with pictures where it has none.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """Triangles to draw: vertices_mm (n, 3), triangles (k, 3), colours (n, 3) in 0..1; opacity below 1 lets through what is behind."""

    vertices_mm: Array
    triangles: NDArray[np.int32]
    colours: Array
    opacity: float = 1.0


@dataclass(frozen=True)
class Camera:
    """Parallel projection: looks along `view` with `up` upward, centred on `centre_mm`, `height_mm` from bottom to top."""

    view: Array
    up: Array
    centre_mm: Array
    height_mm: float

    def axes(self) -> Array:
        """Rows: right, up, toward the eye; (3, 3)."""
        toward = -self.view / np.linalg.norm(self.view)
        right = np.cross(self.up, toward)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(toward, right), toward])


@njit(cache=True, nogil=True)
def _fill(
    xy: Array, depth: Array, tri: NDArray[np.int32], colour: Array, shade: Array, zbuffer: Array, image: Array, opacity: float
) -> None:
    height, width = zbuffer.shape
    for t in range(len(tri)):
        a, b, c = tri[t, 0], tri[t, 1], tri[t, 2]
        ax, ay, bx, by, cx, cy = xy[a, 0], xy[a, 1], xy[b, 0], xy[b, 1], xy[c, 0], xy[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-12:
            continue
        x0, x1 = max(0, int(np.floor(min(ax, bx, cx)))), min(width - 1, int(np.ceil(max(ax, bx, cx))))
        y0, y1 = max(0, int(np.floor(min(ay, by, cy)))), min(height - 1, int(np.ceil(max(ay, by, cy))))
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                wa = 1.0 - wb - wc
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                z = wa * depth[a] + wb * depth[b] + wc * depth[c]
                if z <= zbuffer[y, x]:
                    continue
                light = wa * shade[a] + wb * shade[b] + wc * shade[c]
                for k in range(3):
                    value = light * (wa * colour[a, k] + wb * colour[b, k] + wc * colour[c, k])
                    image[y, x, k] = opacity * value + (1.0 - opacity) * image[y, x, k]
                if opacity >= 1.0:
                    zbuffer[y, x] = z


def _vertex_shade(vertices: Array, triangles: NDArray[np.int32]) -> Array:
    """Brightness 0.45..1 from smooth normals and a light at the upper left, in camera space; both sides are lit."""
    p = vertices[triangles]
    face = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    normal = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normal, triangles[:, corner], face)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    normal *= np.where(normal[:, 2:] < 0, -1.0, 1.0)
    light = np.array([-0.35, 0.45, 0.82])
    return np.asarray(0.45 + 0.55 * np.clip(normal @ (light / np.linalg.norm(light)), 0.0, 1.0), np.float64)


def render(shapes: Sequence[Shape], camera: Camera, width: int = 640, height: int = 560, scale_bar_mm: float = 20.0) -> bytes:
    """Draw shapes, solid ones first, with a scale bar at the lower left; returns the bytes of a PNG with a white ground."""
    fine = 2  # twice the pixels each way, averaged: smooth edges
    w, h = width * fine, height * fine
    pixel = camera.height_mm / h
    image = np.ones((h, w, 3))
    zbuffer = np.full((h, w), -np.inf)
    axes = camera.axes()
    for shape in sorted(shapes, key=lambda s: s.opacity < 1.0):
        if len(shape.triangles) == 0:
            continue
        seen = (shape.vertices_mm - camera.centre_mm) @ axes.T
        xy = np.ascontiguousarray(np.stack([w / 2 + seen[:, 0] / pixel, h / 2 - seen[:, 1] / pixel], axis=1))
        shade = _vertex_shade(seen, shape.triangles)
        tri = np.ascontiguousarray(shape.triangles, dtype=np.int32)
        _fill(xy, np.ascontiguousarray(seen[:, 2]), tri, np.ascontiguousarray(shape.colours), shade, zbuffer, image, shape.opacity)
    bar = round(scale_bar_mm / pixel)
    image[h - 26 : h - 20, 24 : 24 + bar] = 0.15
    small = image.reshape(height, fine, width, fine, 3).mean(axis=(1, 3))
    return png(small)


def png(image: Array) -> bytes:
    """An (h, w, 3) image in 0..1 as PNG bytes that depend on the pixels alone."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def sphere(centre_mm: Array, radius_mm: float, colour: Sequence[float]) -> Shape:
    """A ball of 320 triangles."""
    vertices, triangles = _icosphere()
    return Shape(vertices * radius_mm + centre_mm, triangles, np.tile(np.asarray(colour, float), (len(vertices), 1)))


def _icosphere() -> tuple[Array, NDArray[np.int32]]:
    """Icosahedron refined twice, triangles outward; a ball for lesions and sites."""
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, s1, s2 * golden) for s1 in (-1.0, 1.0) for s2 in (-1.0, 1.0)]
    points = np.array([np.roll(c, k) for c in corners for k in range(3)])
    for _ in range(2):
        faces = ConvexHull(points).simplices
        middle = np.concatenate([points[faces[:, list(pair)]].mean(axis=1) for pair in ((0, 1), (1, 2), (0, 2))])
        points = np.unique(np.round(np.concatenate([points, middle]), 9), axis=0)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    faces = ConvexHull(points).simplices.astype(np.int32)
    p = points[faces]
    inward = np.einsum("ij,ij->i", np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), p.sum(axis=1)) < 0
    faces[inward] = faces[inward][:, ::-1]
    return points, faces


def tube(path_mm: Array, radius_mm: float, colour: Sequence[float], sides: int = 10) -> Shape:
    """A round tube along a polyline (n, 3)."""
    path = np.asarray(path_mm, float)
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    side = np.zeros_like(path)
    reference = np.array([1.0, 0.0, 0.0]) if abs(tangent[0, 0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    for i, t in enumerate(tangent):
        reference = reference - t * (reference @ t)  # carried along, so that the tube does not twist
        reference /= max(float(np.linalg.norm(reference)), 1e-12)
        side[i] = reference
    other = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * other[:, None]
    vertices = (path[:, None] + radius_mm * ring).reshape(-1, 3)
    a = (np.arange(len(path) - 1)[:, None] * sides + np.arange(sides)).ravel()
    b = (np.arange(len(path) - 1)[:, None] * sides + (np.arange(sides) + 1) % sides).ravel()
    triangles = np.concatenate([np.stack([a, b, a + sides], axis=1), np.stack([b, b + sides, a + sides], axis=1)])
    return Shape(vertices, triangles.astype(np.int32), np.tile(np.asarray(colour, float), (len(vertices), 1)))
