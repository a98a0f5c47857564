"""Frames of a study sorted into stacks by where they lie: series numbers and file names say nothing about space.

A stack is one orientation of one kind of picture. Planes come from positions (never from slice thickness), frames of one plane
from their time in the beat; series of a single plane each, as cine and late enhancement often are, join into one stack.
What is improbable about a stack (missing, uneven, doubled slices, mixed orientations or sizes) is kept with it and said when it is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.dicom_frames import Frame
from twin.io.notes import Notes

SAME_DIRECTION = 2e-3
"""Direction cosines of one stack may differ by this much (0.1 degrees)."""

SAME_PLANE_MM = 0.05
SAME_TIME_MS = 0.5
EVEN = 0.02
"""Steps between slices may differ by this share; positions are written with limited digits."""

MAX_STEP_MM = 60.0


class Doubt(NamedTuple):
    """A suspicious finding about a stack, said when the stack is read: arguments of `Notes.suspect`."""

    code: str
    field: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Stack:
    """Parallel planes, sorted along their normal; planes[k] holds the frames of one plane in the order of time.

    doubles: (kept, other) frames of one place and time. numbers: the series numbers it came from.
    """

    planes: tuple[tuple[Frame, ...], ...]
    doubles: tuple[tuple[Frame, Frame], ...] = ()
    doubts: tuple[Doubt, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Frame:
        """The first frame of the first plane."""
        return self.planes[0][0]

    @property
    def cine(self) -> bool:
        """True if planes were measured at several times of the beat."""
        return any(len(plane) > 1 for plane in self.planes)

    @property
    def mapping(self) -> bool:
        """True if the frames of a plane differ in inversion time: an inversion scout or T1 mapping, neither a volume nor a cine."""
        return any(len({f.inversion_ms for f in plane if f.inversion_ms is not None}) > 2 for plane in self.planes)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Series numbers, sorted."""
        return tuple(sorted({frame.number for plane in self.planes for frame in plane}))

    @property
    def depths_mm(self) -> NDArray[np.float64]:
        """Place of each plane along the normal, (nk,) mm."""
        return np.array([plane[0].position @ self.first.normal for plane in self.planes])

    @property
    def step_mm(self) -> float:
        """Distance of neighbouring planes (the lower median); of a single plane its thickness, or 1 mm if that is not said."""
        if len(self.planes) == 1:
            return self.first.thickness_mm or 1.0
        steps = np.sort(np.diff(self.depths_mm))
        return float(steps[(len(steps) - 1) // 2])

    def describe(self) -> str:
        """One line: kind, planes, frames, series numbers."""
        frames = sorted({len(plane) for plane in self.planes})
        times = f" x {'-'.join(map(str, frames))} frames" if self.cine else ""
        numbers = ", ".join(map(str, self.numbers[:6])) + (" ..." if len(self.numbers) > 6 else "")
        storage = self.first.storage
        return f"{self.first.modality} {storage.columns} x {storage.rows}, {len(self.planes)} planes{times}, series {numbers}"


def _near(a: Frame, b: Frame) -> bool:
    far = max(np.abs(a.along_row - b.along_row).max(), np.abs(a.along_column - b.along_column).max())
    return bool(far < SAME_DIRECTION)


def _size(frame: Frame) -> tuple[int | float, ...]:
    return frame.storage.rows, frame.storage.columns, round(frame.pixel_mm[0], 4), round(frame.pixel_mm[1], 4)


def _by_direction(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Frames sorted into groups of one orientation."""
    out: list[list[Frame]] = []
    for frame in frames:
        home = next((group for group in out if _near(group[0], frame)), None)
        if home is None:
            out.append([frame])
        else:
            home.append(frame)
    return out


def _by_plane(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one orientation sorted into planes along the normal."""
    normal = frames[0].normal
    planes: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda f: float(f.position @ normal)):
        if planes and (frame.position - planes[-1][0].position) @ normal < SAME_PLANE_MM:
            planes[-1].append(frame)
        else:
            planes.append([frame])
    return planes


def _times(plane: Sequence[Frame]) -> list[float]:
    """A number per frame that orders it in time: trigger time, else temporal position; 0 for all if neither is said."""
    for values in ([f.trigger_ms for f in plane], [f.temporal for f in plane]):
        known = [float(v) for v in values if v is not None]
        if len(known) == len(plane) and max(known) - min(known) > SAME_TIME_MS:
            return known
    return [0.0] * len(plane)


def _in_time(plane: Sequence[Frame]) -> tuple[list[Frame], list[tuple[Frame, Frame]]]:
    """Frames in the order of time, and the pairs that claim the same time; the later acquisition is kept."""
    order = sorted(zip(_times(plane), plane, strict=True), key=lambda pair: (pair[0], pair[1].order))
    kept: list[tuple[float, Frame]] = []
    doubles: list[tuple[Frame, Frame]] = []
    for time, frame in order:
        if kept and time - kept[-1][0] < SAME_TIME_MS:
            doubles.append((frame, kept[-1][1]))
            kept[-1] = (kept[-1][0], frame)
        else:
            kept.append((time, frame))
    return [frame for _, frame in kept], doubles


def _numbered(planes: Sequence[Sequence[Frame]]) -> bool:
    """True for a cine whose frames say no times, only instance numbers: as many in each plane, at least three, all different."""
    counts = {len(plane) for plane in planes}
    unsaid = all(f.trigger_ms is None and f.temporal is None for plane in planes for f in plane)
    return unsaid and len(counts) == 1 and min(counts) > 2 and all(len({f.order for f in plane}) == len(plane) for plane in planes)


def _stack(frames: Sequence[Frame]) -> Stack:
    """One stack of frames of one series, size, kind and orientation."""
    planes = _by_plane(frames)
    doubts: list[Doubt] = []
    if any(frame.burned_in for frame in frames):
        doubts.append(
            Doubt("burned_in_text", "BurnedInAnnotation", "text is drawn into the pictures: a name may be", "export them without")
        )
    if _numbered(planes):
        note = "cine frames carry no trigger times: they are taken as evenly spread over the beat, in the order of their numbers"
        return Stack(tuple(tuple(sorted(plane, key=lambda f: f.order)) for plane in planes), doubts=tuple(doubts), notes=(note,))
    counts = sorted(len(plane) for plane in planes)
    still = counts[(len(counts) - 1) // 2] == 1
    out: list[tuple[Frame, ...]] = []
    doubles: list[tuple[Frame, Frame]] = []
    for plane in planes:
        if still:
            *others, kept = sorted(plane, key=lambda f: f.order)
            out.append((kept,))
            doubles += [(kept, other) for other in others]
        else:
            ordered, twice = _in_time(plane)
            out.append(tuple(ordered))
            doubles += twice
    if any(frame.burned_in for frame in frames):
        doubts.append(
            Doubt("burned_in_text", "BurnedInAnnotation", "text is drawn into the pictures: a name may be", "export them without")
        )
    lengths = {len(plane) for plane in out}
    if len(lengths) > 1:
        problem = f"planes of one series have {min(lengths)} to {max(lengths)} frames"
        doubts.append(Doubt("missing_frames", "TriggerTime", problem, "export the series again, whole"))
    return Stack(tuple(out), tuple(doubles), tuple(doubts))


def _mixed(stacks: Sequence[Stack]) -> Doubt | None:
    """Doubt about a series that holds a volume and some stray pictures; views that turn about an axis and scouts are no doubt."""
    counts = sorted((len(stack.planes) for stack in stacks), reverse=True)
    if len(stacks) < 2 or counts[0] < 4 or counts[1] == counts[0]:
        return None
    sizes = {_size(stack.first) for stack in stacks}
    what = "sizes" if len(sizes) > 1 else "orientations"
    field = "Rows" if len(sizes) > 1 else "ImageOrientationPatient"
    problem = f"one series mixes {len(stacks)} {what}: {', '.join(map(str, counts[:6]))} planes"
    return Doubt(f"mixed_{what}", field, problem, "export the stack alone")


def _join(stacks: Sequence[Stack], notes: Notes) -> list[Stack]:
    """Stacks of a single plane that belong together (same kind, size, direction and frame of reference) as one stack."""
    out = [stack for stack in stacks if len(stack.planes) > 1]
    pools: list[list[Stack]] = []
    for stack in sorted((s for s in stacks if len(s.planes) == 1), key=lambda s: -s.first.number):
        a = stack.first
        for pool in pools:
            b = pool[0].first
            alike = (a.modality, a.kind, a.reference, a.thickness_mm, _size(a), stack.cine) == (
                *(b.modality, b.kind, b.reference, b.thickness_mm, _size(b)),
                pool[0].cine,
            )
            apart = [abs((a.position - other.first.position) @ a.normal) for other in pool]
            if alike and _near(a, b) and min(apart) <= MAX_STEP_MM:
                if min(apart) < SAME_PLANE_MM:
                    notes.add(f"series {a.number} repeats the plane of a later series and is kept apart from its stack")
                    continue
                pool.append(stack)
                break
        else:
            pools.append([stack])
    for pool in pools:
        depths = [float(stack.first.position @ pool[0].first.normal) for stack in pool]
        pool = [pool[i] for i in np.argsort(depths)]
        out.append(
            Stack(
                tuple(s.planes[0] for s in pool),
                tuple(pair for s in pool for pair in s.doubles),
                tuple(doubt for s in pool for doubt in s.doubts),
                tuple(dict.fromkeys(note for s in pool for note in s.notes)),
            )
        )
    return out


def _spaced(stack: Stack) -> Stack:
    """The stack with a doubt if its planes are not evenly spaced."""
    steps = np.diff(stack.depths_mm)
    if len(steps) < 2:
        return stack
    ratio = steps / stack.step_mm
    gaps = np.rint(ratio)
    if np.abs(ratio - 1).max() <= max(EVEN, SAME_PLANE_MM / stack.step_mm):
        return stack
    if np.abs(ratio - gaps).max() < 0.1:
        missing = int((gaps - 1).sum())
        doubt = Doubt(
            "missing_slices", "ImagePositionPatient", f"{missing} slices are missing between the others", "export the series whole"
        )
    else:
        problem = f"slices lie {steps.min():.2f} to {steps.max():.2f} mm apart"
        doubt = Doubt("uneven_slices", "ImagePositionPatient", problem, "export one evenly spaced stack")
    return Stack(stack.planes, stack.doubles, (*stack.doubts, doubt), stack.notes)


def sort_frames(frames: Sequence[Frame], where: str, notes: Notes) -> list[Stack]:
    """All stacks in a study, largest first. Raises InputError; Suspicious if the files are of several patients."""
    patients, places = len({f.patient for f in frames}), len({f.reference for f in frames})
    if patients > 1:
        notes.suspect("several_patients", where, "PatientID", f"the files are of {patients} patients", "give one patient's images")
    if places > 1:
        notes.add(f"the images have {places} frames of reference: the patient may have moved between them")
    groups: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.series, frame.modality, frame.kind, _size(frame)].append(frame)
    by_series: dict[tuple[object, ...], list[Stack]] = defaultdict(list)
    for key, members in groups.items():
        by_series[key[:3]] += [_stack(group) for group in _by_direction(members)]
    stacks: list[Stack] = []
    for alike in by_series.values():
        doubt = _mixed(alike)
        stacks += [Stack(s.planes, s.doubles, (*s.doubts, *([doubt] if doubt else [])), s.notes) for s in alike]
    out = [_spaced(stack) for stack in _join(stacks, notes)]
    for stack in out:
        if stack.step_mm > MAX_STEP_MM:
            raise InputError(where, "ImagePositionPatient", f"slices lie {stack.step_mm:.0f} mm apart", "give one stack of slices")
    return sorted(out, key=lambda s: (-len(s.planes), s.numbers, s.first.position.tolist()))
