"""What calibration gives: the twin, how it was fitted, and what the report and an update need of that."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import read_npz, write_npz
from twin.calibrate.ecg import EcgFit
from twin.calibrate.gaussian import Gaussian
from twin.calibrate.registration import Registration
from twin.model import Twin

Array = NDArray[np.float64]

ARRAYS = ("arrival_ms", "map_points_mm", "map_lat_ms", "map_predicted_ms", "map_bipolar_mv", "offset_ms")
REGISTRATION_ARRAYS = ("transform", "distance_mm", "centres_mm", "coefficients_mm")
ECG_ARRAYS = ("time_ms", "predicted", "measured", "correlation")


def _gaussian_none() -> Gaussian:
    return Gaussian((), np.zeros(0), np.zeros((0, 0)))


@dataclass(frozen=True)
class Calibration:
    """The twin, and what the report shows of how it was fitted.

    arrival_ms (n,): the recorded rhythm at the mode, finer-mesh correction included; offset_ms (n,): that correction;
    map_* (k,): the map's points in the mesh's space, measured and predicted; belief: Gaussian over log velocities and source times,
    from which `update` goes on; doubts: what looks wrong about the evidence, one sentence each; unknowns: name -> what is known of each
    quantity, prior and posterior side by side (`posterior.json`).
    """

    twin: Twin
    arrival_ms: Array
    registration: Registration | None
    ecg: EcgFit | None
    map_points_mm: Array
    map_lat_ms: Array
    map_predicted_ms: Array
    map_bipolar_mv: Array
    offset_ms: Array = field(default_factory=lambda: np.zeros(0))
    belief: Gaussian = field(default_factory=_gaussian_none)
    doubts: tuple[str, ...] = ()
    unknowns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the twin and the arrays behind its fit to a folder."""
        self.twin.save(folder)
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {"belief/mean": self.belief.mean, "belief/covariance": self.belief.covariance}
        meta: dict[str, Any] = {"registration": None, "ecg": None}
        meta |= {"belief": list(self.belief.names), "doubts": list(self.doubts), "unknowns": self.unknowns}
        if self.registration is not None:
            found = self.registration
            arrays |= {f"registration/{name}": getattr(found, name) for name in REGISTRATION_ARRAYS}
            meta["registration"] = {"landmark_error_mm": dict(found.landmark_error_mm), "ambiguity": found.ambiguity}
        if self.ecg is not None:
            arrays |= {f"ecg/{name}": getattr(self.ecg, name) for name in ECG_ARRAYS}
            meta["ecg"] = {"shift_ms": self.ecg.shift_ms, "scale": self.ecg.scale}
        write_npz(folder / "calibration.npz", arrays, meta)

    @staticmethod
    def load(folder: Path) -> Calibration:
        """Read what `save` wrote."""
        arrays, meta = read_npz(folder / "calibration.npz")
        registration, ecg = None, None
        if meta["registration"] is not None:
            # a plan made before maps could be bent has no displacement
            values: dict[str, Any] = {name: arrays[key] for name in REGISTRATION_ARRAYS if (key := f"registration/{name}") in arrays}
            registration = Registration(**values, **meta["registration"])
        if meta["ecg"] is not None:
            curves = {name: arrays[f"ecg/{name}"] for name in ECG_ARRAYS}
            ecg = EcgFit(shift_ms=meta["ecg"]["shift_ms"], scale=meta["ecg"]["scale"], **curves)
        belief = Gaussian(tuple(meta["belief"]), arrays["belief/mean"], arrays["belief/covariance"])
        return Calibration(
            Twin.load(folder),
            registration=registration,
            ecg=ecg,
            belief=belief,
            doubts=tuple(meta["doubts"]),
            unknowns=meta["unknowns"],
            **{name: arrays[name] for name in ARRAYS},
        )
