"""Lead fields in an infinite homogeneous conductor: one weight per lead and node, computed once per mesh."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from meshing.electrodes import ELECTRODES, electrodes
from meshing.p1 import gradients
from solvers.ecg import kernels
from solvers.ecg.leads import lead_matrix
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.params import Param

_CLERC = "Clerc 1976 (J Physiol 255:335), as used by Niederer 2011 (doi 10.1098/rsta.2011.0139); read second-hand"
SIGMA_I_ALONG = Param(0.17, "S/m", 0.1, 0.4, _CLERC)
SIGMA_I_ACROSS = Param(0.019, "S/m", 0.01, 0.1, _CLERC)
SIGMA_TORSO = Param(0.2, "S/m", 0.16, 0.25, "assumption: mean torso conductivity, between lung (about 0.05-0.1) and blood (about 0.6)")
REST_MV = Param(
    -85.0, "mV", -92.0, -80.0, "resting potential of human ventricular cells (ten Tusscher 2006, doi 10.1152/ajpheart.00109.2006)"
)
PLATEAU_MV = Param(15.0, "mV", 0.0, 35.0, "early plateau of human ventricular cells (ten Tusscher 2006, doi 10.1152/ajpheart.00109.2006)")
UPSTROKE_MS = Param(
    1.0, "ms", 0.2, 3.0, "assumption: logistic width; 10-90 % rise is 4.4 widths, smeared over the 2-4 ms that a wave needs per element"
)
RECOVERY_MS = Param(15.0, "ms", 5.0, 30.0, "assumption: logistic width of phase 3; 10-90 % fall of about 65 ms")


class LeadField:
    """Twelve-lead electrocardiogram of one heart as a linear map of its transmembrane potentials.

    phi(x) = -1/(4 pi sigma) integral of (sigma_i grad Vm) . (x - x') / |x - x'|^3 dV, the potential of the impressed currents in an
    infinite medium of conductivity `SIGMA_TORSO`. No torso boundary, lungs or blood: limb leads come out small against the precordial
    ones. Scar core and lesions carry no current. `weights` (n, 12), mV per mV, leads in the order of `twin.patient.LEADS`; the columns
    sum to zero, so a uniform potential makes no signal.
    """

    def __init__(self, mesh: HeartMesh, electrodes_mm: Mapping[str, NDArray[np.float64]] | None = None) -> None:
        """`electrodes_mm`: RA, LA, LL, V1-V6, (3,) LPS mm each; the generic chest of `meshing.electrodes` if None.

        Raises InputError if an electrode is missing or not outside the muscle's elements by a usable distance.
        """
        self.electrodes_mm = dict(electrodes(mesh) if electrodes_mm is None else electrodes_mm)
        missing = [name for name in ELECTRODES if name not in self.electrodes_mm]
        if missing:
            raise InputError("electrodes", ", ".join(missing), "not given", f"give all of {', '.join(ELECTRODES)}")
        places = np.stack([np.asarray(self.electrodes_mm[name], float) for name in ELECTRODES])
        # einsum, not BLAS: the last digits of a threaded product depend on the number of threads
        self.weights = np.ascontiguousarray(np.einsum("lk,kn->nl", lead_matrix(), unipolar_weights(mesh, places)))

    def ecg(self, vm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Leads (12, t) mV of transmembrane potentials vm (t, n) mV, float32 or float64."""
        _expect(vm.ndim == 2 and vm.shape[1] == len(self.weights), "vm", f"shape {vm.shape} is not (t, {len(self.weights)})")
        out = np.zeros((len(vm), self.weights.shape[1]))
        kernels.sum_potentials(self.weights, np.ascontiguousarray(vm), out)
        return np.ascontiguousarray(out.T)

    def qrs(self, arrival_ms: NDArray[np.float64], time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Leads (12, t) mV of the depolarisation: every node steps from rest to plateau when the wave arrives.

        arrival_ms (n,), inf or NaN where no wave comes; time_ms (t,) ascending. A reaction-eikonal electrocardiogram
        (Neic 2017, doi 10.1016/j.jcp.2017.06.020).
        """
        return (float(PLATEAU_MV) - float(REST_MV)) * self._steps(arrival_ms, float(UPSTROKE_MS), time_ms)

    def qrst(self, arrival_ms: NDArray[np.float64], apd_ms: NDArray[np.float64], time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Leads (12, t) mV of depolarisation and repolarisation; apd_ms (n,) is the time from upstroke to half way down."""
        recovery = self._steps(arrival_ms + apd_ms, float(RECOVERY_MS), time_ms)
        return self.qrs(arrival_ms, time_ms) - (float(PLATEAU_MV) - float(REST_MV)) * recovery

    def _steps(self, at_ms: NDArray[np.float64], width_ms: float, time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        _expect(at_ms.shape == (len(self.weights),), "arrival_ms", f"shape {at_ms.shape} is not ({len(self.weights)},)")
        _expect(bool((np.diff(time_ms) > 0).all()), "time_ms", "is not ascending")
        out = np.zeros((len(time_ms), self.weights.shape[1]))
        at, times = np.ascontiguousarray(at_ms, np.float64), np.ascontiguousarray(time_ms, np.float64)
        kernels.sum_steps(self.weights, at, width_ms, times, out)
        return np.ascontiguousarray(out.T)


def unipolar_weights(mesh: HeartMesh, places_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (k, n) of nodal Vm in the potential at places (k, 3) mm against infinity.

    One quadrature point per tetrahedron. Elements without a fibre direction conduct alike in all directions (mean conductivity).
    Raises InputError for a place inside or at an element.
    """
    live = mesh.conducting()
    tets, fibre = mesh.tets[live], mesh.fibre[live]
    grad, volume = gradients(mesh.points_mm, tets)
    centre = mesh.points_mm[tets].mean(axis=1)
    along, across = float(SIGMA_I_ALONG), float(SIGMA_I_ACROSS)
    oriented = (np.abs(fibre).sum(axis=1) > 0)[:, None]
    projection = np.einsum("mai,mi->ma", grad, fibre)
    flux = np.where(oriented, across, (along + 2.0 * across) / 3.0)[:, :, None] * grad
    flux += (along - across) * projection[:, :, None] * fibre[:, None, :]
    flux *= volume[:, None, None] / (4.0 * np.pi * float(SIGMA_TORSO))
    out = np.empty((len(places_mm), mesh.n_points))
    for k, place in enumerate(places_mm):
        away = place - centre
        distance = np.linalg.norm(away, axis=1)
        _expect(bool((distance**3 > volume).all()), "electrodes", f"{np.round(place, 1).tolist()} mm lies in the muscle")
        kernel = away / distance[:, None] ** 3
        share = -np.einsum("mai,mi->ma", flux, kernel)
        out[k] = np.bincount(tets.ravel(), share.ravel(), minlength=mesh.n_points)
    return out


def _expect(condition: bool, field: str, problem: str) -> None:
    if not condition:
        raise InputError("ecg", field, problem, "check what is passed to the lead field")
