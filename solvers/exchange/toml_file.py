"""An experiment that was read from another program as the text of an experiment file, which `load_experiment` reads as the same."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from solvers.exchange.opencarp_export import EXPERIMENT_FIELDS, STIMULUS_FIELDS, TISSUE_FIELDS, changed_fields, pulse_trains
from solvers.experiment import BoxSpec, Experiment, StimulusSpec, TissueSpec
from twin.errors import InputError


def experiment_toml(experiment: Experiment, folder: Path, comments: Sequence[str] = ()) -> str:
    """TOML of an experiment to be written into `folder` (the mesh is named relative to it); comments go on top.

    Raises InputError for settings that other programs' files do not bring and this writer therefore does not know.
    """
    unknown = changed_fields(experiment, EXPERIMENT_FIELDS - {"expected"})
    unknown += [name for t in experiment.tissue for name in changed_fields(t, TISSUE_FIELDS)]
    unknown += [name for s in experiment.stimuli for name in changed_fields(s, STIMULUS_FIELDS - {"site", "radius_mm"})]
    if unknown:
        raise InputError(experiment.where, unknown[0], "is not written to experiment files by vtwin", "copy it by hand")
    blocks = ["".join(f"# {line}\n" for line in comments) + "[mesh]\n" + _mesh(experiment.mesh, folder)]
    blocks += [_tissue(t, experiment.method) for t in experiment.tissue]
    blocks += [_stimulus(s) for s in experiment.stimuli]
    blocks += [_solver(experiment), _record(experiment)]
    return "\n".join(blocks)


def _list(values: Sequence[float]) -> str:
    return f"[{', '.join(repr(float(v)) for v in values)}]"


def _quoted(text: str) -> str:
    # a TOML basic string is a JSON string
    return json.dumps(text, ensure_ascii=False)


def _mesh(mesh: BoxSpec | Path, folder: Path) -> str:
    if isinstance(mesh, BoxSpec):
        size = _list(mesh.size_mm)
        return f"box = {{ size = {size}, spacing = {mesh.spacing_mm!r}, fibre = {_list(mesh.fibre)}, variant = {_quoted(mesh.variant)} }}\n"
    name = os.path.relpath(mesh.resolve(), folder.resolve())
    return f"file = {_quoted(Path(name).as_posix())}\n"


def _tissue(t: TissueSpec, method: str) -> str:
    lines = ["[[tissue]]"]
    regions = ", ".join(_quoted(r) if isinstance(r, str) else str(r) for r in t.regions)
    lines.append(f"region = [{regions}]" if t.regions else 'region = "all"')
    if method == "eikonal":
        lines.append(f"speed = {{ longitudinal = {t.speed_l_m_s!r}, transverse = {t.speed_t_m_s!r} }}")
    else:
        lines.append(f"ionic = {_quoted(t.ionic or '')}")
        if t.cell is not None:
            lines.append(f"cell = {_quoted(t.cell)}")
        for name, (along, across) in (("intracellular", t.intracellular_s_m), ("extracellular", t.extracellular_s_m)):
            lines.append(f"{name} = {{ longitudinal = {along!r}, transverse = {across!r} }}")
    lines.append(f"surface_to_volume = {t.membrane.surface_to_volume_per_mm!r}")
    lines.append(f"capacitance = {t.membrane.capacitance_uF_mm2!r}")
    if t.scale:
        lines.append(f"scale = {{ {', '.join(f'{name} = {float(v)!r}' for name, v in t.scale.items())} }}")
    return "\n".join(lines) + "\n"


def _stimulus(s: StimulusSpec) -> str:
    lines = ["[[stimulus]]", f"name = {_quoted(s.name)}"]
    if s.box is not None:
        lines.append(f"box = {{ low = {_list(s.box[0])}, high = {_list(s.box[1])} }}")
    elif s.sphere is not None:
        lines.append(f"sphere = {{ centre = {_list(s.sphere[0])}, radius = {s.sphere[1]!r} }}")
    else:
        rows = [", ".join(map(str, s.nodes[i : i + 20])) for i in range(0, len(s.nodes), 20)]
        lines.append("nodes = [\n  " + ",\n  ".join(rows) + ",\n]")
    lines += [f"strength = {s.strength_uA_mm3!r}", f"duration = {s.duration_ms!r}", *_pulses(s.start_ms)]
    return "\n".join(lines) + "\n"


def _pulses(times: Sequence[float]) -> list[str]:
    start, cycle, count = pulse_trains(times)[0]
    lines = [f"start = {start!r}"]
    if count > 1:
        lines += [f"cycle = {cycle!r}", f"count = {count}"]
    extra = [_interval(before, after) for before, after in zip(times[count - 1 :], times[count:])]
    return [*lines, f"extra = {_list(extra)}"] if extra else lines


def _interval(before: float, after: float) -> float:
    """The coupling interval that, added to `before` in floating point, gives `after`."""
    step = after - before
    for guess in (step, math.nextafter(step, math.inf), math.nextafter(step, -math.inf)):
        if before + guess == after:
            return guess
    return step


def _solver(e: Experiment) -> str:
    lines = ["[solver]", f"method = {_quoted(e.method)}", f"duration = {e.duration_ms!r}"]
    if e.dt_ms is not None:
        lines.append(f"dt = {e.dt_ms!r}")
    if e.method == "monodomain":
        lines += [f"theta = {e.theta!r}", f"scheme = {_quoted(e.scheme)}", f"correction = {_quoted(e.correction)}"]
        lines.append(f"precision = {_quoted(e.precision)}")
    if e.quiet_ms is not None:
        lines.append(f"quiet = {e.quiet_ms!r}")
    return "\n".join(lines) + "\n"


def _record(e: Experiment) -> str:
    lines = ["[record]", f"activation = {{ threshold = {e.threshold_mv!r}, recovery = {e.recovery_mv!r} }}"]
    if e.frames_every_ms is not None:
        lines.append(f"frames = {{ every = {e.frames_every_ms!r} }}")
    if e.probes_mm:
        lines.append("probes = [" + ", ".join(_list(p) for p in e.probes_mm) + "]")
    lines.append(f"probe_every = {e.probe_every_ms!r}")
    return "\n".join(lines) + "\n"
