"""`vtwin inspect`: what a file or folder is, its geometry and contents, what is doubtful, and a picture. Never identifiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planners.app.console import Console
from planners.app.inspect_registry import KINDS, Findings, Kind, kind_of
from twin.atomic import write_bytes
from twin.errors import InputError
from twin.io.source import file_size

HEAD_BYTES = 400


def inspect(path: Path, out: Path | None, console: Console) -> int:
    """Describe `path`; the picture goes to `out` (a .png or a folder) or to NAME.preview.png in the current folder.

    Status 0, or 2 if the file's kind is known and it cannot be read (the reason is part of the answer).
    """
    kind = find(path)
    try:
        found = findings(kind, path)
    except InputError as error:
        answer = {"kind": kind.name, "readable": False, "problem": error.problem, "field": error.field, "remedy": error.remedy}
        console.result(answer, [f"{path.name}: {kind.name}", f"cannot be read: {error.field}: {error.problem}; {error.remedy}"])
        return 2
    picture = _picture(found)
    target = None
    if picture is not None:
        target = _target(path, out)
        write_bytes(target, picture)
    answer = {"kind": kind.name, "readable": True, "found": [_as_record(f) for f in found], "picture": str(target) if target else None}
    lines = [f"{path.name}: {kind.name}"]
    for f in found:
        lines += [f"[{f.what}]", *_lines(f.facts), *(f"! {doubt}" for doubt in f.suspicious)]
    console.result(answer, [*lines, f"picture: {target}" if target else "no picture"])
    return 0


def find(path: Path) -> Kind:
    """The kind of a file or folder. Raises InputError if there is none or nothing reads it."""
    start = b""
    if not path.is_dir():
        file_size(path, 10**13)
        with open(path, "rb") as handle:
            start = handle.read(HEAD_BYTES)
    kind = kind_of(path, start)
    if kind is None:
        names = ", ".join(k.name for k in KINDS)
        raise InputError(path, "file", f"is nothing that vtwin reads (it starts with {start[:8]!r})", f"known: {names}")
    return kind


def findings(kind: Kind, path: Path) -> tuple[Findings, ...]:
    """What the kind's reader returned, described. Raises InputError."""
    from planners.app.inspect_values import describe

    value = kind.reader()(path)
    return tuple(describe(one) for one in (value if isinstance(value, tuple) else (value,)))


def _picture(found: tuple[Findings, ...]) -> bytes | None:
    shown = next((f.shown for f in found if f.shown is not None), None)
    if shown is None:
        return None
    from planners.app.inspect_picture import picture

    return picture(shown)


def _target(path: Path, out: Path | None) -> Path:
    name = f"{path.resolve().name}.preview.png"
    if out is None:
        return Path(name)
    return out if out.suffix.lower() == ".png" else out / name


def _as_record(found: Findings) -> dict[str, Any]:
    return {"what": found.what, "facts": dict(found.facts), "suspicious": list(found.suspicious)}


def _lines(facts: Mapping[str, Any], indent: str = "  ") -> list[str]:
    out: list[str] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat = all(not isinstance(v, (Mapping, list)) for v in value.values())
            if flat and len(value) <= 4:
                out.append(f"{indent}{name}: {', '.join(f'{k} {v}' for k, v in value.items())}")
            else:
                out += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            out.append(f"{indent}{name}: {', '.join(map(str, value))}")
        else:
            out.append(f"{indent}{name}: {value}")
    return out
