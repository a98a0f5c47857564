"""Reads TRIAL.toml: every key is known or refused, every problem is one line.

name, title, seed, fidelity = "quick" (2.5 mm meshes; "standard": 2 mm; "toy": no hearts, outcomes from a formula)
[population]    virtual = 24 | folder = "cases"; max_candidates; ranges = { scar_width_mm = [40, 60] }, include = { inducible = true },
                plausible = { qrs_ms = [60, 200] }
[pacing]        protocol, sites, posterior_samples, edge
[[arm]]         name, title, strategy, access, max_volume, max_rounds, lesion_radius, lesion_depth, search = false,
                energy = { source = "pfa" } (a device, in place of the two sizes; as in [plan] of a case),
                drug = { name = "flecainide", concentration = "1 umol/L" } | { velocity = 0.9, apd_ms = 20 },
                scar_shift = "1 mm" (a threshold: whoever plans sees the scar larger than it is by this much, or smaller)
[primary]       outcome, compare = ["arm", "control"], test = "superiority" | "non_inferiority", margin
[[secondary]]   the same
[analysis]      alpha, looks, spending, stop, subgroups, bootstrap
[execution]     no part of the trial: executor, workers, threads, memory, attempts, cluster, folders, worker_folder, options
"""

from __future__ import annotations

import os
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from meshing.sites import NAMES as SITES
from planners.trials.executors import EXECUTORS, Execution
from planners.trials.parameters import MEASURES, PARAMETERS
from planners.trials.trial import FIDELITIES, OUTCOMES, Analysis, Arm, Endpoint, Population, Trial
from solvers.toml_table import Table, read_table
from twin.errors import InputError
from twin.io.source import did_you_mean
from twin.run import content_hash

Range = tuple[float, float]
SCAR_SHIFT_MM = 5.0
EDGE_MM = {"toy": 2.5, "quick": 2.5, "standard": 2.0}
TOP = ("name", "title", "seed", "fidelity", "population", "pacing", "arm", "primary", "secondary", "analysis", "execution", "toy")
TOY = ("sleep_s", "refuse", "kill")


def read_trial(path: Path) -> tuple[Trial, Execution]:
    """The trial and how to run it. Raises InputError naming file, key, problem and remedy; of the population nothing is computed yet."""
    top = read_table(path)
    top.known(*TOP)
    fidelity = top.choice("fidelity", FIDELITIES, "quick")
    pacing = top.table("pacing")
    pacing.known("protocol", "sites", "posterior_samples", "edge")
    arms = _arms(top)
    names = [a.name for a in arms]
    secondary = tuple(_endpoint(t, names) for t in top.tables("secondary")) if "secondary" in top.values else ()
    trial = Trial(
        name=top.text("name"),
        title=str(top.values.get("title", "")),
        seed=top.whole("seed", 0, 2**31 - 1, 0),
        fidelity=fidelity,
        population=_population(top.table("population"), path),
        arms=arms,
        primary=_endpoint(_there(top, "primary"), names),
        secondary=secondary,
        analysis=_analysis(top.table("analysis")),
        samples=pacing.whole("posterior_samples", 1, 400, 1),
        protocol=_protocol(pacing),
        sites=_sites(pacing),
        edge_mm=pacing.number("edge", "mm", EDGE_MM[fidelity], 0.5, 10.0),
        options=_toy(top),
    )
    return trial, _execution(top.table("execution"), path)


def _there(top: Table, key: str) -> Table:
    if key not in top.values:
        raise top.error(key, "is missing", f"write [{key}]")
    return top.table(key)


def _toy(top: Table) -> dict[str, float]:
    table = top.table("toy")
    table.known(*TOY)
    return {key: table.number(key, "", None) for key in table.values}


def _protocol(table: Table) -> str:
    from planners.pacing.protocol import load_protocol

    name = str(table.values.get("protocol", "quick"))
    load_protocol(name)
    return name


def _sites(table: Table) -> tuple[str, ...]:
    sites = table.items("sites")
    for site in sites:
        if site not in SITES:
            raise table.error("sites", f"{site!r} is unknown", did_you_mean(str(site), SITES))
    return tuple(sites)


def _range(table: Table, key: str, known: list[str]) -> Range:
    if key not in known:
        raise table.error(key, "is unknown", did_you_mean(key, known))
    value = table.values[key]
    if isinstance(value, bool):
        return (1.0, 1.0) if value else (0.0, 0.0)
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
        raise table.error(key, f"{value!r} is not a range", "write [low, high]")
    low, high = float(value[0]), float(value[1])
    if not low <= high:
        raise table.error(key, f"{value!r} is upside down", "write [low, high]")
    return low, high


def _ranges(table: Table, key: str, known: list[str]) -> dict[str, Range]:
    part = table.table(key)
    return {name: _range(part, name, known) for name in part.values}


def _population(table: Table, path: Path) -> Population:
    table.known("virtual", "folder", "max_candidates", "ranges", "include", "plausible")
    if ("virtual" in table.values) == ("folder" in table.values):
        raise table.error("virtual, folder", "one of them is needed, not both", 'write virtual = 24 or folder = "cases"')
    measures = list(MEASURES)
    include, plausible = _ranges(table, "include", measures), _ranges(table, "plausible", measures)
    if "folder" in table.values:
        return Population(folder=table.text("folder"), cases=_cases(table, path), include=include, plausible=plausible)
    virtual = table.whole("virtual", 2, 1_000_000)
    most = table.whole("max_candidates", virtual, 10_000_000, 8 * virtual + 20)
    ranges = _ranges(table, "ranges", [p.name for p in PARAMETERS])
    return Population(virtual=virtual, max_candidates=most, ranges=ranges, include=include, plausible=plausible)


def _cases(table: Table, path: Path) -> dict[str, str]:
    """Name of each case, and the hash of all its evidence."""
    from planners.trials.design import places
    from twin.case import load_case

    folder = path.parent / os.path.expandvars(table.text("folder"))
    found = places(folder.resolve())
    if len(found) < 2:
        raise table.error("folder", f"{folder} holds {len(found)} cases (*/case.toml)", "name a folder with at least two")
    return {name: content_hash(load_case(place).inputs()) for name, place in found.items()}


def _arms(top: Table) -> tuple[Arm, ...]:
    from planners.lesions.strategy import REGISTRY

    arms = []
    for table in top.tables("arm"):
        table.known(
            *("name", "title", "strategy", "access", "max_volume", "max_rounds", "lesion_radius", "lesion_depth", "energy"),
            *("search", "drug", "scar_shift"),
        )
        drug, velocity, apd_ms = _drug(table.table("drug"))
        arms.append(
            Arm(
                name=table.text("name"),
                title=str(table.values.get("title", "")),
                strategy=table.choice("strategy", ("none", *REGISTRY), "none"),
                request=_request(table),
                velocity=velocity,
                apd_ms=apd_ms,
                drug=drug,
                scar_shift_mm=_scar_shift(table),
                search=table.flag("search"),
            )
        )
    names = [a.name for a in arms]
    if len(set(names)) != len(names) or len(arms) < 2:
        raise top.error("arm", "two or more arms with different names are needed", "write [[arm]] name = ... for each")
    return tuple(arms)


def _drug(table: Table) -> tuple[str, float, float]:
    """Its name with its concentration, factor on velocity, change of the action potential; computed where it is named."""
    if "name" not in table.values:
        table.known("velocity", "apd_ms")
        return "", table.number("velocity", "", 1.0, 0.3, 2.0), table.number("apd_ms", "ms", 0.0, -150.0, 150.0)
    from planners.drugs import CYCLE_MS, apd_factor, velocity_factor
    from solvers.eikonal.restitution import load_tables

    table.known("name", "concentration")
    name, concentration = table.text("name"), table.number("concentration", "umol/L", None, 0.0)
    speed = velocity_factor(name, concentration, "healthy")
    if speed == 0:
        raise table.error("drug.concentration", f"at {concentration:g} umol/L of {name} no wave passes", "write a lower one")
    longer = (apd_factor(name, concentration, "healthy") - 1.0) * load_tables()["healthy"].steady_apd_ms(CYCLE_MS)
    return f"{name} {concentration:g} umol/L", round(speed, 4), round(longer, 2)


def _scar_shift(table: Table) -> float:
    shift = table.number("scar_shift", "mm", 0.0, -SCAR_SHIFT_MM, SCAR_SHIFT_MM)
    if shift and table.flag("search"):
        raise table.error(
            "scar_shift", "cannot be combined with search", "leave search out: what is planned on the wrong scar is not re-tested"
        )
    return shift


def _request(table: Table) -> dict[str, Any]:
    from planners.lesions.energy import DEPTH, RADIUS, with_energy
    from twin.mesh import WALLS
    from twin.plan import PlanRequest

    request: dict[str, Any] = {}
    for key, inside, unit, low, high in (
        ("max_volume", "max_volume_ml", "mL", 0.0, 100.0),
        ("lesion_radius", "lesion_radius_mm", "mm", RADIUS.low, RADIUS.high),
        ("lesion_depth", "lesion_depth_mm", "mm", DEPTH.low, DEPTH.high),
    ):
        if key in table.values:
            request[inside] = table.number(key, unit, None, low, high)
    if "energy" in table.values:
        if both := {"lesion_radius", "lesion_depth"} & set(table.values):
            raise table.error(min(both), "is given beside energy", "keep one of them")
        request["energy"] = dict(table.table("energy").values)
        try:
            with_energy(PlanRequest(energy=request["energy"]))
        except InputError as error:
            raise table.error(error.field, error.problem, error.remedy) from None
    if "max_rounds" in table.values:
        request["max_rounds"] = table.whole("max_rounds", 1, 20)
    for item in table.items("access"):
        if item not in WALLS:
            raise table.error("access", f"unknown name {item!r}", did_you_mean(str(item), WALLS))
    if "access" in table.values:
        request["access"] = tuple(table.items("access"))
    return request


def _endpoint(table: Table, arms: list[str]) -> Endpoint:
    table.known("outcome", "compare", "test", "margin")
    pair = table.items("compare")
    if len(pair) != 2 or pair[0] == pair[1]:
        raise table.error("compare", f"{pair!r} is not two arms", f"write two of {arms}")
    for name in pair:
        if name not in arms:
            raise table.error("compare", f"unknown arm {name!r}", did_you_mean(str(name), arms))
    outcome = table.choice("outcome", list(OUTCOMES), "")
    test = table.choice("test", ("superiority", "non_inferiority"), "superiority")
    margin = table.number("margin", "", 0.0 if test == "superiority" else None, 0.0)
    if test == "non_inferiority" and (margin <= 0 or not OUTCOMES[outcome].better):
        raise table.error("margin", f"{margin:g} is no margin", "write how much worse is still acceptable, above 0")
    return Endpoint(outcome, str(pair[0]), str(pair[1]), test, margin)


def _analysis(table: Table) -> Analysis:
    from planners.trials.statistics.looks import SPENDING

    table.known(*(f.name for f in fields(Analysis)))
    looks = [float(v) for v in table.items("looks")] if "looks" in table.values else [1.0]
    if not looks or looks[-1] != 1.0 or any(not 0 < a < b for a, b in pairwise(looks)):
        raise table.error("looks", f"{looks} do not increase to 1", "write, for example, looks = [0.5, 1.0]")
    subgroups = tuple(str(s) for s in table.items("subgroups")) if "subgroups" in table.values else Analysis.subgroups
    for name in subgroups:
        if name not in MEASURES:
            raise table.error("subgroups", f"unknown measure {name!r}", did_you_mean(name, MEASURES))
    return Analysis(
        alpha=table.number("alpha", "", 0.05, 1e-6, 0.5),
        looks=tuple(looks),
        spending=table.choice("spending", list(SPENDING), "obrien_fleming"),
        stop=table.flag("stop"),
        subgroups=subgroups,
        bootstrap=table.whole("bootstrap", 200, 1_000_000, Analysis.bootstrap),
    )


def _execution(table: Table, path: Path) -> Execution:
    table.known("executor", "workers", "threads", "memory", "attempts", "backoff", "cluster", "folders", "worker_folder", "options")
    return Execution(
        executor=table.choice("executor", list(EXECUTORS), "processes"),
        workers=table.whole("workers", 0, 100_000, 0),
        threads=table.whole("threads", 0, 4096, 0),
        memory_mb=table.number("memory", "MB", 0.0, 0.0),
        attempts=table.whole("attempts", 1, 20, 3),
        backoff_s=table.number("backoff", "s", 1.0, 0.0, 3600.0),
        cluster=str(table.values.get("cluster", "local")),
        folders=table.choice("folders", ("shared", "own"), "shared"),
        worker_folder=str(table.values.get("worker_folder", "")),
        options=dict(table.table("options").values),
    )
