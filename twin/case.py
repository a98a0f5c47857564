"""The case file: which evidence there is, what the physician allows, what is expected. TOML; every key is known or refused.

[patient]       name, virtual = false, note
[segmentation]  file, labels = { lv_blood = 1, ... }, virtual_infarct = { ... }; or image = "sax.nrrd", model = "net.safetensors"
[eam]           file, map, surface, rhythm, virtual       (CARTO zip or folder, EnSite folder, OpenEP .mat, .vtp, .csv, bundle .npz)
                annotate = true (times, voltages and recovery from its electrograms), warp = true (bent smoothly onto the surface)
[ecg]           file, map, normalised, fs_hz, rhythm, virtual (.csv of vtwin, WFDB, DICOM, HL7 aECG, bundle, export of a mapping system)
                electrodes = { RA = [x, y, z], ... V6 } (LPS mm, all nine, where they were measured), inverted = true (upside down)
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

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.case_plan import plan_request
from twin.case_values import names_in, of_kind, positive, resolve
from twin.errors import InputError
from twin.io.eam import SURFACES
from twin.io.positions import lines_of
from twin.io.source import check_keys, did_you_mean, read_text
from twin.mesh import REGIONS
from twin.patient import ELECTRODES
from twin.plan import PlanRequest
from twin.records import clinical as clinical_table
from twin.run import content_hash
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
    "ecg": ("file", "map", "normalised", "fs_hz", "rhythm", "virtual", "electrodes", "inverted"),
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


def _tissue(table: Mapping[str, Any], path: Path) -> dict[str, tuple[float, float]]:
    """Ranges by "region/quantity"."""
    out: dict[str, tuple[float, float]] = {}
    for region, entries in table.items():
        check_keys(of_kind(entries, dict, path, f"tissue.{region}"), TISSUE, path, f"tissue.{region}")
        for key, value in entries.items():
            unit, inside, high = TISSUE[key]
            ends = value if isinstance(value, list) else [value, value]
            place = f"tissue.{region}.{key}"
            if len(ends) != 2:
                raise InputError(path, place, f"{value!r}", "write one value, or [low, high]")
            low, top = (positive(end, unit, path, place, high) for end in ends)
            if low > top:
                raise InputError(path, place, f"{value!r} is upside down", "write [low, high]")
            out[f"{region}/{inside}"] = (low, top)
    return out


def _mesh(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The [mesh] table: edges, and how regions are carried."""
    given: dict[str, Any] = {"edge_mm": positive(table.get("edge", 2.0), "mm", path, "mesh.edge", 10.0, 0.3)}
    if "edge_near_scar" in table:
        given["edge_near_scar_mm"] = positive(table["edge_near_scar"], "mm", path, "mesh.edge_near_scar", given["edge_mm"], 0.3)
    if "near_scar" in table:
        if "edge_near_scar" not in table:
            raise InputError(path, "mesh.near_scar", "is given without mesh.edge_near_scar", 'add edge_near_scar = "1 mm"')
        given["near_scar_mm"] = positive(table["near_scar"], "mm", path, "mesh.near_scar", 50.0)
    if "regions" in table:
        regions = of_kind(table["regions"], str, path, "mesh.regions")
        if regions not in CARRIED:
            raise InputError(path, "mesh.regions", f"{regions!r}", did_you_mean(regions, CARRIED))
        given["conforming"] = regions == "conforming"
    return given


def _clinical(rows: object, path: Path) -> tuple[dict[str, Any], ...]:
    """Recorded VTs: name, cycle_length_ms, ecg_path."""
    out: list[dict[str, Any]] = []
    for k, row in enumerate(of_kind(rows, list, path, "clinical_vt")):
        table = of_kind(row, dict, path, "clinical_vt")
        check_keys(table, ("name", "cycle_length", "ecg"), path, "clinical_vt")
        cycle = positive(table["cycle_length"], "ms", path, "clinical_vt.cycle_length", 1000.0) if "cycle_length" in table else None
        ecg = resolve(table["ecg"], path, "clinical_vt.ecg") if "ecg" in table else None
        if cycle is None and ecg is None:
            raise InputError(path, "clinical_vt", "has neither cycle_length nor ecg", "give at least one of them")
        name = of_kind(table.get("name", f"clinical {k + 1}"), str, path, "clinical_vt.name")
        if name in [vt["name"] for vt in out]:
            raise InputError(path, "clinical_vt.name", f"{name!r} is given twice", "give each recorded VT its own name")
        out.append({"name": name, "cycle_length_ms": cycle, "ecg_path": ecg})
    return tuple(out)


def _labels(table: Mapping[str, Any], path: Path) -> dict[str, int] | None:
    if "labels" not in table:
        return None
    entries = of_kind(table["labels"], dict, path, "segmentation.labels")
    check_keys(entries, LABELS, path, "segmentation.labels")
    values = [of_kind(value, int, path, f"segmentation.labels.{name}") for name, value in entries.items()]
    if len(set(values)) != len(values):
        raise InputError(path, "segmentation.labels", "two names have the same value", "give each name its own value")
    return dict(zip(entries, values, strict=True))


def _options(table: Mapping[str, Any], path: Path, section: str) -> dict[str, Any]:
    """The keys of [eam] or [ecg] other than the file, checked."""
    flags = ("virtual", "normalised", "annotate", "warp", "inverted")
    kinds: dict[str, type] = {"map": str, "surface": str, "rhythm": str, **dict.fromkeys(flags, bool)}
    out = {key: of_kind(value, kinds[key], path, f"{section}.{key}") for key, value in table.items() if key in kinds}
    if "surface" in out and out["surface"] not in SURFACES:
        raise InputError(path, f"{section}.surface", f"{out['surface']!r}", did_you_mean(out["surface"], SURFACES))
    if "fs_hz" in table:
        out["fs_hz"] = positive(table["fs_hz"], "Hz", path, f"{section}.fs_hz", 20_000.0)
    if "electrodes" in table:
        out["electrodes"] = _electrodes(table["electrodes"], path)
    return out


def _electrodes(value: object, path: Path) -> dict[str, NDArray[np.float64]]:
    """Places (3,) mm of all electrodes."""
    key = "ecg.electrodes"
    entries = of_kind(value, dict, path, key)
    check_keys(entries, ELECTRODES, path, key)
    out = {}
    for name in ELECTRODES:
        place = entries.get(name)
        if place is None:
            raise InputError(path, f"{key}.{name}", "is missing", f"give all of {', '.join(ELECTRODES)}, or leave {key} out")
        if not isinstance(place, list) or len(place) != 3:
            raise InputError(path, f"{key}.{name}", f"{place!r} is not a position", "write [x, y, z] in LPS mm")
        out[name] = np.array([of_kind(number, float, path, f"{key}.{name}") for number in place], np.float64)
        if not (np.abs(out[name]) < 3000.0).all():
            raise InputError(path, f"{key}.{name}", f"{place!r} is not within 3 m", "write [x, y, z] in LPS mm")
    return out


def _files(tables: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, Path]:
    """Files of evidence by section, and the image and model that may stand in place of a segmentation."""
    segmentation = tables["segmentation"]
    found = {
        key: resolve(segmentation[key], path, f"segmentation.{key}", folder=key == "image")
        for key in ("image", "model")
        if key in segmentation
    }
    if "file" not in segmentation and len(found) < 2:
        missing = "model" if "image" in found else "image" if "model" in found else "file"
        raise InputError(path, f"segmentation.{missing}", "is missing", 'write file = "labels.nrrd", or an image and a model')
    for name in ("segmentation", "eam", "ecg", "record"):
        if "file" in tables[name]:
            found[name] = resolve(tables[name]["file"], path, f"{name}.file", folder=name in ("segmentation", "eam", "ecg"))
    return found


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
    for name in ("eam", "ecg", "record"):
        if name in raw and "file" not in tables[name]:
            raise InputError(path, f"{name}.file", "is missing", f"name the file, or remove [{name}]")
    patient, segmentation = tables["patient"], tables["segmentation"]
    files = _files(tables, path)
    expect = of_kind(raw.get("expect", {}), dict, path, "expect")
    infarct = segmentation.get("virtual_infarct")
    return Case(
        path=path,
        name=of_kind(patient.get("name", path.parent.resolve().name), str, path, "patient.name"),
        labels_path=files.get("segmentation", files.get("image", path)),
        virtual=of_kind(patient.get("virtual", False), bool, path, "patient.virtual"),
        note=of_kind(patient.get("note", ""), str, path, "patient.note"),
        labels=_labels(segmentation, path),
        virtual_infarct=None if infarct is None else of_kind(infarct, dict, path, "segmentation.virtual_infarct"),
        eam_path=files.get("eam"),
        ecg_path=files.get("ecg"),
        record_path=files.get("record"),
        image_paths={name: resolve(value, path, f"evidence.{name}", folder=True) for name, value in tables["evidence"].items()},
        options={name: _options(tables[name], path, name) for name in ("segmentation", "eam", "ecg")},
        **_mesh(tables["mesh"], path),
        fuse_substrate=of_kind(tables["substrate"].get("fuse", False), bool, path, "substrate.fuse"),
        tissue=_tissue(tables["tissue"], path),
        request=replace(
            plan_request(tables["plan"], path),
            avoid={name: lines_of(value, path, f"avoid.{name}") for name, value in tables["avoid"].items()},
        ),
        clinical=_clinical(raw.get("clinical_vt", []), path),
        accept=names_in(raw.get("accept", []), path, "accept"),
        expect=expect,
        truth_path=resolve(expect["truth"], path, "expect.truth") if "truth" in expect else None,
        model_path=files.get("model"),
        model_image_path=files.get("image"),
        clinical_facts=tables["clinical"] if "clinical" in raw else None,
        clinical_files={n: resolve(tables["clinical"][n], path, f"clinical.{n}") for n in clinical_table.FILES if n in tables["clinical"]},
    )
