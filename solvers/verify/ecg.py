"""Volume conductors and signals against exact solutions: spheres, plane waves, reciprocity, and the monodomain's own electrocardiogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.box import box_mesh
from solvers.ecg.boundary import BoundaryElements, Region
from solvers.ecg.field import SIGMA_I_ACROSS, SIGMA_I_ALONG, unipolar_weights
from solvers.ecg.torso import SIGMA_LUNG, SIGMA_TORSO, icosphere
from solvers.verify.electrograms import checks as contact_checks
from twin.check_record import checked
from twin.io.surfaces import Surface
from twin.params import Param

Array = NDArray[np.float64]

RADIUS_MM, CORE_MM, ECCENTRIC_MM = 100.0, 40.0, 70.0
_SPHERE = "potential of a dipole in a homogeneous sphere in air (Neumann's function); linear boundary elements, 642 nodes"
SPHERE_TOLERANCE = Param(0.02, "1", 0.0, 0.03, "relative difference: " + _SPHERE)
ORDER_TOLERANCE = Param(
    0.6, "1", 0.0, 0.7, "linear collocation on spheres is of second order in the edge; softening cancels part of a coarse error"
)
CORE_TOLERANCE = Param(0.02, "1", 0.0, 0.03, "series of spherical harmonics for a sphere with a concentric core of another conductivity")
DIPOLE_TOLERANCE = Param(5e-3, "1", 0.0, 0.01, "far field of a uniformly polarised cube is a dipole up to (size/distance)^4")


def sphere_mv(moment: Array, source_mm: Array, places_mm: Array, radius_mm: float, sigma_s_m: float) -> Array:
    """Potential (n,) mV on the surface of a homogeneous sphere about the origin, of a dipole (uA mm) in it, up to a constant."""
    away = places_mm - source_mm
    d = np.linalg.norm(away, axis=1)[:, None]
    image = (places_mm + radius_mm * away / d) / (radius_mm * (radius_mm**2 - (places_mm @ source_mm)[:, None] + radius_mm * d))
    return np.asarray((2.0 * away / d**3 + image) @ moment / (4.0 * np.pi * sigma_s_m), np.float64)


def cored_sphere_mv(
    height_mm: float, places_mm: Array, radius_mm: float, core_mm: float, sigma_s_m: float, core_s_m: float, terms: int = 80
) -> Array:
    """The same for a unit dipole at (0, 0, height) pointing up, outside a concentric core of another conductivity."""
    r, a, b = radius_mm, core_mm, height_mm
    cosine = places_mm[:, 2] / np.linalg.norm(places_mm, axis=1)
    coefficients = np.zeros(terms)
    for n in range(1, terms):
        # lengths over b keep the powers small; unknowns: regular and singular part outside the core, regular part inside
        ra, rr = a / b, r / b
        matrix = np.array(
            [
                [n * rr ** (n - 1), -(n + 1) * rr ** -(n + 2.0), 0.0],
                [ra**n, ra ** -(n + 1.0), -(ra**n)],
                [sigma_s_m * n * ra ** (n - 1), -sigma_s_m * (n + 1) * ra ** -(n + 2.0), -core_s_m * n * ra ** (n - 1)],
            ]
        )
        rhs = np.array([(n + 1) * n * rr ** -(n + 2.0), (n + 1) * ra**n, sigma_s_m * (n + 1) * n * ra ** (n - 1)])
        row = np.abs(matrix).max(axis=1)
        regular, singular, _ = np.linalg.solve(matrix / row[:, None], rhs / row)
        coefficients[n] = n * rr ** -(n + 1.0) + regular * rr**n + singular * rr ** -(n + 1.0)
    return np.asarray(np.polynomial.legendre.legval(cosine, coefficients) / (4.0 * np.pi * sigma_s_m * b**2), np.float64)


def ball(levels: int, radius_mm: float) -> Surface:
    """An icosphere of a radius."""
    unit = icosphere(levels)
    return Surface(radius_mm * unit.points_mm, unit.triangles)


def infinite_mv(moment: Array, source_mm: Array, places_mm: Array, sigma_s_m: float) -> Array:
    """Potential (n,) mV of a dipole in an infinite medium."""
    away = places_mm - source_mm
    return np.asarray(away @ moment / (4.0 * np.pi * sigma_s_m * np.linalg.norm(away, axis=1) ** 3), np.float64)


def sphere_error(levels: int, source_mm: tuple[float, float, float], moment: tuple[float, float, float]) -> float:
    """Relative difference of boundary elements from the exact potential on the sphere, both of zero mean."""
    sigma, p, at = float(SIGMA_TORSO), np.array(moment), np.array(source_mm)
    skin = ball(levels, RADIUS_MM)
    body = BoundaryElements(Region(skin, sigma))
    return _difference(body.potentials(body.dipole_mv(p, at)), sphere_mv(p, at, body.points_mm, RADIUS_MM, sigma))


def core_error(levels: int, core_s_m: float, height_mm: float = ECCENTRIC_MM) -> float:
    """The same with a core of another conductivity below the source, which lies at a height above the centre."""
    sigma, at = float(SIGMA_TORSO), np.array([0.0, 0.0, height_mm])
    skin = ball(levels, RADIUS_MM)
    body = BoundaryElements(Region(skin, sigma), [Region(ball(levels - 1, CORE_MM), core_s_m)])
    found = body.potentials(body.dipole_mv(np.array([0.0, 0.0, 1.0]), at))[: len(skin.points_mm)]
    exact = cored_sphere_mv(height_mm, skin.points_mm, RADIUS_MM, CORE_MM, sigma, core_s_m)
    return _difference(found, exact)


def reciprocity_error() -> float:
    """Relative difference of a lead from reciprocal charges and from the potentials themselves, in a body with a lung."""
    sigma, p = float(SIGMA_TORSO), np.array([0.3, -1.0, 0.5])
    lung = ball(1, CORE_MM)
    core = Surface(lung.points_mm - np.array([0.0, 0.0, 30.0]), lung.triangles)
    body = BoundaryElements(Region(ball(2, RADIUS_MM), sigma), [Region(core, float(SIGMA_LUNG))])
    at = np.array([10.0, -20.0, 50.0])
    _, front = body.electrode(np.array([0.0, -RADIUS_MM, 0.0]))
    _, left = body.electrode(np.array([RADIUS_MM, 0.0, 0.0]))
    lead = (front - left)[None]
    direct = float((lead @ body.potentials(body.dipole_mv(p, at)))[0])
    step = 1e-2
    ends = body.lead_potential(body.charges(lead), np.stack([at - step * p, at + step * p]))[0]
    return abs(float(ends[1] - ends[0]) / (2.0 * step) / direct - 1.0)


def far_dipole_error() -> float:
    """A cube of tissue with a uniform voltage gradient, seen from 20 times its size, against its dipole."""
    mesh = box_mesh((10.0, 10.0, 10.0), 2.0, (0.6, 0.0, 0.8))
    slope, f = np.array([1.5, -2.0, 0.7]), np.array([0.6, 0.0, 0.8])
    tensor = float(SIGMA_I_ACROSS) * np.eye(3) + (float(SIGMA_I_ALONG) - float(SIGMA_I_ACROSS)) * np.outer(f, f)
    moment = -(tensor @ slope) * 1000.0
    places = np.array([[205.0, 5.0, 5.0], [-100.0, 150.0, 55.0], [5.0, 15.0, -190.0]])
    found = unipolar_weights(mesh, places) @ (mesh.points_mm @ slope)
    exact = infinite_mv(moment, np.full(3, 5.0), places, float(SIGMA_TORSO))
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def _difference(found: Array, exact: Array) -> float:
    exact = exact - exact.mean()
    return float(np.linalg.norm(found - found.mean() - exact) / np.linalg.norm(exact))


def checks() -> list[dict[str, Any]]:
    """Records of `vtwin verify ecg`."""
    eccentric = (0.0, 0.0, ECCENTRIC_MM)
    cases = {
        "central": ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
        "eccentric_radial": (eccentric, (0.0, 0.0, 1.0)),
        "half_way_tangential": ((0.0, 0.0, 0.5 * RADIUS_MM), (1.0, 0.0, 0.0)),
    }
    out = [_record("ecg/infinite/dipole", far_dipole_error(), 0.0, DIPOLE_TOLERANCE)]
    for name, case in cases.items():
        out.append(_record(f"ecg/sphere/{name}", sphere_error(3, *case), 0.0, SPHERE_TOLERANCE))
        order = float(np.log2(sphere_error(2, *case) / sphere_error(3, *case)))
        out.append(_record(f"ecg/sphere/{name}/order", order, 2.0, ORDER_TOLERANCE))
    for name, sigma in (("lung", float(SIGMA_LUNG)), ("blood", 0.65)):
        out.append(_record(f"ecg/sphere/core_of_{name}", core_error(3, sigma), 0.0, CORE_TOLERANCE))
    out.append(_record("ecg/sphere/touching_blood", core_error(3, 0.65, CORE_MM + 2.5), 0.0, CORE_TOLERANCE))
    source = Param(1e-4, "1", 0.0, 1e-3, "reciprocity: the lead field and the forward solve are the same matrix")
    out.append(_record("ecg/reciprocity", reciprocity_error(), 0.0, source))
    return out + contact_checks()


def _record(name: str, value: float, reference: float, tolerance: Param) -> dict[str, Any]:
    return checked(name, value, tolerance.unit, reference, tolerance.value, tolerance.source)
