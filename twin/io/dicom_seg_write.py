"""Labels as a DICOM segmentation object: one binary segment per label, every slice a frame, nothing of any patient in it.

The images a segmentation was drawn on are not known here, so the object refers to none: a derived reference (the label grid
itself) lends highdicom the geometry and is then taken out again. Identifiers and times are made of the content, so that equal
volumes give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.dicom_files import need_pydicom, quiet
from twin.volume import LABELS, LabelVolume

NO_DATE, NO_TIME = "19800101", "000000"
"""The standard wants a date; a label volume has none, and the time of writing would make each file different."""

CODES = {
    "lv_blood": ("AnatomicalStructure", "LeftVentricle"),
    "rv_blood": ("AnatomicalStructure", "RightVentricle"),
    "lv_myocardium": ("AnatomicalStructure", "LeftVentricleMyocardium"),
    "scar": ("MorphologicallyAbnormalStructure", "Scar"),
    "border_zone": ("MorphologicallyAbnormalStructure", "Scar"),
}
"""SNOMED CT category and type by label (names of pydicom's dictionary); other labels are parts of the heart."""

SHEAR = 1e-3


def _axes(volume: LabelVolume, where: Path) -> NDArray[np.float64]:
    """Unit axes (3, 3), exactly perpendicular. Raises InputError for a grid that DICOM cannot say."""
    axes = volume.affine[:3, :3] / volume.spacing_mm
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR:
        raise InputError(where, "geometry", "axes are not perpendicular", "resample to a grid with perpendicular axes")
    u = axes[:, 0]
    v = axes[:, 1] - u * (u @ axes[:, 1])
    v /= np.linalg.norm(v)
    return np.stack([u, v, np.cross(u, v)], axis=1)


def _reference(volume: LabelVolume, axes: NDArray[np.float64], uid: Any) -> list[Any]:
    """One MR image data set per slice, without pixels: what highdicom takes the geometry and the study from."""
    from pydicom.dataset import Dataset

    spacing = volume.spacing_mm

    out = []
    for k in range(volume.data.shape[2]):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", uid(f"source {k}")
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid("study"), uid("source"), uid("frame of reference")
        ds.Modality, ds.Rows, ds.Columns, ds.InstanceNumber = "MR", volume.data.shape[1], volume.data.shape[0], k + 1
        ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
        ds.StudyID = ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.PositionReferenceIndicator = ""
        ds.ImagePositionPatient = volume.to_mm(np.array([[0.0, 0.0, k]]))[0].round(6).tolist()
        ds.ImageOrientationPatient = axes[:, :2].T.ravel().round(9).tolist()
        ds.PixelSpacing = [round(float(spacing[1]), 9), round(float(spacing[0]), 9)]
        ds.SliceThickness = ds.SpacingBetweenSlices = round(float(spacing[2]), 9)
        out.append(ds)
    return out


def _segments(names: list[str]) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=getattr(codes.SCT, CODES.get(name, ("AnatomicalStructure", "Heart"))[0]),
            segmented_property_type=getattr(codes.SCT, CODES.get(name, ("AnatomicalStructure", "Heart"))[1]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence("vtwin", codes.DCM.ArtificialIntelligence, "1"),
        )
        for number, name in enumerate(names, start=1)
    ]


def _scrub(ds: Any, uid: Any) -> None:
    """Take out references to images that do not exist, and all that would differ from one writing to the next."""
    for name in ("ReferencedSeriesSequence", "InstanceCreationDate", "InstanceCreationTime"):
        if name in ds:
            delattr(ds, name)
    for item in ds.PerFrameFunctionalGroupsSequence:
        if "DerivationImageSequence" in item:
            del item.DerivationImageSequence
    ds.ContentDate, ds.ContentTime = NO_DATE, NO_TIME
    ds.SeriesDate, ds.SeriesTime = NO_DATE, NO_TIME
    for item in ds.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = uid("dimensions")
    for item in ds.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid("dimensions")
    for item in ds.get("ContributingEquipmentSequence") or []:
        item.ContributionDateTime = NO_DATE + NO_TIME


def write_dicom_seg(path: Path, volume: LabelVolume) -> None:
    """Write labels as a binary SEG object (explicit little endian); frames of empty slices are kept. Raises InputError."""
    need_pydicom()
    try:
        import highdicom as hd
    except ImportError:
        raise InputError("DICOM SEG", "highdicom", "is not installed", "pip install 'vtwin[dicom]'") from None
    names = [name for name, value in LABELS.items() if value and (volume.data == value).any()]
    if not names:
        raise InputError(path, "labels", "the volume is empty", "give a segmentation")
    axes = _axes(volume, path)
    digest = hashlib.sha256(volume.data.tobytes(order="F") + volume.affine.tobytes() + repr(volume.data.shape).encode())

    def uid(what: str) -> str:
        number = int.from_bytes(hashlib.sha256(digest.digest() + what.encode()).digest()[:15], "big")
        return f"2.25.{number}"

    numbered = np.zeros(256, np.uint8)
    for number, name in enumerate(names, start=1):
        numbered[LABELS[name]] = number
    with quiet():
        ds = hd.seg.Segmentation(
            source_images=_reference(volume, axes, uid),
            pixel_array=numbered[volume.data].transpose(2, 1, 0),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_segments(names),
            series_instance_uid=uid("series"),
            series_number=1,
            sop_instance_uid=uid("instance"),
            instance_number=1,
            manufacturer="vtwin",
            manufacturer_model_name="vtwin",
            software_versions="1",
            device_serial_number="0",
            content_label="HEART",
            omit_empty_frames=False,
        )
        _scrub(ds, uid)
        buffer = io.BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())
