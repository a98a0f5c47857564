"""The time loop of the explicit scheme on an NVIDIA GPU: state, voltage and matrix stay there, only what is asked for comes back.

A burst of steps is launched without waiting; the host then reads five numbers (see `kernels.cuda_sparse`) and the crossings of the burst.
A step is `products` + 1 launches: cells and K V in one, a launch per mass product, the last one fused with the update of V. More fusion
would need every neighbour's result before any row could go on, that is, a barrier of the whole grid, which costs what a launch costs.
Rows are in the solver's bandwidth-reducing order but for a sort by row length within short windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic import Cells
from solvers.monodomain.log import BeatLog
from solvers.monodomain.operators import Operators, inverse_mass_polynomial
from solvers.monodomain.pulses import Pulse
from solvers.monodomain.record import Observer
from twin.errors import InputError

if TYPE_CHECKING:
    from solvers.monodomain.fibrosis import FibroticCells
    from solvers.monodomain.solver import Settings

DEVICES = ("cpu", "cuda", "auto")
THREADS = 128
"""Threads per block. The cells' kernel holds some hundred registers per thread; small blocks fill a multiprocessor to the last register."""
PADDING = 1.1
"""Bound on what the slices hold over the matrix: 1.02 measured on boxes (unsorted 1.53), 1.02 on rows of 8 to 24 entries at random."""
SIMULATED_SHAPE = (2, 2)
"""Blocks and threads in the simulator, where each thread is a thread of the processor: enough to show races and gaps."""


def unusable() -> str | None:
    """Why this process cannot compute on a GPU, in a clause; None if it can."""
    from numba import cuda

    if cuda.is_available():
        return None
    problem = cuda.cuda_error()
    if problem is not None:
        # several lines, of which the first says what happened
        return "no NVIDIA driver answers (" + str(problem).strip().splitlines()[0].rstrip(".: ") + ")"
    return "the CUDA compiler is not found: pip install 'vtwin[gpu]'"


def device_name() -> str:
    """Name of the GPU that would be used. Only to be called when `unusable` is None."""
    from numba import config, cuda

    if config.ENABLE_CUDASIM:
        return "numba's CUDA simulator (NUMBA_ENABLE_CUDASIM=1)"
    name = cuda.get_current_device().name
    return str(name.decode() if isinstance(name, bytes) else name)


def device_for(settings: Settings, ops: Operators, cells: object, log: BeatLog, v: NDArray[Any]) -> Device | None:
    """The device that the settings ask for, None for the processor.

    settings: with dt_ms and products as they will be used. Raises InputError for an unknown device, or for "cuda" where this machine or
    this run cannot have it.
    """
    if settings.device not in DEVICES:
        raise InputError("solver", "device", f"{settings.device!r} is not known", f"write one of {', '.join(DEVICES)}")
    if settings.device == "cpu":
        return None
    from solvers.monodomain.fibrosis import FibroticCells

    myocytes = cells.cells if isinstance(cells, FibroticCells) else cells
    problem = unusable()
    if settings.scheme != "explicit":
        problem = "the reference scheme runs on the processor only"
    elif not isinstance(myocytes, Cells):
        problem = "only cells of solvers.ionic run there"
    elif problem is None and (problem := _too_large(ops, myocytes)) is None:
        assert settings.dt_ms is not None
        assert settings.products is not None
        fibrotic = cells if isinstance(cells, FibroticCells) else None
        return Device(ops, settings.theta, settings.products, settings.dt_ms, myocytes, log, v, fibrotic)
    if settings.device == "auto":
        return None
    raise InputError("solver", "device", f'"cuda" cannot be had: {problem}', 'write device = "cpu", or "auto" to take what there is')


def _too_large(ops: Operators, cells: Cells) -> str | None:
    """Why the run does not fit the GPU's free memory, in a clause; None if it does."""
    word, n = cells.dtype.itemsize, len(ops.nodes)
    states = word * sum(g.states.size + g.factors.size for g in cells.groups)
    matrix = len(ops.column) * (2 * word + 4) * PADDING
    # five vectors, places and lanes, and the log: crossings of two per node
    needed = states + matrix + n * (5 * word + 12) + 2 * n * (8 + 2 * word)
    free = free_bytes()
    return None if needed <= free else f"the run takes {needed / 2**30:.1f} GiB of GPU memory, and {free / 2**30:.1f} GiB are free"


def free_bytes() -> float:
    """Memory that is free on the GPU."""
    from numba import cuda

    return float(cuda.current_context().get_memory_info()[0])


@dataclass
class _Group:
    """Cells of one model on the device; `take` and `give`: lanes of the host's layout in the device's order, and back."""

    react: Any
    name: str
    take: NDArray[np.int64]
    give: NDArray[np.int64]
    shape: tuple[int, ...]
    state: Any
    arrays: tuple[Any, ...]


@dataclass(frozen=True)
class Burst:
    """What came of a burst: steps done since rest, steps done when a node was last excited, a row gone wrong or -1."""

    step: int
    excited: int
    wrong: int


class Device:
    """The state of a solver on the GPU.

    v (n,) and cells are the host's; they are brought up to date by `pull_v` and `release` only, and taken over by the burst after a
    `release`. Crossings go into the log. The last bits differ from the CPU's, whose exp and sums are others; two runs here agree in all.
    """

    def __init__(
        self,
        ops: Operators,
        theta: float,
        products: int,
        dt_ms: float,
        cells: Cells,
        log: BeatLog,
        v: NDArray[Any],
        fibrotic: FibroticCells | None = None,
    ) -> None:
        from numba import config, cuda

        from solvers.kernels import cuda_sparse

        self._cuda, self._kernels, self._simulated = cuda, cuda_sparse, bool(config.ENABLE_CUDASIM)
        self.log, self.cells, self.v = log, cells, v
        self.dtype, self.n = cells.dtype, len(ops.nodes)
        self._ahead = self._v_stale = False
        self.dt = self.dtype.type(dt_ms)
        # as the device compares with them; the times of crossings are worked out for the same
        self._levels = [self.dtype.type(level) for level in log.levels_mv]
        self.dt_ms = dt_ms
        self.order = cuda_sparse.sorted_rows(ops.start)
        self.position = np.empty(self.n, np.int32)
        self.position[self.order] = np.arange(self.n, dtype=np.int32)
        self.coefficients = [self.dtype.type(c) for c in inverse_mass_polynomial(theta, products)]
        start, offset, source = cuda_sparse.sliced(ops.start, ops.column, self.order)
        self._start, self._offset = cuda.to_device(start), cuda.to_device(offset)
        self._stiffness = cuda.to_device(self._padded(ops.stiffness, source))
        self._mass = cuda.to_device(self._padded((1.0 - theta) * ops.mass, source))
        self._v, self._y, self._rest, self._even, self._odd = (cuda.to_device(np.zeros(self.n, self.dtype)) for _ in range(5))
        self._row = cuda.to_device(self.order)
        # one crossing of every node can be logged once the mark is passed, so no step ever overflows
        self.log_mark = max(self.n, 1024)
        room = self.log_mark + self.n + 1
        self._control = cuda.to_device(np.zeros(5, np.int32))
        self._log_row, self._log_step = (cuda.to_device(np.zeros(room, np.int32)) for _ in range(2))
        self._log_v = cuda.to_device(np.zeros((room, 2), self.dtype))
        self._groups = [self._group(group) for group in cells.groups]
        self._fibrosis = None
        if fibrotic is not None:
            from solvers.monodomain.device_fibrosis import DeviceFibrosis

            self._fibrosis = DeviceFibrosis(fibrotic, self.position)
        self._known_places: dict[bytes, tuple[Any, Any]] = {}
        self._latest = np.zeros(self.n, np.int64)
        self.padding = len(source) / max(len(ops.column), 1) - 1.0
        self.bytes_per_step = self._bytes(len(source), offset.dtype.itemsize, products)

    def _padded(self, values: NDArray[np.float64], source: NDArray[np.int64]) -> NDArray[Any]:
        return np.where(source >= 0, values[np.maximum(source, 0)] if len(values) else 0.0, 0.0).astype(self.dtype)

    def _group(self, group: Any) -> _Group:
        from solvers.kernels import cuda_ionic

        model = group.model
        rows, first = np.unique(group.index, return_index=True)
        along = np.argsort(self.position[rows])
        take = first[along].astype(np.int64)
        at = np.zeros(self.n, np.int64)
        at[rows[along]] = np.arange(len(rows))
        member = np.zeros(len(group.index), np.uint8 if len(group.rows) <= 256 else np.int32)
        lanes = group.states.shape[2]
        for begin, end, row in group.chunks:
            member[begin * lanes : end * lanes] = row
        react = cuda_ionic.kernel(model.name, model.step(), model.state_names, tuple(model.parameters), str(self.dtype), group.scaled)
        factors = self._lanes(group.factors)[:, take]
        to = self._cuda.to_device
        arrays = (self.position[rows[along]], member[take], group.rows, factors if len(factors) else np.ones((1, 1), self.dtype))
        state = to(np.zeros((len(model.state_names), len(rows)), self.dtype))
        give = at[group.index]
        return _Group(react, model.name, take, give, group.states.shape, state, tuple(to(np.ascontiguousarray(a)) for a in arrays))

    @staticmethod
    def _lanes(blocks: NDArray[Any]) -> NDArray[Any]:
        """(B, K, W) to (K, B W)."""
        return blocks.transpose(1, 0, 2).reshape(blocks.shape[1], blocks.shape[0] * blocks.shape[2])

    def _bytes(self, entries: int, offset_bytes: int, products: int) -> int:
        """Bytes that one step has to move if every array is read or written once per launch (gathers hit the caches)."""
        word = self.dtype.itemsize
        cells = sum((2 * g.state.shape[0] * word + 4 + 1) * g.state.shape[1] for g in self._groups)
        matrix = (products + 1) * entries * (word + offset_bytes)
        # react: v, y, rest; each product before the last: z, y, out; advance: z, rest, v read and written
        nodal = word * self.n * (3 + 3 * max(products - 1, 0) + 4)
        return cells + matrix + nodal

    def _push(self, excited: int) -> None:
        """Take over the host's state."""
        k = self._kernels
        self._control.copy_to_device(np.array([k.NEVER, 0, excited, -1, self.log_mark], np.int32))
        self._v.copy_to_device(np.ascontiguousarray(self.v[self.order]))
        states = self.cells.snapshot()
        for g in self._groups:
            g.state.copy_to_device(np.ascontiguousarray(self._lanes(states[g.name])[:, g.take]))
        if self._fibrosis is not None:
            self._fibrosis.push()

    def release(self) -> None:
        """Bring everything on the host up to date, bit by bit, and let the host change it: the next burst takes it over again."""
        self.pull_v()
        if self._ahead:
            states = {}
            for g in self._groups:
                blocks, k, lanes = g.shape
                states[g.name] = np.ascontiguousarray(g.state.copy_to_host()[:, g.give].reshape(k, blocks, lanes).transpose(1, 0, 2))
            self.cells.restore(states)
            if self._fibrosis is not None:
                self._fibrosis.pull()
        self._ahead = False

    def pull_v(self) -> None:
        """Bring the host's v up to date; it is to be read only."""
        if self._v_stale:
            self.v[self.order] = self._v.copy_to_host()
            self._v_stale = False

    def look(self, observer: Observer) -> NDArray[Any]:
        """The host's v, up to date at least where the observer looks: at its `rows` if it has such an attribute, which may be none."""
        rows = getattr(observer, "rows", None)
        if not self._v_stale:
            return self.v
        if rows is None:
            self.pull_v()
        elif len(inside := rows[rows >= 0]):
            once = self._places(inside)[1]
            self._sample(inside, once, 0, -1)
            self.v[inside] = once.copy_to_host()[0]
        return self.v

    def advance(
        self, first: int, until: int, excited: int, pulses: Sequence[Pulse], observers: Sequence[Observer] = (), paces: Sequence[int] = ()
    ) -> Burst:
        """Go from step `first` (`excited`: the last at which a node was) towards `until`.

        Ends earlier where the log is full (go on from there), a row goes wrong, or an observer wants to see everything; observers of `rows`
        only are told on the way.
        """
        # whoever looks at more than rows, does so where the host's loop stops
        until = min([until, *(first - first % pace + pace for o, pace in zip(observers, paces) if not _rows_only(o))])
        if not self._ahead:
            self._push(excited)
        self._ahead = self._v_stale = True
        on_the_way = [(o, range(first - first % p + p, until, p)) for o, p in zip(observers, paces) if _rows_only(o)]
        watching = [_Watching(self, o, steps) for o, steps in on_the_way if len(steps)]
        for step in range(first, until):
            for w in watching:
                w.record(step)
            self._step(step, pulses)
        control = self._control.copy_to_host()
        done = min(until, int(control[self._kernels.HALT]))
        self._drain(control)
        for w in watching:
            w.tell(done)
        return Burst(done, int(control[self._kernels.EXCITED]), int(control[self._kernels.WRONG]))

    def _shape(self, n: int) -> tuple[int, int]:
        return SIMULATED_SHAPE if self._simulated else ((n + THREADS - 1) // THREADS, THREADS)

    def _step(self, step: int, pulses: Sequence[Pulse]) -> None:
        k, control, shape = self._kernels, self._control, self._shape(self.n)
        c = self.coefficients
        zero, one = self.dtype.type(0), self.dtype.type(1)
        matrix = (self._start, self._offset)
        for g in self._groups:
            node, *parameters = g.arrays
            diffusion = (*matrix, self._stiffness, c[0], self._y, self._rest)
            g.react[self._shape(g.state.shape[1])](g.state, node, *parameters, self._v, self.dt, *diffusion, control, step)
        if self._fibrosis is not None:
            self._fibrosis.change(self._shape, self._v, self._y, c[0], self.dt_ms, self._rest, control, step)
        now = step * self.dt_ms
        for p in pulses:
            share = (min(p.end_ms, now + self.dt_ms) - max(p.start_ms, now)) / self.dt_ms
            if share > 1e-9 and p.rows.size:
                rate = self.dtype.type(min(share, 1.0) * p.rate_mv_ms)
                k.pulse[self._shape(p.rows.size)](self._rest, self._places(p.rows)[0], rate, control, step)
        z, scale = self._y, (c[-1] if len(c) > 1 else zero)
        for weight in c[-2:0:-1]:
            out = self._even if z is not self._even else self._odd
            k.mass_horner[shape](*matrix, self._mass, z, scale, self._y, weight, out, control, step)
            z, scale = out, one
        logged = (control, self._log_row, self._log_step, self._log_v)
        k.advance[shape](*matrix, self._mass, z, scale, self._rest, self._v, self.dt, *self._levels, self._row, *logged, step)

    def _places(self, rows: NDArray[np.integer]) -> tuple[Any, Any]:
        """Places of rows on the device and room (1, k) for their voltages, made once."""
        key = rows.tobytes()
        if key not in self._known_places:
            to = self._cuda.to_device
            self._known_places[key] = (to(self.position[rows]), to(np.zeros((1, len(rows)), self.dtype)))
        return self._known_places[key]

    def _sample(self, rows: NDArray[np.integer], out: Any, slot: int, step: int) -> None:
        self._kernels.sample[self._shape(rows.size)](self._v, self._places(rows)[0], out, slot, self._control, step)

    def _drain(self, control: NDArray[np.int32]) -> None:
        """Hand the crossings to the log and let the device go on."""
        k = self._kernels
        count = int(control[k.LOGGED])
        if count:
            row, step, v = (a[:count].copy_to_host() for a in (self._log_row, self._log_step, self._log_v))
            rose = row >= 0
            row = np.where(rose, row, ~row)
            old, new = v.astype(float).T
            level = np.where(rose, float(self._levels[0]), float(self._levels[1]))
            when = step * self.dt_ms + float(self.dt) * (level - old) / (new - old)
            self._log(step, row, rose, when)
        if count or control[k.HALT] != k.NEVER:
            self._control.copy_to_device(np.array([k.NEVER, 0, control[k.EXCITED], control[k.WRONG], control[k.FULL]], np.int32))

    def _log(self, step: NDArray[Any], row: NDArray[Any], rose: NDArray[Any], when: NDArray[Any]) -> None:
        """Log crossings, steps in order, in as few pieces as leave no row twice in one.

        The device logs a step's crossings as they come, but within a piece the log sorts them itself, and no row has a before and after.
        """
        number = np.arange(len(row))
        self._latest[row] = number
        if (self._latest[row] != number).any():
            half = step <= (int(step[0]) + int(step[-1])) // 2
            for part in (half, ~half):
                self._log(step[part], row[part], rose[part], when[part])
            return
        log = self.log
        log.step_node[: len(row)] = np.where(rose, row, ~row)
        log.step_ms[: len(row)] = when
        # the log reads the crossings of a step from the front of its chunks: all of them are in the first here
        log.found[:], log.above[:], log.bad[:] = 0, 0, -1
        log.found[:1] = len(row)
        log.collect()


def _rows_only(observer: object) -> bool:
    """Whether the device can record what the observer wants to see, so that the host need not stop for it."""
    return len(getattr(observer, "rows", ())) > 0


class _Watching:
    """An observer's rows, recorded on the device at some steps of a burst and told when it is over."""

    def __init__(self, device: Device, observer: Any, steps: range) -> None:
        self.device, self.observer, self.steps = device, observer, steps
        self.inside = observer.rows[observer.rows >= 0]
        self.buffer = device._cuda.to_device(np.zeros((len(steps), max(len(self.inside), 1)), device.dtype))

    def record(self, step: int) -> None:
        """Before the step."""
        if len(self.inside) and step in self.steps:
            self.device._sample(self.inside, self.buffer, self.steps.index(step), step)

    def tell(self, done: int) -> None:
        """Show what was recorded before the step `done`, where the host's loop looks itself."""
        for step, row in zip(self.steps, self.buffer.copy_to_host()):
            if step < done:
                self.device.v[self.inside] = row[: len(self.inside)]
                self.observer.see(step * self.device.dt_ms, self.device.v)
