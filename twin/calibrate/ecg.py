"""Predicted against recorded electrocardiogram: the shift in time, the scale, and how alike each lead is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.patient import LEADS, Ecg
from twin.tissue import EcgModel

Array = NDArray[np.float64]

MARGIN_MS = 20.0
"""Time kept before the first and after the last activation, so that the baseline is part of the comparison."""


@dataclass(frozen=True)
class EcgFit:
    """Best alignment of a predicted QRS on a recording.

    time_ms (t,): model time; predicted, measured (12, t) mV, measured shifted by `shift_ms` and freed of its baseline;
    correlation (12,) per lead; scale: factor on the prediction in least squares.
    """

    time_ms: Array
    predicted: Array
    measured: Array
    correlation: Array
    shift_ms: float
    scale: float

    @property
    def mean_correlation(self) -> float:
        """Mean over the twelve leads."""
        return float(self.correlation.mean())

    def summary(self) -> dict[str, Any]:
        """Numbers for the report."""
        return {
            "mean_lead_correlation": round(self.mean_correlation, 3),
            "lead_correlation": {lead: round(float(c), 3) for lead, c in zip(LEADS, self.correlation, strict=True)},
            "shift_ms": self.shift_ms,
            "amplitude_scale": round(self.scale, 3),
        }


def _millisecond(ecg: Ecg) -> Array:
    """The recording at 1 kHz, (12, t), each lead freed of its median (the baseline)."""
    time = ecg.time_ms
    grid = np.arange(0.0, float(time[-1]) + 1e-9)
    leads = np.stack([np.interp(grid, time, ecg.leads[name]) for name in LEADS])
    return leads - np.median(leads, axis=1, keepdims=True)


def _windows(signal: Array, width: int) -> Array:
    """All windows of a (12, t) signal, (12, shifts, width), a view; the signal is padded by half a window at both ends."""
    padded = np.pad(signal, ((0, 0), (width // 2, width // 2)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)


def compare(model: EcgModel, arrival_ms: Array, ecg: Ecg) -> EcgFit:
    """Slide the predicted QRS along the recording and take the shift at which the leads agree best (mean Pearson correlation)."""
    reached = arrival_ms[np.isfinite(arrival_ms)]
    time = np.arange(np.floor(reached.min() - MARGIN_MS), np.ceil(reached.max() + MARGIN_MS) + 1.0)
    predicted = model.qrs(arrival_ms, time)
    recorded = _windows(_millisecond(ecg), len(time))
    centred = predicted - predicted.mean(axis=1, keepdims=True)
    spread = recorded - recorded.mean(axis=2, keepdims=True)
    norm = np.sqrt((spread**2).sum(axis=2) * (centred**2).sum(axis=1)[:, None])
    correlation = np.einsum("lsw,lw->ls", spread, centred) / np.maximum(norm, 1e-12)
    # a window of pure baseline correlates by chance: weigh by how much of the QRS energy it holds
    energy = (spread**2).sum(axis=(0, 2))
    score = np.where(energy > 0.5 * energy.max(), correlation.mean(axis=0), -1.0)
    best = int(np.argmax(score))
    # the baseline is what is recorded before the first activation, averaged: one noisy sample would shift the lead
    measured = recorded[:, best] - recorded[:, best, : int(MARGIN_MS)].mean(axis=1, keepdims=True)
    scale = float((measured * predicted).sum() / max((predicted**2).sum(), 1e-12))
    shift = best - len(time) // 2 - float(time[0])
    return EcgFit(time, predicted, np.array(measured), correlation[:, best], shift, scale)


def upside_down(ecg: Ecg) -> Ecg:
    """The recording with the sign of every lead changed."""
    return replace(ecg, leads={name: -values for name, values in ecg.leads.items()})
