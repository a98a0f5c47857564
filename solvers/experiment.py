"""The experiment file of `vtwin simulate`: TOML to frozen nouns, everything checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshing.box import VARIANTS
from solvers.monodomain.conductivity import Membrane, diffusion_mm2_ms
from solvers.monodomain.solver import THETA
from solvers.toml_table import Table, read_table
from twin.errors import InputError
from twin.units import quantity

METHODS = ("monodomain", "eikonal")
SCHEMES = ("explicit", "reference")
CORRECTIONS = ("none", "planar")


@dataclass(frozen=True)
class BoxSpec:
    """A box mesh: size and spacing in mm, one fibre direction, the way cubes are cut."""

    size_mm: tuple[float, float, float]
    spacing_mm: float
    fibre: tuple[float, float, float] = (1.0, 0.0, 0.0)
    variant: str = "kuhn"


@dataclass(frozen=True)
class TissueSpec:
    """What the tetrahedra of some regions are made of. regions: names or numbers, empty for all; speeds (m/s) are for the eikonal."""

    regions: tuple[str | int, ...]
    ionic: str | None
    cell: str | None
    d_l_mm2_ms: float
    d_t_mm2_ms: float
    membrane: Membrane
    scale: Mapping[str, float]
    speed_l_m_s: float | None = None
    speed_t_m_s: float | None = None
    intracellular_s_m: tuple[float, float] = (0.0, 0.0)
    """Along and across the fibres; with the extracellular pair, what d_l and d_t were made from."""
    extracellular_s_m: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class StimulusSpec:
    """Where (low/high corners of a box, centre and radius of a sphere, or node numbers), how strong and when."""

    name: str
    box: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    sphere: tuple[tuple[float, float, float], float] | None
    nodes: tuple[int, ...]
    strength_uA_mm3: float
    duration_ms: float
    start_ms: tuple[float, ...]


@dataclass(frozen=True)
class Expected:
    """First activation expected at the node nearest to a place."""

    at_mm: tuple[float, float, float]
    value_ms: float
    within_ms: float


@dataclass(frozen=True)
class Experiment:
    """One `simulate` run, checked and in internal units. `where` is the file, for messages."""

    where: Path
    mesh: BoxSpec | Path
    tissue: tuple[TissueSpec, ...]
    stimuli: tuple[StimulusSpec, ...]
    method: str
    dt_ms: float | None
    duration_ms: float
    theta: float = THETA.value
    scheme: str = "explicit"
    correction: str = "none"
    quiet_ms: float | None = None
    precision: str = "float32"
    threshold_mv: float = -40.0
    recovery_mv: float = -70.0
    probes_mm: tuple[tuple[float, float, float], ...] = ()
    probe_every_ms: float = 1.0
    expected: tuple[Expected, ...] = field(default=())


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file. Raises InputError: unknown keys, wrong units, impossible values, each in one line."""
    top = read_table(path)
    top.known("mesh", "tissue", "stimulus", "solver", "record", "expect")
    solver = top.table("solver")
    solver.known("method", "dt", "duration", "theta", "scheme", "correction", "quiet", "precision")
    method = solver.choice("method", METHODS, "monodomain")
    record = top.table("record")
    record.known("activation", "probes", "probe_every")
    activation = record.table("activation")
    activation.known("threshold", "recovery")
    experiment = Experiment(
        where=path,
        mesh=_mesh(top.table("mesh")),
        tissue=tuple(_tissue(t, method) for t in top.tables("tissue")),
        stimuli=tuple(_stimulus(t) for t in top.tables("stimulus")),
        method=method,
        dt_ms=solver.positive("dt", "ms") if "dt" in solver.values else None,
        duration_ms=solver.positive("duration", "ms"),
        theta=solver.number("theta", "", THETA.value, 0.0, 1.0),
        scheme=solver.choice("scheme", SCHEMES, "explicit"),
        correction=solver.choice("correction", CORRECTIONS, "none"),
        quiet_ms=solver.positive("quiet", "ms") if "quiet" in solver.values else None,
        precision=solver.choice("precision", ("float32", "float64"), "float32"),
        threshold_mv=activation.number("threshold", "mV", -40.0, -80.0, 30.0),
        recovery_mv=activation.number("recovery", "mV", -70.0, -90.0, 30.0),
        probes_mm=tuple(record.place(f"probes[{i}]", p) for i, p in enumerate(record.items("probes"))),
        probe_every_ms=record.positive("probe_every", "ms", 1.0),
        expected=_expected(top.table("expect")),
    )
    if experiment.recovery_mv > experiment.threshold_mv:
        raise activation.error("recovery", "is above the threshold", "recovery is a level on the way down, below the upstroke's threshold")
    if experiment.correction == "planar" and (not isinstance(experiment.mesh, BoxSpec) or method != "monodomain"):
        remedy = "leave it out; for other meshes pass kappa_l and kappa_t to Monodomain"
        raise solver.error("correction", "is made for the monodomain on box meshes, whose lattice and fibres are uniform", remedy)
    membranes = {t.membrane.capacitance_uF_mm3 for t in experiment.tissue}
    if len(membranes) > 1:
        remedy = "use the same in every [[tissue]]; change conductivities instead"
        raise InputError(path, "tissue.capacitance", "surface_to_volume x capacitance differs between tissues", remedy)
    return experiment


def _mesh(t: Table) -> BoxSpec | Path:
    t.known("box", "file")
    if ("box" in t.values) == ("file" in t.values):
        raise t.error(
            "", "needs exactly one of box and file", 'give box = { size = "20 x 7 x 3 mm", spacing = "0.5 mm" } or file = "heart.npz"'
        )
    if "file" in t.values:
        return t.where.parent / t.text("file")
    box = t.table("box")
    box.known("size", "spacing", "fibre", "variant")
    fibre = box.place("fibre", box.values["fibre"], any_length=True) if "fibre" in box.values else (1.0, 0.0, 0.0)
    if not any(fibre):
        raise box.error("fibre", "has no direction", "give a vector, for example [1, 0, 0]")
    return BoxSpec(box.size("size"), box.positive("spacing", "mm"), fibre, box.choice("variant", VARIANTS, "kuhn"))


def _tissue(t: Table, method: str) -> TissueSpec:
    t.known("region", "ionic", "cell", "intracellular", "extracellular", "surface_to_volume", "capacitance", "scale", "speed")
    region = t.values.get("region", "all")
    regions = tuple(region) if isinstance(region, list) else () if region == "all" else (region,)
    if not all(isinstance(r, str | int) and not isinstance(r, bool) for r in regions):
        raise t.error("region", f"{region!r} is not a region", 'give "all", a name, a number, or a list of them')
    membrane = Membrane(
        t.positive("surface_to_volume", "1/mm", Membrane.surface_to_volume_per_mm),
        t.positive("capacitance", "uF/mm^2", Membrane.capacitance_uF_mm2),
    )
    scale = t.table("scale")
    factors = {name: scale.number(name, "", None, 0.0, 1000.0) for name in scale.values}
    if method == "eikonal":
        speed = t.table("speed")
        speed.known("longitudinal", "transverse")
        along, across = speed.positive("longitudinal", "mm/ms"), speed.positive("transverse", "mm/ms")
        return TissueSpec(regions, None, None, 0.0, 0.0, membrane, factors, along, across)
    inner, outer = t.table("intracellular"), t.table("extracellular")
    for domain in (inner, outer):
        domain.known("longitudinal", "transverse")
    g_i, g_e = ((d.number("longitudinal", "S/m", None, 0.0), d.number("transverse", "S/m", None, 0.0)) for d in (inner, outer))
    d_l, d_t = (diffusion_mm2_ms(i, e, membrane) for i, e in zip(g_i, g_e))
    cell = t.text("cell") if "cell" in t.values else None
    return TissueSpec(regions, t.text("ionic"), cell, d_l, d_t, membrane, factors, intracellular_s_m=g_i, extracellular_s_m=g_e)


def _stimulus(t: Table) -> StimulusSpec:
    t.known("name", "box", "sphere", "nodes", "strength", "duration", "start", "cycle", "count", "extra")
    places = [name for name in ("box", "sphere", "nodes") if name in t.values]
    if len(places) != 1:
        raise t.error("", f"needs exactly one of box, sphere and nodes, not {places or 'none'}", "say once where the current goes in")
    box = sphere = None
    nodes: tuple[int, ...] = ()
    if places == ["box"]:
        corners = t.table("box")
        corners.known("low", "high")
        low, high = corners.place("low"), corners.place("high")
        if any(a > b for a, b in zip(low, high)):
            raise corners.error("high", "is below low", "low and high are opposite corners")
        box = (low, high)
    elif places == ["sphere"]:
        ball = t.table("sphere")
        ball.known("centre", "radius")
        sphere = (ball.place("centre"), ball.positive("radius", "mm"))
    else:
        listed = t.items("nodes")
        if not listed or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in listed):
            raise t.error("nodes", "must be a list of node numbers", "count from 0")
        nodes = tuple(listed)
    name = t.text("name") if "name" in t.values else t.field.replace("[", " ").replace("]", "")
    return StimulusSpec(
        name, box, sphere, nodes, t.number("strength", "uA/mm^3", 50.0, 0.0), t.positive("duration", "ms", 2.0), _pulse_times(t)
    )


def _pulse_times(t: Table) -> tuple[float, ...]:
    """`count` pulses `cycle` apart from `start`, then one per coupling interval in `extra`."""
    times = [t.number("start", "ms", 0.0, 0.0)]
    count = t.values.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 10_000:
        raise t.error("count", f"{count!r} is not a number of pulses", "give a whole number from 1")
    if count > 1:
        cycle = t.positive("cycle", "ms")
        times += [times[0] + k * cycle for k in range(1, count)]
    for i, interval in enumerate(t.items("extra")):
        coupling = quantity(interval, "ms", str(t.where), f"{t.field}.extra[{i}]")
        if coupling <= 0:
            raise t.error(f"extra[{i}]", f"{interval!r} is not positive", "give the interval to the pulse before, in ms")
        times.append(times[-1] + coupling)
    return tuple(times)


def _expected(t: Table) -> tuple[Expected, ...]:
    t.known("activation_ms")
    out = []
    for i, row in enumerate(t.items("activation_ms")):
        if not isinstance(row, dict):
            raise t.error(f"activation_ms[{i}]", "is not a table", "write { at = [x, y, z], value = 42.0, within = 2.0 }")
        entry = Table(t.where, f"{t.field}.activation_ms[{i}]", row)
        entry.known("at", "value", "within")
        out.append(Expected(entry.place("at"), entry.number("value", "ms", None, 0.0), entry.number("within", "ms", None, 0.0)))
    return tuple(out)
