"""An experiment as a folder that openCARP runs unchanged: mesh, electrodes, initial states, parameters, and the command.

Units there: um, ms (dt in us), mV, S/m, uA/cm^2, 1/um. openCARP's membrane has 1 uF/cm^2: another capacitance goes into the
surface-to-volume ratio, of which only the product matters (docs/opencarp.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.exchange.names import im_param, match_of, state_file
from solvers.experiment import BoxSpec, Experiment, TissueSpec
from solvers.ionic import ionic_model
from solvers.simulate import Scene, set_up
from twin.atomic import write_text
from twin.errors import InputError
from twin.experiment import Stimulus
from twin.io import opencarp
from twin.io.opencarp.par import Value, format_par
from twin.params import Param

PAR, MESH = "experiment.par", "mesh"
CAPACITANCE_UF_MM2 = 0.01
"""openCARP's membrane, 1 uF/cm^2; not a parameter there."""

DEFAULT_DT_US = Param(
    25.0, "us", 5.0, 50.0, "chosen here; openCARP's Crank-Nicolson step for 0.1 to 0.5 mm, where the experiment says none"
)
OUTPUT_EVERY_MS = 1.0
TISSUE_FIELDS = frozenset(
    {"regions", "ionic", "cell", "d_l_mm2_ms", "d_t_mm2_ms", "membrane", "scale", "speed_l_m_s", "speed_t_m_s"}
    | {"intracellular_s_m", "extracellular_s_m"}
)
STIMULUS_FIELDS = frozenset(("name", "box", "sphere", "nodes", "strength_uA_mm3", "duration_ms", "start_ms", "site", "radius_mm"))
EXPERIMENT_FIELDS = frozenset(
    {"where", "mesh", "tissue", "stimuli", "method", "dt_ms", "duration_ms", "theta", "scheme", "correction", "quiet_ms", "precision"}
    | {"threshold_mv", "recovery_mv", "probes_mm", "probe_every_ms", "expected", "frames_every_ms"}
)
"""What this exporter knows how to write or reports; any other field in use is refused (tissue, stimuli) or reported."""

Section = tuple[str, dict[str, Value]]


@dataclass(frozen=True)
class Exported:
    """files that were written; notes: what was assumed or has no counterpart, for the user."""

    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def export_opencarp(experiment: Experiment, out: Path, binary: bool = False) -> Exported:
    """Write the experiment into a new or empty folder. Raises InputError for what openCARP cannot express, before anything is written."""
    if experiment.method != "monodomain":
        raise InputError(experiment.where, "solver.method", f"{experiment.method!r} is not exported", 'use method = "monodomain"')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(out, "folder", "exists and is not empty", "name a new folder")
    _only_known(experiment)
    scene = set_up(experiment)
    notes: list[str] = []
    tags = _tags(experiment, scene)
    used = [k for k in range(len(experiment.tissue)) if tags[k]]
    regions, states = _imp_regions(experiment, used, tags, notes)
    sections: list[Section] = [
        ("Written by vtwin; run in this folder: openCARP +F experiment.par -simID out", {"meshname": MESH}),
        ("monodomain, Crank-Nicolson, full mass matrix; dt in us, the other times in ms", _solver(experiment, notes)),
        ("tissue that is simulated; scar and lesions are left out of both domains", _physics(tags, used)),
        ("cell models; surface-to-volume ratio in 1/um for a membrane of 1 uF/cm^2", regions),
        ("conductivities in S/m: along, across, normal to the sheets", _conductivities(experiment, used, tags)),
        ("stimuli: transmembrane current in uA/cm^2", _stimuli(experiment, scene.stimuli)),
        ("activation (upward) and recovery (downward crossings)", _activation(experiment)),
    ]
    if experiment.probes_mm:
        sections.append(("probes: Vm and others at nodes", _probes(experiment, scene)))
    text = format_par(sections)
    _losses(experiment, notes)
    os.makedirs(out, exist_ok=True)
    mesh = scene.mesh
    files = [p.name for p in opencarp.write(out / MESH, mesh.points_mm, mesh.tets, mesh.region, mesh.fibre, binary=binary)]
    for index, stimulus in enumerate(scene.stimuli):
        opencarp.write_vtx(out / _electrode(index), stimulus.nodes)
    for name, content in states.items():
        write_text(out / name, content)
    write_text(out / PAR, text)
    files += [*(_electrode(i) for i in range(len(scene.stimuli))), *states, PAR, "README.md"]
    write_text(out / "README.md", _readme(experiment, files, notes, binary))
    return Exported(out, tuple(files), tuple(notes))


def _only_known(experiment: Experiment) -> None:
    """Raise InputError for settings of tissue or stimuli that were added after this exporter was written and are in use."""
    if experiment.start_from is not None:
        raise InputError(experiment.where, "start.from", "openCARP cannot start from a state of vtwin", "leave it out of the experiment")
    for name, specs, known in (("tissue", experiment.tissue, TISSUE_FIELDS), ("stimulus", experiment.stimuli, STIMULUS_FIELDS)):
        for index, spec in enumerate(specs):
            for extra in changed_fields(spec, known):
                remedy = "leave it out of the experiment that is exported"
                raise InputError(experiment.where, f"{name}[{index}].{extra}", "has no counterpart in openCARP that vtwin knows", remedy)


def changed_fields(spec: Any, known: frozenset[str]) -> list[str]:
    """Fields outside `known` that do not have their default."""
    out = []
    for f in fields(spec):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if f.name not in known and getattr(spec, f.name) != default:
            out.append(f.name)
    return out


def _electrode(index: int) -> str:
    return f"stimulus_{index}.vtx"


def _tags(experiment: Experiment, scene: Scene) -> list[list[int]]:
    """Element tags of each tissue that conducts, ascending."""
    if scene.mesh.region.min() < 0:
        # a negative tag means a bath with fibres to openCARP
        raise InputError(experiment.where, "mesh", "has negative region numbers", "renumber the regions from 0")
    tags: list[list[int]] = [[] for _ in experiment.tissue]
    for tag in np.unique(scene.mesh.region).tolist():
        here = scene.mesh.region == tag
        conducting = scene.conducting[here]
        if conducting.any():
            tags[int(scene.tissue[here][np.argmax(conducting)])].append(tag)
    return tags


def chi_per_mm(tissue: TissueSpec) -> float:
    """Surface-to-volume ratio (1/mm) that gives the same tissue with openCARP's capacitance."""
    return tissue.membrane.capacitance_uF_mm3 / CAPACITANCE_UF_MM2


def _solver(experiment: Experiment, notes: list[str]) -> dict[str, Value]:
    dt_us = DEFAULT_DT_US.value if experiment.dt_ms is None else round(experiment.dt_ms * 1000.0, 9)
    if experiment.dt_ms is None:
        notes.append(f"dt: the experiment leaves it to the solver, {dt_us:g} us is written")
    every = min(experiment.frames_every_ms or OUTPUT_EVERY_MS, experiment.duration_ms)
    if every * 1000.0 < dt_us:
        raise InputError(experiment.where, "solver.duration", "is shorter than a time step", "simulate longer")
    return {
        "bidomain": 0,
        "bidm_eqv_mono": 1,
        "parab_solve": 1,
        "mass_lumping": 0,
        "dt": dt_us,
        "tend": experiment.duration_ms,
        "spacedt": every,
        "timedt": every,
    }


def _id_list(prefix: str, tags: Sequence[int]) -> dict[str, Value]:
    return {f"{prefix}.num_IDs": len(tags), **{f"{prefix}.ID[{i}]": tag for i, tag in enumerate(tags)}}


def _physics(tags: list[list[int]], used: list[int]) -> dict[str, Value]:
    every = sorted(tag for k in used for tag in tags[k])
    out: dict[str, Value] = {"num_phys_regions": 2}
    for index, name in enumerate(("Intracellular domain", "Extracellular domain")):
        prefix = f"phys_region[{index}]"
        out |= {f"{prefix}.name": name, f"{prefix}.ptype": index, **_id_list(prefix, every)}
    return out


def _imp_regions(
    experiment: Experiment, used: list[int], tags: list[list[int]], notes: list[str]
) -> tuple[dict[str, Value], dict[str, str]]:
    """Cell model of each tissue, and the .sv files by name."""
    out: dict[str, Value] = {"num_imp_regions": len(used)}
    states: dict[str, str] = {}
    for index, k in enumerate(used):
        tissue, prefix, key = experiment.tissue[k], f"imp_region[{index}]", f"tissue[{k}]"
        match = match_of(tissue.ionic or "", experiment.where, f"{key}.ionic")
        model = ionic_model(match.ours, tissue.cell, tissue.scale)
        parameters = im_param(match, model.cell, tissue.scale, model.parameters, experiment.where, key)
        out |= {f"{prefix}.name": f"tissue_{k}", f"{prefix}.im": match.theirs}
        if parameters:
            out[f"{prefix}.im_param"] = parameters
        out[f"{prefix}.cellSurfVolRatio"] = round(chi_per_mm(tissue) / 1000.0, 15)
        start = dict(zip(model.state_names, model.initial_state.tolist()))
        content = state_file(match, model.rest_mv, start, model.parameters)
        if content is not None:
            states[f"tissue_{k}.sv"] = content
            out[f"{prefix}.im_sv_init"] = f"tissue_{k}.sv"
        out |= _id_list(prefix, tags[k])
        if match.note and ("ENDO" not in match.note or model.cell == "endo"):
            notes.append(f"{key}: {match.theirs}: {match.note}")
        if tissue.membrane.capacitance_uF_mm2 != CAPACITANCE_UF_MM2:
            folded = f"{chi_per_mm(tissue):g}/mm with openCARP's 1 uF/cm^2"
            own = f"{tissue.membrane.surface_to_volume_per_mm:g}/mm with {100 * tissue.membrane.capacitance_uF_mm2:g} uF/cm^2"
            notes.append(f"{key}: {own} is written as {folded}: the same tissue")
    return out, states


def _conductivities(experiment: Experiment, used: list[int], tags: list[list[int]]) -> dict[str, Value]:
    out: dict[str, Value] = {"num_gregions": len(used)}
    for index, k in enumerate(used):
        tissue, prefix = experiment.tissue[k], f"gregion[{index}]"
        (il, it), (el, et) = tissue.intracellular_s_m, tissue.extracellular_s_m
        if min(il, it, el, et) <= 0:
            problem = f"conductivities {il:g}, {it:g}, {el:g}, {et:g} S/m: openCARP takes none that is 0"
            raise InputError(experiment.where, f"tissue[{k}]", problem, "give both domains a small value along and across")
        out |= {f"{prefix}.name": f"tissue_{k}", f"{prefix}.g_il": il, f"{prefix}.g_it": it, f"{prefix}.g_in": it}
        out |= {f"{prefix}.g_el": el, f"{prefix}.g_et": et, f"{prefix}.g_en": et, **_id_list(prefix, tags[k])}
    return out


def pulse_trains(times: Sequence[float]) -> list[tuple[float, float, int]]:
    """(start, cycle, count) of regular trains that together are the pulse times, the longest first run taken greedily; cycle 0 for one."""
    trains = []
    at = 0
    while at < len(times):
        count = 1
        if at + 1 < len(times):
            cycle = times[at + 1] - times[at]
            # a pulse belongs to the train only if start + k * cycle gives its time back exactly
            while at + count < len(times) and times[at] + count * cycle == times[at + count]:
                count += 1
        if count > 2 or (count == 2 and at + 2 == len(times)):
            trains.append((times[at], cycle, count))
        else:
            trains.append((times[at], 0.0, 1))
            count = 1
        at += count
    return trains


def _stimuli(experiment: Experiment, stimuli: Sequence[Stimulus]) -> dict[str, Value]:
    out: dict[str, Value] = {}
    index = 0
    for number, stimulus in enumerate(stimuli):
        # uA/mm^3 over 1/mm is uA/mm^2, a hundredth of uA/cm^2
        strength = stimulus.strength_uA_mm3 / chi_per_mm(experiment.tissue[0]) * 100.0
        for part, (start, cycle, count) in enumerate(pulse_trains(stimulus.start_ms)):
            prefix = f"stim[{index}]"
            if count > 1 and cycle <= stimulus.duration_ms:
                raise InputError(experiment.where, f"stimulus[{number}].cycle", "is not longer than a pulse", "give a longer cycle")
            out[f"{prefix}.name"] = stimulus.name if part == 0 else f"{stimulus.name} part {part + 1}"
            out[f"{prefix}.crct.type"] = 0
            out[f"{prefix}.elec.vtx_file"] = _electrode(number)
            out[f"{prefix}.pulse.strength"] = strength
            out[f"{prefix}.ptcl.start"] = start
            out[f"{prefix}.ptcl.duration"] = stimulus.duration_ms
            out[f"{prefix}.ptcl.npls"] = count
            if count > 1:
                out[f"{prefix}.ptcl.bcl"] = cycle
            index += 1
    # openCARP has two stimuli if it is not told how many
    return {"num_stim": index, **out}


def _activation(experiment: Experiment) -> dict[str, Value]:
    up, down = experiment.threshold_mv, experiment.recovery_mv
    rows = (("first", 0, up, 0), ("activation", 1, up, 0), ("recovery", 1, down, 1))
    out: dict[str, Value] = {"num_LATs": len(rows)}
    for i, (name, every, threshold, mode) in enumerate(rows):
        out |= {f"lats[{i}].ID": name, f"lats[{i}].measurand": 0, f"lats[{i}].all": every, f"lats[{i}].method": 1}
        out |= {f"lats[{i}].threshold": threshold, f"lats[{i}].mode": mode}
    return out


def _probes(experiment: Experiment, scene: Scene) -> dict[str, Value]:
    nodes: NDArray[np.int64] = np.array([scene.nearest.node(p)[0] for p in experiment.probes_mm])
    return {
        "num_trace": len(nodes),
        **{f"trace_node[{i}]": int(node) for i, node in enumerate(nodes)},
        "tracedt": experiment.probe_every_ms,
    }


def _losses(experiment: Experiment, notes: list[str]) -> None:
    """What the experiment says and a .par file cannot."""
    if experiment.scheme == "explicit":
        notes.append("solver.scheme: vtwin's explicit scheme has no counterpart; openCARP runs Crank-Nicolson with the full mass matrix")
    if experiment.correction != "none":
        notes.append("solver.correction: fitted to vtwin's scheme, not exported; conductivities are the tissue's own")
    if experiment.quiet_ms is not None:
        notes.append("solver.quiet: not exported, openCARP runs to the end")
    if experiment.expected:
        notes.append("expect: not exported, compare out/init_acts_first-thresh.dat yourself")
    if experiment.probes_mm:
        notes.append("record.probes: written as trace_node, at the nearest nodes")
    notes += [f"{name}: not exported, no counterpart" for name in changed_fields(experiment, EXPERIMENT_FIELDS)]
    if isinstance(experiment.mesh, BoxSpec):
        notes.append("mesh.box: written as a mesh; its stimuli as node lists")
    elif any(not s.nodes for s in experiment.stimuli):
        notes.append("stimulus places: written as node lists")


def _readme(experiment: Experiment, files: Sequence[str], notes: Sequence[str], binary: bool) -> str:
    bench = "bench --imp=MODEL --imp-info"
    lines = [
        f"# {experiment.where.stem}, for openCARP",
        "",
        "Written by vtwin from an experiment file. Not run in openCARP when it was written. In this folder:",
        "",
        "```console",
        "openCARP +F experiment.par -simID out",
        "```",
        "",
        f"Files: {', '.join(files)}. " + ("The mesh is binary (little endian). " if binary else "") + "Lengths are micrometres.",
        "",
        "- `out/vm.igb`: voltage in time; `vtwin inspect out/vm.igb` reads it.",
        "- `out/init_acts_first-thresh.dat`: first activation of each node in ms, -1 where there is none; the two other LATs hold every",
        "  activation and every recovery.",
        f"- Names of cell models are those since openCARP 10 (2022); `{bench}` lists a model's parameters.",
        "- Files named `.sv` hold vtwin's initial state. To start from a paced cell instead, make a state with `bench` and name it in",
        "  `imp_region[].im_sv_init`, or use openCARP's prepacing parameters.",
        "- Relative paths hold where openCARP is started, so start it here.",
        "",
        "What was assumed, or has no counterpart:",
        "",
        *(f"- {note}" for note in notes),
        "",
    ]
    return "\n".join(lines)
