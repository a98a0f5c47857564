"""The order in which a tachycardia activates the heart, as phases of its cycle, and whether two follow one another's loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from planners.circuits.loop import mean_cycle_ms
from twin.experiment import Activations
from twin.plan import Circuit

Array = NDArray[np.float64]


def phases(log: Activations, n_points: int) -> Array:
    """When each node fires within the last cycle of a reentry, (n,) in cycles from 0 to 1, NaN where it does not."""
    out = np.full(n_points, np.nan)
    cycle = mean_cycle_ms(log)
    if cycle is None:
        return out
    since = float(log.activation_ms.max()) - cycle
    rows = log.activation_ms > since
    out[log.node[rows]] = (log.activation_ms[rows] - since) / cycle
    return out


def coherence(tree: cKDTree, a: Circuit, b: Circuit, phase_a: Array, phase_b: Array) -> float:
    """How far two tachycardias run along each other's loop in step: 1 if they do, near 0 for opposite or unrelated ways.

    tree: of the mesh's points; phases (n,): `phases`. Length of the mean of exp(2 pi i (difference of the phases)) along the loop of
    either, the smaller of both; nodes that one of them does not activate count against it.
    """
    return min(_along(tree, a, phase_a, phase_b), _along(tree, b, phase_a, phase_b))


def _along(tree: cKDTree, circuit: Circuit, phase_a: Array, phase_b: Array) -> float:
    nodes = np.asarray(tree.query(np.asarray(circuit.path_mm, float))[1], np.int64)
    difference = phase_a[nodes] - phase_b[nodes]
    turns = np.exp(2j * np.pi * difference[np.isfinite(difference)])
    return float(abs(turns.sum()) / len(nodes))
