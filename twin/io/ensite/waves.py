"""Electrograms of EnSite: blocks of traces in `DxL_*.csv`, `Wave_*.csv` of EnSite X, continuous wave files (`ECG_RAW`, `EPcathBIO_*`)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.archive import AGAIN, BROKEN, StudyFiles
from twin.io.ensite.table import MAX_SAMPLES, Header, head_of, lines_of, number, numbers, plain, read_field
from twin.study import MAX_MV, Recording

Array = NDArray[np.float64]
END = "FFT spectrum is available"
TICK_HZ = 2034.5
"""Rate of EnSite's amplifier, for files that state none (OpenEP)."""
MAX_WAVES = 5000
CHUNK_POINTS = 200
"""Points whose traces are held at once when a transposed file is read: its rows hold all points."""


def parse_waves(lines: Iterator[str], where: Path) -> Recording:
    """A continuous wave file: columns after `t_ref` that are signals (not `_ds`, `_ps` flags), by name, in mV. Raises InputError."""
    header = Header()
    names: list[str] = []
    for line in lines:
        header.lines += 1
        if line.lstrip().startswith("t_dws,"):
            names = [name.strip() for name in next(csv.reader([line]))]
            break
        if header.lines > 5000:
            break
        read_field(header, line)
    kept = [k for k, name in enumerate(names) if name and not name.startswith("t_") and not re.search(r"_(ds|ps)$", name)]
    if not kept or len(names) > MAX_WAVES or len({names[k] for k in kept}) != len(kept):
        raise InputError(where, "wave file", "names no waves, or one twice", AGAIN)
    clock = names.index("t_ref") if "t_ref" in names else -1
    times: list[float] = []
    rows: list[Array] = []
    for line in lines:
        if not line.strip() or line.startswith("EOF"):
            continue
        cells = line.split(",")
        if len(cells) < max(kept) + 1:
            raise InputError(where, "wave file", f"sample {len(rows) + 1} has {len(cells)} of {len(names)} values", AGAIN)
        if len(rows) >= 60 * MAX_SAMPLES or len(rows) * len(kept) > 200_000_000:
            raise InputError(where, "wave file", "holds more samples than an export of one segment", AGAIN)
        rows.append(numbers([cells[k] for k in kept], where, "wave file").astype(np.float32))
        if clock >= 0:
            times.append(number(cells[clock], where, "t_ref"))
    if not rows or (header.samples >= 0 and header.samples != len(rows)):
        raise InputError(where, "wave file", f"has {len(rows)} samples, the header says {header.samples}", AGAIN)
    table = np.stack(rows, axis=1).astype(np.float64)
    if not np.isfinite(table).all() or np.abs(table).max() > MAX_MV:
        raise InputError(where, "wave file", "holds a sample that is not finite", AGAIN)
    return Recording(_rate(header, np.array(times), where), {names[k]: table[i] for i, k in enumerate(kept)})


def _rate(header: Header, times_s: Array, where: Path) -> float:
    if len(times_s) > 2:
        step = np.diff(times_s)
        mean = float(times_s[-1] - times_s[0]) / len(step)
        # times are written to a tenth of a millisecond
        if not (step > 0).all() or np.abs(step - mean).max() > 0.2 * mean + 2e-4:
            raise InputError(where, "t_ref", "does not increase evenly", AGAIN)
        return _sane(1.0 / mean, where)
    return _sane(header.rate_hz if np.isfinite(header.rate_hz) else TICK_HZ, where)


def _sane(rate: float, where: Path) -> float:
    if not 100.0 <= rate <= 50_000.0:
        raise InputError(where, "sample rate", f"{rate:.4g} Hz", "times are in seconds: export it again")
    return rate


@dataclass
class BlockWaves:
    """Traces of one Precision file: blocks of rows of samples, one column per point; read for `CHUNK_POINTS` points at a time."""

    files: StudyFiles
    name: str
    points: int
    held: tuple[int, float, dict[str, Array]] | None = field(default=None)

    def channels(self, index: int) -> tuple[float, dict[str, Array]] | None:
        """Rate and traces of one point, None if the file holds no traces. Raises InputError."""
        chunk = index // CHUNK_POINTS
        if self.held is None or self.held[0] != chunk:
            first = chunk * CHUNK_POINTS
            rate, blocks = self._read(first, min(first + CHUNK_POINTS, self.points))
            self.held = chunk, rate, blocks
        _, rate, blocks = self.held
        if not blocks:
            return None
        return rate, {name: np.ascontiguousarray(values[:, index % CHUNK_POINTS]) for name, values in blocks.items()}

    def _read(self, first: int, last: int) -> tuple[float, dict[str, Array]]:
        header, blocks = Header(), dict[str, list[Array]]()
        current: list[Array] | None = None
        seconds = float("nan")
        in_header = True
        with self.files.open(self.name) as handle:
            for line in lines_of(iter(handle), self.files.where):
                if in_header:
                    # the map's own row "rov trace:" comes before, its traces after these lines
                    in_header = not line.lower().startswith("seg data len")
                    continue
                if line.startswith(END):
                    break
                cell, _, rest = line.partition(",")
                if plain(cell).endswith("trace"):
                    if plain(cell) in blocks:
                        raise InputError(self.files.where, cell[:20], "appears twice", AGAIN)
                    current = blocks.setdefault(plain(cell), [])
                elif current is None:
                    read_field(header, line)
                    if found := re.match(r"Exported seconds\s*:\s*,\s*([0-9.]{1,12})", line):
                        seconds = number(found[1], self.files.where, "Exported seconds")
                elif rest:
                    cells = rest.split(",")
                    bare = not cell.strip() and not any(map(str.strip, cells[self.points :]))
                    if len(cells) < self.points or not bare or len(current) >= MAX_SAMPLES:
                        raise InputError(self.files.where, "traces", f"a row has {len(cells)} of {self.points} values", AGAIN)
                    current.append(numbers(cells[first:last], self.files.where, "traces"))
        rate = _sane(header.rate_hz if np.isfinite(header.rate_hz) else TICK_HZ, self.files.where)
        lengths = {len(rows) for rows in blocks.values()}
        if len(lengths) > 1 or (blocks and np.isfinite(seconds) and abs(lengths.copy().pop() - seconds * rate) > 1.5):
            raise InputError(self.files.where, "traces", "are shorter or longer than the header says: truncated", AGAIN)
        out = {name: np.stack(rows) for name, rows in blocks.items() if rows}
        if any(not np.isfinite(values).all() or np.abs(values).max() > MAX_MV for values in out.values()):
            raise InputError(self.files.where, "traces", "hold a missing or impossible sample", AGAIN)
        return rate, out


@dataclass
class RowWaves:
    """`Wave_*.csv` of EnSite X: one row per point, or per freeze group, samples in columns named by number. Rows are found by offset."""

    files: StudyFiles
    name: str
    rate_hz: float = float("nan")
    columns: int = 0
    first: int = 0
    groups: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)
    handle: BinaryIO | None = None

    @staticmethod
    def open(files: StudyFiles, name: str) -> RowWaves:
        """Read the header and where each row begins, not the samples. Raises InputError."""
        made = RowWaves(files, name)
        with files.open(name) as handle:
            (header, names), _ = head_of(lines_of(iter(handle), files.where), files.where)
        samples = [k for k, column in enumerate(names) if re.fullmatch(r"-?\d+(\.\d+)?", column.strip())]
        if not samples or samples != list(range(samples[0], samples[0] + len(samples))) or len(samples) > MAX_SAMPLES:
            raise InputError(files.where, "wave file", "names no samples", AGAIN)
        made.rate_hz, made.columns, made.first = _sane(header.rate_hz, files.where), len(samples), samples[0]
        group = next((k for k, column in enumerate(names) if plain(column) == "freezegrp"), -1)
        place = 0
        with files.open(name) as handle:
            for count, raw in enumerate(handle):
                if count >= header.lines and raw.strip() and not raw.startswith(b"EOF"):
                    cells = raw.split(b",", max(group + 1, 1))
                    made.offsets.append(place)
                    made.groups.append(int(number(cells[group].decode("latin-1"), files.where, "Freeze Grp")) if group >= 0 else -1)
                place += len(raw)
        return made

    def trace(self, row: int) -> Array:
        """Samples of one row. Raises InputError."""
        if self.handle is None:
            # kept open: within an archive only the way forward is cheap
            self.handle = self.stack.enter_context(self.files.open(self.name))
        try:
            self.handle.seek(self.offsets[row])
            raw = self.handle.readline()
        except BROKEN:
            raise InputError(self.files.where, "wave file", "is damaged", AGAIN) from None
        cells = next(lines_of(iter([raw]), self.files.where)).split(",")
        found = cells[self.first : self.first + self.columns]
        if len(found) != self.columns:
            raise InputError(self.files.where, "wave file", f"a row has {len(found)} of {self.columns} samples", AGAIN)
        values = numbers(found, self.files.where, "wave file")
        if not np.isfinite(values).all() or np.abs(values).max() > MAX_MV:
            raise InputError(self.files.where, "wave file", "a sample is missing or impossible", AGAIN)
        return values
