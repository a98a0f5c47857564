"""Where a rhythm starts: sites moved until the map is met best, superfluous ones taken away, and how well each is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.spatial import cKDTree

from twin.calibrate.velocity import (
    DifferentiableForward,
    LatData,
    VelocityFit,
    gauss_newton,
    joint_precision,
    left_errors,
    misfit,
    price,
    prior_covariance,
)
from twin.params import Param

Array = NDArray[np.float64]
Nodes = NDArray[np.int32]

POSITION_SD = Param(8.0, "mm", 4.0, 15.0, "prior width of a site about the earliest mapped place, a few points' spacing (chosen here)")
PROBE_MM = 5.0
"""How far a site is moved to see what that changes: two edges of a usual mesh."""
STEP_MM = 8.0
Offset = Callable[[VelocityFit], Array]
"""What is to be added to the model's arrival at the data for a fit, (k,) ms."""


@dataclass(frozen=True)
class Tangents:
    """Two neighbours of one site on the surface, and the inverse of their offsets in the tangent plane (axes (2, 3))."""

    nodes: tuple[int, int]
    axes: Array
    inverse: Array


def tangents(node: int, surface: Nodes, points_mm: Array, tree: cKDTree) -> Tangents | None:
    """Neighbours of a node in two directions of its surface; None where there are none."""
    near = surface[np.asarray(tree.query_ball_point(points_mm[node], 2.0 * PROBE_MM), int)]
    away = points_mm[near] - points_mm[node]
    distance = np.linalg.norm(away, axis=1)
    ring = (distance > 0.4 * PROBE_MM) & (distance < 1.6 * PROBE_MM)
    if ring.sum() < 3:
        return None
    axes = np.linalg.svd(away, full_matrices=False)[2][:2]
    flat = away[ring] @ axes.T
    first = int(np.argmin(np.linalg.norm(flat - [PROBE_MM, 0.0], axis=1)))
    second = int(np.argmin(np.linalg.norm(flat - [0.0, PROBE_MM], axis=1)))
    offsets = flat[[first, second]]
    if abs(np.linalg.det(offsets)) < 0.2 * PROBE_MM**2:
        return None
    chosen = near[ring]
    return Tangents((int(chosen[first]), int(chosen[second])), axes, np.linalg.inv(offsets))


def position_columns(model: DifferentiableForward, data: LatData, fit: VelocityFit, at: list[Tangents | None], arrival_ms: Array) -> Array:
    """Change of arrival at the data per mm of each site along its two axes, (k, 2 s); zero where a site cannot move."""
    columns = np.zeros((len(data.node), 2 * len(at)))
    for i, place in enumerate(at):
        if place is None:
            continue
        moved = []
        for node in place.nodes:
            nodes = fit.source_nodes.copy()
            nodes[i] = node
            there = model.arrival_ms(fit.velocities(), nodes, fit.source_times_ms)[data.node]
            moved.append(np.where(np.isfinite(there), there - arrival_ms[data.node], 0.0))
        columns[:, 2 * i : 2 * i + 2] = np.stack(moved, axis=1) @ place.inverse.T
    return columns


def _system(
    model: DifferentiableForward, data: LatData, fit: VelocityFit, surface: Nodes, points_mm: Array, offset: Array
) -> tuple[Array, Array, Array, Array, list[Tangents | None]]:
    """Jacobian (velocities, times, positions), weights, residual and prior precision at a fit, with the tangents of its sites."""
    tree = cKDTree(points_mm[surface])
    _, _, residual, jacobian, weight = gauss_newton(
        model, data, fit.names, fit.log_mode, (fit.prior_log_mean, fit.prior_log_sd), fit.source_nodes, fit.source_times_ms, 0, offset
    )
    arrival = model.arrival_ms(fit.velocities(), fit.source_nodes, fit.source_times_ms)
    at = [tangents(int(node), surface, points_mm, tree) for node in fit.source_nodes]
    columns = position_columns(model, data, fit, at, arrival)
    k = len(fit.source_nodes)
    precision = block_diag(joint_precision(fit.prior_log_sd, k), np.eye(2 * k) / POSITION_SD.value**2)
    return np.hstack([jacobian, columns]), weight, residual, precision, at


def settle(
    model: DifferentiableForward,
    data: LatData,
    fit: VelocityFit,
    surface: Nodes,
    points_mm: Array,
    offset: Offset | None = None,
    rounds: int = 6,
) -> VelocityFit:
    """Move sites (and fit velocities and times with them) by Gauss-Newton steps as long as the map is met better.

    surface (c,): nodes on which sites may lie; offset: see `Offset`, made anew for every place tried. Two solves per site and round.
    """
    prior = (fit.prior_log_mean, fit.prior_log_sd)
    p, tree = len(fit.names), cKDTree(points_mm[surface])
    for _ in range(rounds):
        extra = np.zeros(len(data.node)) if offset is None else offset(fit)
        jacobian, weight, residual, precision, at = _system(model, data, fit, surface, points_mm, extra)
        gradient = jacobian.T @ (weight * residual)
        gradient[:p] += precision[:p, :p] @ (prior[0] - fit.log_mode)
        step = np.linalg.solve(jacobian.T @ (weight[:, None] * jacobian) + precision, gradient)
        moves = step[p + len(at) :].reshape(-1, 2)
        before, better = misfit(residual) + _cost(fit), None
        for share in (1.0, 0.5):
            nodes = _moved(fit.source_nodes, np.asarray(share * moves, np.float64), at, points_mm, surface, tree)
            if np.array_equal(nodes, fit.source_nodes):
                break
            tried = gauss_newton(model, data, fit.names, fit.log_mode, prior, nodes, fit.source_times_ms, 2, extra)
            candidate = replace(fit, log_mode=tried[0], source_nodes=nodes, source_times_ms=tried[1], residual_ms=tried[2])
            if offset is not None:
                # what a mesh is late by near a site moves with the site: judged by that of the old place, none would ever move
                tried = gauss_newton(model, data, fit.names, tried[0], prior, nodes, tried[1], 2, offset(candidate))
                candidate = replace(candidate, log_mode=tried[0], source_times_ms=tried[1], residual_ms=tried[2])
            if misfit(candidate.residual_ms) + _cost(candidate) < before - 0.1:
                better = candidate
                break
        if better is None:
            break
        fit = better
    return fit


def _cost(fit: VelocityFit) -> float:
    """Negative log prior of the velocities."""
    off = fit.log_mode - fit.prior_log_mean
    return float(0.5 * off @ np.linalg.solve(prior_covariance(fit.prior_log_sd), off))


def _moved(nodes: Nodes, moves_mm: Array, at: list[Tangents | None], points_mm: Array, surface: Nodes, tree: cKDTree) -> Nodes:
    out = nodes.copy()
    for i, place in enumerate(at):
        if place is None:
            continue
        move = moves_mm[i] * min(1.0, STEP_MM / max(float(np.linalg.norm(moves_mm[i])), 1e-9))
        out[i] = surface[int(np.asarray(tree.query(points_mm[nodes[i]] + move @ place.axes)[1]))]
    return out


def prune(model: DifferentiableForward, data: LatData, fit: VelocityFit, surface: Nodes, points_mm: Array) -> VelocityFit:
    """Take away sites that the map does not need (Bayesian information criterion): they bend the velocities.

    Of the site that is missed least, the others settle anew before it is judged: where two stand for one, each alone seems needed.
    """
    prior = (fit.prior_log_mean, fit.prior_log_sd)
    while len(fit.source_nodes) > 1:
        best, kept = np.inf, None
        for i in range(len(fit.source_nodes)):
            nodes, times = np.delete(fit.source_nodes, i), np.delete(fit.source_times_ms, i)
            tried = gauss_newton(model, data, fit.names, fit.log_mode, prior, nodes, times, 2)
            worse = misfit(tried[2]) - misfit(fit.residual_ms)
            if worse < best:
                best, kept = worse, replace(fit, log_mode=tried[0], source_nodes=nodes, source_times_ms=tried[1], residual_ms=tried[2])
        if kept is None:
            break
        kept = settle(model, data, kept, surface, points_mm, rounds=3)
        if misfit(kept.residual_ms) - misfit(fit.residual_ms) > price(data, fit.residual_ms):
            break
        fit = kept
    return fit


def with_uncertainty(
    model: DifferentiableForward, data: LatData, fit: VelocityFit, surface: Nodes, points_mm: Array, offset: Array
) -> VelocityFit:
    """The fit with a covariance over velocities, times and places together (Laplace, cluster-robust), its places' widths in mm."""
    jacobian, weight, residual, precision, _ = _system(model, data, fit, surface, points_mm, offset)
    p, k = len(fit.names), len(fit.source_nodes)
    bread = np.linalg.inv(jacobian.T @ (weight[:, None] * jacobian) + precision)
    scores = np.zeros((int(data.block.max()) + 1, len(precision)))
    np.add.at(scores, data.block, jacobian * (weight * residual)[:, None])
    covariance = bread @ (scores.T @ scores + precision) @ bread
    # never narrower than errors without correlation would give
    grow = np.sqrt(np.maximum(np.diag(bread) / np.diag(covariance), 1.0))
    covariance *= np.outer(grow, grow)
    covariance[:p, :p] += np.diag(left_errors(fit.names))
    width = np.sqrt(np.diag(covariance))
    return replace(
        fit,
        covariance=covariance[:p, :p],
        joint_covariance=covariance[: p + k, : p + k],
        residual_ms=residual,
        noise_ms=max(float(fit.noise_ms), 1.4826 * float(np.median(np.abs(residual)))),
        source_sd_ms=width[p : p + k],
        source_sd_mm=np.sqrt((width[p + k :].reshape(-1, 2) ** 2).sum(axis=1)),
    )
