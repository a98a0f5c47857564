"""What the physician allows, and what is proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PlanRequest:
    """Limits and choices of the plan.

    protocol: name of a shipped stimulation protocol; sites: pacing site names (empty = the protocol's own);
    strategies: those that the plan is chosen from; compare: others that are scored beside them on the same heart;
    posterior_samples: how many tissue samples the outcome is computed over at most; access: surfaces from which lesions may be made;
    energy: setting of the energy source that gives radius and depth (planners.lesions.energy), empty: the two numbers below;
    avoid: structure -> polylines (p, k, 3) mm; drawn: lesions that the physician drew, each with surface and positions (k, 3) mm.
    """

    protocol: str = "quick"
    sites: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ("isthmus_transection", "dechannelling", "border_homogenisation")
    access: tuple[str, ...] = ("lv_endo", "rv_endo")
    max_volume_ml: float = 6.0
    max_rounds: int = 4
    lesion_radius_mm: float = 4.0
    lesion_depth_mm: float = 6.0
    posterior_samples: int = 8
    compare: tuple[str, ...] = ()
    energy: Mapping[str, Any] = field(default_factory=dict)
    avoid: Mapping[str, Sequence[Sequence[Sequence[float]]]] = field(default_factory=dict)
    drawn: tuple[Mapping[str, Any], ...] = ()
    confirm: bool = False
    """Ask monodomain about every circuit, and about `confirm_negatives` trains that induced nothing."""
    confirm_negatives: int = 0
    vote: bool = False
    """Pace with four other settings of the reduced model too: how many of them induce from a site is said with it."""

    @staticmethod
    def of(raw: Mapping[str, Any]) -> PlanRequest:
        """From the plain values of a run record, whose lists were tuples. Raises TypeError for fields that this version does not have."""
        given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return PlanRequest(**given)


@dataclass(frozen=True)
class Induction:
    """One attempt to start VT: where, how, and what came of it."""

    site: str
    protocol: str
    coupling_ms: tuple[float, ...]
    induced: bool
    captured: bool
    cycle_length_ms: float | None = None
    sustained_ms: float = 0.0
    circuit: str | None = None
    note: str = ""
    kind: str = ""
    """monomorphic, polymorphic or non-sustained; empty where nothing reentered."""


@dataclass(frozen=True)
class Circuit:
    """One reentry circuit: path of the wavefront over one cycle, and the isthmus that it needs.

    path_mm, isthmus_mm: polylines of (x, y, z) mm in mesh space, in the direction of the wave.
    """

    id: str
    cycle_length_ms: float
    path_mm: Sequence[Sequence[float]]
    isthmus_mm: Sequence[Sequence[float]]
    isthmus_width_mm: float
    entrance_mm: Sequence[float]
    exit_mm: Sequence[float]
    segment: int
    sites: Sequence[str] = ()
    centre_mm: Sequence[float] = ()
    isthmus_length_mm: float = 0.0
    isthmus_velocity_m_s: float = 0.0
    depth: str = "unknown"
    """Where in the wall the isthmus runs: endo, mid, epi, transmural or unknown."""
    figure_of_eight: bool = False
    cycle_variation_ms: float = 0.0
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What else was asked of it: settled cycle, entrainment, pace-maps. Numbers, words and truth values only."""


@dataclass(frozen=True)
class Target:
    """One lesion to make: positions on a surface, radius and depth, and why."""

    id: str
    positions_mm: Sequence[Sequence[float]]
    surface: str
    radius_mm: float
    depth_mm: float
    order: int
    why: str
    circuits: Sequence[str] = ()
    transmural_probability: float | None = None
    """Mean over its positions of the probability that the lesion crosses the wall; None: not computed."""
    nearest: Mapping[str, float] = field(default_factory=dict)
    """Structure to be spared -> distance of the nearest lesion, mm; only those that were given."""


@dataclass(frozen=True)
class Plan:
    """What is proposed, with its evidence, alternatives and probability; `as_dict` is `plan.json`."""

    patient: Mapping[str, Any]
    mesh: Mapping[str, Any]
    tissue: Mapping[str, Any]
    inductions: Sequence[Induction]
    circuits: Sequence[Circuit]
    targets: Sequence[Target]
    alternatives: Sequence[Mapping[str, Any]]
    outcome: Mapping[str, Any]
    limits: Sequence[str]
    run: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    """Key of this file -> which stage and which input made the number (`vtwin plan --explain KEY`)."""
    channels: Sequence[Mapping[str, Any]] = ()
    """Potential channels through the scar, from geometry and conduction alone, and which circuits use them."""
    clinical_vts: Sequence[Mapping[str, Any]] = ()
    """Recorded VTs of the case: which simulated one each is like, or that none matches."""
    confirmation: Mapping[str, Any] = field(default_factory=dict)
    """How the reduced model did against monodomain (planners.confirm); empty where that was not asked for."""

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary in the layout of `plan.json`."""
        return asdict(self)
