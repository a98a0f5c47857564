"""One update: everything known of the procedure against a plan, as a pure function of both: no order of events can change the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from planners.guidance.base import Attempt, Base
from planners.guidance.evidence import Taken, warnings
from planners.lesions.geometry import lesion_count
from planners.lesions.isthmus_transection import IsthmusTransection, separated
from planners.outcome import Probability
from twin.io.lesions import Delivered
from twin.io.notes import Notes
from twin.mesh import WALLS
from twin.plan import Plan, Target

Repeat: TypeAlias = dict[str, Any]
"""A train that induced VT before: site, coupling_ms, circuit, inducible (None: pending), how that is known, cycle_length_ms."""

DONE_SHARE = 0.8
"""A planned lesion is done when this share of its tissue was taken by delivered ones (chosen here)."""

TOUCHED_SHARE = 0.1
"""From this share on it was begun (chosen here)."""

FAR_MM = 12.0
"""A lesion this far from every surface that lesions are made from is not of this heart, this map or this frame (chosen here)."""


@dataclass(frozen=True)
class Guidance:
    """What an update says: the plan that is left, and the state of every target and circuit as plain numbers."""

    plan: Plan
    state: dict[str, Any]


def placed(base: Base, delivered: Delivered, notes: Notes, taken: Taken | None = None) -> list[Target]:
    """Delivered lesions on the surfaces of the mesh, one target each; sizes that were not given are the plan's.

    Where the map has moved (`taken`), lesions made since then in its frame are moved with it. Raises Suspicious (`far_lesion`) for a place
    that no catheter reaches.
    """
    position = delivered.positions_mm
    if delivered.frame == "map":
        position = base.to_mesh(position)
        if taken is not None:
            later = delivered.time_s >= taken.since_s  # without times on both sides: none
            position = np.where(later[:, None], position @ taken.correction[:3, :3].T + taken.correction[:3, 3], position)
    names = [delivered.surface] if delivered.surface else list(WALLS)
    surfaces = base.maker.surfaces(names)
    if not len(position) or not surfaces:
        return []
    away = np.stack([surface.distance_mm(position) for surface in surfaces])
    nearest = np.argmin(away, axis=0)
    far = np.flatnonzero(away.min(axis=0) > FAR_MM)
    if len(far):
        problem = f"{len(far)} lesions lie {away[:, far].min(axis=0).max():.0f} mm from the heart's surfaces"
        notes.suspect("far_lesion", "lesions", f"row {far[0] + 1}", problem, "check the frame (map or mesh), the unit and the registration")
    radius = np.where(np.isnan(delivered.radius_mm), base.request.lesion_radius_mm, delivered.radius_mm)
    depth = np.where(np.isnan(delivered.depth_mm), base.request.lesion_depth_mm, delivered.depth_mm)
    return [
        Target(
            f"D{k + 1}", [position[k].round(3).tolist()], surfaces[nearest[k]].name, float(radius[k]), float(depth[k]), k + 1, "delivered"
        )
        for k in range(len(position))
        if k not in far
    ]


def _progress(base: Base, target: Target, mask: NDArray[np.bool_]) -> list[float]:
    """Share of the tissue of each of a target's lesions that was taken."""
    shares = []
    for position in target.positions_mm:
        wanted = base.maker.mask([replace(target, positions_mm=[position])])
        volume = base.maker.volume_ml(wanted)
        shares.append(base.maker.volume_ml(wanted & mask) / volume if volume else 0.0)
    return shares


@dataclass(frozen=True)
class Known:
    """What geometry alone says at one moment: `made` lesions and the tetrahedra (m,) that they take; no train was repeated for it."""

    taken: Taken
    made: list[Target]
    mask: NDArray[np.bool_]
    targets: list[dict[str, Any]]
    circuits: dict[str, bool]


def survey(base: Base, delivered: Delivered, notes: Notes, taken: Taken | None = None) -> Known:
    """State of every target, and which isthmuses are closed. A circuit counts as closed when delivered lesions separate its isthmus."""
    made = placed(base, delivered, notes, taken)
    mask = base.maker.mask(made)
    targets = [_target_state(base, t, mask) for t in base.plan.targets]
    circuits = {name: separated(base.twin.mesh, channel, mask) for name, (_, channel) in base.channels.items()}
    return Known(taken if taken is not None else Taken(base), made, mask, targets, circuits)


def without_pacing(base: Base, known: Known) -> list[Repeat]:
    """One row per train that induced VT before; `inducible` is None where only repeating it can tell.

    Where the isthmus of its circuit still conducts the answer is known, and the time is saved; not so with updated tissue.
    """
    rows = []
    for attempt in base.attempts:
        train: Repeat = {"site": attempt.site, "coupling_ms": list(attempt.coupling_ms), "circuit": attempt.circuit}
        conducts = attempt.circuit is not None and not known.circuits.get(attempt.circuit, True) and known.taken.base is base
        how = "not repeated: the isthmus of its circuit still conducts" if conducts else "pending"
        rows.append({**train, "inducible": True if conducts else None, "how": how, "cycle_length_ms": None})
    return rows


def with_pacing(base: Base, known: Known, rows: Sequence[Repeat], cancelled: Callable[[], bool] = lambda: False) -> list[Repeat]:
    """The same rows once the pending trains were repeated in the treated heart. Raises Interrupted when `cancelled` says so."""

    def asked(attempt: Attempt, row: Repeat) -> Repeat:
        if row["inducible"] is not None:
            return row
        answer = known.taken.base.repeat(attempt, known.mask, cancelled)
        how = "repeated" if answer.captured else "repeated: the last extrastimulus was not captured"
        return {**row, "inducible": answer.inducible, "how": how, "cycle_length_ms": answer.cycle_length_ms}

    with ThreadPoolExecutor(max_workers=numba.get_num_threads()) as pool:
        return list(pool.map(asked, base.attempts, rows))


def sample_count(base: Base) -> int:
    """How many samples of the tissue can be asked beside the likeliest."""
    return min(base.request.posterior_samples, len(base.twin.tissue.samples) - 1) if base.attempts else 0


def over_samples(base: Base, known: Known, cancelled: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """The same trains in as many other samples of the tissue as the plan was made with: in how many of them none induces.

    With the 95 % interval of that share (Jeffreys). Raises Interrupted when `cancelled` says so.
    """
    paced = known.taken.base

    def free(sample: int) -> bool:
        own = paced.of_sample(sample)
        return not any(own.repeat(attempt, known.mask, cancelled).inducible for attempt in base.attempts)

    with ThreadPoolExecutor(max_workers=numba.get_num_threads()) as pool:
        found = Probability.of(list(pool.map(free, range(1, sample_count(base) + 1))))
    return {"asked": found.samples, "non_inducible": found.successes, "interval": [found.low, found.high]}


def concluded(base: Base, known: Known, repeats: Sequence[Repeat], notes: Notes, samples: dict[str, Any] | None = None) -> Guidance:
    """The plan that is left and what to say, given what is known of each train; samples: what `over_samples` gave.

    Where the lesions that are left would not close an isthmus, the smallest cut of what still conducts is added as new targets. While
    trains are pending, what is not known yet counts as inducible.
    """
    pending = sum(r["inducible"] is None for r in repeats)
    inducible = any(r["inducible"] for r in repeats)
    shown = any(r["inducible"] and r["how"].startswith("repeated") for r in repeats)
    left = _left(base, known.targets, inducible or (pending > 0 and not all(known.circuits.values())))
    extra = _extra(base, known.made, left, known.circuits) if inducible or pending else []
    remaining = [replace(t, order=k + 1) for k, t in enumerate([*left, *extra])]
    learnt = known.taken.state
    state = {
        "delivered": len(known.made),
        "delivered_volume_ml": round(base.maker.volume_ml(known.mask), 4),
        "targets": known.targets,
        "circuits": [{"id": name, "isthmus_closed": closed} for name, closed in known.circuits.items()],
        "repeated_trains": list(repeats),
        "inducible_by_repeated_trains": True if inducible else None if pending else False,
        "pending": pending,
        "samples": samples,
        "evidence": learnt,
        "remaining": [t.id for t in remaining],
        "next": _next(remaining, known.made),
        "say": " ".join(
            [_say(base, known.targets, remaining, extra, inducible, known.made, pending, shown), *_sampled(samples), *warnings(learnt)]
        ),
        "notes": list(notes.lines),
    }
    return Guidance(_plan(base, remaining, state, "tissue" in learnt), state)


def advance(base: Base, delivered: Delivered, notes: Notes, taken: Taken | None = None) -> Guidance:
    """Everything at once: state of targets, circuits and trains after the delivered lesions, and the plan that is left."""
    known = survey(base, delivered, notes, taken)
    return concluded(base, known, with_pacing(base, known, without_pacing(base, known)), notes)


def _target_state(base: Base, target: Target, mask: NDArray[np.bool_]) -> dict[str, Any]:
    shares = _progress(base, target, mask)
    done = all(s >= DONE_SHARE for s in shares)
    status = "done" if done else "begun" if max(shares) >= TOUCHED_SHARE else "open"
    return {"id": target.id, "status": status, "shares": [round(s, 3) for s in shares]}


def _left(base: Base, states: Sequence[dict[str, Any]], inducible: bool) -> list[Target]:
    """Planned lesions that are still to be made: none once nothing is inducible and every target was begun."""
    if not inducible and all(s["status"] != "open" for s in states):
        return []
    left = []
    for target, state in zip(base.plan.targets, states):
        places = [p for p, share in zip(target.positions_mm, state["shares"]) if share < DONE_SHARE]
        if places:
            left.append(replace(target, positions_mm=places))
    return left


def _extra(base: Base, made: list[Target], left: list[Target], circuits: dict[str, bool]) -> list[Target]:
    """Lesions for circuits that stay open even when everything that is left has been made."""
    mask = base.maker.mask([*made, *left])
    open_ = [c for name, (c, channel) in base.channels.items() if not circuits[name] and not separated(base.twin.mesh, channel, mask)]
    if not open_:
        return []
    found = IsthmusTransection().propose(base.twin, open_, base.request, base.sparing, [*made, *left])
    return [replace(t, id=f"G{k + 1}", why=f"gap: {t.why}") for k, t in enumerate(found)]


def _next(remaining: list[Target], made: list[Target]) -> dict[str, Any] | None:
    """The place to go to: of the first target that is left, the one nearest to the last lesion."""
    if not remaining:
        return None
    places = np.asarray(remaining[0].positions_mm, float)
    index = int(cKDTree(places).query(np.asarray(made[-1].positions_mm[0]))[1]) if made else 0
    return {"target": remaining[0].id, "position_mm": places[index].tolist(), "surface": remaining[0].surface}


def _say(
    base: Base,
    states: Sequence[dict[str, Any]],
    remaining: list[Target],
    extra: list[Target],
    inducible: bool,
    made: list[Target],
    pending: int,
    shown: bool,
) -> str:
    """The state in two or three sentences: what is done, whether VT is still there (`shown` by pacing, or only concluded), what is left."""
    done = sum(s["status"] == "done" for s in states)
    text = f"{done} of {len(states)} targets done with {_lesions(len(made))}."
    if not base.attempts:
        return f"{text} Nothing was inducible before."
    gap = f" {_lesions(len(extra))} added for a gap." if extra else ""
    following = f" Next: {remaining[0].id}, {_lesions(lesion_count(remaining))} left." if remaining else " No planned lesion is left."
    if inducible:
        waiting = f" {_trains(pending)} still being repeated." if pending else ""
        still = "VT is still inducible." if shown else "An isthmus still conducts: VT counts as inducible."
        return f"{text} {still}{waiting}{gap}{following}"
    if pending:
        return f"{text} {_trains(pending)} being repeated.{gap}{following}"
    rest = following if remaining else " Nothing is left to do; repeat the whole protocol."
    return f"{text} No train that induced VT before induces it now.{rest}"


def _sampled(samples: dict[str, Any] | None) -> list[str]:
    if not samples or not samples["asked"]:
        return []
    low, high = (100 * end for end in samples["interval"])
    return [f"In {samples['non_inducible']} of {samples['asked']} other tissue samples none of them does ({low:.0f}-{high:.0f} %)."]


def _lesions(count: int) -> str:
    return f"{count} lesion{'' if count == 1 else 's'}"


def _trains(count: int) -> str:
    return f"{count} train{' that induced VT before is' if count == 1 else 's that induced VT before are'}"


def _plan(base: Base, remaining: list[Target], state: dict[str, Any], learnt: bool) -> Plan:
    """plan.json of the update: what is left, with limits that say what was not computed again."""
    tissue = "with the tissue updated by new evidence" if learnt else "with the tissue of the plan"
    limits = (
        *base.plan.limits,
        f"Update during the procedure: {state['say']}",
        f"Update: only trains that induced VT before were repeated, {tissue}; circuits and the outcome's probability are the plan's.",
    )
    return replace(base.plan, targets=remaining, limits=limits)
