"""Minimum vertex cut: the cheapest set of nodes whose removal separates two sets of nodes of a graph."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

LIMIT = 2**30
"""scipy's flows are 32-bit integers."""


def minimum_vertex_cut(
    edges: NDArray[np.integer], cost: NDArray[np.integer], source: NDArray[np.bool_], sink: NDArray[np.bool_]
) -> NDArray[np.int64] | None:
    """Nodes (k,), none of them source or sink, of least total cost that separate source from sink; None if no such set exists.

    edges (e, 2): undirected; cost (n,): positive integers with a sum below 2^30; source, sink (n,) bool, disjoint. By maximum flow
    through split nodes (Ford and Fulkerson), so the answer is provably the smallest; ties go to the set nearest to the source.
    """
    n = len(cost)
    if int(cost.sum()) >= LIMIT or (len(cost) and cost.min() < 1):
        raise ValueError("costs must be positive integers with a sum below 2^30")
    enter, leave = np.arange(n), np.arange(n) + n
    start, end = 2 * n, 2 * n + 1
    a, b = edges[:, 0], edges[:, 1]
    fixed = source | sink
    rows = [enter, leave[a], leave[b], np.full(int(source.sum()), start), leave[sink]]
    cols = [leave, enter[b], enter[a], enter[source], np.full(int(sink.sum()), end)]
    capacity = [np.where(fixed, LIMIT, cost), *(np.full(len(r), LIMIT) for r in rows[1:])]
    graph = sp.coo_array(
        (np.concatenate(capacity).astype(np.int32), (np.concatenate(rows), np.concatenate(cols))), shape=(2 * n + 2, 2 * n + 2)
    )
    # repeated edges would add up beyond 32 bits: keep one of each
    graph.data = np.minimum(graph.data, LIMIT)
    csr = sp.csr_array(_unique(graph))
    if _direct(edges, source, sink):
        return None
    flow = maximum_flow(csr, start, end).flow
    residual = sp.csr_array(csr - flow)
    residual.data[residual.data < 0] = 0
    residual.eliminate_zeros()
    reached = np.zeros(2 * n + 2, bool)
    reached[breadth_first_order(residual, start, directed=True, return_predecessors=False)] = True
    return np.flatnonzero(reached[enter] & ~reached[leave])


def _direct(edges: NDArray[np.integer], source: NDArray[np.bool_], sink: NDArray[np.bool_]) -> bool:
    a, b = edges[:, 0], edges[:, 1]
    return bool(((source[a] & sink[b]) | (sink[a] & source[b])).any() or (source & sink).any())


def _unique(graph: sp.coo_array) -> sp.coo_array:
    key = graph.row.astype(np.int64) * graph.shape[1] + graph.col
    _, first = np.unique(key, return_index=True)
    return sp.coo_array((graph.data[first], (graph.row[first], graph.col[first])), shape=graph.shape)
