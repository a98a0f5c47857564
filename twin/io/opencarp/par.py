"""openCARP's parameter files: `key = value` lines, `#` comments; the last assignment of a key is the one that counts.

Quoting follows what openCARP 18 does: an unquoted value ends at a further `=`, and `#` starts a comment even inside quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from twin.errors import InputError
from twin.io.source import read_text

MAX_BYTES = 20_000_000
_KEY = re.compile(r"-?([A-Za-z_][\w.\[\]]*)\s*(?:=\s*|\s+)(.*)$")

Value = str | int | float


def parse_par(path: Path) -> dict[str, str]:
    """Keys and values, quotes removed, `gregion[0].ID = 1` as it stands; InputError for lines that are neither comment nor assignment."""
    out: dict[str, str] = {}
    for number, raw in enumerate(read_text(path, MAX_BYTES).splitlines(), 1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        found = _KEY.match(line)
        if not found or len(found[1]) > 200:
            raise InputError(path, f"line {number}", f"{line[:40]!r} is not key = value", "correct that line")
        out[found[1]] = _unquoted(found[2].strip(), path, number)
    return out


def _unquoted(value: str, path: Path, number: int) -> str:
    if value.startswith('"'):
        if len(value) < 2 or not value.endswith('"') or '"' in value[1:-1]:
            raise InputError(path, f"line {number}", "quotes are not balanced ('#' starts a comment even inside them)", "correct that line")
        return value[1:-1]
    if "=" in value:
        # openCARP drops what follows without a word: flags=ENDO runs as EPI
        raise InputError(path, f"line {number}", f"openCARP cuts {value[:40]!r} at the '='", f'write "{value}"')
    return value


def format_par(sections: Sequence[tuple[str, Mapping[str, Value]]]) -> str:
    """Text of a .par file: each section is a comment and its assignments; text is quoted, numbers keep every digit."""
    lines = []
    for title, values in sections:
        lines += [f"# {line}" for line in title.splitlines()]
        width = max((len(key) for key in values), default=0)
        lines += [f"{key:{width}s} = {_formatted(key, value)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _formatted(key: str, value: Value) -> str:
    if isinstance(value, str):
        if re.search(r'["#\n\r]', value) or not value.isascii():
            raise InputError("openCARP export", key, f"{value!r} has a character that .par files cannot hold", "rename it")
        return f'"{value}"'
    return repr(value)
