"""Facts about files that are no noun of their own: openCARP's fields and parameters, bundles, settings, folders. No identifiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from planners.app.inspect_registry import KINDS, Findings
from planners.app.inspect_values import describe, ranges
from twin.errors import InputError
from twin.io import opencarp
from twin.io.source import file_size, read_text

MAX_FRAMES = 20
MAX_LISTED = 200


def carp_mesh(path: Path) -> Findings:
    """The mesh to which a .pts, .elem or .lon file belongs."""
    from twin.io.volume_mesh import read_volume

    binary = path.suffix.lower() in opencarp.BINARY
    prefix = opencarp.prefix_of(path)
    mesh = read_volume(prefix.with_name(prefix.name + (".bpts" if binary else ".pts")))
    found = describe(mesh)
    facts = {"files": sorted(p.name for p in prefix.parent.glob(f"{prefix.name}.*")), "binary": binary, **found.facts}
    return Findings("openCARP mesh", facts, found.suspicious, found.shown)


def igb(path: Path) -> Findings:
    """Header, and the range of values in up to twenty time slices."""
    grid = opencarp.read_igb(path)
    t, z, y, x = grid.data.shape[:4]
    facts: dict[str, Any] = {"samples": {"x": x, "y": y, "z": z, "t": t}, "type": str(grid.data.dtype)}
    facts |= {"header": {k: v for k, v in grid.header.items() if k != "aut_name"}, "times": [float(grid.times[0]), float(grid.times[-1])]}
    frames = np.unique(np.linspace(0, t - 1, min(t, MAX_FRAMES)).astype(int))
    lowest, highest, bad = np.inf, -np.inf, 0
    for index in frames.tolist():
        values = np.asarray(grid.values(index), np.float64) if grid.data.dtype.kind != "c" else np.abs(grid.values(index))
        finite = values[np.isfinite(values)]
        bad += values.size - finite.size
        if finite.size:
            lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
    facts |= {"range": [lowest, highest] if highest >= lowest else None, "slices_looked_at": len(frames)}
    return Findings("IGB grid in time", facts, (f"{bad} values are not finite: did the run diverge?",) if bad else ())


def par(path: Path) -> Findings:
    """The main settings of a parameter file, and whether vtwin can simulate it."""
    values = opencarp.parse_par(path)
    models = sorted({v for k, v in values.items() if k.endswith(".im")})
    main: dict[str, Any] = {
        k: values[k] for k in ("meshname", "dt", "tend", "bidomain", "mass_lumping", "num_stim", "num_gregions") if k in values
    }
    facts: dict[str, Any] = {"assignments": len(values), "cell_models": models, **main}
    suspicious = []
    if "mass_lumping" not in values:
        suspicious.append("mass_lumping is not set: openCARP lumps, and waves are slow on coarse meshes")
    if "num_stim" not in values:
        suspicious.append("num_stim is not set: openCARP takes two")
    try:
        from solvers.exchange import import_opencarp

        import_opencarp(path)
        facts["vtwin_can_simulate_it"] = True
    except InputError as error:
        facts |= {"vtwin_can_simulate_it": False, "because": f"{error.field}: {error.problem}"}
    return Findings("openCARP parameters", facts, tuple(suspicious))


def par_folder(path: Path) -> Findings:
    """The first parameter file of a folder, and the mesh it names."""
    file = sorted(path.glob("*.par"))[0]
    found = par(file)
    facts: dict[str, Any] = {"file": file.name, **found.facts, "mesh": None}
    shown = None
    prefix = path / str(found.facts.get("meshname", ""))
    if opencarp.exists(prefix):
        suffix = ".bpts" if (prefix.parent / f"{prefix.name}.bpts").exists() else ".pts"
        mesh = carp_mesh(prefix.with_name(prefix.name + suffix))
        facts["mesh"], shown = dict(mesh.facts), mesh.shown
    return Findings("openCARP experiment", facts, found.suspicious, shown)


def vtx(path: Path) -> Findings:
    """Count and range of node numbers."""
    nodes, domain = opencarp.read_vtx(path)
    return Findings("openCARP node list", {"nodes": len(nodes), "domain": domain, "range": [int(nodes.min()), int(nodes.max())]})


def dat(path: Path) -> Findings:
    """Rows, components and range; -1 is openCARP's "never"."""
    values = opencarp.read_dat(path)
    facts: dict[str, Any] = {"rows": len(values), "values": ranges({"value": values})}
    never = int((values == -1.0).sum())
    return Findings("openCARP values", facts, (f"{never} of {len(values)} rows are -1 (never activated)",) if never else ())


def surf(path: Path) -> Findings:
    """Count and range of node numbers."""
    triangles = opencarp.read_surf(path)
    return Findings("openCARP surface", {"triangles": len(triangles), "nodes": [int(triangles.min()), int(triangles.max())]})


def npz(path: Path) -> Findings:
    """A saved mesh, a surface bundle, or the arrays of any other bundle."""
    from twin.io.bundle import read_bundle
    from twin.io.convert import is_heart_mesh, read_mesh
    from twin.io.surfaces import read_surface

    if is_heart_mesh(path):
        return describe(read_mesh(path))
    arrays = read_bundle(path)
    if {"vertices_mm", "faces"} <= set(arrays):
        return describe(read_surface(path))
    shapes = {name[:60]: f"{values.dtype} {'x'.join(map(str, values.shape))}" for name, values in list(arrays.items())[:MAX_LISTED]}
    return Findings("NPZ bundle", {"arrays": shapes, "values": ranges(arrays)})


def toml(path: Path) -> Findings:
    """A case or an experiment: its sections, and whether it is one that can be run."""
    import tomllib

    try:
        table = tomllib.loads(read_text(path, 10_000_000))
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, "file", f"is not TOML ({error})", "correct that line") from None
    sections = sorted(table)
    if "stimulus" in table:
        from solvers.experiment import load_experiment

        experiment = load_experiment(path)
        facts = {
            "sections": sections,
            "method": experiment.method,
            "duration_ms": experiment.duration_ms,
            "tissues": len(experiment.tissue),
        }
        return Findings(
            "experiment", {**facts, "stimuli": len(experiment.stimuli), "mesh": str(getattr(experiment.mesh, "name", experiment.mesh))}
        )
    if "segmentation" in table or "patient" in table:
        from twin.case import load_case

        load_case(path)
        return Findings("case", {"sections": sections})
    return Findings("TOML settings", {"sections": sections})


def json_file(path: Path) -> Findings:
    """Names of the top level only: values of a record may name a patient."""
    file_size(path, 200_000_000)
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(path, "file", f"is not JSON ({str(error)[:80]})", "correct it") from None
    if not isinstance(value, dict):
        return Findings("JSON", {"type": type(value).__name__, "length": len(value) if isinstance(value, list) else None})
    known = {"plan.json": "plan", "quality.json": "mesh quality", "run.json": "record of a run", "summary.json": "summary of a run"}
    return Findings(known.get(path.name, "JSON"), {"keys": len(value)} if path.name not in known else {"keys": sorted(value)[:MAX_LISTED]})


def run_folder(path: Path) -> Findings:
    """What a run of vtwin left."""
    from twin.io.convert import read_mesh

    record = json.loads(read_text(path / "run.json"))
    facts: dict[str, Any] = {"command": str(record.get("command", "not said")), "files": _names(path)}
    mesh = path / "heart.npz"
    shown = read_mesh(mesh) if mesh.exists() else None
    return Findings("folder of a vtwin run", facts, (), shown)


def _names(path: Path) -> list[str]:
    return sorted(p.name + ("/" if p.is_dir() else "") for p in path.iterdir() if not p.name.startswith("."))[:MAX_LISTED]


def folder(path: Path) -> Findings:
    """Files by kind; nothing is read but first bytes. Names are not listed: a folder of a hospital may name patients."""
    counts: dict[str, int] = {}
    for index, file in enumerate(sorted(p for p in path.iterdir() if p.is_file())):
        if index >= MAX_LISTED:
            break
        with open(file, "rb") as handle:
            start = handle.read(400)
        kind = next((k.name for k in KINDS if start and k.is_one(file, start)), "other")
        counts[kind] = counts.get(kind, 0) + 1
    if not counts:
        raise InputError(path, "folder", "holds no files", "name a file, or a folder of DICOM files")
    return Findings("folder", {"files_by_kind": counts, "folders": sum(p.is_dir() for p in path.iterdir())})
