"""DICOM: the wall with its scar as a segmentation, surfaces and lesions as encapsulated STL, all in one frame of reference.

Standard: DICOM PS3.3 A.51 (segmentation) and A.85.1 (encapsulated STL, units by code: PS3.3 C.35.1). Nothing of the patient is written.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshing.tet_grid import mesh_labels
from planners.overlay.surfaces import shapes
from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.dicom_files import need_pydicom, quiet
from twin.io.dicom_seg_write import NO_DATE, NO_TIME, write_dicom_seg
from twin.io.stl import RECORD, stl_bytes
from twin.io.surfaces import Surface
from twin.mesh import HeartMesh
from twin.plan import Plan

ENCAPSULATED_STL = "1.2.840.10008.5.1.4.1.1.104.3"
SPACING_MM = 1.0
TITLES = {
    "lv_endo": "left ventricular endocardium",
    "rv_endo": "right ventricular endocardium",
    "epi": "epicardium",
    "base": "base",
    "lesions": "planned lesions",
}


def write(plan: Plan, mesh: HeartMesh, folder: Path) -> list[Path]:
    """Write `heart.seg.dcm` and one `NAME.stl.dcm` per surface and for the lesions. Raises InputError without pydicom and highdicom."""
    need_pydicom()
    seg = folder / "heart.seg.dcm"
    volume = mesh_labels(mesh, SPACING_MM)
    write_dicom_seg(seg, volume)
    study, frame = _study_of(seg)
    files = [seg]
    for number, (name, surface) in enumerate(shapes(plan, mesh).items(), 1):
        path = folder / f"{name}.stl.dcm"
        write_bytes(path, encapsulated_stl(surface, TITLES[name], study, frame, number))
        files.append(path)
    return files


def _study_of(path: Path) -> tuple[str, str]:
    """Study and frame of reference of the segmentation, which the surfaces share."""
    import pydicom

    ds = pydicom.dcmread(path, stop_before_pixels=True)
    return str(ds.StudyInstanceUID), str(ds.FrameOfReferenceUID)


def _code(value: str, scheme: str, meaning: str) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def encapsulated_stl(surface: Surface, title: str, study: str, frame: str, number: int) -> bytes:
    """One surface as an encapsulated STL object; identifiers are made of the content, so equal surfaces give equal bytes."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    document = stl_bytes(surface)
    digest = hashlib.sha256(document + title.encode()).digest()
    instance, series = (f"2.25.{int.from_bytes(hashlib.sha256(digest + what).digest()[:15], 'big')}" for what in (b"instance", b"series"))
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ENCAPSULATED_STL, instance
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (
        ENCAPSULATED_STL,
        instance,
        study,
        series,
        frame,
    )
    ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ds.PositionReferenceIndicator = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "M3D", 100 + number, 1
    ds.SeriesDate, ds.SeriesTime, ds.ContentDate, ds.ContentTime, ds.AcquisitionDateTime = NO_DATE, NO_TIME, NO_DATE, NO_TIME, ""
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber, ds.SoftwareVersions = "vtwin", "vtwin", "0", "1"
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "NO", "NO"
    ds.DocumentTitle, ds.MIMETypeOfEncapsulatedDocument = title, "model/stl"
    ds.ConceptNameCodeSequence = []
    ds.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    ds.EncapsulatedDocumentLength = len(document)
    ds.MeasurementUnitsCodeSequence = [_code("mm", "UCUM", "mm")]
    ds.ModelModification, ds.ModelMirroring = "NO", "NO"
    ds.ContentDescription = "research software: not a medical device"
    with quiet():
        buffer = io.BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read_encapsulated_stl(data: bytes) -> NDArray[np.float64]:
    """Corners (triangles, 3, 3) mm of an encapsulated STL. Raises InputError for another object or other units."""
    need_pydicom()
    import pydicom

    ds = pydicom.dcmread(io.BytesIO(data))
    if ds.SOPClassUID != ENCAPSULATED_STL or ds.MeasurementUnitsCodeSequence[0].CodeValue != "mm":
        raise InputError("DICOM", "SOPClassUID", "is not an encapsulated STL in mm", "give an object of that class")
    document = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    count = int.from_bytes(document[80:84], "little")
    records = np.frombuffer(document[84 : 84 + 50 * count], RECORD)
    return np.asarray(records["corners"], float)
