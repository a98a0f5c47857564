"""The patient: every piece of evidence with its source and quality; anything may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from twin.image import CineStack, Image
from twin.volume import LabelVolume

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

T = TypeVar("T")


@dataclass(frozen=True)
class Evidence(Generic[T]):
    """One item that is known: what it is, where it came from, what is doubtful about it, and whether it is virtual."""

    value: T
    source: str
    quality: str = "as read"
    virtual: bool = False


@dataclass(frozen=True)
class ElectroanatomicalMap:
    """A contact map of one chamber in one rhythm, in the mapping system's own frame.

    points_mm (n, 3) float64; lat_ms (n,) local activation time, NaN = not annotated; bipolar_mv (n,) peak-to-peak, NaN =
    not measured; surface: lv_endo, rv_endo or epi; landmarks: name -> (3,) mm in the same frame, names as in
    `meshing.sites.landmarks`.
    """

    points_mm: NDArray[np.float64]
    lat_ms: NDArray[np.float64]
    bipolar_mv: NDArray[np.float64]
    surface: str = "lv_endo"
    rhythm: str = "sinus"
    landmarks: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    unipolar_mv: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(n,) peak-to-peak, NaN = not measured; empty where the source has none."""
    ari_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(n,) activation-recovery interval, NaN = not measured; empty where nobody looked for it."""
    warp: bool = False
    """May be bent smoothly onto the surface after it was placed (`twin.calibrate.warp`)."""


@dataclass(frozen=True)
class Ecg:
    """An electrocardiogram: lead name -> (n,) mV, sampled at `fs_hz`; time 0 is the first sample."""

    leads: Mapping[str, NDArray[np.float64]]
    fs_hz: float
    rhythm: str = "sinus"
    normalised: bool = False
    """True when the amplitude is arbitrary and only the shape counts."""
    electrodes_mm: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Where ELECTRODES were, (3,) LPS mm each; empty: nobody measured it, a generic chest is assumed."""

    @property
    def time_ms(self) -> NDArray[np.float64]:
        """Sample times, (n,) ms."""
        n = len(next(iter(self.leads.values())))
        return np.arange(n, dtype=np.float64) * (1000.0 / self.fs_hz)

    def array(self) -> NDArray[np.float64]:
        """The twelve leads in the order of `LEADS`, (12, n) mV."""
        return np.stack([self.leads[name] for name in LEADS])


@dataclass(frozen=True)
class Patient:
    """Everything known about one heart; `labels` is the one thing without which there is no twin."""

    name: str
    labels: Evidence[LabelVolume]
    eam: Evidence[ElectroanatomicalMap] | None = None
    ecg: Evidence[Ecg] | None = None
    record: Evidence[Mapping[str, object]] | None = None
    notes: tuple[str, ...] = ()
    """What the readers found and accepted; shown under limits in the report."""
    lge: Evidence[Image] | None = None
    ct: Evidence[Image] | None = None
    cine: Evidence[tuple[CineStack, ...]] | None = None
    """Late enhancement, CT and cine images; stacks largest first."""
