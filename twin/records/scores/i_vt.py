"""I-VT: described, never scored, because the cut-offs of its tree stand in figures that could not be read."""

from __future__ import annotations

from twin.records.scores.score import Score

I_VT = Score(
    name="i_vt",
    title="I-VT: death and recurrence after VT ablation",
    terms=(),
    outputs=(),
    source="Vergara et al., Circ Arrhythm Electrophysiol 2018, doi 10.1161/CIRCEP.118.006730",
    notes=(
        "a survival tree whose cut-offs of ejection fraction could not be read from the article: not computed rather than invented",
        "published groups: alive 97.2, 84.0, 65.0 %, free of VT 88.4, 72.4, 52.1 % (low, medium, high risk)",
    ),
    computable=False,
)
