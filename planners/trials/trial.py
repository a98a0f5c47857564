"""What a trial is: population, arms, endpoints, analysis plan. Frozen; `as_dict` is what is hashed into trial.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from twin.run import content_hash

FIDELITIES = ("toy", "quick", "standard")


@dataclass(frozen=True)
class Outcome:
    """A column of results.parquet. kind: bool, int or float; better: `higher`, `lower` or empty; harm: shown among the harms."""

    label: str
    kind: str
    unit: str = ""
    better: str = ""
    harm: bool = False


OUTCOMES = {
    "non_inducible": Outcome("nothing inducible", "bool", better="higher"),
    "vt_cycle_length_ms": Outcome("cycle length of the VT that is left", "float", "ms", "higher"),
    "lesion_volume_ml": Outcome("volume of lesions", "float", "mL", "lower", harm=True),
    "healthy_lost_ml": Outcome("healthy tissue lost", "float", "mL", "lower", harm=True),
    "healthy_lost_percent": Outcome("healthy tissue lost", "float", "% of all healthy tissue", "lower", harm=True),
    "lesions": Outcome("number of lesions", "int", "", "lower", harm=True),
    "lesions_near_septal_base": Outcome("lesions near the conduction system", "int", "", "lower", harm=True),
    "activation_delay_ms": Outcome("last activation in sinus rhythm, later by", "float", "ms", "lower", harm=True),
    "residual_circuits": Outcome("circuits left", "int", "", "lower"),
}


@dataclass(frozen=True)
class Population:
    """folder: of cases, relative to the trial file, with `cases` name -> hash of all evidence; or `virtual`: how many twins are enrolled.

    ranges: parameter -> (low, high) in its unit, in place of the published ones; include: measure -> (low, high), truth values as (1, 1);
    plausible: measure -> (low, high), in place of the published limits; max_candidates: after how many the search for twins ends.
    """

    folder: str = ""
    cases: Mapping[str, str] = field(default_factory=dict)
    virtual: int = 0
    max_candidates: int = 0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    include: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    plausible: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One arm. strategy: a lesion strategy or `none`; request: fields of PlanRequest that this arm sets, the energy of the device among
    them; velocity, apd_ms: what a drug does to conduction (factor) and to the action potential (ms longer), and `drug`, which one, if
    it was named; scar_shift_mm: how much larger than it is the scar looks to whoever plans, by the threshold that was chosen (negative:
    smaller); search: lesions are re-tested, grown and pruned as in `vtwin plan` instead of being made as the strategy proposes them.
    """

    name: str
    strategy: str = "none"
    request: Mapping[str, Any] = field(default_factory=dict)
    velocity: float = 1.0
    apd_ms: float = 0.0
    drug: str = ""
    scar_shift_mm: float = 0.0
    search: bool = False
    title: str = ""


@dataclass(frozen=True)
class Endpoint:
    """A comparison of two arms by one outcome. test: `superiority` or `non_inferiority` with `margin` in the outcome's unit."""

    outcome: str
    first: str
    second: str
    test: str = "superiority"
    margin: float = 0.0


@dataclass(frozen=True)
class Analysis:
    """alpha: two-sided; looks: shares of the twins at which the primary endpoint is looked at, the last is 1; stop: end the trial at a
    look that crosses its boundary; subgroups: columns of twins.parquet.
    """

    alpha: float = 0.05
    looks: tuple[float, ...] = (1.0,)
    spending: str = "obrien_fleming"
    stop: bool = False
    subgroups: tuple[str, ...] = ("territory", "sex")
    bootstrap: int = 4000


@dataclass(frozen=True)
class Trial:
    """A whole trial. samples: nested posterior samples of each twin, the first is the mode; sites, protocol: of every stimulation."""

    name: str
    title: str
    seed: int
    fidelity: str
    population: Population
    arms: tuple[Arm, ...]
    primary: Endpoint
    secondary: tuple[Endpoint, ...] = ()
    analysis: Analysis = Analysis()
    samples: int = 1
    protocol: str = "quick"
    sites: tuple[str, ...] = ()
    edge_mm: float = 2.5
    options: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for trial.json."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Hash of everything that the protocol says."""
        return content_hash(self.as_dict())

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(a for a in self.arms if a.name == name)


def from_dict(value: Mapping[str, Any]) -> Trial:
    """The trial that `as_dict` gave, after a round through JSON."""
    population = dict(value["population"])
    for key in ("ranges", "include", "plausible"):
        population[key] = {name: (low, high) for name, (low, high) in population[key].items()}
    analysis = {**value["analysis"], "looks": tuple(value["analysis"]["looks"]), "subgroups": tuple(value["analysis"]["subgroups"])}
    arms = tuple(
        Arm(**{**a, "request": {k: tuple(v) if isinstance(v, list) else v for k, v in a["request"].items()}}) for a in value["arms"]
    )
    return Trial(
        **{
            **value,
            "population": Population(**population),
            "arms": arms,
            "primary": Endpoint(**value["primary"]),
            "secondary": tuple(Endpoint(**e) for e in value["secondary"]),
            "analysis": Analysis(**analysis),
            "sites": tuple(value["sites"]),
        }
    )
