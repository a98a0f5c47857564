"""What captures beside refractory tissue: the reduced model and monodomain's coarse lattice against its fine one, from kept figures."""

from __future__ import annotations

import pytest

from planners.confirm.capture import S2_MS, S3_MS, load, reduced, table

FINE, COARSE = "0.27", "0.8"
LATE_MS = 20.0
"""Beyond this latency a few ms of coupling decide."""


def earliest(row: dict[str, float | None]) -> float:
    """The shortest interval that captured, ms."""
    return min(float(coupling) for coupling, latency in row.items() if latency is not None)


def test_a_coarse_lattice_captures_within_a_few_ms_of_what_a_fine_one_captures():
    fine, coarse = load()[FINE], load()[COARSE]
    for name in ("s2_ms", "s3_ms"):
        assert abs(earliest(fine[name]) - earliest(coarse[name])) <= 8.0
        for coupling, latency in fine[name].items():
            if latency is not None and latency < 9.0:
                assert coarse[name][coupling] == pytest.approx(latency, abs=4.0)


def test_the_reduced_models_latency_is_monodomains():
    fine, eikonal = load()[FINE], reduced()
    for name, couplings in (("s2_ms", S2_MS), ("s3_ms", S3_MS)):
        assert list(eikonal[name]) == [f"{c:g}" for c in couplings]
        both = [(fine[name][c], late) for c, late in eikonal[name].items() if fine[name][c] is not None and fine[name][c] < LATE_MS]
        assert len(both) >= 4
        for slow, late in both:
            assert late == pytest.approx(slow, abs=4.0)


def test_the_table_has_a_row_for_every_stimulus():
    lines = table(load()).splitlines()
    assert len(lines) == 2 + len(S2_MS) + len(S3_MS)
    assert lines[0].count("|") == len(load()) + 3
