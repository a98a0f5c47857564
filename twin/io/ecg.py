"""Twelve-lead electrocardiograms: vtwin's CSV (`# vtwin-ecg 1`), the other formats by their first bytes, and the checks for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.ecg_leads import doubts
from twin.io.notes import Notes
from twin.io.source import did_you_mean, file_size
from twin.io.table import read_table, write_table
from twin.patient import LEADS, Ecg

DOUBTS = ("ecg_amplitude", "ecg_lead_order", "ecg_limb_reversal", "ecg_gain")
"""Codes of what is suspicious; a conversion says them and goes on."""

FLAT_MV = 0.01
EINTHOVEN_TOLERANCE = 0.15
"""Residual of I + III = II relative to the limb leads, root mean square: above noise and filtering, far below a swapped lead (order 1)."""


def read_ecg(path: Path, notes: Notes | None = None, normalised: bool = False) -> Ecg:
    """Read and check an ECG: vtwin's CSV, a WFDB header (.hea), a DICOM waveform or an HL7 annotated ECG.

    `normalised` (or `# normalised: true` in the CSV) says that amplitudes are arbitrary. Raises InputError, Suspicious.
    """
    notes = notes or Notes()
    ecg = _reader(path)(path, notes)
    if normalised:
        ecg = replace(ecg, normalised=True)
    check_ecg(ecg, path, notes)
    return ecg


def is_ecg(path: Path) -> bool:
    """True if a file is an electrocardiogram by its first bytes (of WFDB by its suffix)."""
    return path.is_file() and path.stat().st_size > 0 and (_reader(path) is not _read_csv or _start(path).startswith(b"# vtwin-ecg"))


def _start(path: Path) -> bytes:
    file_size(path)
    with open(path, "rb") as handle:
        return handle.read(2000)


def _reader(path: Path) -> Callable[[Path, Notes], Ecg]:
    from twin.io.aecg import is_aecg, read_aecg
    from twin.io.dicom_ecg import is_dicom_ecg, read_dicom_ecg
    from twin.io.wfdb_record import read_wfdb

    start = _start(path)
    if is_dicom_ecg(start):
        return read_dicom_ecg
    if is_aecg(start):
        return read_aecg
    header = path.with_suffix(".hea")
    if path.suffix.lower() == ".dat" and header.is_file():  # the half of a record that says nothing about itself
        return lambda _, notes: read_wfdb(header, notes)
    return read_wfdb if path.suffix.lower() == ".hea" else _read_csv


def _read_csv(path: Path, notes: Notes) -> Ecg:
    """Columns time_ms and the twelve leads in mV."""
    meta, table = read_table(path, "ecg", ("time_ms", *LEADS))
    for key, value in meta.items():
        if key not in ("rhythm", "normalised", "units"):
            raise InputError(path, key, "unknown header key", did_you_mean(key, ("rhythm", "normalised", "units")))
        if key == "normalised" and value not in ("true", "false"):
            raise InputError(path, key, f"{value[:20]!r}", "write true or false")
    if meta.get("units", "ms, mV").replace(" ", "") != "ms,mV":
        raise InputError(path, "units", f"{meta['units'][:30]!r}", "convert to ms, mV")
    fs_hz = sampling_hz(table.pop("time_ms"), path)
    return Ecg(table, fs_hz, meta.get("rhythm", "sinus"), meta.get("normalised") == "true")


def sampling_hz(time_ms: NDArray[np.float64], where: Path) -> float:
    """Sampling rate of a time column; InputError if it is not increasing, not uniform, or not in ms."""
    if len(time_ms) < 20:
        raise InputError(where, "time_ms", f"only {len(time_ms)} samples", "give at least one whole QRS")
    step = np.diff(time_ms)
    if not (step > 0).all():
        line = int(np.argmin(step > 0)) + 2
        raise InputError(where, "time_ms", f"does not increase at sample {line}", "write samples in time order, without gaps")
    mean = float(time_ms[-1] - time_ms[0]) / len(step)
    if np.abs(step - mean).max() > 0.05 * mean:
        raise InputError(where, "time_ms", "steps are not uniform", "resample to a constant rate")
    if mean < 0.05:
        raise InputError(where, "time_ms", f"step {mean:.3g} ms: it looks like seconds", "multiply time_ms by 1000")
    if mean > 10.0:
        raise InputError(where, "time_ms", f"step {mean:.3g} ms is too coarse for a QRS", "give the recording at 100 Hz or more")
    return float(np.round(1000.0 / mean, 6))


def check_ecg(ecg: Ecg, where: Path, notes: Notes) -> None:
    """Raise InputError if a lead is missing, not finite, flat or in another unit; Suspicious if leads contradict each other."""
    missing = [name for name in LEADS if name not in ecg.leads]
    if missing:
        raise InputError(where, "leads", f"missing {', '.join(missing)}", "give all twelve leads, or leave the ECG out")
    for name in LEADS:
        if not np.isfinite(ecg.leads[name]).all():
            raise InputError(where, name, "has missing or infinite samples", "give a stretch in which all leads are recorded")
    span = {name: float(np.ptp(ecg.leads[name])) for name in LEADS}
    typical = float(np.median(list(span.values())))
    for name, value in span.items():
        if value <= 0.01 * typical or (not ecg.normalised and value < FLAT_MV and typical >= FLAT_MV):
            raise InputError(
                where, name, f"is a flat lead ({value:.2g} mV peak to peak)", "leave the ECG out, or give a recording with all leads on"
            )
    if not ecg.normalised:
        _check_amplitude(max(span.values()), where, notes)
    if len(ecg.time_ms) / ecg.fs_hz < 0.08:
        raise InputError(where, "time_ms", f"lasts {1000 * len(ecg.time_ms) / ecg.fs_hz:.0f} ms", "give at least one whole QRS")
    _check_limb_leads(ecg, where, notes)
    if ecg.rhythm == "sinus":
        for code, problem, remedy in doubts(ecg):
            notes.suspect(code, where, "leads", problem, remedy)


def _check_amplitude(span_mv: float, where: Path, notes: Notes) -> None:
    if span_mv > 50.0:
        raise InputError(where, "leads", f"{span_mv:.0f} mV peak to peak: it looks like microvolts", "divide the leads by 1000")
    if span_mv < 0.05:
        raise InputError(where, "leads", f"{span_mv:.2g} mV peak to peak: it looks like volts", "multiply the leads by 1000")
    if span_mv > 15.0 or span_mv < 0.2:
        notes.suspect("ecg_amplitude", where, "leads", f"{span_mv:.2g} mV peak to peak", "give mV, or normalised = true in [ecg]")


def _check_limb_leads(ecg: Ecg, where: Path, notes: Notes) -> None:
    i, ii, iii, avr, avl, avf = (ecg.leads[name] - np.mean(ecg.leads[name]) for name in LEADS[:6])
    rules = {
        "I + III = II": i + iii - ii,
        "aVR = -(I + II) / 2": avr + (i + ii) / 2,
        "aVL = (I - III) / 2": avl - (i - iii) / 2,
        "aVF = (II + III) / 2": avf - (ii + iii) / 2,
    }
    size = float(np.sqrt(np.mean(i**2 + ii**2 + iii**2) / 3))
    for rule, residual in rules.items():
        off = float(np.sqrt(np.mean(residual**2))) / size
        if off > EINTHOVEN_TOLERANCE:
            notes.suspect(
                "ecg_lead_order",
                where,
                "leads",
                f"{rule} is missed by {100 * off:.0f} %: limb leads swapped?",
                "put the leads under their names",
            )
            return


def convert_ecg(source: Path, target: Path) -> list[str]:
    """Read an ECG, accepting what is doubtful, and write CSV (.csv) or WFDB (.hea); returns what was found. Raises InputError."""
    from twin.io.wfdb_record import write_wfdb

    writers = {".csv": write_ecg, ".hea": write_wfdb}
    if target.suffix.lower() not in writers:
        raise InputError(target, "file", f"{target.suffix or 'no suffix'} is no ECG that is written", f"known: {', '.join(writers)}")
    notes = Notes(DOUBTS)
    ecg = read_ecg(source, notes)
    writers[target.suffix.lower()](target, ecg)
    return notes.lines


def write_ecg(path: Path, ecg: Ecg) -> None:
    """Write an ECG as CSV with 0.1 uV resolution; sample times are a multiple of the sampling interval."""
    meta = {"rhythm": ecg.rhythm, "normalised": str(ecg.normalised).lower(), "units": "ms, mV"}
    write_table(path, "ecg", meta, {"time_ms": ecg.time_ms} | {name: ecg.leads[name] for name in LEADS}, 4)
