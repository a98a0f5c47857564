"""`vtwin simulate` on a single cell: the file with a [cell] table, the run, and what it writes.

`summary.json` measures of every beat, `trace.csv` the last beats with chosen states and currents, `restitution.csv` the protocols.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.ionic.drugs import Effect, block_effect, combined, drug_effect
from solvers.ionic.model import IonicModel, cell_names, ionic_model, model_names
from solvers.ionic.pacing import STIMULUS_MV_MS
from solvers.ionic.protocols import CALCIUM, SAMPLE_MS, Beat, PacedCell, Trace, dynamic, last_cycle_ms, measure, s1s2, spontaneous_beats
from solvers.ionic.steady import BEATS as STEADY_BEATS
from solvers.ionic.steady import prepaced
from solvers.kernels.ionic import local_names, observer
from solvers.toml_table import Table, read_table
from twin.atomic import write_json, write_text
from twin.errors import InputError
from twin.io.source import did_you_mean

Progress = Callable[[str, float], None]

_MEASURES = tuple(field.name for field in fields(Beat))
_EXPECTABLE = (*_MEASURES, "cycle_length_ms", "alternans_ms", "shortest_di_ms", "shortest_cycle_ms")


@dataclass(frozen=True)
class Restitution:
    """Intervals of the protocols; an empty tuple: not run."""

    s1_ms: float
    s1_beats: int
    couplings_ms: tuple[float, ...]
    cycles_ms: tuple[float, ...]
    beats: int


@dataclass(frozen=True)
class CellExperiment:
    """One single-cell run, checked and in internal units. `where` is the file, for messages."""

    where: Path
    model: IonicModel
    bcl_ms: float
    beats: int
    steady_beats: int
    precision: str
    dt_ms: float
    stimulus_mv_ms: float
    stimulus_ms: float
    trace_beats: int
    trace_every_ms: float
    states: tuple[str, ...]
    currents: tuple[str, ...]
    restitution: Restitution | None
    expected: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...]


def is_cell_experiment(path: Path) -> bool:
    """Whether an experiment file is about a single cell. Raises InputError if it is not TOML."""
    return "cell" in read_table(path).values


def load_cell_experiment(path: Path) -> CellExperiment:
    """Read and check the file. Raises InputError: unknown keys, wrong units, impossible values, each in one line."""
    top = read_table(path)
    top.known("cell", "record", "restitution", "expect")
    t = top.table("cell")
    t.known("model", "cell", "scale", "drug", "block", "bcl", "beats", "steady", "steady_beats", "precision", "dt", "stimulus")
    model, notes = _model(t)
    stimulus = t.table("stimulus")
    stimulus.known("strength", "duration")
    dt_ms = t.positive("dt", "ms", 0.02)
    per_sample = SAMPLE_MS / dt_ms
    if abs(per_sample - round(per_sample)) > 1e-6 or round(per_sample) < 1:
        raise t.error("dt", f"{t.values['dt']!r} does not divide {SAMPLE_MS:g} ms", "write 0.02 ms, 0.05 ms, 0.01 ms, ...")
    beats = t.whole("beats", 1, 100_000, 20)
    record = top.table("record")
    record.known("beats", "every", "states", "currents")
    bcl_ms = _interval(t, "bcl", t.positive("bcl", "ms", 1000.0))
    steady = t.flag("steady")
    if "steady_beats" in t.values and not steady:
        raise t.error("steady_beats", "is only for steady = true", "add it or leave this out")
    return CellExperiment(
        where=path,
        model=model,
        bcl_ms=bcl_ms,
        beats=beats,
        steady_beats=t.whole("steady_beats", 1, 100_000, STEADY_BEATS) if steady else 0,
        precision=t.choice("precision", ("float32", "float64"), "float64"),
        dt_ms=dt_ms,
        stimulus_mv_ms=stimulus.number("strength", "mV/ms", STIMULUS_MV_MS[model.name], 0.0, 1000.0),
        stimulus_ms=stimulus.number("duration", "ms", 1.0, 0.0, bcl_ms),
        trace_beats=record.whole("beats", 1, beats, 1),
        trace_every_ms=record.number("every", "ms", 1.0, SAMPLE_MS, bcl_ms),
        states=_names(record, "states", model.state_names, (CALCIUM,) if CALCIUM in model.state_names else ()),
        currents=_names(record, "currents", tuple(n for n in local_names(model.step()) if n.startswith("I_")), ()),
        restitution=_restitution(top.table("restitution")) if "restitution" in top.values else None,
        expected=_expected(top.table("expect")),
        notes=notes,
    )


def _model(t: Table) -> tuple[IonicModel, tuple[str, ...]]:
    """The model with its scales and drugs, and what of a drug it does not see."""
    name = t.choice("model", model_names(), t.text("model"))
    cell = t.choice("cell", cell_names(name), cell_names(name)[0])
    scale = t.table("scale")
    factors: list[Mapping[str, Any]] = [{n: scale.number(n, "", None, 0.0, 1000.0) for n in scale.values}]
    known = ionic_model(name, cell).parameters
    for parameter in factors[0]:
        if parameter not in known:
            raise scale.error(parameter, f"is not a parameter of {name}", did_you_mean(parameter, tuple(known)))
    notes: list[str] = []
    drugs = t.tables("drug") if isinstance(t.values.get("drug"), list) else [t.table("drug")] if "drug" in t.values else []
    for drug in drugs:
        drug.known("name", "concentration")
        effect = _located(drug, partial(drug_effect, name, drug.text("name"), drug.number("concentration", "umol/l", None, 0.0)))
        factors.append(effect.scale)
        if effect.left_out:
            notes.append(f"{name} has no {', '.join(effect.left_out)}: that part of {drug.text('name')} is left out")
    block = t.table("block")
    entries = {}
    for current in block.values:
        entry = block.table(current)
        entry.known("ic50", "hill", "concentration")
        entries[current] = {
            "ic50": entry.positive("ic50", "umol/l"),
            "hill": entry.positive("hill", "", 1.0),
            "concentration": entry.number("concentration", "umol/l", None, 0.0),
        }
    factors.append(_located(t, partial(block_effect, name, entries)).scale)
    return ionic_model(name, cell, combined(*factors)), tuple(notes)


def _located(t: Table, make: Callable[[], Effect]) -> Effect:
    """What `make` returns; its errors name this file."""
    try:
        return make()
    except InputError as error:
        if error.where == str(t.where):
            raise
        raise t.error(error.field, error.problem, error.remedy) from None


def _interval(t: Table, key: str, value_ms: float) -> float:
    """An interval of 10 ms to 100 s: shorter and longer ones are mistaken units."""
    if not 10.0 <= value_ms <= 100_000.0:
        raise t.error(key, f"{value_ms:g} ms is no pacing interval", "give 10 ms to 100 s")
    return value_ms


def _names(t: Table, key: str, known: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    if key not in t.values:
        return default
    names = t.items(key)
    for name in names:
        if name not in known:
            raise t.error(key, f"{name!r} is not known", did_you_mean(str(name), known))
    return tuple(dict.fromkeys(names))


def _restitution(t: Table) -> Restitution:
    t.known("s1s2", "dynamic")
    if not t.values:
        raise t.error("", "names no protocol", "add [restitution.s1s2] or [restitution.dynamic]")
    first, second = t.table("s1s2"), t.table("dynamic")
    first.known("s1", "s1_beats", "from", "to", "step")
    second.known("from", "to", "step", "beats")
    return Restitution(
        s1_ms=_interval(first, "s1", first.positive("s1", "ms", 600.0)),
        s1_beats=first.whole("s1_beats", 1, 10_000, 10),
        couplings_ms=_range(first) if "s1s2" in t.values else (),
        cycles_ms=_range(second) if "dynamic" in t.values else (),
        beats=second.whole("beats", 3, 10_000, 20),
    )


def _range(t: Table) -> tuple[float, ...]:
    """Intervals from long to short."""
    high, low = (_interval(t, key, t.positive(key, "ms")) for key in ("from", "to"))
    step = t.positive("step", "ms")
    if low > high:
        raise t.error("to", "is longer than from", "intervals run from long to short")
    count = math.floor((high - low) / step + 1e-9) + 1
    if count > 2000:
        raise t.error("step", f"makes {count} intervals", "2000 are the most")
    return tuple(high - k * step for k in range(count))


def _expected(t: Table) -> dict[str, tuple[float, float]]:
    t.known(*_EXPECTABLE)
    out = {}
    for name in t.values:
        entry = t.table(name)
        entry.known("value", "within")
        out[name] = (entry.number("value", "", None), entry.number("within", "", None, 0.0))
    return out


def run_cell_experiment(experiment: CellExperiment, out: Path, progress: Progress = lambda what, fraction: None) -> dict[str, Any]:
    """Run, write `summary.json`, `trace.csv` and `restitution.csv` to `out`; returns the summary (status, message, expect, expect_met).

    A cell that is not stimulated (strength 0) is cut into beats where its V is lowest; `bcl` then only says how long it is followed.
    """
    e = experiment
    model = e.model
    if e.steady_beats:
        progress("steady state", 0.0)
        model = prepaced(model, e.bcl_ms, e.steady_beats, e.dt_ms, e.precision, e.stimulus_mv_ms, e.stimulus_ms)
    cell = _cell(e, model)
    beats: list[Beat] = []
    voltages: list[NDArray[np.float64]] = []
    traces: list[Trace] = []
    calcium = model.state_names.index(CALCIUM) if CALCIUM in model.state_names else None
    for k in range(e.beats):
        progress("beats", k / e.beats)
        shown = k >= e.beats - e.trace_beats
        v, trace = cell.trace(e.bcl_ms, e.trace_every_ms if shown else 1.0)
        if not np.isfinite(v).all():
            return _finish(out, e, "diverged", f"V is not finite in beat {k + 1}; use a shorter dt", beats, [])
        beats.append(measure(v, None if calcium is None else trace.states[:, calcium]))
        voltages.append(v)
        if shown:
            traces.append(trace)
    write_text(out / "trace.csv", _trace_csv(e, traces))
    rows = _protocols(e, model, progress)
    if rows:
        header = list(rows[0])
        write_text(out / "restitution.csv", _csv(header, [[_shown(row[name]) for name in header] for row in rows]))
    if e.stimulus_mv_ms:
        return _finish(out, e, "done", f"{e.beats} beats of {model.name} ({model.cell})", beats, rows)
    whole = np.concatenate(voltages)
    beats = spontaneous_beats(whole)
    message = f"{e.beats * e.bcl_ms:g} ms of {model.name} ({model.cell}) without stimulus, {len(beats)} whole beats"
    return _finish(out, e, "done", message, beats, rows, last_cycle_ms(whole))


def _cell(e: CellExperiment, model: IonicModel) -> PacedCell:
    return PacedCell(model, e.dt_ms, e.precision, e.stimulus_mv_ms, e.stimulus_ms)


def _protocols(e: CellExperiment, model: IonicModel, progress: Progress) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    r = e.restitution
    if r and r.couplings_ms:
        progress("restitution, S1-S2", 0.0)
        rows += s1s2(_cell(e, model), r.s1_ms, r.s1_beats, r.couplings_ms)
    if r and r.cycles_ms:
        progress("restitution, dynamic", 0.0)
        rows += dynamic(_cell(e, model), r.cycles_ms, r.beats)
    return rows


def _finish(
    out: Path, e: CellExperiment, status: str, message: str, beats: list[Beat], rows: list[dict[str, Any]], cycle_ms: float = float("nan")
) -> dict[str, Any]:
    """Compare with what was expected and write the summary."""
    captured = [row for row in rows if row["captured"]]
    found = (asdict(beats[-1]) if beats else {}) | {
        "cycle_length_ms": cycle_ms,
        "alternans_ms": abs(beats[-1].apd90_ms - beats[-2].apd90_ms) if len(beats) > 1 else float("nan"),
        "shortest_di_ms": min((row["di_ms"] for row in captured if row["protocol"] == "s1s2"), default=float("nan")),
        "shortest_cycle_ms": min((row["interval_ms"] for row in captured if row["protocol"] == "dynamic"), default=float("nan")),
    }
    expect = []
    for name, (value, within) in e.expected.items():
        got = float(found.get(name, float("nan")))
        met = bool(abs(got - value) <= within)
        expect.append({"name": name, "expected": value, "within": within, "found": got if math.isfinite(got) else None, "met": met})
    summary = {
        "status": status,
        "message": message,
        "model": e.model.name,
        "cell": e.model.cell,
        "scaled": {n: v for n, v in e.model.parameters.items() if v != ionic_model(e.model.name, e.model.cell).parameters[n]},
        "notes": list(e.notes),
        "settings": {k: getattr(e, k) for k in ("bcl_ms", "beats", "steady_beats", "precision", "dt_ms", "stimulus_mv_ms", "stimulus_ms")},
        **{name: value if math.isfinite(value) else None for name, value in found.items()},
        "per_beat": [{n: v if math.isfinite(v) else None for n, v in asdict(beat).items()} for beat in beats],
        "expect": expect,
        "expect_met": status == "done" and all(row["met"] for row in expect),
    }
    write_json(out / "summary.json", summary)
    return summary


def _trace_csv(e: CellExperiment, traces: list[Trace]) -> str:
    """Time from the onset of the first beat shown, V, states, currents (those that drive the step from each sample, mV/ms)."""
    model = e.model
    columns: list[NDArray[np.float64]] = [
        np.concatenate([k * e.bcl_ms + trace.time_ms for k, trace in enumerate(traces)]),
        np.concatenate([trace.v_mv for trace in traces]),
    ]
    states = np.concatenate([trace.states for trace in traces]).T
    columns += [states[model.state_names.index(name)] for name in e.states]
    if e.currents:
        s = SimpleNamespace(**dict(zip(model.state_names, states, strict=True)))
        observe = observer(model.name, model.step(), e.currents)
        columns += list(observe(columns[1], e.dt_ms, s, SimpleNamespace(**model.parameters)))
    return _csv(["time_ms", "V_mV", *e.states, *e.currents], [[f"{x:.8g}" for x in row] for row in np.array(columns).T])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if math.isfinite(value) else ""
    return str(value)


def _csv(header: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO()
    for row in (header, *rows):
        text.write(",".join(row) + "\n")
    return text.getvalue()
