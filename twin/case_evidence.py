"""The evidence that a case names, read and checked against what the case says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from twin.calibrate.ecg import upside_down
from twin.case import Case
from twin.errors import InputError
from twin.io.bundle import bundle_eam, bundle_ecg
from twin.io.eam import read_map
from twin.io.ecg import read_ecg
from twin.io.labels import check_heart, read_labels
from twin.io.notes import Notes
from twin.io.record import read_record
from twin.patient import Ecg, ElectroanatomicalMap, Evidence, Patient
from twin.volume import LabelVolume


def _agree(case: Case, section: str, path: Path, said: Mapping[str, str]) -> None:
    """Raise InputError if the case and the evidence file say different things."""
    for key, value in said.items():
        asked = case.options[section].get(key, value)
        if asked != value:
            raise InputError(case.path, f"{section}.{key}", f"{asked!r}, but {path.name} says {value!r}", "correct one of them")


def _read_eam(case: Case, path: Path, volume: LabelVolume, notes: Notes) -> ElectroanatomicalMap:
    options = case.options["eam"]
    if path.suffix == ".npz":
        return bundle_eam(path, options.get("surface", "lv_endo"), volume, notes, options.get("rhythm", "sinus"))
    told = {name: options[name] for name in ("surface", "rhythm", "annotate") if name in options}
    eam = read_map(path, notes, options.get("map"), **told)
    _agree(case, "eam", path, {"surface": eam.surface, "rhythm": eam.rhythm})
    return replace(eam, warp=options.get("warp", False))


def _placed_ecg(case: Case, path: Path, notes: Notes) -> Ecg:
    """The recording as the case says it is to be taken: turned over, and with the places of its electrodes."""
    ecg, options = _read_ecg(case, path, notes), case.options["ecg"]
    if options.get("inverted", False):
        notes.add("the ECG is taken upside down, as the case says")
        ecg = upside_down(ecg)
    return replace(ecg, electrodes_mm=options.get("electrodes", {}))


def _read_ecg(case: Case, path: Path, notes: Notes) -> Ecg:
    options = case.options["ecg"]
    normalised = options.get("normalised", False)
    from twin.io.studies import is_study, study_ecg

    if path.suffix != ".npz" and is_study(path):
        # the export that the map came from: its map, unless another is named
        of_eam = case.options["eam"].get("map") if path == case.eam_path else None
        return study_ecg(path, options.get("map", of_eam), options.get("rhythm", "sinus"), notes)
    if path.suffix == ".npz":
        return bundle_ecg(path, notes, options.get("fs_hz"), normalised, options.get("rhythm", "sinus"))
    ecg = read_ecg(path, notes, normalised)
    _agree(case, "ecg", path, {"rhythm": ecg.rhythm})
    if "fs_hz" in options and abs(options["fs_hz"] - ecg.fs_hz) > 0.01 * ecg.fs_hz:
        raise InputError(
            case.path, "ecg.fs_hz", f"{options['fs_hz']:g} Hz, but {path.name} is sampled at {ecg.fs_hz:g} Hz", "correct one of them"
        )
    return ecg


def _shown(path: Path) -> str:
    """Name of an ECG's file for people; mapping systems put patients' names into the names of exports."""
    from twin.io.studies import is_study

    return "export of a mapping system" if path.suffix != ".npz" and is_study(path) else path.name


def _read_image(name: str, path: Path, notes: Notes) -> Any:
    """An Image, or for `cine` a tuple of CineStacks."""
    from twin.io.image import read_cine, read_image

    image = read_cine(path, notes) if name == "cine" else read_image(path, notes)
    modality = getattr(image, "modality", "")
    if name in ("lge", "ct") and modality not in ("", {"lge": "MR", "ct": "CT"}[name]):
        raise InputError(path, "Modality", f"is {modality}, but the case calls it {name}", "correct one of them")
    return image


def read_patient(case: Case) -> Patient:
    """Read and check all evidence of a case. Raises InputError; Suspicious unless the case accepts the finding.

    `case.virtual_infarct` is not applied: that is for who makes virtual patients.
    """
    notes = Notes(case.accept)
    volume = read_labels(case.labels_path, case.labels, notes=notes)
    check_heart(volume, case.labels_path, notes)

    def virtual(section: str) -> bool:
        return bool(case.options[section].get("virtual", case.virtual))

    eam = ecg = record = None
    if case.eam_path is not None:
        # mapping systems put patients' names into the names of exports
        named = case.eam_path.name if case.eam_path.suffix.lower() in (".csv", ".npz") else "export of a mapping system"
        eam = Evidence(_read_eam(case, case.eam_path, volume, notes), named, virtual=virtual("eam"))
    if case.ecg_path is not None:
        ecg = Evidence(_placed_ecg(case, case.ecg_path, notes), _shown(case.ecg_path), virtual=virtual("ecg"))
    if case.record_path is not None:
        facts: Mapping[str, object] = read_record(case.record_path, notes)
        record = Evidence(facts, case.record_path.name, virtual=case.virtual)
    images = {name: Evidence(_read_image(name, where, notes), where.name, virtual=case.virtual) for name, where in case.image_paths.items()}
    for what, item in (("electroanatomical map", eam), ("12-lead ECG", ecg), ("patient record", record)):
        if item is None:
            notes.add(f"no {what} is given")
    labels = Evidence(volume, case.labels_path.name, virtual=virtual("segmentation"))
    return Patient(case.name, labels, eam, ecg, record, tuple(notes.lines), **images)
