"""trial.json: the protocol as it was frozen when the trial began, its hash, and every amendment with its reason."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from planners.trials.trial import Trial, from_dict
from twin.atomic import dumps, write_json
from twin.errors import InputError
from twin.run import content_hash, versions

FILE = "trial.json"
FORMAT = 1


def read(out: Path) -> dict[str, Any]:
    """trial.json of a folder, its hash checked. Raises InputError if it is not there, or was changed by hand."""
    path = out / FILE
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        trial, digest = value["protocol"], value["hash"]
    except FileNotFoundError:
        raise InputError(
            out, FILE, "not there", "name the folder of a trial that was begun with `vtwin cohort TRIAL.toml -o OUT`"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(path, "file", "not a trial's protocol", "restore it from a copy") from None
    if content_hash(trial) != digest:
        raise InputError(
            path, "hash", "does not fit the protocol: it was changed after the start", "restore it, and use --amend to change a trial"
        )
    return dict(value)


def frozen_trial(out: Path) -> Trial:
    """The trial that a folder holds."""
    return from_dict(read(out)["protocol"])


def freeze(trial: Trial, out: Path, root: Path, amend: str = "") -> tuple[dict[str, Any], bool]:
    """Write trial.json at the start; later only compare with it, or amend it. Returns what it holds, and if it was begun before.

    Raises InputError if the folder holds something else, or the protocol has changed and `amend` gives no reason.
    """
    now = json.loads(dumps(trial.as_dict()))
    if not (out / FILE).exists():
        if out.exists() and any(p for p in out.iterdir() if p.name != ".lock"):
            raise InputError("command line", "-o", f"{out} holds files that are not of a trial", "name a new or empty folder")
        if amend:
            raise InputError("command line", "--amend", "this trial has not begun", "start it without --amend")
        value = {"format": FORMAT, "protocol": now, "hash": content_hash(now), "frozen": _clock(), "cases": str(root), "amendments": []}
        write_json(out / FILE, value | {"versions": versions()})
        return read(out), False
    before = read(out)
    changed = differences(before["protocol"], now)
    if not changed:
        if amend:
            raise InputError("command line", "--amend", "the protocol has not changed", "leave --amend out")
        return before, True
    if before["protocol"]["name"] != now["name"]:
        raise InputError("command line", "-o", f"{out} holds another trial ({before['protocol']['name']!r})", "name another folder")
    if not amend:
        text = "; ".join(f"{c['key']}: {_short(c['before'])} -> {_short(c['after'])}" for c in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(out / FILE, "protocol", f"frozen, but the trial now says {text}{more}", 'undo it, or record it with --amend "why"')
    amendment = {"when": _clock(), "why": amend, "changes": changed, "hash_before": before["hash"]}
    value = {**before, "protocol": now, "hash": content_hash(now), "amendments": [*before["amendments"], amendment]}
    write_json(out / FILE, value)
    return read(out), True


def differences(before: Any, after: Any, at: str = "") -> list[dict[str, Any]]:
    """Every value that differs: key, before, after."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [d for k in keys for d in differences(before.get(k), after.get(k), f"{at}.{k}" if at else k)]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [d for k, (a, b) in enumerate(zip(before, after)) for d in differences(a, b, f"{at}[{k}]")]
    return [] if before == after else [{"key": at, "before": before, "after": after}]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else text[:37] + "..."


def _clock() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
