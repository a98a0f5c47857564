"""The parts of an experiment file, each a frozen noun and the reader of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshing.box import VARIANTS
from solvers.expected import STATUSES
from solvers.monodomain.conductivity import Membrane, diffusion_mm2_ms
from solvers.monodomain.fibrosis import GAP_NS, PASSIVE_REST, PASSIVE_TAU, Fibroblasts, PassiveCell
from solvers.toml_table import Table
from twin.params import Param
from twin.units import quantity

SITE_RADIUS = Param(3.0, "mm", 1.0, 5.0, "chosen here: tissue that a pacing catheter's tip excites directly")

Place = tuple[float, float, float]


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
    passive: PassiveCell | None = None
    """Ohmic cells instead of myocytes (ionic = "passive")."""
    fibroblasts: Fibroblasts | None = None
    drug: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StimulusSpec:
    """Where (corners of a box, centre and radius of a sphere, node numbers, or a named site and a radius), how strong and when."""

    name: str
    box: tuple[Place, Place] | None
    sphere: tuple[Place, float] | None
    nodes: tuple[int, ...]
    strength_uA_mm3: float
    duration_ms: float
    start_ms: tuple[float, ...]
    site: str | None = None
    radius_mm: float = SITE_RADIUS.value


@dataclass(frozen=True)
class Branch:
    """Extrastimuli after the last pulse of one stimulus: coupling intervals in ms. status: how the branch should end, if that is known."""

    name: str
    stimulus: int
    extra_ms: tuple[float, ...]
    status: str | None = None


@dataclass(frozen=True)
class EcgSpec:
    """ecg.csv: pace, and electrodes (name -> place in mm; empty for the generic chest). The nine of a 12-lead ECG make leads of them."""

    every_ms: float
    electrodes_mm: Mapping[str, Place]


def mesh_spec(t: Table) -> BoxSpec | Path:
    """[mesh]: a box or a file."""
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


def tissue_spec(t: Table, method: str) -> TissueSpec:
    """One [[tissue]]; of the eikonal methods it has speeds, of the monodomain cells and conductivities or speeds."""
    keys = ("region", "ionic", "cell", "intracellular", "extracellular", "surface_to_volume", "capacitance", "scale", "speed", "drug")
    t.known(*keys, "rest", "tau", "fibroblasts")
    region = t.values.get("region", "all")
    regions = tuple(region) if isinstance(region, list) else () if region == "all" else (region,)
    if not all(isinstance(r, str | int) and not isinstance(r, bool) for r in regions):
        raise t.error("region", f"{region!r} is not a region", 'give "all", a name, a number, or a list of them')
    membrane = Membrane(
        t.positive("surface_to_volume", "1/mm", Membrane.surface_to_volume_per_mm),
        t.positive("capacitance", "uF/mm^2", Membrane.capacitance_uF_mm2),
    )
    scale, drug = t.table("scale"), t.table("drug")
    factors = {name: scale.number(name, "", None, 0.0, 1000.0) for name in scale.values}
    cell = t.text("cell") if "cell" in t.values else None
    drugs = {name: drug.number(name, "umol/L", None, 0.0) for name in drug.values}
    if method != "monodomain" or "speed" in t.values:
        speed = t.table("speed")
        speed.known("longitudinal", "transverse")
        along, across = speed.positive("longitudinal", "mm/ms"), speed.positive("transverse", "mm/ms")
        if method != "monodomain":
            return TissueSpec(regions, None, None, 0.0, 0.0, membrane, factors, along, across)
        # conductivities follow from the speeds by the cell model, when the solver is built
        for key in ("intracellular", "extracellular"):
            if key in t.values:
                raise t.error(key, "and speed say the same thing", "give conductivities, or the speed they are to have")
        if t.text("ionic") == "passive":
            raise t.error("speed", "no wave runs through passive cells", "give conductivities")
        return TissueSpec(
            *(regions, t.text("ionic"), cell, 0.0, 0.0, membrane, factors, along, across), fibroblasts=_fibroblasts(t), drug=drugs
        )
    inner, outer = t.table("intracellular"), t.table("extracellular")
    for domain in (inner, outer):
        domain.known("longitudinal", "transverse")
    g_i, g_e = ((d.number("longitudinal", "S/m", None, 0.0), d.number("transverse", "S/m", None, 0.0)) for d in (inner, outer))
    d_l, d_t = (diffusion_mm2_ms(i, e, membrane) for i, e in zip(g_i, g_e))
    return TissueSpec(
        *(regions, t.text("ionic"), cell, d_l, d_t, membrane, factors),
        intracellular_s_m=g_i,
        extracellular_s_m=g_e,
        passive=_passive(t),
        fibroblasts=_fibroblasts(t),
        drug=drugs,
    )


def _passive(t: Table) -> PassiveCell | None:
    if t.text("ionic") == "passive":
        for key in ("cell", "scale", "drug", "fibroblasts"):
            if key in t.values:
                raise t.error(key, "passive cells have none", "remove it; they have rest and tau")
        return PassiveCell(t.number("rest", "mV", PASSIVE_REST.value, -100.0, 0.0), t.positive("tau", "ms", PASSIVE_TAU.value))
    for key in ("rest", "tau"):
        if key in t.values:
            raise t.error(key, "is of passive cells only", 'remove it or write ionic = "passive"')
    return None


def _fibroblasts(t: Table) -> Fibroblasts | None:
    if "fibroblasts" not in t.values:
        return None
    f = t.table("fibroblasts")
    f.known("per_myocyte", "gap")
    return Fibroblasts(f.number("per_myocyte", "", None, 0.0, 50.0), f.positive("gap", "nS", GAP_NS.value))


_TRAIN = ("cycle", "count", "extra", "burst")


def stimulus_spec(t: Table) -> StimulusSpec:
    """One [[stimulus]]."""
    t.known("name", "box", "sphere", "nodes", "strength", "duration", "start", *_TRAIN, "site", "radius")
    places = [name for name in ("box", "sphere", "nodes", "site") if name in t.values]
    if len(places) != 1:
        raise t.error("", f"needs exactly one of box, sphere, nodes and site, not {places or 'none'}", "say once where the current goes in")
    box = sphere = site = None
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
    elif places == ["site"]:
        site = t.text("site")
    else:
        listed = t.items("nodes")
        if not listed or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in listed):
            raise t.error("nodes", "must be a list of node numbers", "count from 0")
        nodes = tuple(listed)
    name = t.text("name") if "name" in t.values else t.field.replace("[", " ").replace("]", "")
    if "radius" in t.values and site is None:
        raise t.error("radius", "belongs to a site", "remove it or name a site")
    strength, duration = t.number("strength", "uA/mm^3", 50.0, 0.0), t.positive("duration", "ms", 2.0)
    radius = t.positive("radius", "mm", SITE_RADIUS.value)
    return StimulusSpec(name, box, sphere, nodes, strength, duration, _pulse_times(t), site, radius)


def _pulse_times(t: Table) -> tuple[float, ...]:
    """`count` pulses `cycle` apart from `start`, then one per coupling interval in `extra`, then a `burst`."""
    times = [t.number("start", "ms", 0.0, 0.0)]
    count = t.whole("count", 1, 10_000, 1)
    if count > 1:
        cycle = t.positive("cycle", "ms")
        times += [times[0] + k * cycle for k in range(1, count)]
    for coupling in _couplings(t):
        times.append(times[-1] + coupling)
    if "burst" in t.values:
        burst = t.table("burst")
        burst.known("cycle", "count", "after")
        cycle = burst.positive("cycle", "ms")
        first = times[-1] + burst.positive("after", "ms", cycle)
        times += [first + k * cycle for k in range(burst.whole("count", 1, 10_000))]
    return tuple(times)


def _couplings(t: Table) -> tuple[float, ...]:
    out = []
    for i, interval in enumerate(t.items("extra")):
        coupling = quantity(interval, "ms", str(t.where), f"{t.field}.extra[{i}]")
        if coupling <= 0:
            raise t.error(f"extra[{i}]", f"{interval!r} is not positive", "give the interval to the pulse before, in ms")
        out.append(coupling)
    return tuple(out)


def branch_specs(top: Table, stimuli: tuple[StimulusSpec, ...], duration_ms: float) -> tuple[Branch, ...]:
    """Every [[branch]]."""
    if "branch" not in top.values:
        return ()
    out: list[Branch] = []
    names = [s.name for s in stimuli]
    for i, t in enumerate(top.tables("branch")):
        t.known("name", "stimulus", "extra", "status")
        name = t.text("name") if "name" in t.values else f"branch_{i}"
        if not name.replace("_", "").replace("-", "").isalnum() or name in {b.name for b in out}:
            raise t.error("name", f"{name!r} is taken or no name for a folder", "use letters, digits, _ and -, each name once")
        stimulus = names.index(t.choice("stimulus", names, names[0]))
        extra = _couplings(t)
        if stimuli[stimulus].start_ms[-1] + sum(extra) >= duration_ms:
            raise t.error("extra", f"the last pulse comes after the end at {duration_ms:g} ms", "raise solver.duration")
        status = t.choice("status", STATUSES, "") if "status" in t.values else None
        out.append(Branch(name, stimulus, extra, status))
    return tuple(out)


def ecg_spec(t: Table) -> EcgSpec:
    """[record.ecg]."""
    t.known("every", "electrodes")
    electrodes = t.table("electrodes")
    return EcgSpec(t.positive("every", "ms", 1.0), {name: electrodes.place(name) for name in electrodes.values})
