"""Tissue parameters with their uncertainty, and the protocols by which calibration asks for a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twin.atomic import read_npz, write_npz


@dataclass(frozen=True)
class Velocity:
    """Conduction velocity along and across the fibres, in m/s (= mm/ms)."""

    longitudinal_m_s: float
    transverse_m_s: float


@dataclass(frozen=True)
class Tissue:
    """Posterior samples of the parameters of each region.

    names (p,): "<region>/<quantity>", quantity one of cv_longitudinal_m_s, cv_transverse_m_s; samples (s, p) float64, the first
    row is the mode; prior_low/prior_high (p,): 95 % interval before the data; evidence: name -> what set it.
    source_nodes (k,), source_times_ms (k,): where and when the recorded rhythm starts in this heart.
    """

    names: tuple[str, ...]
    samples: NDArray[np.float64]
    prior_low: NDArray[np.float64]
    prior_high: NDArray[np.float64]
    evidence: Mapping[str, str]
    source_nodes: NDArray[np.int32]
    source_times_ms: NDArray[np.float64]
    fit: Mapping[str, object] = field(default_factory=dict)
    """How well the data were met: residuals, lead correlations, counts. Numbers and text only."""

    @staticmethod
    def known(velocities: Mapping[str, Velocity]) -> Tissue:
        """One sample with these velocities by region, without doubt and without a recorded rhythm."""
        names = tuple(f"{region}/cv_{way}_m_s" for region in velocities for way in ("longitudinal", "transverse"))
        values = np.array([x for v in velocities.values() for x in (v.longitudinal_m_s, v.transverse_m_s)])
        return Tissue(names, values[None], values, values, {}, np.zeros(0, np.int32), np.zeros(0))

    def interval(self, name: str, mass: float = 0.95) -> tuple[float, float]:
        """Central interval of one parameter."""
        tail = 50.0 * (1.0 - mass)
        low, high = np.percentile(self.samples[:, self.names.index(name)], [tail, 100.0 - tail])
        return float(low), float(high)

    def mean(self, name: str) -> float:
        """Posterior mean of one parameter."""
        return float(self.samples[:, self.names.index(name)].mean())

    def velocities(self, sample: int = 0) -> dict[str, Velocity]:
        """Velocity of each region for one sample (0 = the mode)."""
        row = dict(zip(self.names, self.samples[sample].tolist(), strict=True))
        regions = dict.fromkeys(name.split("/")[0] for name in self.names)
        return {r: Velocity(row[f"{r}/cv_longitudinal_m_s"], row[f"{r}/cv_transverse_m_s"]) for r in regions}

    def save(self, path: Path) -> None:
        """Write to one .npz file, atomically."""
        arrays: dict[str, NDArray[Any]] = {
            "samples": self.samples,
            "prior_low": self.prior_low,
            "prior_high": self.prior_high,
            "source_nodes": self.source_nodes,
            "source_times_ms": self.source_times_ms,
        }
        write_npz(path, arrays, {"names": list(self.names), "evidence": dict(self.evidence), "fit": dict(self.fit)})

    @staticmethod
    def load(path: Path) -> Tissue:
        """Read what `save` wrote."""
        arrays, meta = read_npz(path)
        return Tissue(names=tuple(meta["names"]), evidence=meta["evidence"], fit=meta["fit"], **arrays)


class ForwardModel(Protocol):
    """What calibration needs from a simulator: arrival times at every node for given velocities and sources."""

    def arrival_ms(
        self,
        velocities: Mapping[str, Velocity],
        source_nodes: NDArray[np.int32],
        source_times_ms: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """First activation of every node, (n,) ms, inf where no wave comes."""
        ...


class EcgModel(Protocol):
    """What calibration needs to compare with a recorded electrocardiogram."""

    def qrs(self, arrival_ms: NDArray[np.float64], time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Twelve leads of the depolarisation at the asked times, (12, t) mV, in the order of `twin.patient.LEADS`."""
        ...
