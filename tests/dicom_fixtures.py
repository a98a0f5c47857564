"""DICOM studies of a known scene, written with pydicom: each voxel's value follows from its place in the patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MR, CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
EXPLICIT = "1.2.840.10008.1.2.1"
PLANTED = "ZZPLANTEDZZ"


def scene(points_mm: NDArray[np.float64], time: float = 0.0) -> NDArray[np.float64]:
    """Linear in space, so that linear interpolation is exact; `time` (share of the beat) adds to it."""
    return 1000.0 + points_mm @ np.array([2.0, -3.0, 4.0]) + 100.0 * time


def rotation(seed: int) -> NDArray[np.float64]:
    """A right-handed rotation, (3, 3)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


@dataclass
class Series:
    """A stack to write: axes (3, 3) are the directions of columns' index, rows' index and slices; step and tilt in mm per slice."""

    uid: str = "1.2.3.1"
    number: int = 1
    rows: int = 12
    columns: int = 16
    slices: int = 6
    pixel_mm: tuple[float, float] = (1.5, 2.0)
    step_mm: float = 8.0
    thickness_mm: float = 6.0
    origin: tuple[float, float, float] = (-20.0, 5.0, 30.0)
    axes: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    tilt_mm: tuple[float, float] = (0.0, 0.0)
    modality: str = "MR"
    frame_of_reference: str = "1.2.3.9"
    times: Sequence[float] = ()
    rr_ms: float = 800.0
    scene: Callable[..., NDArray[np.float64]] = scene

    def position(self, k: float) -> NDArray[np.float64]:
        return (
            np.array(self.origin)
            + self.axes[:, 2] * (k * self.step_mm)
            + self.axes[:, 0] * (k * self.tilt_mm[0])
            + self.axes[:, 1] * (k * self.tilt_mm[1])
        )

    def pixels(self, k: float, time: float = 0.0) -> NDArray[np.float64]:
        r, c = np.meshgrid(np.arange(self.rows), np.arange(self.columns), indexing="ij")
        across = self.axes[:, 0] * self.pixel_mm[1], self.axes[:, 1] * self.pixel_mm[0]
        points = self.position(k) + c[..., None] * across[0] + r[..., None] * across[1]
        return self.scene(points, time)


def dataset(series: Series, k: float, t: int = 0, instance: int = 1) -> Any:
    """One classic single-frame image of the series."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    ds = Dataset()
    sop = MR if series.modality == "MR" else CT
    ds.SOPClassUID, ds.SOPInstanceUID = sop, f"{series.uid}.{instance}"
    ds.Modality, ds.PatientName, ds.PatientID = series.modality, "Doe^Jane", "4711"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", series.uid, series.frame_of_reference
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = series.number, instance, 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.ImagePositionPatient = [f"{v:.8g}" for v in series.position(k)]
    ds.ImageOrientationPatient = [f"{v:.9g}" for v in series.axes[:, :2].T.ravel()]
    ds.PixelSpacing, ds.SliceThickness = list(series.pixel_mm), series.thickness_mm
    time = series.times[t] if series.times else 0.0
    if series.times:
        ds.TriggerTime, ds.NominalInterval = f"{time * series.rr_ms:.6g}", round(series.rr_ms)
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = series.rows, series.columns, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    # quarter units: a rescale that is not whole
    ds.RescaleSlope, ds.RescaleIntercept = "0.25", "700"
    stored = np.rint((series.pixels(k, time) - 700.0) / 0.25)
    assert stored.min() >= 0
    assert stored.max() < 4096
    ds.PixelData = stored.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


def save(ds: Any, path: Path) -> Path:
    """Write a data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, series: Series, seed: int = 0, keep: Sequence[float] | None = None, tweak: Callable[[Any, int, int], None] | None = None
) -> Path:
    """Write every slice and time under names and instance numbers in random order; `tweak(ds, k, t)` may change each."""
    jobs = [(k, t) for k in (range(series.slices) if keep is None else keep) for t in range(max(1, len(series.times)))]
    order = np.random.default_rng(seed).permutation(len(jobs))
    for name, job in enumerate(order):
        k, t = jobs[job]
        ds = dataset(series, k, t, instance=name + 1)
        if tweak is not None:
            tweak(ds, int(k), t)
        save(ds, folder / f"{series.number}_{name:03d}.dcm")
    return folder


def enhanced(series: Series, seed: int = 0) -> Any:
    """The whole series as one enhanced multi-frame MR object, frames in random order."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    def item(**values: Any) -> Any:
        out = Dataset()
        for name, value in values.items():
            setattr(out, name, value)
        return out

    jobs = [(k, t) for k in range(series.slices) for t in range(max(1, len(series.times)))]
    jobs = [jobs[i] for i in np.random.default_rng(seed).permutation(len(jobs))]
    parts = [dataset(series, k, t) for k, t in jobs]
    ds = parts[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    ds.NumberOfFrames = len(jobs)
    first = parts[0]
    shared = item(
        PixelMeasuresSequence=Items([item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)]),
        PlaneOrientationSequence=Items([item(ImageOrientationPatient=first.ImageOrientationPatient)]),
        PixelValueTransformationSequence=Items([item(RescaleSlope="0.25", RescaleIntercept="700", RescaleType="US")]),
    )
    frames = []
    for (_, t), part in zip(jobs, parts, strict=True):
        frame = item(PlanePositionSequence=Items([item(ImagePositionPatient=part.ImagePositionPatient)]))
        if series.times:
            delay = series.times[t] * series.rr_ms
            frame.CardiacSynchronizationSequence = Items([item(NominalCardiacTriggerDelayTime=delay, RRIntervalTimeNominal=series.rr_ms)])
            frame.FrameContentSequence = Items([item(TemporalPositionIndex=t + 1)])
        frames.append(frame)
    ds.PixelData = b"".join(part.PixelData for part in parts)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, name)
    for name in ("TriggerTime", "NominalInterval"):
        if name in ds:
            delattr(ds, name)
    ds.SharedFunctionalGroupsSequence = Items([shared])
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    return ds


def turned(series: Series, columns: bool = False, rows: bool = False, swap: bool = False) -> Series:
    """The same voxels stored otherwise: columns or rows reversed, rows and columns exchanged; slices run as the normal then does."""
    axes, origin = series.axes.copy(), np.array(series.origin)
    size, pixel = [series.columns, series.rows], [series.pixel_mm[1], series.pixel_mm[0]]
    for axis, flip in enumerate((columns, rows)):
        if flip:
            origin = origin + axes[:, axis] * pixel[axis] * (size[axis] - 1)
            axes[:, axis] *= -1
    if swap:
        axes, size, pixel = axes[:, [1, 0, 2]], size[::-1], pixel[::-1]
    return replace(series, axes=axes, origin=tuple(float(v) for v in origin), columns=size[0], rows=size[1], pixel_mm=(pixel[1], pixel[0]))


def compressed(ds: Any, kind: str) -> Any:
    """The data set with pixels in "rle", "jpeg ls" or "jpeg 2000" (lossless)."""
    import io

    from PIL import Image as Picture
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

    if kind != "jpeg 2000":
        ds.compress(RLELossless if kind == "rle" else JPEGLSLossless, generate_instance_uid=False)
        return ds
    out = io.BytesIO()
    Picture.fromarray(np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)).save(
        out, "JPEG2000", irreversible=False, no_jp2=True
    )
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([out.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds
