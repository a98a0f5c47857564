"""Pace maps on the patient's own twin: how alike the beat paced at each place is to a recorded one, and where that beat begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.params import Param
from twin.patient import LEADS
from twin.tissue import EcgModel, ForwardModel, Velocity

Array = NDArray[np.float64]
Nodes = NDArray[np.int32]

COARSE_MM = Param(10.0, "mm", 6.0, 15.0, "chosen here: a pace map is done at sites about 10 mm apart first")
REFINE_MM = Param(12.0, "mm", 8.0, 20.0, "chosen here: and at every node so near to the best of those")
LEAD_IN_MS = 60
"""Time between capture and the visible QRS that is allowed for, and slack after the end."""
MODEL_FREEDOM = Param(
    20.0, "1", 10.0, 60.0, "chosen here: independent values in a QRS of 8 leads; what the model misses is alike over most of the QRS"
)


@dataclass(frozen=True)
class PaceMap:
    """nodes (k,) that were paced; correlation (k,) mean over the twelve leads, -1 to 1; lead_correlation (k, 12); delay_ms (k,) from
    capture to the recorded QRS's onset; probability (k,) that the beat begins nearest to each node."""

    nodes: Nodes
    correlation: Array
    lead_correlation: Array
    delay_ms: Array
    probability: Array

    @property
    def best(self) -> int:
        """The node of the highest correlation."""
        return int(self.nodes[np.argmax(self.correlation)])

    def region_mm(self, points_mm: Array, mass: float = 0.9) -> float:
        """Radius about the best node that holds `mass` of the probability, mm."""
        away = np.linalg.norm(points_mm[self.nodes] - points_mm[self.best], axis=1)
        order = np.argsort(away, kind="stable")
        held = np.cumsum(self.probability[order])
        return float(away[order][np.searchsorted(held, mass * held[-1])])

    def segments(self, segment: NDArray[np.integer]) -> dict[int, float]:
        """Probability of each segment, segment (n,) by node (0 outside the LV), the likeliest first."""
        total = {int(s): float(self.probability[segment[self.nodes] == s].sum()) for s in np.unique(segment[self.nodes])}
        return dict(sorted(total.items(), key=lambda item: -item[1]))


def spread_nodes(points_mm: Array, nodes: Nodes, spacing_mm: float) -> Nodes:
    """Nodes so chosen that all of them are within a spacing of one: the farthest each time, beginning with the first."""
    chosen = [int(nodes[0])]
    away = np.linalg.norm(points_mm[nodes] - points_mm[chosen[0]], axis=1)
    while away.max() > spacing_mm:
        chosen.append(int(nodes[np.argmax(away)]))
        away = np.minimum(away, np.linalg.norm(points_mm[nodes] - points_mm[chosen[-1]], axis=1))
    return np.array(chosen, np.int32)


def match(recorded: Array, paced: Array) -> tuple[Array, int]:
    """Correlation of each lead (12,) at the delay (samples) of the highest mean; recorded (12, t), paced (12, t + m), m >= 0."""
    windows = np.lib.stride_tricks.sliding_window_view(paced, recorded.shape[1], axis=1)
    centred = recorded - recorded.mean(axis=1, keepdims=True)
    spread = windows - windows.mean(axis=2, keepdims=True)
    size = np.sqrt((spread**2).sum(axis=2) * (centred**2).sum(axis=1)[:, None])
    each = np.einsum("lsw,lw->ls", spread, centred) / np.maximum(size, 1e-9 * max(float(size.max()), 1e-300))
    best = int(np.argmax(each.mean(axis=0)))
    return each[:, best], best


def pace_map(
    qrs: Array,
    forward: ForwardModel,
    leads: EcgModel,
    velocities: Mapping[str, Velocity],
    points_mm: Array,
    candidates: Nodes,
    progress: Callable[[int, int], None] | None = None,
) -> PaceMap:
    """Pace the twin at places among `candidates` (endocardial nodes that conduct) and compare with a recorded QRS (12, t) mV at 1 kHz.

    First at sites COARSE_MM apart, then at every candidate near the best three. Raises InputError for another shape or no candidates.
    """
    if qrs.ndim != 2 or len(qrs) != len(LEADS) or qrs.shape[1] < 20:
        raise InputError("pace map", "qrs", f"shape {qrs.shape} is not (12, at least 20)", "give the twelve leads of one QRS at 1 kHz")
    if not len(candidates):
        raise InputError("pace map", "candidates", "there are none", "give the endocardial nodes that conduct")
    results: dict[int, tuple[Array, int]] = {}

    def pace(nodes: Nodes) -> None:
        todo = [int(node) for node in nodes if int(node) not in results]
        for k, node in enumerate(todo):
            results[node] = _one(qrs, forward, leads, velocities, node)
            if progress is not None:
                progress(k + 1, len(todo))

    pace(spread_nodes(points_mm, candidates, float(COARSE_MM)))
    for node in sorted(results, key=lambda n: -float(results[n][0].mean()))[:3]:
        pace(candidates[np.linalg.norm(points_mm[candidates] - points_mm[node], axis=1) < float(REFINE_MM)])
    nodes = np.array(sorted(results), np.int32)
    each = np.stack([results[int(n)][0] for n in nodes])
    delay = np.array([results[int(n)][1] for n in nodes], np.float64)
    return PaceMap(nodes, each.mean(axis=1), each, delay, _probability(points_mm[candidates], points_mm[nodes], each.mean(axis=1)))


def _one(qrs: Array, forward: ForwardModel, leads: EcgModel, velocities: Mapping[str, Velocity], node: int) -> tuple[Array, int]:
    arrival = forward.arrival_ms(velocities, np.array([node], np.int32), np.zeros(1))
    time = np.arange(-float(LEAD_IN_MS), qrs.shape[1] + LEAD_IN_MS)
    each, delay = match(qrs, leads.qrs(arrival, time))
    return each, delay - LEAD_IN_MS


def _probability(candidates_mm: Array, nodes_mm: Array, correlation: Array) -> Array:
    """Probability (k,) of the paced nodes, each weighted by how many candidates are nearest to it.

    What is left, 1 - correlation, stands for the variance of an error whose size is unknown: integrated over it the likelihood is a
    power of it, (1 - c)^(-MODEL_FREEDOM / 2). A poor best match thus makes a wide region, not a confident one.
    """
    nearest = np.argmin(((candidates_mm[:, None] - nodes_mm[None]) ** 2).sum(axis=2), axis=1)
    weight = np.bincount(nearest, minlength=len(nodes_mm)).astype(np.float64)
    left = np.log(np.maximum(1.0 - correlation, 1e-4))
    power = -0.5 * float(MODEL_FREEDOM) * (left - left.min())
    out = weight * np.exp(power)
    return out / out.sum()
