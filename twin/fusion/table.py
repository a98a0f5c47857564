"""The table of a study: read, joined, checked, and turned into numbers; identifiers are used for joining and go no further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.fusion.blocks import Block
from twin.fusion.study import Study, block_of
from twin.io.source import did_you_mean, file_size

Array = NDArray[np.float64]
MAX_TABLE_BYTES = 500_000_000
SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class Table:
    """n patients: `frame` numbers (NaN empty) with the columns of the blocks and the suspects, outcome 0/1, what splits and groups need."""

    frame: Any
    outcome: Array
    blocks: Mapping[str, Block]
    stages: Mapping[str, int]
    time: Array | None = None
    site: NDArray[Any] | None = None
    sex: Array | None = None
    age: Array | None = None
    group: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    suspects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    emptiness: str = "use"
    """Whether the default may learn from which cells and blocks are empty: one of `study.EMPTINESS_WORDS`."""

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.outcome)

    def take(self, rows: NDArray[Any]) -> Table:
        """Some of the patients."""
        cut: dict[str, Any] = {
            k: None if (v := getattr(self, k)) is None else v[rows] for k in ("outcome", "time", "site", "sex", "age", "group")
        }
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return Table(
            frame, blocks=self.blocks, stages=self.stages, suspects=self.suspects, notes=self.notes, emptiness=self.emptiness, **cut
        )


def load_table(study: Study) -> Table:
    """Read and check the table of a study. Raises InputError for files, columns and values that do not fit."""
    raw, site = _read(study)
    columns = [str(c) for c in raw.columns]
    for column in _named(study):
        if column not in columns:
            raise InputError(study.path, "column", f"{column!r} is not a column of the table", did_you_mean(column, columns))
    raw, site, notes = _excluded(study, raw, site)
    blocks = {name: block_of(name, part, columns, study.path) for name, part in study.blocks.items()}
    stages = {name: part.get("stage", k + 1) for k, (name, part) in enumerate(study.blocks.items())}
    outcome, kept = _outcome(study, raw)
    if (~kept).any():
        notes.append(f"{int((~kept).sum())} rows without outcome left out")
    raw, outcome, site = raw[kept].reset_index(drop=True), outcome[kept], None if site is None else site[kept]
    _refuse_leaks(study, blocks)
    frame = _numbers(study, raw, blocks)
    if study.visits:
        block, frame = _visits(study, raw, frame)
        blocks["visits"], stages["visits"] = block, len(stages) + 1
    if min(outcome.sum(), len(outcome) - outcome.sum()) < 10:
        raise InputError(
            study.path, "outcome", f"{int(outcome.sum())} events in {len(outcome)} rows", "at least ten of either kind are needed"
        )
    return Table(
        frame, outcome, blocks, stages, _time(study, raw), site, _column(study, raw, "sex"), _column(study, raw, "age"),
        _groups(study, raw, frame), study.treatment, tuple(notes), _emptiness(study, site),
    )  # fmt: skip


def _emptiness(study: Study, site: NDArray[Any] | None) -> str:
    """What the study says; else of blocks only where there is one site: what a site does not measure says nothing of its patients."""
    return str(study.fusion.get("emptiness", "cells" if site is not None and len(np.unique(site)) > 1 else "use"))


def _named(study: Study) -> list[str]:
    table, outcome = study.table, study.outcome
    singles = [table[key] for key in ("id", "site", "sex", "age") if key in table]
    singles += [outcome[key] for key in ("column", "time") if key in outcome]
    return [*singles, *outcome.get("any_of", []), *table.get("missing", {}), *table.get("exclude", {}), *study.after, *study.treatment]


def read_frame(path: Path) -> Any:
    """A table file as a data frame. Raises InputError if it is no table of a known kind."""
    import pandas

    file_size(path, MAX_TABLE_BYTES)
    if not path.name.endswith(SUFFIXES):
        raise InputError(path, "file", "is not a kind of table that is read here", f"give one of {', '.join(SUFFIXES)}")
    try:
        frame = pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_csv(path)
    except Exception as error:  # pandas and pyarrow raise many kinds for damaged files; all of them mean the same to the user
        raise InputError(path, "file", f"cannot be read as a table ({error})", "export it again") from None
    frame.columns = [str(c) for c in frame.columns]
    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        raise InputError(path, str(doubled[0]), "is the name of two columns", "rename one")
    return frame


def _read(study: Study) -> tuple[Any, NDArray[Any] | None]:
    import pandas

    if "sites" in study.table:
        parts = {name: read_frame(study.file(text)) for name, text in study.table["sites"].items()}
        raw = pandas.concat(parts.values(), ignore_index=True)
        site: NDArray[Any] | None = np.repeat(np.array(list(parts)), [len(part) for part in parts.values()])
    else:
        raw, site = read_frame(study.file(study.table["file"])), None
    for text in study.table.get("join", []):
        other, key = read_frame(study.file(text)), study.table["id"]
        if key not in other.columns or key not in raw.columns:
            raise InputError(study.path, "table.id", f"{key!r} is not a column of both tables", did_you_mean(key, list(other.columns)))
        if other[key].duplicated().any():
            raise InputError(study.file(text), key, "names a patient twice", "keep one row each, or use [visits]")
        raw = raw.merge(other, on=key, how="left", suffixes=("", "_joined"))
    if "site" in study.table and study.table["site"] in raw.columns:
        site = raw[study.table["site"]].astype(str).to_numpy()
    return raw, site


def _excluded(study: Study, raw: Any, site: NDArray[Any] | None) -> tuple[Any, NDArray[Any] | None, list[str]]:
    notes: list[str] = []
    for column, values in study.table.get("missing", {}).items():
        marked = raw[column].isin(values if isinstance(values, list) else [values])
        raw.loc[marked, column] = np.nan
        notes.append(f"{column}: {int(marked.sum())} values that mean empty were emptied")
    for column, values in study.table.get("exclude", {}).items():
        out = raw[column].isin(values if isinstance(values, list) else [values]).to_numpy()
        raw, site = raw[~out].reset_index(drop=True), None if site is None else site[~out]
        notes.append(f"{int(out.sum())} rows excluded by {column}")
    return raw, site, notes


def _outcome(study: Study, raw: Any) -> tuple[Array, NDArray[np.bool_]]:
    columns = study.outcome.get("any_of") or [study.outcome["column"]]
    values = raw[columns]
    kept = values.notna().all(axis=1).to_numpy()
    if "above" in study.outcome:
        hit = values > study.outcome["above"]
    elif "positive" in study.outcome:
        hit = values == study.outcome["positive"]
    else:
        kinds = set(np.unique(values[kept].to_numpy()).tolist())
        if not kinds <= {0, 1}:
            shown = ", ".join(str(k) for k in sorted(kinds, key=str)[:5])
            raise InputError(study.path, "outcome", f"holds {shown}, not 0 and 1", "say positive = VALUE or above = VALUE")
        hit = values == 1
    return np.asarray(hit.any(axis=1).to_numpy(), np.float64), kept


def _refuse_leaks(study: Study, blocks: Mapping[str, Block]) -> None:
    """A block must hold neither outcome, follow-up time, identifier, site nor what was known only later."""
    forbidden = dict.fromkeys(study.outcome.get("any_of") or [study.outcome["column"]], "the outcome")
    forbidden |= {study.outcome["time"]: "the follow-up time"} if "time" in study.outcome else {}
    forbidden |= {study.table[key]: f"the {key}" for key in ("id", "site") if key in study.table}
    forbidden |= dict.fromkeys(study.after, "known only after the outcome") | dict.fromkeys(study.treatment, "treatment that may answer it")
    met: dict[str, str] = {}
    for name, block in blocks.items():
        for column in block.columns:
            if column in forbidden:
                raise InputError(study.path, f"blocks.{name}", f"{column!r} is {forbidden[column]}: it leaks", "take it out of the block")
            if column in met:
                raise InputError(study.path, f"blocks.{name}", f"{column!r} is also in {met[column]!r}", "keep it in one block")
            met[column] = name


def _numbers(study: Study, raw: Any, blocks: Mapping[str, Block]) -> Any:
    import pandas

    out: dict[str, Any] = {}
    for name, block in blocks.items():
        for column in block.columns:
            coded = column in block.categorical
            out[column] = _number(study, raw[column], f"blocks.{name}", coded)
    for column in study.treatment:
        out[column] = _number(study, raw[column], "leakage.treatment", True)
    return pandas.DataFrame(out, index=raw.index)


def _number(study: Study, column: Any, field: str, coded: bool) -> Array:
    import pandas

    number = pandas.to_numeric(column, errors="coerce")
    broken = column.notna() & number.isna()
    if broken.any() and coded:
        labels = sorted({str(v) for v in column.dropna()})
        return np.asarray(column.map(lambda v: np.nan if pandas.isna(v) else float(labels.index(str(v)))), np.float64)
    if broken.any():
        bad = str(column[broken].iloc[0])[:40]
        raise InputError(study.path, field, f"{column.name!r} holds {bad!r}, not a number", "make it categorical, or empty the cell")
    values = np.asarray(number, np.float64)
    if np.isinf(values).any():
        raise InputError(study.path, field, f"{column.name!r} holds an infinite value", "empty the cell")
    return values


def _column(study: Study, raw: Any, key: str) -> Array | None:
    return None if key not in study.table else _number(study, raw[study.table[key]], f"table.{key}", key == "sex")


def _time(study: Study, raw: Any) -> Array | None:
    if "time" not in study.outcome:
        return None
    time = _number(study, raw[study.outcome["time"]], "outcome.time", False)
    if not (time > 0).all():
        raise InputError(study.path, "outcome.time", "holds empty, zero or negative times", "leave these rows out")
    return time


def _groups(study: Study, raw: Any, frame: Any) -> NDArray[np.int64]:
    """Rows that must stay in one fold: same patient, or the same in every predictor."""
    if "id" in study.table:
        return np.asarray(raw[study.table["id"]].astype("category").cat.codes, np.int64)
    _, first = np.unique(np.nan_to_num(frame.to_numpy(np.float64), nan=-9.87e99), axis=0, return_inverse=True)
    return np.asarray(first, np.int64).ravel()


def _visits(study: Study, raw: Any, frame: Any) -> tuple[Block, Any]:
    from twin.fusion.longitudinal import landmark, last_visits

    path, key = study.file(study.visits["file"]), study.table["id"]
    visits = read_frame(path)
    for column in (key, study.visits["time"], *study.visits["columns"]):
        if column not in visits.columns:
            raise InputError(path, str(column), "is not a column of the visits", did_you_mean(str(column), list(visits.columns)))
    what = (visits, key, study.visits["time"], float(study.visits["landmark"]), study.visits["columns"])
    features, (last, places) = landmark(*what), last_visits(*what, study.visits.get("keep", 8))
    block = Block("visits", numeric=tuple(features.columns), visits=places)
    return block, frame.join(features.join(last).reindex(raw[key].to_numpy()).reset_index(drop=True))
