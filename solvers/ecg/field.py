"""Lead fields in an infinite conductor or in a torso: one weight per lead and node, computed once per mesh."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from meshing.electrodes import ELECTRODES, electrodes
from meshing.p1 import gradients, stiffness
from solvers.ecg import kernels
from solvers.ecg.leads import lead_matrix
from solvers.ecg.torso import SIGMA_TORSO, Torso, phantom
from twin.errors import InputError
from twin.mesh import HeartMesh
from twin.params import Param

_CLERC = "Clerc 1976 (J Physiol 255:335), as used by Niederer 2011 (doi 10.1098/rsta.2011.0139); read second-hand"
SIGMA_I_ALONG = Param(0.17, "S/m", 0.1, 0.4, _CLERC)
SIGMA_I_ACROSS = Param(0.019, "S/m", 0.01, 0.1, _CLERC)
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

    phi = -integral of (sigma_i grad Vm) . grad Z dV, Z the potential that a unit current at the lead's electrodes makes (reciprocity).
    Without a torso the medium is infinite and of conductivity `SIGMA_TORSO`: limb leads come out far too small against the precordial
    ones. Scar core and lesions carry no current. `weights` (n, 12), mV per mV, leads in the order of `twin.patient.LEADS`; the columns
    sum to zero, so a uniform potential makes no signal.
    """

    def __init__(self, mesh: HeartMesh, electrodes_mm: Mapping[str, NDArray[np.float64]] | None = None, torso: Torso | None = None) -> None:
        """`electrodes_mm`: RA, LA, LL, V1-V6, (3,) LPS mm each; the generic chest of `meshing.electrodes` if None.

        With a torso the electrodes move to the nearest skin. Raises InputError if an electrode is missing, in the muscle, or far from
        the skin, and for a torso that does not hold the heart.
        """
        wanted = dict(electrodes(mesh) if electrodes_mm is None else electrodes_mm)
        missing = [name for name in ELECTRODES if name not in wanted]
        if missing:
            raise InputError("electrodes", ", ".join(missing), "not given", f"give all of {', '.join(ELECTRODES)}")
        self.electrodes_mm = {name: np.asarray(wanted[name], float) for name in ELECTRODES}
        self.torso = torso
        if torso is None:
            unipolar = unipolar_weights(mesh, np.stack(list(self.electrodes_mm.values())))
            # einsum, not BLAS: the last digits of a threaded product depend on the number of threads
            self.weights = np.ascontiguousarray(np.einsum("lk,kn->nl", lead_matrix(), unipolar))
        else:
            conductor = torso.conductor(mesh)
            self.electrodes_mm, skin = torso.place(conductor, self.electrodes_mm)
            charges = conductor.charges(np.einsum("lk,kn->ln", lead_matrix(), skin))
            self.weights = np.ascontiguousarray(-(source_matrix(mesh) @ conductor.lead_potential(charges, mesh.points_mm).T))

    @classmethod
    def in_torso(
        cls, mesh: HeartMesh, torso: Torso | None = None, electrodes_mm: Mapping[str, NDArray[np.float64]] | None = None
    ) -> LeadField:
        """Lead fields in a body, the phantom of average size if none was imaged: limb leads have a realistic size."""
        return cls(mesh, electrodes_mm, phantom(mesh) if torso is None else torso)

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


def conductivity(mesh: HeartMesh, live: NDArray[np.bool_], share: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """Intracellular conductivity of the marked tetrahedra, (k, 3, 3) S/m, times the share of their region.

    Elements without a fibre direction conduct alike in all directions (mean conductivity).
    """
    fibre = mesh.fibre[live]
    along, across = float(SIGMA_I_ALONG), float(SIGMA_I_ACROSS)
    oriented = np.abs(fibre).sum(axis=1) > 0
    tensor = np.where(oriented, across, (along + 2.0 * across) / 3.0)[:, None, None] * np.eye(3)
    tensor += (along - across) * np.einsum("mi,mj->mij", fibre, fibre)
    for region, factor in (share or {}).items():
        tensor[mesh.in_region(region)[live]] *= factor
    return tensor


def source_matrix(mesh: HeartMesh, share: Mapping[str, float] | None = None) -> sp.csr_array:
    """Stiffness (n, n) of the intracellular conductivity, mS: K Vm is minus the current (uA) that leaves the cells at each node.

    A signal whose reciprocal potential at the nodes is z (n,), mV per uA, is -(K z) . Vm mV.
    """
    live = mesh.conducting()
    return stiffness(mesh.points_mm, mesh.tets[live], conductivity(mesh, live, share))


def unipolar_weights(mesh: HeartMesh, places_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (k, n) of nodal Vm in the potential at places (k, 3) mm of an infinite medium, against infinity.

    One quadrature point per tetrahedron. Raises InputError for a place inside or at an element: contact electrodes are in
    `solvers.ecg.electrograms`.
    """
    live = mesh.conducting()
    tets = mesh.tets[live]
    grad, volume = gradients(mesh.points_mm, tets)
    centre = mesh.points_mm[tets].mean(axis=1)
    flux = np.einsum("mij,maj->mai", conductivity(mesh, live), grad) * (volume / (4.0 * np.pi * float(SIGMA_TORSO)))[:, None, None]
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
