"""The tables of a trial: results.parquet (a row per twin, arm and posterior sample) and twins.parquet (a row per candidate)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planners.trials.design import enrolled
from planners.trials.parameters import MEASURES, PARAMETERS
from planners.trials.population import unit_cube
from planners.trials.table import Entry, Table
from planners.trials.trial import OUTCOMES, Trial
from twin.atomic import replaced
from twin.errors import InputError

BATCH_ROWS = 50_000
STATES = ("enrolled", "implausible", "excluded", "failed")


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("vtwin cohort", "pyarrow", "is not installed", "pip install 'vtwin[tables]'") from None
    return pyarrow


def _schema(pa: Any) -> Any:
    kinds = {"bool": pa.bool_(), "int": pa.int32(), "float": pa.float64()}
    first = [("twin", pa.string()), ("candidate", pa.int32()), ("arm", pa.string()), ("sample", pa.int32())]
    return pa.schema([*first, *((name, kinds[o.kind]) for name, o in OUTCOMES.items())])


def twin_name(entry: Entry) -> str:
    """Name of a twin in every table."""
    return str(entry.job.spec.get("name", f"V{entry.job.ordinal:04d}"))


def sample_rows(table: Table, trial: Trial) -> Iterator[dict[str, Any]]:
    """Rows of results.parquet that are known so far, in the order of twins, arms and samples."""
    names = {e.job.ordinal: twin_name(e) for e in table.entries("twin", "toy_twin", state="done")}
    for entry in table.entries("arm", "toy_arm", state="done"):
        candidate, place = divmod(entry.job.ordinal, len(trial.arms))
        assert entry.row is not None
        for sample, values in enumerate(entry.row["samples"]):
            yield {"twin": names[candidate], "candidate": candidate, "arm": trial.arms[place].name, "sample": sample} | {
                name: values.get(name) for name in OUTCOMES
            }


def write_results(table: Table, trial: Trial, path: Path) -> int:
    """Write results.parquet: a reader sees the table before or the table after; the same results give the same bytes. Returns the rows."""
    pa = _arrow()
    return write_parquet(sample_rows(table, trial), _schema(pa), path)


def write_parquet(rows: Iterator[Mapping[str, Any]], schema: Any, path: Path) -> int:
    """Stream rows to a Parquet file, atomically; memory holds one batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    with replaced(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        batch: list[Mapping[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH_ROWS:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                count += len(batch)
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
        count += len(batch)
    return count


def state_of(entry: Entry) -> str:
    """What became of a candidate; empty while that is not known."""
    if entry.state in ("refused", "failed", "poison"):
        return "failed"
    if entry.row is None:
        return ""
    if enrolled(entry.row):
        return "enrolled"
    return "implausible" if entry.row["implausible"] else "excluded"


def twin_rows(table: Table, trial: Trial) -> Iterator[dict[str, Any]]:
    """Rows of twins.parquet: state and reason, parameters and their places in the unit cube, measures."""
    for entry in table.entries("twin", "toy_twin"):
        state = state_of(entry)
        if not state:
            continue
        measured = entry.row["measured"] if entry.row else {}
        reasons = [*entry.row["implausible"], *entry.row["excluded"]] if entry.row else [entry.problem]
        values = entry.job.spec.get("values", {})
        cube = unit_cube(trial.seed, entry.job.ordinal) if values else {}
        row = {"twin": twin_name(entry), "candidate": entry.job.ordinal, "state": state, "reason": ", ".join(reasons)}
        for name, measure in MEASURES.items():
            value = measured.get(name)
            row[name] = value if value is None or measure.kind != "float" else float(value)
        yield row | {f"drawn_{p.name}": values.get(p.name) for p in PARAMETERS} | {f"unit_{p.name}": cube.get(p.name) for p in PARAMETERS}


def write_twins(table: Table, trial: Trial, path: Path) -> int:
    """Write twins.parquet as `write_results` writes its table."""
    pa = _arrow()
    kinds = {"bool": pa.bool_(), "text": pa.string(), "float": pa.float64()}
    fields = [("twin", pa.string()), ("candidate", pa.int32()), ("state", pa.string()), ("reason", pa.string())]
    fields += [(name, kinds[m.kind]) for name, m in MEASURES.items()]
    fields += [(f"{kind}_{p.name}", pa.float64()) for kind in ("drawn", "unit") for p in PARAMETERS]
    return write_parquet(twin_rows(table, trial), pa.schema(fields), path)
