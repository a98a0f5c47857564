"""The evidence of a case as the line wants it: surfaces become labels, and a virtual infarct is added where the case asks for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from meshing import voxelise
from planners.app.identity import without_names, without_names_said
from planners.app.substrate import with_substrate
from planners.virtual.infarct import add_infarct, spec_from
from twin.case import Case
from twin.case_evidence import read_patient
from twin.errors import InputError
from twin.imaging.segmentation.case_labels import case_labels
from twin.io.convert import kind_of
from twin.patient import Evidence, Patient
from twin.run import content_hash


def gather(case: Case, folder: Path, progress: Callable[[str], None], identified: bool = False) -> Patient:
    """Read and check all evidence; `folder` keeps the labels made from a surface, so that they are made once.

    Names of files that may name a person get no further, unless `identified`.
    Raises InputError for what is wrong with the case or its files.
    """
    asked, tell = case, without_names_said(case, progress, identified)
    case, notes = case_labels(case, folder, tell)
    if _is_surface(case.labels_path):
        labels = folder / f"labels-{content_hash(case.labels_path)}" / "labels.nrrd"
        if not labels.exists():
            tell("turning the surface into labels ...")
            labels.parent.mkdir(parents=True, exist_ok=True)
            voxelise.convert(case.labels_path, labels)
        notes.append(f"labels were made from the surface {case.labels_path.name} at 1 mm (vtwin convert)")
        case = replace(case, labels_path=labels)
    patient = read_patient(case)
    if case.virtual_infarct is not None:
        try:
            spec = spec_from(case.virtual_infarct)
        except TypeError as error:
            raise InputError(case.path, "segmentation.virtual_infarct", str(error), "use the fields of InfarctSpec") from None
        volume, truth = add_infarct(patient.labels.value, spec)
        notes.append(f"the infarct is virtual: {truth['scar_ml']:.1f} mL of scar were drawn into this heart, no image showed them")
        patient = replace(patient, labels=Evidence(volume, patient.labels.source, "virtual infarct added", patient.labels.virtual))
    if patient.lge is not None or patient.ct is not None:
        tell("reading the substrate from the images ...")
        patient, lines = with_substrate(patient)
        notes += lines
    return without_names(asked, replace(patient, notes=(*patient.notes, *notes)), identified)


def _is_surface(path: Path) -> bool:
    try:
        return kind_of(path) == "surface"
    except InputError:  # of what it is not, the reader of labels says more
        return False
