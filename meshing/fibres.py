"""Muscle fibre and sheet directions by rules: Laplace-Dirichlet frames, angles linear in depth.

J. D. Bayer et al., "A novel rule-based algorithm for assigning myocardial fiber orientation to computational heart models",
Ann Biomed Eng 40 (2012) 2243, doi 10.1007/s10439-012-0593-5, with two corrections. As published, the endocardial frames are built
with constant angles and blended again by depth, which makes the helix quadratic in depth with a jump near the epicardium: here
every frame carries the angle that belongs to its depth, so that blending joins directions that already agree. And depth is the
normalised distance through the wall, not the harmonic field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from meshing.coordinates import Wall, wall
from meshing.laplace import unit
from twin.mesh import HeartMesh
from twin.params import Param

_READ_SECOND_HAND = "common setting of rule-based fibres after Bayer 2012 and Streeter 1969 (defaults of LDRB_Fibers; second-hand)"
ALPHA_ENDO_DEG = Param(60.0, "deg", 40.0, 80.0, _READ_SECOND_HAND)
ALPHA_EPI_DEG = Param(-60.0, "deg", -80.0, -40.0, _READ_SECOND_HAND)
BETA_ENDO_DEG = Param(-45.0, "deg", -65.0, 0.0, _READ_SECOND_HAND)
BETA_EPI_DEG = Param(45.0, "deg", 0.0, 65.0, _READ_SECOND_HAND)


@dataclass(frozen=True)
class FibreAngles:
    """Helix (alpha) and sheet (beta) angles at the endocardium and the epicardium, degrees."""

    alpha_endo_deg: float = float(ALPHA_ENDO_DEG)
    alpha_epi_deg: float = float(ALPHA_EPI_DEG)
    beta_endo_deg: float = float(BETA_ENDO_DEG)
    beta_epi_deg: float = float(BETA_EPI_DEG)


_HALF_TURNS = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
"""Diagonals of the half turns that leave the three axes of a frame where they are."""


def fibres(
    mesh: HeartMesh, angles: FibreAngles | None = None, fields: Wall | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fibre and sheet unit vectors of every tetrahedron, each (m, 3) float64, orthogonal to each other.

    The helix angle is measured from the circumferential direction (counter-clockwise seen from the base) toward the base; it falls
    linearly in depth from endo to epi in both free walls, and from endo to minus endo through the septum (LV to RV side). The sheet
    direction is the outward one turned about the fibre by beta, which follows the same rule.
    Raises InputError if a surface is missing, RunFailed if a solve does not converge.
    """
    fields = wall(mesh) if fields is None else fields
    angles = FibreAngles() if angles is None else angles
    return turned_frames(
        mesh,
        fields,
        fields.elements.slope(fields.apex_base),
        Rule.same(angles.alpha_endo_deg, angles.alpha_epi_deg),
        Rule.same(angles.beta_endo_deg, angles.beta_epi_deg),
    )


def normals(fibre: NDArray[np.float64], sheet: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (m, 3) normal to the sheets: fibre x sheet, which completes a right-handed frame."""
    return np.cross(fibre, sheet)


Angle = float | NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """One angle in degrees at the endocardium and the epicardium of either ventricle; numbers, or one per tetrahedron (m,)."""

    lv_endo: Angle
    lv_epi: Angle
    rv_endo: Angle
    rv_epi: Angle

    @staticmethod
    def same(endo: Angle, epi: Angle) -> Rule:
        """The same angles in both ventricles."""
        return Rule(endo, epi, endo, epi)


def turned_frames(
    mesh: HeartMesh, fields: Wall, upward: NDArray[np.float64], helix: Rule, transverse: Rule
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fibre and sheet (m, 3) of frames whose longitudinal direction is `upward` (m, 3), turned by rules for helix and sheet angles."""
    elements = fields.elements
    u_lv, u_rv = elements.mean(fields.lv), elements.mean(fields.rv)
    epi = np.clip(1.0 - u_lv - u_rv, 0.0, 1.0)
    share = np.clip(u_rv / np.maximum(u_lv + u_rv, 1e-12), 0.0, 1.0)
    shift = elements.mean(fields.transmural - fields.across)
    right = fields.right[mesh.tets].mean(axis=1) > 0.5
    alpha, beta = (_angles(rule, epi, share, shift, right) for rule in (helix, transverse))
    sources = (-elements.slope(fields.lv), elements.slope(fields.rv), -elements.slope(fields.lv + fields.rv))
    lv, rv, outer = (_turned(_axes(upward, to), a, b) for to, a, b in zip(sources, alpha, beta, strict=True))
    inner = _bislerp(lv, rv, share) if fields.right.any() else lv
    frames = _bislerp(inner, outer, epi)
    return np.ascontiguousarray(frames[:, :, 0]), np.ascontiguousarray(frames[:, :, 2])


def _angles(
    rule: Rule, epi: NDArray[np.float64], share: NDArray[np.float64], shift: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The same angle, radians (m,), as the frames of LV, RV and epicardium count it.

    The outward direction of the RV's frame points into its cavity, so it counts angles of its own free wall with the other sign;
    `shift` (true depth minus harmonic depth) is the second correction.
    """
    lv, rv = np.deg2rad(rule.lv_endo), np.deg2rad(rule.rv_endo)
    endo = lv * (1.0 - share) + rv * share
    outer = np.deg2rad(rule.lv_epi) * (1.0 - share) + np.deg2rad(rule.rv_epi) * share
    across_septum = (lv * (1.0 - share) - rv * share) * (1.0 - epi)
    correction = (outer - endo) * shift
    as_lv = across_septum + outer * epi + correction
    as_rv = across_septum - outer * epi + np.where(right, -correction, correction)
    as_epi = endo * (1.0 - epi) + outer * epi + correction
    return as_lv, as_rv, as_epi


def _axes(upward: NDArray[np.float64], outward: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frames (m, 3, 3) with columns circumferential, longitudinal, transmural; right-handed also where a gradient vanishes."""
    up = unit(upward)
    up = np.where((np.abs(up).sum(axis=1) > 0)[:, None], up, np.array([0.0, 0.0, 1.0]))
    out = outward - np.einsum("mi,mi->m", outward, up)[:, None] * up
    # parallel gradients (apex, a far ventricle): any perpendicular will do, its weight in the blend is next to nothing
    least = np.eye(3)[np.argmin(np.abs(up), axis=1)]
    spare = unit(np.cross(up, least))
    usable = np.linalg.norm(out, axis=1) > 1e-9 * np.maximum(np.linalg.norm(outward, axis=1), 1e-12)
    out = np.where(usable[:, None], unit(out), spare)
    out = unit(out - np.einsum("mi,mi->m", out, up)[:, None] * up)
    return np.stack([np.cross(up, out), up, out], axis=2)


def _turned(frames: NDArray[np.float64], alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frames turned by alpha about their third column, then by beta about their new first one."""
    c, l, t = (frames[:, :, i] for i in range(3))
    ca, sa, cb, sb = (f(x)[:, None] for x in (alpha, beta) for f in (np.cos, np.sin))
    fibre, across = ca * c + sa * l, ca * l - sa * c
    return np.stack([fibre, cb * across - sb * t, sb * across + cb * t], axis=2)


def _bislerp(a: NDArray[np.float64], b: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shortest turn from frames a toward b (m, 3, 3) by a weight (m,) in 0..1, blind to the signs of the axes."""
    between = np.matmul(a.transpose(0, 2, 1), b)
    traces = np.diagonal(between, axis1=1, axis2=2) @ _HALF_TURNS.T
    flip = _HALF_TURNS[np.argmax(traces, axis=1)]
    step = Rotation.from_matrix(flip[:, :, None] * between).as_rotvec() * weight[:, None]
    return np.matmul(a * flip[:, None, :], Rotation.from_rotvec(step).as_matrix())
