"""Activation of the twin in its recorded rhythm: what strategies that read a map of activation times go by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meshing.sites import pacing_sites, site_nodes
from solvers.eikonal.forward import EikonalForward
from twin.mesh import HeartMesh
from twin.model import Twin

PACED_FROM = "rv_apex"
ELECTRODE_MM = 4.0


def activation_ms(twin: Twin) -> tuple[NDArray[np.float64], str]:
    """First activation of every node, (n,) ms from 0, NaN where no wave comes, and the rhythm's name.

    The recorded rhythm where calibration found its sources, else pacing from the RV apex (or the first site that the heart has).
    """
    nodes, times, name = twin.tissue.source_nodes, twin.tissue.source_times_ms, "the recorded rhythm"
    if not len(nodes):
        sites = pacing_sites(twin.mesh)
        site = PACED_FROM if PACED_FROM in sites else min(sites)
        nodes = site_nodes(twin.mesh, sites[site], ELECTRODE_MM)
        times, name = np.zeros(len(nodes)), f"pacing from {site}"
    arrival = EikonalForward(twin.mesh).arrival_ms(twin.tissue.velocities(), nodes, times)
    arrival = np.where(np.isfinite(arrival), arrival, np.nan)
    return arrival - float(np.nanmin(arrival)), name


def nodes_of(mesh: HeartMesh, *regions: str) -> NDArray[np.bool_]:
    """Nodes that touch any of the named regions, (n,) bool."""
    out = np.zeros(mesh.n_points, bool)
    out[mesh.tets[mesh.in_region(*regions)].ravel()] = True
    return out
