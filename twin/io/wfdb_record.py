"""WFDB records (PhysioNet): header and data files of formats 16, 61, 24, 32, 212 and 80, read strictly; written as format 16.

Comments, dates and times of a header may name a patient: they are not kept. Layout: physionet.org, WFDB manual, header(5), signal(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.atomic import write_bytes, write_text
from twin.errors import InputError
from twin.io.ecg_leads import MAX_VALUES, check_rate, millivolts, twelve
from twin.io.notes import Notes
from twin.io.source import read_bytes, read_text
from twin.patient import LEADS, Ecg

MAX_HEADER_BYTES = 1_000_000
MAX_SIGNALS = 64
DEFAULT_GAIN = 200.0
"""Counts per mV where the header says 0 or nothing (header(5))."""

FORMATS = {"16": 2.0, "61": 2.0, "24": 3.0, "32": 4.0, "212": 1.5, "80": 1.0}
"""Bytes per sample."""

INVALID = {"16": -(2**15), "61": -(2**15), "24": -(2**23), "32": -(2**31), "212": -(2**11), "80": -128}
"""The count that means: nothing was recorded (signal(5))."""

_GAIN = re.compile(r"([-+.\deE]+)(?:\(([-+]?\d+)\))?(?:/(\S+))?")
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")


@dataclass(frozen=True)
class _Signal:
    """One line of the header."""

    file: str
    format: str
    offset: int
    gain: float
    baseline: int
    unit: str
    first: int | None
    checksum: int | None
    name: str


def read_wfdb(path: Path, notes: Notes | None = None, rhythm: str = "sinus") -> Ecg:
    """Read the record whose header (.hea) is at `path`; its data files lie in the same folder.

    Raises InputError for anything that header and data do not agree on, sizes and checksums included.
    """
    notes = notes or Notes()
    lines = [line.strip() for line in read_text(path, MAX_HEADER_BYTES).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    count, fs_hz, samples = _record_line(lines[0] if lines else "", path)
    if len(lines) - 1 < count:
        raise InputError(path, "header", f"names {count} signals and describes {len(lines) - 1}", "copy it again")
    signals = [_signal_line(line, path, number) for number, line in enumerate(lines[1 : count + 1], start=2)]
    if len({signal.name for signal in signals}) < count:
        raise InputError(path, "signals", "two have one name", "write it again with a name for each signal")
    if any(signal.gain == 0 for signal in signals):
        notes.suspect("ecg_gain", path, "gain", f"is not given, {DEFAULT_GAIN:g} counts per mV are assumed", "give the gain of each signal")
    channels: dict[str, NDArray[np.float64]] = {}
    for file in dict.fromkeys(signal.file for signal in signals):
        group = [signal for signal in signals if signal.file == file]
        counts = _counts(path, file, group, samples)
        samples = len(counts)
        if samples * count > MAX_VALUES:
            raise InputError(path, "samples", f"{samples} of {count} signals", "crop the record to a few minutes")
        for signal, column in zip(group, counts.T, strict=True):
            _check_sums(signal, column, path)
            factor = millivolts(signal.unit, path, "units") / (signal.gain or DEFAULT_GAIN)
            values = (column.astype(np.float64) - signal.baseline) * factor
            channels[signal.name] = np.where(column == INVALID[signal.format], np.nan, values)
    return twelve(channels, fs_hz, path, notes, rhythm)


def _record_line(line: str, path: Path) -> tuple[int, float, int | None]:
    words = line.split()
    if len(words) < 2 or not re.fullmatch(r"[\w/-]+", words[0]) or not words[1].isdigit():
        raise InputError(path, "record line", "is not `name signals rate samples`", "give the .hea file of a WFDB record")
    if "/" in words[0]:
        raise InputError(path, "record line", "the record is a chain of segments", "give the header of one segment")
    count = int(words[1])
    if not 1 <= count <= MAX_SIGNALS:
        raise InputError(path, "signals", f"{count}", f"a record of 1 to {MAX_SIGNALS} signals is read")
    rate = words[2] if len(words) > 2 else "250"
    fs_hz = check_rate(_float(rate.split("/")[0].split("(")[0], path, "sampling rate"), path, "sampling rate")
    if len(words) > 3 and not words[3].isdigit():
        raise InputError(path, "samples", "is not a number", "copy the header again")
    samples = int(words[3]) if len(words) > 3 else 0
    return count, fs_hz, samples or None


def _float(word: str, path: Path, field: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise InputError(path, field, f"{word[:20]!r} is not a number", "copy the header again") from None
    if not np.isfinite(value):
        raise InputError(path, field, "is not finite", "copy the header again")
    return value


def _integer(words: list[str], place: int, path: Path, field: str) -> int | None:
    if len(words) <= place:
        return None
    if not re.fullmatch(r"[-+]?\d{1,10}", words[place]):
        raise InputError(path, field, f"{words[place][:20]!r} is not a whole number", "copy the header again")
    return int(words[place])


def _signal_line(line: str, path: Path, number: int) -> _Signal:
    words = line.split(maxsplit=8)
    form = _FORMAT.fullmatch(words[1]) if len(words) > 1 else None
    if form is None or form[1] not in FORMATS:
        raise InputError(path, f"line {number}", "the signal's format is not read", f"formats {', '.join(FORMATS)} are")
    if form[2] not in (None, "1") or form[3] not in (None, "0"):
        raise InputError(path, f"line {number}", "several samples per frame, or skewed signals", "resample it to one rate")
    if Path(words[0]).name != words[0] or words[0] in ("-", "~", ".", "..") or "\\" in words[0]:
        raise InputError(path, f"line {number}", "the data file is not in the header's folder", "name a file in the same folder")
    gain, baseline, unit = 0.0, None, "mV"
    if len(words) > 2:
        match = _GAIN.fullmatch(words[2])
        if match is None:
            raise InputError(path, f"line {number}", "the gain is not `gain(baseline)/unit`", "copy the header again")
        gain = _float(match[1], path, f"line {number}")
        baseline, unit = (int(match[2]) if match[2] else None), match[3] or "mV"
    zero = _integer(words, 4, path, "ADC zero") or 0
    first, checksum = (_integer(words, place, path, field) for place, field in ((5, "initial value"), (6, "checksum")))
    if gain < 0 or abs(gain) > 1e9 or (0 < gain < 1e-3):
        raise InputError(path, f"line {number}", f"gain {gain:.4g}", "copy the header again")
    name = words[8] if len(words) > 8 else f"signal {number - 1}"
    return _Signal(words[0], form[1], int(form[4] or 0), gain, zero if baseline is None else baseline, unit, first, checksum, name)


def _counts(path: Path, file: str, group: list[_Signal], samples: int | None) -> NDArray[np.integer]:
    """Samples of one data file, (samples, signals), after its size was compared with what the header says."""
    formats, offsets = {signal.format for signal in group}, {signal.offset for signal in group}
    if len(formats) > 1 or len(offsets) > 1:
        raise InputError(path, "format", "differs between signals of one file", "copy the header again")
    form, offset = formats.pop(), offsets.pop()
    where = path.with_name(file)
    data = read_bytes(where, int(4 * MAX_VALUES))[offset:]
    frame = FORMATS[form] * len(group)
    held = int(len(data) / frame)
    if samples is None:
        samples = held
    if held != samples or len(data) - np.ceil(samples * frame) > 1:
        problem = f"{len(data)} bytes, {samples} samples of {len(group)} signals in format {form} take {int(np.ceil(samples * frame))}"
        raise InputError(where, "size", problem, "copy header and data again")
    if samples == 0:
        raise InputError(where, "size", "holds no samples", "copy it again")
    flat = _decode(data, form, samples * len(group))
    return flat.reshape(samples, len(group))


def _decode(data: bytes, form: str, count: int) -> NDArray[np.integer]:
    if form in ("16", "61", "32"):
        return np.frombuffer(data, {"16": "<i2", "61": ">i2", "32": "<i4"}[form], count)
    if form == "80":
        return np.frombuffer(data, np.uint8, count).astype(np.int16) - 128
    if form == "24":
        three = np.frombuffer(data, np.uint8, 3 * count).reshape(-1, 3).astype(np.int32)
        value = three[:, 0] | three[:, 1] << 8 | three[:, 2] << 16
        return value - ((value >> 23) << 24)
    # 212: two samples of twelve bits in three bytes
    padded = np.frombuffer(data + b"\0\0", np.uint8, 3 * ((count + 1) // 2)).reshape(-1, 3).astype(np.int16)
    pair = np.stack([padded[:, 0] | (padded[:, 1] & 0x0F) << 8, padded[:, 2] | (padded[:, 1] & 0xF0) << 4], axis=1).ravel()[:count]
    return pair - ((pair >> 11) << 12)


def _check_sums(signal: _Signal, column: NDArray[np.integer], path: Path) -> None:
    if signal.first is not None and int(column[0]) != signal.first:
        raise InputError(path, "initial value", "is not that of the data: header and data do not belong together", "copy both again")
    if signal.checksum is not None and (int(column.sum(dtype=np.int64)) - signal.checksum) % 65536:
        raise InputError(path, "checksum", "is not that of the data: the data are damaged", "copy both again")


def write_wfdb(path: Path, ecg: Ecg, counts_per_mv: int = 1000) -> None:
    """Write header `path` (.hea) and the data beside it, format 16; raises InputError for amplitudes that do not fit."""
    counts = np.rint(ecg.array().T * counts_per_mv)
    if not (np.abs(counts) < 2**15 - 1).all():
        raise InputError(path, "leads", f"more than {2**15 / counts_per_mv:.0f} mV", "choose fewer counts per mV")
    data = counts.astype("<i2")
    name = re.sub(r"[^\w-]", "_", path.stem)
    lines = [f"{name} 12 {ecg.fs_hz:g} {len(data)}"]
    for lead, column in zip(LEADS, data.T, strict=True):
        checksum = int(np.int64(column.sum(dtype=np.int64)) & 0xFFFF)
        lines.append(f"{name}.dat 16 {counts_per_mv}(0)/mV 16 0 {column[0]} {checksum - ((checksum >> 15) << 16)} 0 {lead}")
    write_bytes(path.with_name(f"{name}.dat"), data.tobytes())
    write_text(path, "\n".join(lines) + "\n")
