"""Orders of convergence of the monodomain: a decaying cosine and a bistable front, both known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.box import box_mesh
from solvers.monodomain.solver import Monodomain, Settings
from twin.check_record import checked
from twin.params import Param

REST_MV, HEIGHT_MV = -80.0, 100.0
RATE = Param(1.0, "1/ms", 0.1, 10.0, "chosen here: a front some 1.4 mm wide at 1 mm^2/ms, resolved by every mesh below")
THRESHOLD = Param(0.2, "1", 0.0, 0.5, "chosen here")
_ORDER = "P1 elements are of second order in space; gates first, then an explicit current, of first order in time"


class Cubic:
    """Cells of u_t = rate u (1 - u) (u - a), u from 0 to 1; rate 0 leaves diffusion alone."""

    def __init__(self, n: int, rate: float) -> None:
        self.n, self.rate = n, rate

    def initial_v(self) -> NDArray[np.float64]:
        """All at rest."""
        return np.full(self.n, REST_MV)

    def advance(self, v: NDArray[np.float64], dt_ms: float, current: NDArray[np.float64]) -> None:
        """Nothing but the current: there is no gate."""
        u = (v - REST_MV) / HEIGHT_MV
        current[:] = -HEIGHT_MV * self.rate * u * (1.0 - u) * (u - THRESHOLD.value)

    def snapshot(self) -> None:
        """No state."""

    def restore(self, state: object) -> None:
        """No state."""


def _bar(length_mm: float, spacing_mm: float, rate: float, settings: Settings) -> tuple[Monodomain, NDArray[np.float64]]:
    mesh = box_mesh((length_mm, spacing_mm, spacing_mm), spacing_mm)
    m = len(mesh.tets)
    solver = Monodomain(
        *(mesh.points_mm, mesh.tets, mesh.fibre, np.full(m, 1.0), np.full(m, 1.0), lambda nodes: Cubic(len(nodes), rate)), settings
    )
    return solver, mesh.points_mm[:, 0]


def cosine_error(spacing_mm: float, dt_ms: float, scheme: str, theta: float) -> float:
    """Relative error of the height of cos(pi x / 8 mm) after 2 ms of diffusion at 1 mm^2/ms."""
    solver, x = _bar(8.0, spacing_mm, 0.0, Settings(dt_ms=dt_ms, theta=theta, scheme=scheme))
    mode = np.cos(np.pi * x / 8.0)
    solver.set_v_mv(REST_MV + 10.0 * mode)
    solver.run([], 2.0)
    exact = 10.0 * np.exp(-((np.pi / 8.0) ** 2) * solver.time_ms)
    weighted = np.zeros(len(x))
    # by mass, other modes of the mesh are across to this one
    weighted[solver.nodes] = solver.ops.lumped * mode[solver.nodes]
    return float(weighted @ (solver.v_mv() - REST_MV) / (weighted @ mode) / exact - 1.0)


def front_error(spacing_mm: float, dt_ms: float) -> float:
    """Relative error of the speed of the bistable front, sqrt(rate D / 2) (1 - 2 a)."""
    solver, x = _bar(32.0, spacing_mm, RATE.value, Settings(dt_ms=dt_ms, theta=1.0))
    # the exact front, so that nothing has to settle
    solver.set_v_mv(REST_MV + HEIGHT_MV / (1.0 + np.exp((x - 6.0) * np.sqrt(RATE.value / 2.0))))
    first = solver.run([], 60.0).activations.first_ms(len(x))
    part = (x >= 12.0) & (x <= 24.0)
    return float(1.0 / np.polyfit(x[part], first[part], 1)[0] / (np.sqrt(RATE.value / 2.0) * (1.0 - 2.0 * THRESHOLD.value)) - 1.0)


def _order(values: list[float]) -> float:
    """From differences: what does not depend on the step drops out, such as the error in space of an order in time."""
    return float(np.log2(abs((values[0] - values[1]) / (values[1] - values[2]))))


def orders() -> dict[str, tuple[float, float]]:
    """Name -> (order found from three steps, each half the one before, order expected)."""
    found = {}
    for scheme, theta in (("explicit", 0.3), ("reference", 0.0)):
        e = [cosine_error(h, 0.0256 * h * h, scheme, theta) for h in (1.0, 0.5, 0.25)]
        found[f"cosine/space/{scheme}"] = (float(np.log2(e[1] / e[2])), 2.0)
    e = [cosine_error(0.5, dt, "explicit", 1.0) for dt in (0.02, 0.01, 0.005)]
    found["cosine/time/explicit"] = (_order(e), 1.0)
    e = [cosine_error(0.5, dt, "reference", 1.0) for dt in (0.2, 0.1, 0.05)]
    found["cosine/time/crank_nicolson"] = (_order(e), 2.0)
    e = [front_error(h, 0.005) for h in (1.0, 0.5, 0.25)]
    found["front/space"] = (_order(e), 2.0)
    e = [front_error(0.5, dt) for dt in (0.02, 0.01, 0.005)]
    found["front/time"] = (_order(e), 1.0)
    return found


def checks(fast: bool = True) -> list[dict[str, Any]]:
    """Records of `vtwin verify convergence`: orders within 0.1."""
    return [checked(f"convergence/{name}/order", value, "1", expected, 0.1, _ORDER) for name, (value, expected) in orders().items()]
