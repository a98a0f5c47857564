"""The stage that asks monodomain about the circuits of a plan, where the case wants it."""

from __future__ import annotations

from dataclasses import asdict, replace

from planners.app.pipeline import VERSION, Line
from planners.calibration import Calibration
from planners.circuits.episode import Collected
from planners.confirm.confirm import SUSTAINED, ConfirmSettings
from planners.confirm.plan import Confirmations, confirm_plan
from planners.pacing.induce import PacingSettings
from planners.pacing.protocol import load_protocol
from twin.plan import Plan, PlanRequest
from twin.run import content_hash

MESH = (
    "Monodomain's cycle lengths are too long by about a tenth: its mesh slows fronts that curve (docs/reentry.md). "
    "It tells whether a circuit sustains itself, not how fast."
)


def confirmation(
    line: Line, calibration: Calibration, found: Collected, request: PlanRequest, settings: PacingSettings
) -> Confirmations | None:
    """What monodomain says about every circuit, None where the case does not ask; each answer is kept as soon as it is there."""
    if not request.confirm:
        return None
    how = ConfirmSettings()
    key = content_hash(VERSION, "confirm", line.stages.keys["induction"], asdict(how), request.confirm_negatives)
    return line.stages.run(
        "confirm",
        key,
        lambda folder: confirm_plan(
            calibration.twin,
            load_protocol(request.protocol),
            found.circuits,
            found.episodes,
            settings,
            how,
            negatives=request.confirm_negatives,
            sites=tuple(dict.fromkeys((*line.heart(calibration, request, settings).nodes, *(e.site for e in found.episodes.values())))),
            folder=folder,
            tell=lambda text: line.console.progress(f"  {text}"),
        ),
        lambda value, folder: value.save(folder),
        Confirmations.load,
        "Circuits by monodomain",
    )


SOURCES = {
    "circuits.evidence.monodomain": "stage confirm: the monodomain equation on the muscle round circuit and scar, started from the reduced "
    "model's phase, or paced as the circuit was induced (planners/confirm)",
    "confirmation": "stage confirm: counts over circuits and over a sample of trains that induced nothing",
}
"""What `vtwin plan --explain` says of the numbers that this stage adds."""


def with_confirmation(made: Plan, found: Confirmations | None) -> Plan:
    """The plan with what monodomain said: beside each circuit, as counts, and as limits where it does not bear the circuit out."""
    if found is None:
        return made
    doubts = [
        f"Monodomain does not bear out {name}: {c.verdict}; {c.why}."
        for name, c in found.by_circuit.items()
        if c.verdict != SUSTAINED or c.same_isthmus is False
    ]
    if any(c.cycle_length_ms is not None for c in found.by_circuit.values()):
        doubts.append(MESH)
    sample = [f"{line[0].upper()}{line[1:]}." for line in found.sample_lines()]
    return replace(
        made,
        circuits=found.on(made.circuits),
        confirmation=found.as_dict(),
        limits=[*made.limits, *doubts, *sample],
        sources={**made.sources, **SOURCES},
    )
