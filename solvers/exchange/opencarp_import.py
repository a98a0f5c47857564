"""An openCARP parameter file, of the kind that `export_opencarp` writes, as an experiment; a key without a counterpart is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.exchange.names import Match, from_im_param, match_from, state_file
from solvers.exchange.opencarp_export import CAPACITANCE_UF_MM2
from solvers.experiment import Experiment, StimulusSpec, TissueSpec
from solvers.ionic import cell_names, ionic_model
from solvers.monodomain.conductivity import Membrane, diffusion_mm2_ms
from twin.errors import InputError
from twin.io import opencarp
from twin.io.source import read_text

MAX_INDEX = 10_000
_OUTPUT_ONLY = ("simID", "timedt", "spacedt", "output_level", "gridout_i", "gridout_e")
_INDEX = re.compile(r"\[(\d{1,6})\]")


def import_opencarp(path: Path) -> tuple[Experiment, tuple[str, ...]]:
    """Read a .par file and the mesh, electrodes and states that it names (relative to its folder).

    Returns the experiment (mesh by its prefix, stimuli as node lists) and notes for the user. Raises InputError for anything that vtwin
    does not simulate, or that is inconsistent.
    """
    keys = _Keys(path, opencarp.parse_par(path))
    prefix = path.parent / keys.text("meshname", None)
    mesh = opencarp.read(prefix)
    notes = list(mesh.notes)
    _fixed(keys)
    tags: list[int] = np.unique(mesh.tag).tolist()
    tissue, notes_of_tissue = _tissues(keys, tags)
    notes += notes_of_tissue
    chi = tissue[0].membrane.surface_to_volume_per_mm
    threshold, recovery = _activation(keys)
    probes = tuple(tuple(mesh.points_mm[node].tolist()) for node in _probe_nodes(keys, len(mesh.points_mm)))
    experiment = Experiment(
        where=path,
        mesh=prefix,
        tissue=tuple(tissue),
        stimuli=tuple(_stimuli(keys, chi, len(mesh.points_mm))),
        method="monodomain",
        dt_ms=_rounded(keys.number("dt", None) / 1000.0),
        duration_ms=keys.number("tend", None),
        scheme="reference",
        threshold_mv=threshold,
        recovery_mv=recovery,
        probes_mm=probes,
        probe_every_ms=keys.number("tracedt", 1.0),
    )
    if said := [name for name in _OUTPUT_ONLY if keys.values.pop(name, None) is not None]:
        notes.append(f"{', '.join(said)}: only about openCARP's output; vtwin writes frames where [record] asks for them")
    keys.all_used()
    notes.append("solver.scheme: openCARP's Crank-Nicolson with full mass is vtwin's 'reference'; 'explicit' is faster")
    return experiment, tuple(notes)


def _rounded(value: float) -> float:
    """Twelve digits: what a change of units blurs in the last ones is taken back."""
    return float(f"{value:.12g}")


@dataclass
class _Keys:
    """Assignments of a file; each is taken away when it is used, and what is left at the end has no counterpart."""

    path: Path
    values: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)

    def error(self, key: str, problem: str, remedy: str) -> InputError:
        return InputError(self.path, key, problem, remedy)

    def text(self, key: str, default: str | None) -> str:
        value = self.values.pop(key, default)
        if value is None or (default is None and not value):
            raise self.error(key, "is missing", f'write {key} = "..."')
        return value

    def number(self, key: str, default: float | None) -> float:
        value = self.values.pop(key, None)
        if value is None:
            if default is None:
                raise self.error(key, "is missing", f"write {key} = NUMBER")
            return default
        try:
            result = float(value)
        except ValueError:
            result = np.nan
        if not np.isfinite(result):
            raise self.error(key, f"{value[:40]!r} is not a number", f"write {key} = NUMBER")
        return result

    def whole(self, key: str, default: int | None) -> int:
        number = self.number(key, default)
        if number != int(number) or abs(number) > 2**31:
            raise self.error(key, f"{number:g} is not a whole number", f"write {key} = NUMBER")
        return int(number)

    def count(self, key: str, default: int | None) -> int:
        number = self.whole(key, default)
        if not 0 <= number <= MAX_INDEX:
            raise self.error(key, f"{number} is out of range", f"give 0 to {MAX_INDEX}")
        return number

    def ids(self, prefix: str) -> list[int]:
        """Tags of a region; one number may stand without an index."""
        count = self.count(f"{prefix}.num_IDs", 0)
        if count == 1 and f"{prefix}.ID" in self.values:
            return [self.whole(f"{prefix}.ID", None)]
        return [self.whole(f"{prefix}.ID[{i}]", None) for i in range(count)]

    def all_used(self) -> None:
        for key in self.values:
            index = _INDEX.search(key)
            hint = "an index beyond its count" if index and not key.startswith("stimulus[") else "no counterpart in vtwin"
            remedy = "use stim[] as openCARP does now" if key.startswith("stimulus[") else "remove it, or keep this run in openCARP"
            raise self.error(key, f"has {hint}", remedy)


def _fixed(keys: _Keys) -> None:
    """Choices that vtwin's monodomain makes in one way only."""
    for key, default, wanted, why in (
        ("bidomain", 0, 0, "vtwin solves the monodomain equation"),
        ("bidm_eqv_mono", 1, 1, "vtwin makes the monodomain conductivity of both domains' ones"),
        ("experiment", 0, 0, "vtwin runs experiment 0 (normal run)"),
        ("parab_solve", 1, 1, "vtwin's counterpart is Crank-Nicolson"),
        ("mass_lumping", 1, 0, "vtwin's counterpart has the full mass matrix; lumped waves are slower"),
    ):
        if keys.whole(key, default) != wanted:
            raise keys.error(key, f"is not {wanted}" + (" (openCARP's default is another)" if default != wanted else ""), why)


def _tissues(keys: _Keys, tags: list[int]) -> tuple[list[TissueSpec], list[str]]:
    domains = {}
    for index in range(keys.count("num_phys_regions", 0)):
        prefix = f"phys_region[{index}]"
        keys.text(f"{prefix}.name", "")
        domains[keys.whole(f"{prefix}.ptype", 0)] = keys.ids(prefix)
    if set(domains) - {0, 1}:
        raise keys.error("phys_region", "another physics than electrics is asked for", "keep this run in openCARP")
    if 1 in domains and sorted(domains[1]) != sorted(domains.get(0, domains[1])):
        raise keys.error("phys_region", "intracellular and extracellular domain differ (a bath)", "vtwin's monodomain has no bath")
    listed = domains.get(0, tags)
    inside = [tag for tag in tags if tag in listed]
    models = _by_tag(keys, "imp_region", keys.count("num_imp_regions", 1), inside)
    conductivities = _by_tag(keys, "gregion", keys.count("num_gregions", 1), inside)
    imps, notes = {}, []
    for index in sorted(set(models.values())):
        imps[index], note = _imp(keys, f"imp_region[{index}]")
        notes += note
    gs = {index: _conductivity(keys, f"gregion[{index}]") for index in sorted(set(conductivities.values()))}
    groups: dict[tuple[int, int], list[int]] = {}
    for tag in inside:
        groups.setdefault((models[tag], conductivities[tag]), []).append(tag)
    if not groups:
        raise keys.error("phys_region[0]", "holds no element of the mesh", f"the mesh has tags {', '.join(map(str, tags))}")
    out = []
    for (model, g), members in groups.items():
        (ionic, cell, scale, chi), (inner, outer) = imps[model], gs[g]
        out.append(_spec(members, ionic, cell, scale, chi, inner, outer))
    outside = [tag for tag in tags if tag not in inside]
    if outside:
        first = out[0]
        chi = first.membrane.surface_to_volume_per_mm
        out.append(_spec(outside, first.ionic or "", first.cell, {}, chi, (0.0, 0.0), (0.0, 0.0)))
    if len({t.membrane.surface_to_volume_per_mm for t in out}) > 1:
        raise keys.error("imp_region[].cellSurfVolRatio", "differs between regions", "vtwin has one for all: change conductivities instead")
    return out, notes


def _spec(
    tags: list[int],
    ionic: str,
    cell: str | None,
    scale: Mapping[str, float],
    chi: float,
    inner: tuple[float, float],
    outer: tuple[float, float],
) -> TissueSpec:
    membrane = Membrane(chi, CAPACITANCE_UF_MM2)
    d_l, d_t = (diffusion_mm2_ms(i, e, membrane) for i, e in zip(inner, outer))
    return TissueSpec(tuple(tags), ionic, cell, d_l, d_t, membrane, scale, intracellular_s_m=inner, extracellular_s_m=outer)


def _by_tag(keys: _Keys, name: str, count: int, tags: list[int]) -> dict[int, int]:
    """Index of the region of each tag: the one that lists it, else region 0 if that lists none (openCARP's rule)."""
    out: dict[int, int] = {}
    lists = [keys.ids(f"{name}[{index}]") for index in range(count)]
    for index, members in enumerate(lists):
        for tag in members:
            if tag in out:
                raise keys.error(f"{name}[{index}].ID", f"tag {tag} is in two regions", "list each tag once")
            out[tag] = index
    for tag in tags:
        if tag not in out:
            if not lists or lists[0]:
                raise keys.error(name, f"nothing is said about elements with tag {tag}", f"add it to one {name}")
            out[tag] = 0
    return {tag: out[tag] for tag in tags}


def _imp(keys: _Keys, prefix: str) -> tuple[tuple[str, str | None, dict[str, float], float], list[str]]:
    keys.text(f"{prefix}.name", "")
    match = match_from(keys.text(f"{prefix}.im", None), keys.path, f"{prefix}.im")
    defaults = {cell: ionic_model(match.ours, cell).parameters for cell in cell_names(match.ours)}
    cell, scale = from_im_param(match, keys.text(f"{prefix}.im_param", ""), defaults, keys.path, f"{prefix}.im_param")
    chi = _rounded(keys.number(f"{prefix}.cellSurfVolRatio", 0.14) * 1000.0)
    if chi <= 0 or keys.number(f"{prefix}.volFrac", 1.0) != 1.0:
        raise keys.error(f"{prefix}.cellSurfVolRatio", "or volFrac is out of range", "give a positive ratio and leave volFrac at 1")
    return (match.ours, cell, scale, chi), _start(keys, prefix, match, cell, scale)


def _start(keys: _Keys, prefix: str, match: Match, cell: str | None, scale: Mapping[str, float]) -> list[str]:
    """Says so if a .sv file holds another state than the one that vtwin starts from."""
    name = keys.text(f"{prefix}.im_sv_init", "")
    if not name:
        return [f"{prefix}: openCARP starts from its model's own state, vtwin from its own"]
    found = read_text(keys.path.parent / name, 1_000_000)
    model = ionic_model(match.ours, cell, scale)
    own = state_file(match, model.rest_mv, dict(zip(model.state_names, model.initial_state.tolist())), model.parameters)
    return [] if found == own else [f"{prefix}: the state in {name} is not taken over, vtwin starts from its own"]


def _conductivity(keys: _Keys, prefix: str) -> tuple[tuple[float, float], tuple[float, float]]:
    keys.text(f"{prefix}.name", "")
    # defaults of openCARP's parameter list
    factor = keys.number(f"{prefix}.g_mult", 1.0)
    il, it, in_ = (keys.number(f"{prefix}.g_{a}", d) for a, d in (("il", 0.174), ("it", 0.019), ("in", 0.019)))
    el, et, en = (keys.number(f"{prefix}.g_{a}", d) for a, d in (("el", 0.625), ("et", 0.236), ("en", 0.236)))
    if min(il, it, in_, el, et, en, factor) <= 0:
        raise keys.error(f"{prefix}", "a conductivity is not positive", "openCARP takes none either; leave the tag out of phys_region[0]")
    if (it, et) != (in_, en):
        raise keys.error(f"{prefix}.g_in", "differs from g_it (orthotropic)", "vtwin's tissue is the same in every direction across fibres")
    return (il * factor, it * factor), (el * factor, et * factor)


def _stimuli(keys: _Keys, chi: float, n: int) -> list[StimulusSpec]:
    """Stimuli; those with one electrode file, strength and duration are the trains of one."""
    merged: dict[object, StimulusSpec] = {}
    for index in range(keys.count("num_stim", 2)):
        prefix = f"stim[{index}]"
        if keys.whole(f"{prefix}.crct.type", 0) != 0:
            raise keys.error(f"{prefix}.crct.type", "is not 0", "vtwin stimulates with transmembrane current")
        name = keys.text(f"{prefix}.name", f"stimulus {index}")
        strength = _rounded(keys.number(f"{prefix}.pulse.strength", 0.0) * chi / 100.0)
        duration = keys.number(f"{prefix}.ptcl.duration", None)
        if strength <= 0 or duration <= 0:
            raise keys.error(prefix, "strength and duration must be positive", "give both, or lower num_stim (openCARP's default is 2)")
        times = _times(keys, prefix)
        file = keys.text(f"{prefix}.elec.vtx_file", "")
        if file:
            key: object = (file, strength, duration)
            if key in merged:
                before = merged[key]
                times = tuple(sorted((*before.start_ms, *times)))
                merged[key] = StimulusSpec(before.name, None, None, before.nodes, strength, duration, times)
                continue
            nodes = _electrode(keys, prefix, file, n)
            merged[key] = StimulusSpec(name, None, None, nodes, strength, duration, times)
        else:
            box, sphere = _geometry(keys, prefix)
            merged[index] = StimulusSpec(name, box, sphere, (), strength, duration, times)
    if not merged:
        raise keys.error("num_stim", "there is no stimulus", "vtwin needs at least one")
    return list(merged.values())


def _electrode(keys: _Keys, prefix: str, file: str, n: int) -> tuple[int, ...]:
    path = keys.path.parent / file
    if not path.exists() and path.suffix != ".vtx":
        path = path.with_name(f"{path.name}.vtx")
    nodes, domain = opencarp.read_vtx(path, n)
    if domain != "intra":
        raise keys.error(f"{prefix}.elec.vtx_file", "is of the extracellular domain", "vtwin's monodomain has none: write intra")
    return tuple(nodes.tolist())


def _times(keys: _Keys, prefix: str) -> tuple[float, ...]:
    start, count = keys.number(f"{prefix}.ptcl.start", 0.0), max(1, keys.count(f"{prefix}.ptcl.npls", 1))
    listed = keys.text(f"{prefix}.ptcl.stimlist", "")
    if listed:
        times: list[float] = []
        for word in listed.split(","):
            try:
                value = float(word)
            except ValueError:
                raise keys.error(
                    f"{prefix}.ptcl.stimlist", f"{word[:20]!r} is not a time", "write numbers, +NUMBER for an interval"
                ) from None
            times.append(times[-1] + value if word.strip().startswith("+") and times else value)
    else:
        cycle = keys.number(f"{prefix}.ptcl.bcl", None if count > 1 else 0.0)
        if count > 1 and cycle <= 0:
            raise keys.error(f"{prefix}.ptcl.bcl", f"{cycle:g} is not positive", "give the interval of the pulses in ms")
        times = [start + k * cycle for k in range(count)]
    if min(times) < 0:
        raise keys.error(f"{prefix}.ptcl", "a pulse is before 0 ms", "start at 0 or later")
    return tuple(times)


Box = tuple[tuple[float, float, float], tuple[float, float, float]]


def _geometry(keys: _Keys, prefix: str) -> tuple[Box | None, tuple[tuple[float, float, float], float] | None]:
    """A block or a sphere in um, as box or sphere in mm."""

    def corner(name: str) -> tuple[float, float, float]:
        x, y, z = (_rounded(keys.number(f"{prefix}.elec.{name}[{axis}]", 0.0) / 1000.0) for axis in range(3))
        return x, y, z

    kind = keys.whole(f"{prefix}.elec.geom_type", 2)
    if kind == 1:
        return None, (corner("p0"), _rounded(keys.number(f"{prefix}.elec.radius", 100.0) / 1000.0))
    if kind != 2:
        raise keys.error(f"{prefix}.elec.geom_type", f"{kind} is not read", "give a block (2), a sphere (1) or a vtx_file")
    low, high = corner("p0"), corner("p1")
    if any(a > b for a, b in zip(low, high)):
        raise keys.error(f"{prefix}.elec.p1", "is below p0", "p0 and p1 are opposite corners")
    return (low, high), None


def _activation(keys: _Keys) -> tuple[float, float]:
    """Thresholds of activation (upward) and recovery (downward crossing); vtwin's own where the file has none."""
    found: dict[int, set[float]] = {0: set(), 1: set()}
    for index in range(keys.count("num_LATs", 0)):
        prefix = f"lats[{index}]"
        keys.text(f"{prefix}.ID", "")
        keys.whole(f"{prefix}.all", 1)
        if keys.whole(f"{prefix}.measurand", 0) != 0 or keys.whole(f"{prefix}.method", 1) != 1:
            raise keys.error(prefix, "is not a threshold of Vm", "vtwin detects crossings of a voltage: measurand 0, method 1")
        mode = keys.whole(f"{prefix}.mode", 0)
        if mode not in found:
            raise keys.error(f"{prefix}.mode", f"{mode} is neither 0 nor 1", "give 0 (upward) or 1 (downward)")
        found[mode].add(keys.number(f"{prefix}.threshold", -10.0))
    for mode, values in found.items():
        if len(values) > 1:
            kind = "downward" if mode else "upward"
            raise keys.error("lats", f"two {kind} thresholds, {', '.join(f'{v:g}' for v in sorted(values))} mV", "vtwin has one of each")
    up = next(iter(found[0]), -40.0)
    return up, next(iter(found[1]), min(-70.0, up))


def _probe_nodes(keys: _Keys, n: int) -> NDArray[np.int64]:
    nodes = [keys.whole(f"trace_node[{i}]", None) for i in range(keys.count("num_trace", 0))]
    if any(not 0 <= node < n for node in nodes):
        raise keys.error("trace_node", f"a node is outside 0..{n - 1}", "give nodes of this mesh")
    return np.array(nodes, np.int64)
