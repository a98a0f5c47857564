"""The [clinical] table in a plan: priors of velocity and duration from the evidence, the restitution with them, and the scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from planners.app.drug_priors import drug_shifts
from planners.pacing.induce import PacingSettings
from solvers.eikonal.restitution import load_tables, scaled
from twin.calibrate.evidence_effects import fact_shifts, image_evidence, repolarisation
from twin.calibrate.evidence_priors import REGIONS, EvidencePriors, update
from twin.calibrate.thresholds import HEALTHY_MV, SCAR_MV
from twin.case import Case
from twin.errors import InputError
from twin.imaging.lge import classify
from twin.imaging.thickness import wall_thickness
from twin.patient import Patient
from twin.records.clinical import Clinical, read_clinical
from twin.records.patient_file import score_facts
from twin.records.scores import SCORES, Score

CYCLE_MS = 600.0
VOLTAGE_MV = (float(SCAR_MV), float(HEALTHY_MV))
"""Bipolar voltage of border zone."""
LEAST_POINTS = 20
ALWAYS = "painesd"


@dataclass(frozen=True)
class ClinicalTwin:
    """What the evidence did to this twin's tissue (priors None: no [clinical] table), and the facts that scores use."""

    priors: EvidencePriors | None = None
    clinical: Clinical | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)

    def case(self, case: Case) -> Case:
        """The case with the evidence's ranges for every velocity whose range it does not give itself."""
        return case if self.priors is None else replace(case, tissue={**self.priors.velocity_ranges(), **case.tissue})

    def settings(self) -> PacingSettings:
        """Pacing with the shipped restitution, its durations scaled to this patient."""
        return PacingSettings() if self.priors is None else PacingSettings(tables=scaled(self.priors.apd_factors()))

    def recorded(self) -> dict[str, Any]:
        """What of `settings` a later program needs to pace as this plan did: empty, or factors of duration by region."""
        return {} if self.priors is None else {"apd_factors": dict(self.priors.apd_factors())}

    def as_dict(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """For plan.json: influences, what they changed, and the two kinds of risk with their labels."""
        return {**self._tissue(), "risk": risks(self.facts, outcome)}

    def _tissue(self) -> dict[str, Any]:
        if self.priors is None or self.clinical is None:
            return {}
        return {
            "facts": {key: {"value": value, "from": self.clinical.origin[key]} for key, value in self.clinical.facts.items()},
            "drugs": [drug.name for drug in self.clinical.drugs],
            "influences": [step.as_dict() for step in self.priors.steps],
            "repolarisation": repolarisation_table(self.priors.apd_factors()),
        }


def clinical_twin(case: Case, patient: Patient, tell: Callable[[str], None]) -> ClinicalTwin:
    """Read the [clinical] table and update the published priors. Raises InputError for what cannot be right in it."""
    if case.clinical_facts is None:
        record = patient.record.value if patient.record is not None else {}
        return ClinicalTwin(facts=score_facts(record))
    clinical = read_clinical(case.clinical_facts, case.clinical_files, case.path)
    tell("tissue priors from the clinical evidence ...")
    shifts, notes = drug_shifts(clinical.drugs, lambda line: tell(f"  {line}"))
    seen = seen_by_images(patient) if clinical.images else {}
    found = update([*fact_shifts(clinical.facts), *shifts, *image_evidence(seen), *repolarisation(clinical.facts)])
    limits = [f"Facts differ: {conflict}." for conflict in clinical.conflicts]
    given = [name for name in case.tissue if name.endswith("_m_s")]
    if given:
        limits.append(f"Ranges of the case's [tissue] tables stand in place of the evidence's for: {', '.join(given)}.")
    limits += [
        *notes,
        "Tissue priors follow the [clinical] table: sizes of most influences were chosen, not measured; docs/priors.md.",
        "Durations of the action potential are paced at their median; their spread is not in the outcome's samples.",
    ]
    return ClinicalTwin(found, clinical, tuple(limits), score_facts(clinical.facts))


def repolarisation_table(factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """APD and effective refractory period of each region before and after, ms at CYCLE_MS."""
    before, after = load_tables(), scaled(factors)
    rows = []
    for region in REGIONS:
        pair = before[region], after[region]
        apd = [table.steady_apd_ms(CYCLE_MS) for table in pair]
        # the shortest coupling that excites again: the shortest rest after it
        erp = [duration + table.di_min_ms for duration, table in zip(apd, pair, strict=True)]
        rows.append({"region": region, "apd_ms": [round(v, 1) for v in apd], "erp_ms": [round(v, 1) for v in erp]})
    return rows


def seen_by_images(patient: Patient) -> dict[str, float]:
    """Enhancement, wall thickness and voltage of border zone and healthy muscle, of what this patient has."""
    volume = patient.labels.value
    border, healthy = volume.mask("border_zone", "isthmus"), volume.mask("lv_myocardium", "myocardium")
    seen: dict[str, float] = {}
    if border.any():
        with suppress(InputError):  # a heart that is cut off above the base has no thickness; the plan does without it
            thick = wall_thickness(volume)
            at = border & thick.wall & np.isfinite(thick.mm)
            if at.any():
                seen["border_thickness_mm"] = float(np.median(thick.mm[at]))
        if patient.lge is not None:
            found = classify(patient.lge.value, volume)
            share = found.levels.normalised(found.values.astype(np.float64))
            for name, mask in (("border_intensity", border), ("healthy_intensity", healthy)):
                inside = mask & np.isfinite(share)
                if inside.any():
                    seen[name] = float(share[inside].mean())
    if patient.eam is not None:
        mv = patient.eam.value.bipolar_mv[np.isfinite(patient.eam.value.bipolar_mv)]
        low, high = mv[(mv >= VOLTAGE_MV[0]) & (mv < VOLTAGE_MV[1])], mv[mv >= VOLTAGE_MV[1]]
        if min(len(low), len(high)) >= LEAST_POINTS:
            seen |= {"border_mv": float(np.median(low)), "healthy_mv": float(np.median(high))}
    return seen


def risks(facts: Mapping[str, float], outcome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Published scores and the mechanistic probability side by side; neither is turned into the other."""
    rows: list[dict[str, Any]] = []
    for score in SCORES if facts else ():
        if not _fits(score, facts):
            continue
        answer = score.answer(facts)
        for result in answer.results:
            rows.append(
                {
                    "kind": "published score",
                    "name": f"{answer.title}, {result['name']}",
                    "low": round(result["low"], 3),
                    "high": round(result["high"], 3),
                    "unit": result["unit"],
                    "band": " or ".join(result["bands"]),
                    "missing": list(answer.missing),
                    "source": answer.source,
                }
            )
    low, high = outcome["interval"]
    rows.append(
        {
            "kind": "mechanistic probability",
            "name": "nothing inducible after the proposed lesions, over tissue samples of this twin",
            "low": low,
            "high": high,
            "unit": "probability",
            "band": "",
            "missing": [],
            "source": "simulated in this heart; never compared with what became of patients: not a probability of recurrence",
        }
    )
    return rows


def _fits(score: Score, facts: Mapping[str, float]) -> bool:
    """PAINESD is for every patient before ablation; another score only where its diagnosis is stated."""
    return score.name == ALWAYS or (bool(score.requires) and all(facts.get(key) == 1.0 for key, _ in score.requires))
