"""The case file: which evidence there is, what the physician allows, what is expected. TOML; every key is known or refused.

[patient]       name, virtual = false, note
[segmentation]  file, labels = { lv_blood = 1, ... }, virtual_infarct = { ... }; or image = "sax.nrrd", model = "net.safetensors"
[eam]           file, map, surface, rhythm, virtual       (CARTO zip or folder, EnSite folder, OpenEP .mat, .vtp, .csv, bundle .npz)
                annotate = true (times, voltages and recovery from its electrograms), warp = true (bent smoothly onto the surface)
[ecg]           file, map, normalised, fs_hz, rhythm, virtual (.csv of vtwin, WFDB, DICOM, HL7 aECG, bundle, export of a mapping system)
[record]        file
[clinical]      record = "patient.json", facts = "facts.jsonl" (of vtwin extract), images = true, drugs = { amiodarone = "200 mg/day" },
                age_years, sex, aetiology, lvef_percent, qtc_ms, ... : sets the tissue's priors (docs/priors.md)
[evidence]      lge, ct, cine                             (DICOM folder, zip or file, .nrrd, .nii, .nii.gz, .mha)
                eam = { file = ..., map = ... }           (the same as [eam])
[mesh]          edge = "2 mm", edge_near_scar = "1 mm", near_scar = "10 mm" (finer within so much of scar, border zone and isthmus),
                regions = "conforming" (their boundaries are faces of the mesh; or "sampled")
[substrate]     fuse = true: regions from voltage, enhancement, thickness and labels together (else these are compared, labels count)
[tissue.REGION] cv_longitudinal = "0.6 m/s", or ["0.4 m/s", "0.8 m/s"] for a range; cv_transverse, conductivity_*
[plan]          protocol, strategies, compare, access, max_volume, max_rounds, lesion_radius, lesion_depth, posterior_samples,
                sites = ["aha10", "epi_aha10", { name = "lead", at = [x, y, z] }] (in place of the protocol's; LPS mm),
                confirm = true and confirm_negatives = 4 (circuits, and trains that induced nothing, once more by monodomain),
                vote = true (every site once more with four other settings of the reduced model),
                energy = { source = "rf", ablation_index = 500 } (in place of the two sizes),
                drawn = [{ file = "lesions.csv" }, { surface = "lv_endo", positions = [[x, y, z], ...] }]
[avoid]         structure = [[x, y, z], ...] in LPS mm, or a list of such lines (phrenic_nerve, coronary_arteries, his_bundle, ...)
[[clinical_vt]] name, cycle_length, ecg                   (a recorded VT that the simulated ones are compared with)
[expect]        truth = "truth.json" and what the application checks
accept          = ["code", ...]: suspicious findings that the author of the case takes responsibility for
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.io.eam import SURFACES
from twin.io.positions import drawn_of, lines_of
from twin.io.source import check_keys, did_you_mean, file_size, read_text
from twin.mesh import REGIONS, WALLS
from twin.plan import PlanRequest
from twin.records import clinical as clinical_table
from twin.run import content_hash
from twin.site_name import own_site
from twin.units import quantity
from twin.volume import LABELS

AVOIDED = (
    "his_bundle",
    "left_bundle",
    "coronary_arteries",
    "phrenic_nerve",
    "mitral_annulus",
    "tricuspid_annulus",
    "aortic_annulus",
    "oesophagus",
)
"""Structures that lesions can be kept away from."""

CARRIED = ("sampled", "conforming")
"""How regions are carried by a mesh."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "patient": ("name", "virtual", "note"),
    "segmentation": ("file", "labels", "virtual_infarct", "virtual", "image", "model"),
    "eam": ("file", "map", "surface", "rhythm", "virtual", "annotate", "warp"),
    "ecg": ("file", "map", "normalised", "fs_hz", "rhythm", "virtual"),
    "record": ("file",),
    "clinical": clinical_table.KEYS,
    "evidence": ("lge", "ct", "cine", "eam"),
    "mesh": ("edge", "edge_near_scar", "near_scar", "regions"),
    "substrate": ("fuse",),
    "tissue": tuple(REGIONS),
    "avoid": AVOIDED,
    "plan": (
        "protocol",
        "sites",
        "strategies",
        "access",
        "max_volume",
        "max_rounds",
        "lesion_radius",
        "lesion_depth",
        "posterior_samples",
        "confirm",
        "confirm_negatives",
        "vote",
        "compare",
        "energy",
        "drawn",
    ),
}
TISSUE = {
    "cv_longitudinal": ("m/s", "cv_longitudinal_m_s", 5.0),
    "cv_transverse": ("m/s", "cv_transverse_m_s", 5.0),
    "conductivity_longitudinal": ("S/m", "conductivity_longitudinal_S_m", 10.0),
    "conductivity_transverse": ("S/m", "conductivity_transverse_S_m", 10.0),
}
"""Key in the case -> unit, name inside, and the largest value that is not a mistake of units."""


@dataclass(frozen=True)
class Case:
    """What a case file says, checked; no evidence is read yet.

    labels: vtwin name -> value in the segmentation (None: the file's own names); eam_path, ecg_path, record_path: None = not
    given; image_paths: by lge, ct and cine, files or folders;
    options: the rest of [eam] and [ecg]; tissue: "region/quantity" -> (low, high), equal where one value was given;
    virtual_infarct and expect: tables passed through to who reads them; clinical: recorded VTs, each with name, cycle_length_ms and
    ecg_path (one of the two may be None).
    """

    path: Path
    name: str
    labels_path: Path
    virtual: bool = False
    note: str = ""
    labels: Mapping[str, int] | None = None
    virtual_infarct: Mapping[str, Any] | None = None
    eam_path: Path | None = None
    ecg_path: Path | None = None
    record_path: Path | None = None
    image_paths: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    edge_mm: float = 2.0
    edge_near_scar_mm: float | None = None
    """Mean edge within near_scar_mm of scar; None: edge_mm everywhere."""
    near_scar_mm: float = 10.0
    conforming: bool = False
    """Boundaries of scar, border zone and isthmus are faces of the mesh."""
    fuse_substrate: bool = False
    tissue: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    request: PlanRequest = field(default_factory=PlanRequest)
    clinical: tuple[Mapping[str, Any], ...] = ()
    accept: tuple[str, ...] = ()
    expect: Mapping[str, Any] = field(default_factory=dict)
    truth_path: Path | None = None
    model_path: Path | None = None
    model_image_path: Path | None = None
    clinical_facts: Mapping[str, Any] | None = None
    """The [clinical] table as it stands (None: no such table); `clinical_files`: its record and facts."""
    clinical_files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def mesh_asked(self) -> dict[str, Any]:
        """What the case asks of its mesh, for run records and keys; what is not asked is not in it."""
        graded = {} if self.edge_near_scar_mm is None else {"edge_near_scar_mm": self.edge_near_scar_mm, "near_scar_mm": self.near_scar_mm}
        return {"edge_mm": self.edge_mm} | graded | ({"regions": "conforming"} if self.conforming else {})

    def inputs(self) -> dict[str, str]:
        """Content hash of the case and of every evidence file (not of the truth), by section, for run records and stage keys."""
        paths = {
            "case": self.path,
            "segmentation": self.labels_path,
            "eam": self.eam_path,
            "ecg": self.ecg_path,
            "record": self.record_path,
            "model": self.model_path,
            **self.image_paths,
            **{f"clinical_{name}": path for name, path in self.clinical_files.items()},
            **{f"clinical_vt {k + 1}": vt["ecg_path"] for k, vt in enumerate(self.clinical)},
        }
        return {section: content_hash(path) for section, path in paths.items() if path is not None}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, 1_000_000))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(path, "case", f"is not TOML ({error})", "correct the line") from None


def _table(raw: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = raw.get(name, {})
    if not isinstance(table, dict):
        raise InputError(path, name, "is not a table", f"write it as [{name}]")
    check_keys(table, SECTIONS[name], path, name)
    return table


def _is(value: object, kind: type, path: Path, key: str) -> Any:
    """`value` if it is of the asked kind (an int also passes as float)."""
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (kind, int) if kind is float else kind):
        names = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "a table", list: "a list"}
        raise InputError(path, key, f"{value!r} is not {names[kind]}", f"write {names[kind]}")
    return value


def _names(value: object, path: Path, key: str, known: tuple[str, ...] | None = None) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(path, key, f"{value!r} is not a list of names", 'write a list, for example ["lv_endo"]')
    for item in value:
        if known is not None and item not in known:
            raise InputError(path, key, f"unknown name {item!r}", did_you_mean(item, known))
    return tuple(value)


def resolve(text: object, path: Path, key: str, folder: bool = False) -> Path:
    """Path of an evidence file (or `folder`), relative to the case, environment variables expanded. Raises InputError if it is absent."""
    given = str(_is(text, str, path, key))
    expanded = os.path.expandvars(given)
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise InputError(
            path, key, f"{variable} is not set (in {given!r})", f"set {variable.strip('${}')} to the folder that holds the data"
        )
    full = path.parent / expanded
    if folder and full.is_dir():
        return full
    try:
        file_size(full)
    except InputError as error:
        raise InputError(path, key, f"{given}: {error.problem}", error.remedy) from None
    return full


def _positive(value: object, unit: str, path: Path, key: str, high: float, low: float = 0.0) -> float:
    """A quantity above zero, at least `low` and at most `high`, in `unit`."""
    number = quantity(value, unit, str(path), key)
    if not (0 < number <= high and number >= low):
        problem = "is negative" if number < 0 else "is outside its range"
        raise InputError(
            path, key, f"{value!r} {problem}", f"write a value {f'from {low:g}' if low else 'above 0 and up'} to {high:g} {unit}"
        )
    return number


def _tissue(table: Mapping[str, Any], path: Path) -> dict[str, tuple[float, float]]:
    """Ranges by "region/quantity"."""
    out: dict[str, tuple[float, float]] = {}
    for region, entries in table.items():
        check_keys(_is(entries, dict, path, f"tissue.{region}"), TISSUE, path, f"tissue.{region}")
        for key, value in entries.items():
            unit, inside, high = TISSUE[key]
            ends = value if isinstance(value, list) else [value, value]
            place = f"tissue.{region}.{key}"
            if len(ends) != 2:
                raise InputError(path, place, f"{value!r}", "write one value, or [low, high]")
            low, top = (_positive(end, unit, path, place, high) for end in ends)
            if low > top:
                raise InputError(path, place, f"{value!r} is upside down", "write [low, high]")
            out[f"{region}/{inside}"] = (low, top)
    return out


def _mesh(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The [mesh] table: edges, and how regions are carried."""
    given: dict[str, Any] = {"edge_mm": _positive(table.get("edge", 2.0), "mm", path, "mesh.edge", 10.0, 0.3)}
    if "edge_near_scar" in table:
        given["edge_near_scar_mm"] = _positive(table["edge_near_scar"], "mm", path, "mesh.edge_near_scar", given["edge_mm"], 0.3)
    if "near_scar" in table:
        if "edge_near_scar" not in table:
            raise InputError(path, "mesh.near_scar", "is given without mesh.edge_near_scar", 'add edge_near_scar = "1 mm"')
        given["near_scar_mm"] = _positive(table["near_scar"], "mm", path, "mesh.near_scar", 50.0)
    if "regions" in table:
        regions = _is(table["regions"], str, path, "mesh.regions")
        if regions not in CARRIED:
            raise InputError(path, "mesh.regions", f"{regions!r}", did_you_mean(regions, CARRIED))
        given["conforming"] = regions == "conforming"
    return given


def _confirmation(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Whether monodomain is asked about the circuits, and about how many trains that induced nothing."""
    given: dict[str, Any] = {}
    if "confirm" in table:
        given["confirm"] = _is(table["confirm"], bool, path, "plan.confirm")
    if "confirm_negatives" in table:
        number = _is(table["confirm_negatives"], int, path, "plan.confirm_negatives")
        if not 0 <= number <= 1000:
            raise InputError(path, "plan.confirm_negatives", f"{number} is out of range", "write 0 to 1000")
        if number and not given.get("confirm"):
            raise InputError(path, "plan.confirm_negatives", "is given, but nothing is confirmed", "add confirm = true")
        given["confirm_negatives"] = number
    return given


def _sites(value: object, path: Path) -> tuple[str, ...]:
    """Names of sites; one of the user's own, { name = "lead", at = [x, y, z] }, becomes name@x,y,z."""
    out = []
    for item in _is(value, list, path, "plan.sites"):
        if isinstance(item, dict):
            check_keys(item, ("name", "at"), path, "plan.sites")
            name, at = item.get("name"), item.get("at")
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name):
                raise InputError(path, "plan.sites.name", f"{name!r} is no name", "write letters, digits and _ that begin with a letter")
            if not isinstance(at, list) or len(at) != 3 or not all(isinstance(v, int | float) and abs(v) < 1e4 for v in at):
                raise InputError(path, "plan.sites.at", f"{at!r} is no place", "write [x, y, z] in LPS mm")
            out.append(own_site(name, at))
        else:
            out += _names([item], path, "plan.sites")
    if len(set(out)) != len(out):
        raise InputError(path, "plan.sites", "names one site twice", "name each once")
    return tuple(out)


def _request(table: Mapping[str, Any], path: Path) -> PlanRequest:
    """The [plan] table as a PlanRequest; names of protocols, sites and strategies are checked by who owns them."""
    given: dict[str, Any] = {}
    if "protocol" in table:
        given["protocol"] = _is(table["protocol"], str, path, "plan.protocol")
    for key in ("strategies", "compare"):
        if key in table:
            given[key] = _names(table[key], path, f"plan.{key}")
    if "sites" in table:
        given["sites"] = _sites(table["sites"], path)
    if "access" in table:
        given["access"] = _names(table["access"], path, "plan.access", WALLS)
    for key, inside, unit, high in (
        ("max_volume", "max_volume_ml", "mL", 100.0),
        ("lesion_radius", "lesion_radius_mm", "mm", 20.0),
        ("lesion_depth", "lesion_depth_mm", "mm", 20.0),
    ):
        if key in table:
            given[inside] = _positive(table[key], unit, path, f"plan.{key}", high)
    for key, most in (("max_rounds", 20), ("posterior_samples", 1000)):
        if key in table:
            number = _is(table[key], int, path, f"plan.{key}")
            if not 1 <= number <= most:
                raise InputError(path, f"plan.{key}", f"{number} is out of range", f"write 1 to {most}")
            given[key] = number
    given |= _confirmation(table, path)
    if "vote" in table:
        given["vote"] = _is(table["vote"], bool, path, "plan.vote")
    if "energy" in table:
        given["energy"] = _is(table["energy"], dict, path, "plan.energy")
        if both := {"lesion_radius", "lesion_depth"} & set(table):
            raise InputError(path, f"plan.{min(both)}", "is given beside plan.energy", "keep one of them")
    if "drawn" in table:
        rows = [_is(row, dict, path, "plan.drawn") for row in _is(table["drawn"], list, path, "plan.drawn")]
        find = partial(resolve, path=path, key="plan.drawn.file")
        given["drawn"] = tuple(lesion for row in rows for lesion in drawn_of(row, path, find))
    return PlanRequest(**given)


def _clinical(rows: object, path: Path) -> tuple[dict[str, Any], ...]:
    """Recorded VTs: name, cycle_length_ms, ecg_path."""
    out: list[dict[str, Any]] = []
    for k, row in enumerate(_is(rows, list, path, "clinical_vt")):
        table = _is(row, dict, path, "clinical_vt")
        check_keys(table, ("name", "cycle_length", "ecg"), path, "clinical_vt")
        cycle = _positive(table["cycle_length"], "ms", path, "clinical_vt.cycle_length", 1000.0) if "cycle_length" in table else None
        ecg = resolve(table["ecg"], path, "clinical_vt.ecg") if "ecg" in table else None
        if cycle is None and ecg is None:
            raise InputError(path, "clinical_vt", "has neither cycle_length nor ecg", "give at least one of them")
        name = _is(table.get("name", f"clinical {k + 1}"), str, path, "clinical_vt.name")
        if name in [vt["name"] for vt in out]:
            raise InputError(path, "clinical_vt.name", f"{name!r} is given twice", "give each recorded VT its own name")
        out.append({"name": name, "cycle_length_ms": cycle, "ecg_path": ecg})
    return tuple(out)


def _labels(table: Mapping[str, Any], path: Path) -> dict[str, int] | None:
    if "labels" not in table:
        return None
    entries = _is(table["labels"], dict, path, "segmentation.labels")
    check_keys(entries, LABELS, path, "segmentation.labels")
    values = [_is(value, int, path, f"segmentation.labels.{name}") for name, value in entries.items()]
    if len(set(values)) != len(values):
        raise InputError(path, "segmentation.labels", "two names have the same value", "give each name its own value")
    return dict(zip(entries, values, strict=True))


def _options(table: Mapping[str, Any], path: Path, section: str) -> dict[str, Any]:
    """The keys of [eam] or [ecg] other than the file, checked."""
    flags = ("virtual", "normalised", "annotate", "warp")
    kinds: dict[str, type] = {"map": str, "surface": str, "rhythm": str, **dict.fromkeys(flags, bool)}
    out = {key: _is(value, kinds[key], path, f"{section}.{key}") for key, value in table.items() if key in kinds}
    if "surface" in out and out["surface"] not in SURFACES:
        raise InputError(path, f"{section}.surface", f"{out['surface']!r}", did_you_mean(out["surface"], SURFACES))
    if "fs_hz" in table:
        out["fs_hz"] = _positive(table["fs_hz"], "Hz", path, f"{section}.fs_hz", 20_000.0)
    return out


def load_case(path: str | Path) -> Case:
    """Read and check a case file. Raises InputError naming file, key, problem and remedy; no evidence is read."""
    path = Path(path)
    raw = _toml(path)
    check_keys(raw, (*SECTIONS, "clinical_vt", "expect", "accept"), path, "")
    tables = {name: _table(raw, name, path) for name in SECTIONS}
    if "eam" in tables["evidence"]:
        if "eam" in raw:
            raise InputError(path, "evidence.eam", "is given beside [eam]", "keep one of them")
        raw = {**raw, "eam": tables["evidence"].pop("eam")}
        tables["eam"] = _table(raw, "eam", path)
    patient, segmentation = tables["patient"], tables["segmentation"]
    network = {
        key: resolve(segmentation[key], path, f"segmentation.{key}", folder=key == "image")
        for key in ("image", "model")
        if key in segmentation
    }
    if "file" not in segmentation and len(network) < 2:
        missing = "model" if "image" in network else "image" if "model" in network else "file"
        raise InputError(path, f"segmentation.{missing}", "is missing", 'write file = "labels.nrrd", or an image and a model')
    for name in ("eam", "ecg", "record"):
        if name in raw and "file" not in tables[name]:
            raise InputError(path, f"{name}.file", "is missing", f"name the file, or remove [{name}]")
    files = {
        n: resolve(tables[n]["file"], path, f"{n}.file", folder=n in ("segmentation", "eam", "ecg"))
        for n in ("segmentation", "eam", "ecg", "record")
        if "file" in tables[n]
    }
    expect = _is(raw.get("expect", {}), dict, path, "expect")
    infarct = segmentation.get("virtual_infarct")
    return Case(
        path=path,
        name=_is(patient.get("name", path.parent.resolve().name), str, path, "patient.name"),
        labels_path=files.get("segmentation", network.get("image", path)),
        virtual=_is(patient.get("virtual", False), bool, path, "patient.virtual"),
        note=_is(patient.get("note", ""), str, path, "patient.note"),
        labels=_labels(segmentation, path),
        virtual_infarct=None if infarct is None else _is(infarct, dict, path, "segmentation.virtual_infarct"),
        eam_path=files.get("eam"),
        ecg_path=files.get("ecg"),
        record_path=files.get("record"),
        image_paths={name: resolve(value, path, f"evidence.{name}", folder=True) for name, value in tables["evidence"].items()},
        options={name: _options(tables[name], path, name) for name in ("segmentation", "eam", "ecg")},
        **_mesh(tables["mesh"], path),
        fuse_substrate=_is(tables["substrate"].get("fuse", False), bool, path, "substrate.fuse"),
        tissue=_tissue(tables["tissue"], path),
        request=replace(
            _request(tables["plan"], path),
            avoid={name: lines_of(value, path, f"avoid.{name}") for name, value in tables["avoid"].items()},
        ),
        clinical=_clinical(raw.get("clinical_vt", []), path),
        accept=_names(raw.get("accept", []), path, "accept"),
        expect=expect,
        truth_path=resolve(expect["truth"], path, "expect.truth") if "truth" in expect else None,
        model_path=network.get("model"),
        model_image_path=network.get("image"),
        clinical_facts=tables["clinical"] if "clinical" in raw else None,
        clinical_files={n: resolve(tables["clinical"][n], path, f"clinical.{n}") for n in clinical_table.FILES if n in tables["clinical"]},
    )
