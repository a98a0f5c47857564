"""MappingStudy: one map of a mapping system as it was recorded: points, surface, and electrograms that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.io.surfaces import Surface
from twin.patient import LEADS, Ecg, ElectroanatomicalMap

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""What is being read, how much is done, how much there is."""

UNVERIFIED = "written from the published description of the format; not verified on the vendor's hardware"
MAX_MV = 5000.0
"""No electrode records more, pacing included: a larger sample is damage."""

LANDMARKS = (
    "lv_apex",
    "mitral_centre",
    "mid_septum_lv",
    "lateral_wall_lv",
    "anterior_base_lv",
    "inferior_base_lv",
    "rv_apex",
    "tricuspid_centre",
)
"""Labels that name a place on the mesh too (`meshing.sites.landmarks`); spelt in any case, with blanks, hyphens or underscores."""


@dataclass(frozen=True)
class Recording:
    """What was recorded at one point: channel -> (n,) mV at `fs_hz`; the channels (or "") on which the point was annotated.

    reference_ms, map_ms: the annotations as times after the first sample, NaN where there is none.
    """

    fs_hz: float
    channels: Mapping[str, Array]
    bipolar: str = ""
    unipolar: str = ""
    reference: str = ""
    reference_ms: float = float("nan")
    map_ms: float = float("nan")

    def ecg(self, rhythm: str = "sinus") -> Ecg | None:
        """The twelve leads among the channels, or None if any of them is missing."""
        found = {name.upper(): values for name, values in self.channels.items()}
        if not all(lead.upper() in found for lead in LEADS):
            return None
        return Ecg({lead: found[lead.upper()] for lead in LEADS}, self.fs_hz, rhythm)


class Recordings(Protocol):
    """Recordings by point, read from the file one at a time; a study of any size needs the memory of one."""

    def __len__(self) -> int:
        """Number of points, with or without recording."""

    def read(self, index: int) -> Recording | None:
        """The recording of one point, None where there is none. Raises InputError for damage."""


class NoRecordings:
    """A map without electrograms."""

    def __init__(self, points: int) -> None:
        self.points = points

    def __len__(self) -> int:
        """Number of points."""
        return self.points

    def read(self, index: int) -> Recording | None:
        """Always None."""
        return None


def _missing(n: int) -> Array:
    return np.full(n, np.nan)


@dataclass(frozen=True, eq=False)
class MappingStudy:
    """One map. Lengths in mm, times in ms, voltages in mV, in the mapping system's own frame; NaN where nothing was measured.

    points_mm (n, 3) tip of the catheter; surface_mm (n, 3) its projection; lat_ms, bipolar_mv, unipolar_mv (n,); reference_ms,
    map_ms (n,) annotations after the first sample; ari_ms (n,) activation-recovery intervals where somebody measured them; window_ms
    (n, 2) window of interest about the reference; point_ids (n,) int64;
    surface: the system's shell with scalar fields (lat_ms, bipolar_mv, unipolar_mv where it has them), or None; labels: name -> (3,);
    recordings: electrograms, read when asked for. No name, date or number of a patient or study is kept.
    """

    name: str
    system: str
    points_mm: Array
    lat_ms: Array
    bipolar_mv: Array
    unipolar_mv: Array
    point_ids: NDArray[np.int64]
    surface: Surface | None = None
    surface_mm: Array = field(default_factory=lambda: np.zeros((0, 3)))
    reference_ms: Array = field(default_factory=lambda: np.zeros(0))
    map_ms: Array = field(default_factory=lambda: np.zeros(0))
    window_ms: Array = field(default_factory=lambda: np.zeros((0, 2)))
    labels: Mapping[str, Array] = field(default_factory=dict)
    recordings: Recordings = field(default_factory=lambda: NoRecordings(0))
    leads: Ecg | None = None
    """The surface ECG where the export keeps it apart from the points."""
    notes: tuple[str, ...] = ()
    ari_ms: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        """What was left out becomes NaN for every point; InputError for what is there, but not for every point."""
        n = len(self.points_mm)
        for name, empty in (("surface_mm", (n, 3)), ("reference_ms", (n,)), ("map_ms", (n,)), ("window_ms", (n, 2))):
            if len(getattr(self, name)) == 0:
                object.__setattr__(self, name, np.full(empty, np.nan))
        if len(self.recordings) == 0:
            object.__setattr__(self, "recordings", NoRecordings(n))
        for name in ("lat_ms", "bipolar_mv", "unipolar_mv", "point_ids", "surface_mm", "reference_ms", "map_ms", "window_ms", "recordings"):
            if len(getattr(self, name)) != n:
                raise InputError(self.system, name, f"has {len(getattr(self, name))} entries for {n} points", "export the map again")

    def __len__(self) -> int:
        return len(self.points_mm)

    def electrograms(self, progress: Progress | None = None) -> Iterator[tuple[int, Recording]]:
        """Recordings in the order of the points, one in memory at a time; points without one are passed over."""
        total = len(self)
        for index in range(total):
            found = self.recordings.read(index)
            if found is not None:
                yield index, found
            if progress is not None and (index % 100 == 99 or index + 1 == total):
                progress("electrograms", index + 1, total)

    def ecg(self, rhythm: str = "sinus") -> Ecg | None:
        """The twelve leads: the export's own, else those recorded with the first point that has them all, or None."""
        if self.leads is not None:
            return self.leads
        return next((leads for _, _, leads in self.recorded_leads(rhythm)), None)

    def recorded_leads(self, rhythm: str = "sinus") -> Iterator[tuple[int, Recording, Ecg]]:
        """Of the first points those that were recorded with all twelve leads: number, recording, leads."""
        for index in range(min(len(self), 20)):
            found = self.recordings.read(index)
            if found is not None and (leads := found.ecg(rhythm)) is not None:
                yield index, found, leads

    def eam(self, surface: str = "lv_endo", rhythm: str = "sinus") -> ElectroanatomicalMap:
        """The map as the rest of vtwin uses it: points of contact with times and voltages, landmarks among the labels."""
        places = {landmark: place for name, place in self.labels.items() if (landmark := as_landmark(name))}
        return ElectroanatomicalMap(self.points_mm, self.lat_ms, self.bipolar_mv, surface, rhythm, places, self.unipolar_mv, self.ari_ms)


def as_landmark(name: str) -> str:
    """The landmark that a label names, or ""."""
    plain = "_".join(name.lower().replace("-", " ").replace("_", " ").split())
    return plain if plain in LANDMARKS else ""


def from_surface(name: str, system: str, surface: Surface, labels: Mapping[str, Array], notes: Sequence[str] = ()) -> MappingStudy:
    """A map that came as a surface with values alone: its vertices are the points."""
    n = len(surface.points_mm)

    def values(field_name: str) -> Array:
        return np.asarray(surface.point_data.get(field_name, _missing(n)), np.float64)

    return MappingStudy(
        name,
        system,
        surface.points_mm,
        values("lat_ms"),
        values("bipolar_mv"),
        values("unipolar_mv"),
        np.arange(1, n + 1),
        surface,
        surface.points_mm,
        labels=dict(labels),
        notes=tuple(notes),
    )
