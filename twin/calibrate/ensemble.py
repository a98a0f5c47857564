"""Ensemble Kalman inversion: a posterior from forward runs alone, its prior as start, tempered so that each step is small.

Iglesias 2013 (doi 10.1088/0266-5611/29/4/045001) with the adaptive steps of Iglesias and Yang 2021 (doi 10.1088/1361-6420/abd29b); as
remembered. Perturbed observations; spread that sampling error lost is put back (inflation). There is no localisation: members must
outnumber the unknowns several times. Taking chance correlations out of the cross-covariance alone was tried: it made the inversion diverge.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.atomic import read_npz, write_npz
from twin.errors import RunFailed
from twin.params import Param

Array = NDArray[np.float64]
Member = Callable[[Array], Array]
"""Unknowns (q,) to predicted data (k,), a pure function; may be called from several threads."""

INFLATION = Param(1.01, "1", 1.0, 1.05, "spread put back in every step against sampling error (ours)")
LEAST_STEP = 0.02


@dataclass(frozen=True)
class Inversion:
    """members (m, q) of the posterior; predicted (m, k) data of each; steps: tempering from 0 to 1, its sum; misfit before and after."""

    members: Array
    predicted: Array
    steps: tuple[float, ...]
    misfit: tuple[float, ...]


def predicted_of(member: Member, members: Array, threads: int) -> Array:
    """Forward runs side by side, in the members' order whatever the number of threads."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return np.stack(list(pool.map(member, members)))


def invert(
    member: Member,
    prior: Array,
    data: Array,
    noise_sd: Array,
    seed: int,
    threads: int = 1,
    folder: Path | None = None,
    most_steps: int = 12,
    tell: Callable[[str], None] | None = None,
) -> Inversion:
    """Members of the posterior from members (m, q) of the prior; data (k,), independent noise_sd (k,).

    Deterministic for a seed at any number of threads. folder: a step's members are kept there, and a run that was cut off goes on from
    them. Raises RunFailed if the predictions are not finite.
    """
    members, done, misfits = prior.copy(), [], []
    state = None if folder is None else folder / "ensemble.npz"
    if state is not None and state.exists():
        arrays, meta = read_npz(state)
        members, done, misfits = arrays["members"], list(meta["steps"]), list(meta["misfit"])
    predicted = predicted_of(member, members, threads)
    while sum(done) < 1.0 - 1e-9 and len(done) < most_steps:
        if not np.isfinite(predicted).all():
            raise RunFailed("a member of the ensemble predicts no finite data: its unknowns leave what the model can compute")
        scaled = (predicted - data) / noise_sd
        off = 0.5 * (scaled**2).sum(axis=1)
        misfits.append(float(off.mean()))
        step = _step(off, len(data), 1.0 - sum(done))
        if len(done) == most_steps - 1:
            step = 1.0 - sum(done)
        members = _analysis(members, scaled, step, np.random.default_rng([seed, 71, len(done)]))
        done.append(step)
        if tell is not None:
            tell(f"ensemble step {len(done)}: {sum(done):.2f} of the data used, mean misfit {misfits[-1]:.0f}")
        if state is not None:
            write_npz(state, {"members": members}, {"steps": done, "misfit": misfits})
        predicted = predicted_of(member, members, threads)
    misfits.append(float(0.5 * (((predicted - data) / noise_sd) ** 2).sum(axis=1).mean()))
    return Inversion(members, predicted, tuple(done), tuple(misfits))


def _step(off: Array, k: int, left: float) -> float:
    """Part of the data's information used next: the step keeps the change of the misfit's weight within an ensemble's means."""
    by_mean, by_spread = k / (2.0 * max(float(off.mean()), 1e-12)), np.sqrt(k / (2.0 * max(float(off.var()), 1e-12)))
    return float(min(max(by_mean, by_spread, LEAST_STEP), left))


def _analysis(members: Array, scaled: Array, step: float, rng: np.random.Generator) -> Array:
    """One Kalman step for whitened innovations (m, k): in the space of members where data outnumber them."""
    m = len(members)
    x, y = members - members.mean(axis=0), scaled - scaled.mean(axis=0)
    noise = rng.standard_normal(scaled.shape) / np.sqrt(step)
    noise -= noise.mean(axis=0)
    cross = np.einsum("mq,mk->qk", x, y) / (m - 1)
    # (Y'Y/(m-1) + 1/step)^-1 r by Woodbury: only m x m is inverted
    small = np.einsum("mk,nk->mn", y, y) * step / (m - 1) + np.eye(m)
    target = scaled + noise
    inner = np.linalg.solve(small, np.einsum("nk,mk->nm", y, target)) * step / (m - 1)
    solved = step * (target - np.einsum("nm,nk->mk", inner, y))
    moved = members - np.einsum("mk,qk->mq", solved, cross)
    centre = moved.mean(axis=0)
    return np.asarray(centre + INFLATION.value * (moved - centre), np.float64)
