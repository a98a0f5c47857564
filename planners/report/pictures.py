"""The still pictures of a report: tissue, waves and targets, seen from where the scar is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planners.report.palette import CIRCUIT, SITE, TARGET, activation_colours, tissue_colours
from planners.report.raster import Camera, Shape, render, sphere, tube
from planners.report.story import Story, Wave
from twin.mesh import HeartMesh
from twin.plan import Circuit

Array = NDArray[np.float64]


def _apex_to_base(mesh: HeartMesh) -> Array:
    """Unit vector of the long axis, from apex to base."""
    height = mesh.coordinates["apicobasal"]
    axis = mesh.points_mm[height > 0.8].mean(axis=0) - mesh.points_mm[height < 0.2].mean(axis=0)
    return np.asarray(axis / np.linalg.norm(axis), np.float64)


def camera(mesh: HeartMesh, from_behind: bool = False) -> Camera:
    """Look at the scar squarely from outside, base up; at the front of the chest when there is no scar."""
    axis = _apex_to_base(mesh)
    sick = mesh.in_region("scar", "border_zone", "isthmus", "lesion")
    centre = 0.5 * (mesh.points_mm.min(axis=0) + mesh.points_mm.max(axis=0))
    # LPS: anterior is -y
    toward = mesh.centroids_mm[sick].mean(axis=0) - _lv_centre(mesh) if sick.any() else np.array([0.3, -1.0, 0.2])
    toward = toward - axis * (toward @ axis)
    toward = toward / max(float(np.linalg.norm(toward)), 1e-9) + 0.15 * axis
    rough = Camera(toward if from_behind else -toward, axis, centre, 1.0)
    # fitted to what is seen: the heart fills the picture and no apex is cut off
    seen = (mesh.points_mm - centre) @ rough.axes().T
    low, high = seen.min(axis=0), seen.max(axis=0)
    middle = centre + 0.5 * (low + high) @ rough.axes()
    width, height = (high - low)[:2]
    return replace(rough, centre_mm=middle, height_mm=1.1 * float(max(height, width * 560 / 640)))


def _lv_centre(mesh: HeartMesh) -> Array:
    return np.asarray(mesh.points_mm[mesh.surface_nodes("lv_endo")].mean(axis=0), np.float64)


def _surface(mesh: HeartMesh, names: tuple[str, ...], colours: Array, opacity: float = 1.0) -> Shape:
    triangles = np.concatenate([mesh.surfaces[name] for name in names])
    return Shape(mesh.points_mm, triangles, colours, opacity)


def _facing(shape: Shape, view: Camera) -> Shape:
    """Only the triangles whose outward side (into the cavity) is turned to the eye: the far wall of a cavity cut open."""
    p = shape.vertices_mm[shape.triangles]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    return Shape(shape.vertices_mm, shape.triangles[normal @ view.view < 0], shape.colours, shape.opacity)


def _marks(story: Story) -> list[Shape]:
    shapes = [sphere(np.asarray(p, float), t.radius_mm * 0.6, TARGET) for t in story.plan.targets for p in t.positions_mm]
    for circuit in story.plan.circuits:
        if len(circuit.path_mm) > 2:
            shapes.append(tube(np.asarray(circuit.path_mm, float), 1.1, CIRCUIT))
    return shapes


def anatomy(story: Story) -> dict[str, bytes]:
    """Tissue from outside, from the opposite side, and on the LV endocardium seen from within; PNG bytes by title."""
    mesh = story.calibration.twin.mesh
    colours = tissue_colours(mesh)
    outer, inner = camera(mesh), camera(mesh, from_behind=True)
    whole = _surface(mesh, ("epi", "base", "lv_endo", "rv_endo"), colours)
    inside = _facing(_surface(mesh, ("lv_endo",), colours), inner)
    return {
        "Outer surface, facing the scar": render([whole], outer),
        "Outer surface, opposite side": render([whole], inner),
        "LV endocardium at the scar, seen from the cavity": render([inside], inner),
    }


def wave(story: Story, shown: Wave, scale: tuple[float, float] | None = None) -> dict[str, bytes]:
    """One wave on the outer surface and on the LV endocardium below the scar; PNG bytes by title."""
    mesh = story.mesh
    finite = shown.node_ms[np.isfinite(shown.node_ms)]
    low, high = scale or ((float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0))
    colours = activation_colours(shown.node_ms, low, high)
    outer, inner = camera(mesh), camera(mesh, from_behind=True)
    whole = _surface(mesh, ("epi", "base"), colours)
    inside = _facing(_surface(mesh, ("lv_endo",), colours), inner)
    return {"outer surface": render([whole], outer, 480, 420), "LV endocardium from the cavity": render([inside], inner, 480, 420)}


def plan(story: Story) -> dict[str, bytes]:
    """Targets, circuit and tissue together: through a clear outer surface, and on the endocardium."""
    mesh = story.mesh
    colours = tissue_colours(mesh)
    outer, inner = camera(mesh), camera(mesh, from_behind=True)
    marks = _marks(story)
    glass = _surface(mesh, ("epi",), np.full((mesh.n_points, 3), 0.75), 0.18)
    endo = _surface(mesh, ("lv_endo", "rv_endo", "base"), colours)
    inside = _facing(_surface(mesh, ("lv_endo",), colours), inner)
    sites = [sphere(np.asarray(p, float), 2.2, SITE) for p in _inducing_sites(story)]
    return {
        "Targets (blue) and circuit (orange), outer wall clear; green: sites that induce; the bar is 20 mm": render(
            [endo, glass, *marks, *sites], outer
        ),
        "Targets and circuit on the LV endocardium, seen from the cavity": render([inside, *marks], inner),
    }


def circuit(story: Story, shown: Circuit) -> bytes:
    """One circuit through a clear outer wall: its path, its isthmus thicker, entrance and exit; PNG bytes."""
    mesh = story.calibration.twin.mesh
    glass = _surface(mesh, ("epi",), np.full((mesh.n_points, 3), 0.75), 0.18)
    endo = _surface(mesh, ("lv_endo", "rv_endo", "base"), tissue_colours(mesh))
    marks = [
        tube(np.asarray(line, float), radius, CIRCUIT) for line, radius in ((shown.path_mm, 0.8), (shown.isthmus_mm, 1.8)) if len(line) > 2
    ]
    marks += [
        sphere(np.asarray(shown.entrance_mm, float), 2.6, (1.0, 1.0, 1.0)),
        sphere(np.asarray(shown.exit_mm, float), 2.6, (0.1, 0.1, 0.1)),
    ]
    return render([endo, glass, *marks], camera(mesh), 480, 420)


def _inducing_sites(story: Story) -> list[Array]:
    nodes = story.plan.mesh.get("sites", {})
    used = {i.site for i in story.plan.inductions if i.induced}
    return [np.asarray(position, float) for name, position in nodes.items() if name in used]
