"""DICOM waveform ECGs (12-lead, general and ambulatory ECG storage). Only the elements named here are read; identifiers never are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.dicom_files import AGAIN, DicomFile, guarded, is_dicom, need_pydicom
from twin.io.ecg_leads import MAX_VALUES, check_rate, lead_name, millivolts, twelve
from twin.io.notes import Notes
from twin.io.source import file_size
from twin.patient import Ecg

MAX_BYTES = 300_000_000
STORAGE = b"1.2.840.10008.5.1.4.1.1.9.1."
"""Start of the SOP classes of ECG waveforms (DICOM PS3.4 B.5): .1 12-lead, .2 general, .3 ambulatory."""

_CODES = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", **{k + 2: f"V{k}" for k in range(1, 7)}}
"""Last number of MDC (2:1) and SCP-ECG (5.6.3-9-1) codes (DICOM PS3.16, CID 3001)."""

_TYPES = {("SS", 16): "<i2", ("US", 16): "<u2", ("SB", 8): "i1", ("UB", 8): "u1", ("SL", 32): "<i4", ("UL", 32): "<u4"}
WAVEFORM_SEQUENCE, SOP_CLASS = 0x54000100, 0x00080016


def is_dicom_ecg(start: bytes) -> bool:
    """True if a file's first bytes are those of a DICOM ECG waveform."""
    return is_dicom(start) and STORAGE in start


def read_dicom_ecg(path: Path, notes: Notes | None = None, rhythm: str = "sinus") -> Ecg:
    """The first recorded group of twelve leads of a DICOM waveform object. Raises InputError."""
    notes = notes or Notes()
    file_size(path, MAX_BYTES)
    pydicom = need_pydicom()
    file = DicomFile(path)
    with guarded(str(path)), file.open() as handle:
        data = pydicom.dcmread(handle, specific_tags=[SOP_CLASS, WAVEFORM_SEQUENCE])
        if not str(data.get("SOPClassUID", "")).encode().startswith(STORAGE):
            raise InputError(path, "SOPClassUID", "is no ECG waveform", "give a 12-lead ECG")
        groups = list(data.WaveformSequence)
        if "deflated" in str(data.file_meta.TransferSyntaxUID.name).lower() or not data.file_meta.TransferSyntaxUID.is_little_endian:
            raise InputError(path, "transfer syntax", "is deflated or big endian", "export it as little endian")
    failed: InputError | None = None
    for group in groups:
        with guarded(str(path), "WaveformSequence"):
            try:
                channels, fs_hz = _group(group, path)
                return twelve(channels, fs_hz, path, notes, rhythm)
            except InputError as error:
                failed = failed or error
    raise failed or InputError(path, "WaveformSequence", "is empty", AGAIN)


def _group(group: Any, path: Path) -> tuple[dict[str, NDArray[np.float64]], float]:
    count, samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    fs_hz = check_rate(float(group.SamplingFrequency), path, "SamplingFrequency")
    if not (1 <= count <= 64 and samples >= 1 and count * samples <= MAX_VALUES):
        raise InputError(path, "NumberOfWaveformSamples", f"{samples} samples of {count} channels", AGAIN)
    form = (str(group.WaveformSampleInterpretation), int(group.WaveformBitsAllocated))
    if form not in _TYPES:
        raise InputError(path, "WaveformSampleInterpretation", f"{form[0][:4]!r} of {form[1]} bits", "export linear samples")
    raw = bytes(group.WaveformData)
    expected = count * samples * np.dtype(_TYPES[form]).itemsize
    if not expected <= len(raw) <= expected + 1:
        raise InputError(path, "WaveformData", f"{len(raw)} bytes, {count} x {samples} samples take {expected}", AGAIN)
    values = np.frombuffer(raw, _TYPES[form], count * samples).reshape(samples, count)
    padding = getattr(group, "WaveformPaddingValue", None)
    hole = np.frombuffer(bytes(padding), _TYPES[form])[0] if isinstance(padding, bytes) and len(padding) else None
    definitions = list(group.ChannelDefinitionSequence)
    if len(definitions) != count:
        raise InputError(path, "ChannelDefinitionSequence", f"{len(definitions)} entries for {count} channels", AGAIN)
    out: dict[str, NDArray[np.float64]] = {}
    for k, channel in enumerate(definitions):
        lead = _lead(channel.ChannelSourceSequence[0]) or f"channel {k}"
        if lead in out:
            raise InputError(path, lead, "there are two leads of this name", AGAIN)
        column = values[:, k].astype(np.float64)
        scale, offset = _calibration(channel, path)
        out[lead] = np.where(values[:, k] == hole, np.nan, column * scale + offset) if hole is not None else column * scale + offset
    return out, fs_hz


def _lead(source: Any) -> str:
    """Lead of a channel's coded source: by its meaning, or else its code."""
    name, _ = lead_name(str(source.get("CodeMeaning", "")))
    number = re.search(r"[:-](\d+)$", str(source.get("CodeValue", "")))
    coded = _CODES.get(int(number[1]), "") if number and len(number[1]) < 4 else ""
    if name and coded and name != coded:
        raise InputError("DICOM", "ChannelSourceSequence", f"code says {coded}, meaning says {name}", "correct the export")
    return name or coded


def _calibration(channel: Any, path: Path) -> tuple[float, float]:
    """mV per count and offset in mV: (count * sensitivity * correction) + baseline (PS3.3 C.10.9.1.4.6)."""
    if "ChannelSensitivity" not in channel:
        raise InputError(path, "ChannelSensitivity", "is missing: amplitudes have no unit", "export it with its sensitivity")
    unit = millivolts(str(channel.ChannelSensitivityUnitsSequence[0].CodeValue), path, "ChannelSensitivityUnits")
    scale = float(channel.ChannelSensitivity) * float(channel.get("ChannelSensitivityCorrectionFactor", 1.0) or 1.0) * unit
    offset = float(channel.get("ChannelBaseline", 0.0) or 0.0) * unit
    if not (np.isfinite(scale) and np.isfinite(offset) and scale != 0 and abs(scale) < 100):
        raise InputError(path, "ChannelSensitivity", f"{scale:.3g} mV per count", "correct the export")
    return scale, offset
