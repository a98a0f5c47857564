"""Tensors that give a mesh the velocities of the continuum: measured on its lattice, for every fibre direction, before any run.

Coarse tetrahedra slow a wave, most of all across the fibres, and at one mesh size by -50 % or +30 % across depending on how lattice, fibre
and wave lie to one another (design/monodomain.md; the chains of `lattice` show the whole ring). A factor along and one across cannot mend
that. So each fibre direction gets a full tensor D' = R exp(S) R, R^2 = D, and a bend (`Lattice.bend`) that shares the conductance out anew
between long and short edges: seven numbers, fitted so that plane waves along, across and oblique to the fibres run as in the continuum.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import Cells, IonicModel
from solvers.kernels.ionic import cache_directory
from solvers.monodomain import lattice as lattices
from solvers.monodomain.lattice import Lattice, MakeCells, chain_along, wave_speeds
from solvers.monodomain.operators import SYMMETRIC
from twin.atomic import read_npz, write_npz
from twin.params import Param

THETA = 2.2
"""Mass blend of corrected runs. Above 1 the diffusion current is spread over the neighbours instead of drawn together, which costs one
mass product and takes most of the lattice out of the wave: worst fitted error across the fibres at 0.5 mm, with fibres along [110] among
the directions: 36 % with 0.3, 15 % with 1, 10 % with 1.6, 8 % with 2.2, 5 % with 3.2. But the factors on D grow with it (2, 2.4, 2.9, 4),
and with them the delay of a front that curves round an electrode: it is taken no higher than the goal needs."""

FINE_SPACING = Param(0.162, "ms^0.5", 0.05, 0.2, "spacing / sqrt(D) where theta 0.5 is within 0.2 % of the limit, design/monodomain.md")
GOOD = Param(0.015, "1", 0.005, 0.03, "chosen here: root mean square error at which a fibre direction is not fitted further")
RIDGE = Param(0.004, "1", 0.0005, 0.02, "chosen here: pull to the starting point, which keeps flat directions of the fit smooth")
RING, CONE = 6, 4
_WEIGHT = np.array([8.0] + [1.0] * RING + [1.0] * CONE)
_STARTS = (0.0, 0.5, 1.0, 1.4)
"""Shares of a typical fit at 0.5 mm from which the search may start."""
_VERSION = 5


@dataclass(frozen=True)
class Table:
    """What was measured for some fibre directions (k, 3): strain S (k, 6), bend (k,) in units of d_t, relative errors of the speeds of all
    waves (k, 1 + RING + CONE) without and with them: along the fibres, across, oblique."""

    fibres: NDArray[np.float64]
    strain: NDArray[np.float64]
    bend: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def cells_of(model: IonicModel, precision: str = "float32") -> MakeCells:
    """Cells of one model everywhere, as `Monodomain` wants them."""
    return lambda nodes: Cells([model], np.zeros(len(nodes), np.int32), precision)


def speed_per_sqrt_d(model: IonicModel) -> float:
    """Speed of the first plane wave in the limit of a fine mesh for D = 1 mm^2/ms, m/s; it goes as sqrt(D)."""
    saved = cached("speed", key_of(model), lambda: {"speed": np.array([_fine_speed(model)])})
    return float(saved["speed"][0])


def _fine_speed(model: IonicModel) -> float:
    h = FINE_SPACING.value
    fine = lattices.box((h, h, h), "kuhn")
    along = chain_along(fine, np.array([1.0, 0.0, 0.0]))
    # a plane wave does not feel the other axes; a low value keeps them from limiting the step
    weights = fine.weights(np.array([1.0, 0.1, 0.1, 0.0, 0.0, 0.0]))
    return float(wave_speeds(fine, [(along, weights)], cells_of(model), 0.5, 200 * h / fine.edge_mm)[0])


def measure(lattice: Lattice, fibres: NDArray[np.float64], d_l: float, d_t: float, model: IonicModel, theta: float = THETA) -> Table:
    """Fit strain and bend for each fibre direction (k, 3) so that plane waves through the lattice run at the speed of the continuum.

    d_l, d_t mm^2/ms; theta: mass blend of the run. Kept on disk: a second call with the same numbers takes no time.
    """
    # lengths and conductivities enter as h / sqrt(D) alone: rounding it lets neighbouring cases share what was measured
    scale = math.sqrt(d_t)
    size, ratio = _rounded(lattice.edge_mm / scale), _rounded(d_l / d_t)
    unit = _scaled(lattice, size / lattice.edge_mm)
    name = key_of(model, np.round(unit.reach, 6), np.round(fibres, 6), ratio, theta)
    return Table(**cached("correction", name, lambda: vars(_Fit(unit, fibres, ratio, model, theta).table())))


def _rounded(x: float) -> float:
    return math.exp(round(math.log(x) / 0.005) * 0.005)


def _scaled(lattice: Lattice, by: float) -> Lattice:
    cube = by**3
    return Lattice(
        lattice.periods * by,
        lattice.places * by,
        lattice.first,
        lattice.second,
        lattice.shift,
        lattice.reach * by,
        lattice.sharing,
        lattice.stiffness * by,
        lattice.bend * by,
        lattice.mass * cube,
        lattice.lumped * cube,
        lattice.edge_mm * by,
    )


class _Fit:
    """Levenberg-Marquardt for all fibre directions side by side; the Jacobian is by differences once, then by Broyden's update."""

    def __init__(self, lattice: Lattice, fibres: NDArray[np.float64], ratio: float, model: IonicModel, theta: float = THETA) -> None:
        self.lattice, self.fibres, self.cells, self.theta = lattice, fibres, cells_of(model), theta
        self.free = 7 if lattice.bend.any() else 6
        self.root = np.eye(3) + (math.sqrt(ratio) - 1.0) * fibres[:, :, None] * fibres[:, None, :]
        self.chains = [[chain_along(lattice, d) for d in directions(f)] for f in fibres]
        toward = np.array([[c.direction for c in row] for row in self.chains])
        self.goal = speed_per_sqrt_d(model) * np.linalg.norm(np.einsum("kxy,kwy->kwx", self.root, toward), axis=2)

    def table(self) -> Table:
        """Fit and say how well."""
        everything = np.arange(len(self.fibres))
        product = self.fibres[:, [1, 0, 0]] * self.fibres[:, [2, 2, 1]]
        typical = np.column_stack([np.full((len(self.fibres), 3), 1.05), -0.7 * product, np.full(len(self.fibres), 2.2)])
        typical[:, self.free :] = 0.0
        starts = np.stack([share * typical for share in _STARTS])
        found = np.stack([self._residual(start, everything) for start in starts])
        best = np.argmin((_WEIGHT * found**2).sum(axis=2), axis=0)
        raw, start, r = found[0], starts[best, everything], found[best, everything]
        p = self._descend(start, r)
        p = np.stack([symmetric(f, row) for f, row in zip(self.fibres, p)]) if is_cubic(self.lattice) else p
        return Table(self.fibres, p[:, :6], p[:, 6], np.expm1(raw), np.expm1(self._residual(p, everything)))

    def _descend(self, start: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64]:
        p, n = start.copy(), self.free
        damp = np.full(len(p), 0.03)
        cost = self._cost(p, r, start)
        active = np.flatnonzero(self._rms(r) > GOOD.value)
        jacobian = np.zeros((len(p), len(_WEIGHT), n))
        for step in range(7):
            if not len(active):
                break
            if step == 0:
                shifted = [self._residual(p[active] + 0.05 * np.eye(7)[k], active) for k in range(n)]
                jacobian[active] = (np.stack(shifted, axis=2) - r[active][:, :, None]) / 0.05
            new = p.copy()
            for i in active:
                j = jacobian[i]
                pull = RIDGE.value * (p[i, :n] - start[i, :n])
                matrix = j.T * _WEIGHT @ j + (RIDGE.value + damp[i]) * np.diag(_RELATIVE[:n])
                new[i, :n] -= np.clip(np.linalg.solve(matrix, j.T @ (_WEIGHT * r[i]) + pull * _RELATIVE[:n]), -1.0, 1.0)
            there = self._residual(new[active], active)
            for i, found in zip(active, there):
                moved = new[i, :n] - p[i, :n]
                jacobian[i] += np.outer(found - r[i] - jacobian[i] @ moved, moved) / max(float(moved @ moved), 1e-12)
            there_cost = self._cost(new[active], there, start[active])
            for i, found, value in zip(active, there, there_cost):
                if value < cost[i]:
                    p[i], r[i], cost[i] = new[i], found, value
                    damp[i] *= 0.3
                else:
                    damp[i] *= 5.0
            active = active[self._rms(r[active]) > GOOD.value]
        return p

    def _cost(self, p: NDArray[np.float64], r: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        value: NDArray[np.float64] = (_WEIGHT * r**2).sum(axis=1) + RIDGE.value * ((p - start) ** 2 * _RELATIVE).sum(axis=1)
        return value

    @staticmethod
    def _rms(r: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sqrt((_WEIGHT * r**2).sum(axis=1) / _WEIGHT.sum())

    def _residual(self, p: NDArray[np.float64], which: NDArray[np.int64]) -> NDArray[np.float64]:
        """ln(speed / goal) of every wave, (k, w); a blocked wave counts as a tenth."""
        tensor = components(self.root[which] @ exponential(p[:, :6]) @ self.root[which])
        weights = self.lattice.weights(tensor, p[:, 6])
        waves = [(c, weights[row]) for row, i in enumerate(which) for c in self.chains[i]]
        found = wave_speeds(self.lattice, waves, self.cells, self.theta).reshape(len(which), -1)
        growing = np.minimum(self.lattice.lowest(weights) + 1e-9, 0.0)[:, None]
        residual: NDArray[np.float64] = np.log(np.maximum(found / self.goal[which], 0.1)) + 10.0 * growing
        return residual


_RELATIVE = np.array([1.0] * 6 + [0.1])
"""The bend is worth less than a strain of the same number."""


def directions(fibre: NDArray[np.float64], turn: float = 0.0) -> NDArray[np.float64]:
    """Along the fibre, RING across it over half a turn, CONE at 45 degrees; `turn` (radians) rotates the last two about the fibre."""
    side = np.cross(fibre, np.eye(3)[np.argmin(np.abs(fibre))])
    side /= np.linalg.norm(side)
    other = np.cross(fibre, side)
    ring, cone = turn + np.pi / RING * np.arange(RING), turn + 0.3 + 2 * np.pi / CONE * np.arange(CONE)
    across, around = (np.cos(a)[:, None] * side + np.sin(a)[:, None] * other for a in (ring, cone))
    return np.concatenate([fibre[None], across, (fibre + around) / math.sqrt(2.0)])


def components(tensor: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3, 3) symmetric to (..., 6)."""
    return np.stack([tensor[..., x, y] for x, y in SYMMETRIC], axis=-1)


def matrix(six: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 6) to (..., 3, 3)."""
    return six[..., np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])]


def exponential(six: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix exponential of symmetric matrices given by their components, (..., 3, 3)."""
    value, vector = np.linalg.eigh(matrix(six))
    result: NDArray[np.float64] = (vector * np.exp(value)[..., None, :]) @ np.swapaxes(vector, -1, -2)
    return result


def symmetric(fibre: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of strain and bend (7,) over the turns of a cubic lattice that leave the fibre's line where it is."""
    kept = [t for t in TURNS if abs(abs(float(t @ fibre @ fibre)) - 1.0) < 1e-9]
    mean = np.mean([components(t @ matrix(p[:6]) @ t.T) for t in kept], axis=0)
    return np.append(mean, p[6])


TURNS = tuple(np.diag(s) @ np.eye(3)[list(order)] for s in product((1.0, -1.0), repeat=3) for order in permutations(range(3)))
"""Turns and mirrors of a cube."""


def is_cubic(lattice: Lattice) -> bool:
    """True if every turn of a cube leaves the lattice's edges as they are."""
    edges = {tuple(e) for e in np.round(lattice.reach / lattice.edge_mm, 6).tolist()}
    return all({tuple(e) for e in np.round(lattice.reach @ t / lattice.edge_mm + 0.0, 6).tolist()} == edges for t in TURNS)


def key_of(model: IonicModel, *more: object) -> str:
    """Name of what belongs to a model, its initial state, and some more arrays or numbers."""
    digest = hashlib.sha256(repr((_VERSION, model.name, model.cell, model.rest_mv, sorted(model.parameters.items()))).encode())
    digest.update(model.initial_state.tobytes())
    for item in more:
        digest.update(item.tobytes() if isinstance(item, np.ndarray) else repr(item).encode())
    return digest.hexdigest()[:24]


def cached(room: str, name: str, make: Callable[[], Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """What was measured and kept under a name, else what `make` measures now."""
    path = cache_directory(room) / f"{name}.npz"
    if path.is_file():
        try:
            return dict(read_npz(path)[0])
        except (ValueError, OSError, KeyError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    arrays = make()
    write_npz(path, arrays, {})
    return dict(arrays)
