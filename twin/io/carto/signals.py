"""`ECG_Export` text of CARTO: 2,500 samples at 1 kHz of every channel, as counts with one gain in the header."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN, text_lines
from twin.study import MAX_MV, Recording

RATE_HZ = 1000.0
"""The text states no rate: exports hold 2,500 samples of 2.5 s."""
SAMPLES = 2500
GAIN_MV = 0.003
MAX_BYTES = 50_000_000
MAX_SAMPLES, MAX_CHANNELS = 60_000, 600
GAIN = re.compile(r"gain\)?\s*=\s*(\S+)", re.IGNORECASE)
CHANNEL = re.compile(r"^(.+?)\((\d+)\)$")
MAPPED = re.compile(r"(Unipolar|Bipolar|Reference)\s*(?:Mapping)?\s*Channel\s*=\s*(\S+)", re.IGNORECASE)


def parse_ecg(data: bytes, where: Path) -> Recording:
    """One file, counts times gain in mV; the channels of the point where the file names them (version 4.0). Raises InputError."""
    lines = text_lines(data, where, "ECG_Export")
    if not lines.readline().strip().upper().startswith("ECG_EXPORT"):
        raise InputError(where, "ECG_Export", "does not begin with ECG_Export", AGAIN)
    gain = _gain(lines.readline(), where)
    head = lines.readline()
    mapped = {kind.lower(): channel for kind, channel in MAPPED.findall(head)}
    names = _names(lines.readline() if mapped else head, where)
    body = lines.read()
    rows = body.count("\n") + (0 if body.endswith("\n") or not body else 1)
    if rows > MAX_SAMPLES + 10:
        raise InputError(where, "ECG_Export", f"holds {rows} samples", AGAIN)
    try:
        counts: NDArray[np.float64] = np.array(body.split(), np.float64)
    except ValueError:
        raise InputError(where, "ECG_Export", "holds text in place of a sample", AGAIN) from None
    samples = len([1 for line in body.splitlines() if line.strip()])
    if counts.size == 0 or counts.size != samples * len(names):
        raise InputError(where, "ECG_Export", f"{counts.size} samples for {len(names)} channels: truncated", AGAIN)
    if not np.isfinite(counts).all() or np.abs(counts).max() * gain > MAX_MV:
        raise InputError(where, "ECG_Export", f"holds a sample beyond {MAX_MV:g} mV, or none", AGAIN)
    traces = np.ascontiguousarray((counts.reshape(samples, len(names)) * gain).T)
    found = dict(zip(names, traces, strict=True))
    bipolar, unipolar, reference = (_known(mapped.get(kind, ""), found) for kind in ("bipolar", "unipolar", "reference"))
    return Recording(RATE_HZ, found, bipolar, unipolar, reference)


def _known(name: str, channels: dict[str, NDArray[np.float64]]) -> str:
    plain = CHANNEL.sub(r"\1", name)
    return plain if plain in channels else ""


def _gain(line: str, where: Path) -> float:
    found = GAIN.search(line)
    try:
        gain = float(found[1]) if found else float("nan")
    except ValueError:
        gain = float("nan")
    if not 1e-6 <= gain <= 1.0:
        raise InputError(where, "ECG_Export gain", "is missing or no gain in mV per count", AGAIN)
    return gain


def _names(line: str, where: Path) -> list[str]:
    names = [CHANNEL.sub(r"\1", word) for word in line.split()]
    if not 0 < len(names) <= MAX_CHANNELS or all(re.fullmatch(r"-?\d+", name) for name in names):
        raise InputError(where, "ECG_Export", "names no channels", AGAIN)
    if len(set(names)) != len(names):
        raise InputError(where, "ECG_Export", "names a channel twice", AGAIN)
    return names


def format_ecg(channels: dict[str, NDArray[np.float64]], gain_mv: float = GAIN_MV) -> str:
    """Text of version 4.1: counts of `gain_mv`, channels numbered from 1."""
    head = "".join(f"{f'{name}({k})':<18s}" for k, name in enumerate(channels, start=1))
    counts = np.rint(np.stack(list(channels.values()), axis=1) / gain_mv).astype(np.int64)
    rows = ["".join(f"{value:<18d}" for value in row) for row in counts.tolist()]
    return "\r\n".join(["ECG_Export_4.1", f"Raw ECG to MV (gain) = {gain_mv:.6f}", head, *rows]) + "\r\n"
