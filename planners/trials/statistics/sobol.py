"""Which inputs the outcome depends on: Sobol indices, directly or through a Gaussian process where every run is dear."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc


@dataclass(frozen=True)
class Sensitivity:
    """First-order and total indices, (d,) each; q2: how well a surrogate predicts unseen runs (1: exactly; None: no surrogate)."""

    first: NDArray[np.float64]
    total: NDArray[np.float64]
    q2: float | None


def indices(model: Callable[[NDArray[np.float64]], NDArray[np.float64]], dimensions: int, power: int = 12, seed: int = 0) -> Sensitivity:
    """Sobol indices of a function of independent uniform inputs in the unit cube, from 2^power (d + 2) evaluations.

    First-order: Saltelli et al., Comput Phys Commun 2010;181:259, eq. (b); total: Jansen, ibid., eq. (f). model: (n, d) -> (n,).
    """
    points = qmc.Sobol(2 * dimensions, scramble=True, seed=seed).random_base2(power)
    a, b = points[:, :dimensions], points[:, dimensions:]
    fa, fb = model(a), model(b)
    variance = np.concatenate([fa, fb]).var()
    first, total = np.zeros(dimensions), np.zeros(dimensions)
    if variance == 0:
        return Sensitivity(first, total, None)
    for i in range(dimensions):
        mixed = a.copy()
        mixed[:, i] = b[:, i]
        fm = model(mixed)
        first[i] = np.mean(fb * (fm - fa)) / variance
        total[i] = 0.5 * np.mean((fa - fm) ** 2) / variance
    return Sensitivity(first, total, None)


def surrogate_indices(inputs: NDArray[np.float64], outputs: NDArray[np.float64], power: int = 11, seed: int = 0) -> Sensitivity:
    """Sobol indices of a Gaussian process fitted to runs that exist: inputs (n, d) in the unit cube, outputs (n,).

    Anisotropic squared-exponential kernel with noise, by maximum likelihood (scikit-learn). q2 is 1 - leave-one-out error / variance, in
    closed form (Dubrule, Math Geol 1983;15:687): below 0.8 the indices should not be trusted. Raises ValueError for fewer than 4 d runs.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    n, d = inputs.shape
    if n < 4 * d:
        raise ValueError(f"{n} runs are too few for {d} inputs: at least {4 * d}")
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(np.ones(d), (5e-2, 1e2)) + WhiteKernel(1e-4, (1e-8, 1.0))
    with warnings.catch_warnings():
        # an input that does not matter drives its length scale to the bound: that is an answer and no fault
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=1, random_state=seed).fit(inputs, outputs)
    inverse = np.linalg.inv(process.kernel_(inputs))
    scaled = (outputs - outputs.mean()) / outputs.std()
    left_out = (inverse @ scaled) / np.diag(inverse)
    found = indices(lambda x: np.asarray(process.predict(x)), d, power, seed)
    return Sensitivity(found.first, found.total, float(1 - np.mean(left_out**2)))
