"""Stimulation protocols as data: the shipped TOML files, read and checked."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import MISSING, dataclass, fields
from importlib.resources import files
from typing import Any

from twin.errors import InputError


@dataclass(frozen=True)
class Drive:
    """A train of S1 at one cycle length; `computed_beats` of its beats are computed where the model reaches its steady state sooner."""

    cycle_ms: float
    beats: int
    computed_beats: int


@dataclass(frozen=True)
class Extrastimulus:
    """Coupling interval of one extrastimulus: from `start_ms` down by `step_ms` to loss of capture or `floor_ms`."""

    start_ms: float
    step_ms: float
    floor_ms: float

    def intervals_ms(self, below_ms: float) -> tuple[float, ...]:
        """The intervals to try, longest first, all shorter than `below_ms`."""
        count = int((self.start_ms - self.floor_ms) / self.step_ms + 1e-9) + 1
        return tuple(c for i in range(count) if (c := self.start_ms - i * self.step_ms) < below_ms)


@dataclass(frozen=True)
class Sustained:
    """What counts as sustained: reentry for `after_ms` after the last stimulus, or `identical_cycles` (0: never) within `tolerance`."""

    after_ms: float
    identical_cycles: int
    tolerance: float


@dataclass(frozen=True)
class Protocol:
    """Programmed stimulation.

    sites: names of `meshing.sites`; near_scar: so many of the segments' centres nearest to the scar are paced beside them; directed:
    channels are then paced from outside the ends by which nothing left (`planners.pacing.directed`); margin_ms: an
    extrastimulus is held this far above its refractory interval when the next is added;
    stop_after: sustained inductions at a site after which that site is done.
    """

    name: str
    title: str
    source: str
    sites: tuple[str, ...]
    drives: tuple[Drive, ...]
    extras: tuple[Extrastimulus, ...]
    sustained: Sustained
    stimulus_radius_mm: float
    margin_ms: float
    stop_after: int
    near_scar: int = 0
    directed: bool = False


def protocol_names() -> list[str]:
    """Names of the shipped protocols."""
    return sorted(entry.name.removesuffix(".toml") for entry in files("planners.pacing").joinpath("protocols").iterdir())


def load_protocol(name: str) -> Protocol:
    """Read a shipped protocol; an unknown name raises InputError that suggests the nearest."""
    names = protocol_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        raise InputError("plan", "protocol", f"unknown protocol {name!r}", f"{remedy}known are {', '.join(names)}")
    return parse(name, tomllib.loads(files("planners.pacing").joinpath("protocols", f"{name}.toml").read_text("utf-8")))


def parse(name: str, data: dict[str, Any]) -> Protocol:
    """Build a protocol from the tables of its TOML file; raises InputError for unknown or missing keys and impossible numbers."""
    where = f"protocol {name}"
    table = dict(data)
    try:
        drives = tuple(_record(Drive, where, "drive", d) for d in table.pop("drive"))
        extras = tuple(_record(Extrastimulus, where, "extra", e) for e in table.pop("extra"))
        sustained = _record(Sustained, where, "sustained", table.pop("sustained"))
    except KeyError as missing:
        raise InputError(where, str(missing.args[0]), "is missing", "add it, see planners/pacing/protocols/quick.toml") from None
    table |= {"name": name, "drives": drives, "extras": extras, "sustained": sustained, "sites": tuple(table.get("sites", ()))}
    protocol = _record(Protocol, where, "protocol", table)
    _check(where, protocol)
    return protocol


def _record(kind: Any, where: str, field: str, values: dict[str, Any]) -> Any:
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise InputError(
                where, f"{field}.{key}", "unknown key", f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            )
    optional = [f.name for f in fields(kind) if f.default is not MISSING]
    for key in known:
        if key not in values and key not in optional:
            raise InputError(where, f"{field}.{key}", "is missing", "add it, see planners/pacing/protocols/quick.toml")
    return kind(**values)


def _check(where: str, protocol: Protocol) -> None:
    for drive in protocol.drives:
        if drive.cycle_ms <= 0 or not 1 <= drive.computed_beats <= drive.beats:
            raise InputError(where, "drive", "needs a positive cycle and 1 <= computed_beats <= beats", "correct the protocol")
    for extra in protocol.extras:
        if not 0 < extra.floor_ms <= extra.start_ms or extra.step_ms <= 0:
            raise InputError(where, "extra", "needs 0 < floor_ms <= start_ms and a positive step", "correct the protocol")
    if not isinstance(protocol.near_scar, int) or not 0 <= protocol.near_scar <= 17:
        raise InputError(where, "near_scar", f"{protocol.near_scar!r} is not a number of segments", "write 0 to 17")
    if not isinstance(protocol.directed, bool):
        raise InputError(where, "directed", f"{protocol.directed!r} is not true or false", "write directed = true")
    if not protocol.drives or protocol.stop_after < 1 or protocol.sustained.after_ms <= 0:
        raise InputError(
            where, "drive, stop_after, sustained", "at least one drive, one induction and a positive time", "correct the protocol"
        )
