"""Statistics of trials against published worked examples, statsmodels and enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from planners.trials.statistics.looks import SPENDING, boundaries
from planners.trials.statistics.paired import over_posterior, paired_bootstrap
from planners.trials.statistics.proportions import (
    Pairs,
    holm,
    mcnemar_exact,
    mcnemar_power,
    mcnemar_sample_size,
    newcombe,
    non_inferior,
    wilson,
)
from planners.trials.statistics.sobol import indices, surrogate_indices


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_is_the_interval_of_statsmodels(successes, extra):
    from statsmodels.stats.proportion import proportion_confint

    n = successes + extra
    assert wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)


def test_wilson_of_newcombes_example():
    # Newcombe, Stat Med 1998;17:857, table I: 81 of 263
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_test_of_statsmodels(b, c):
    from statsmodels.stats.contingency_tables import mcnemar

    expected = mcnemar([[5, b], [c, 7]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(Pairs(5, b, c, 7)) == pytest.approx(min(expected, 1.0))


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4).filter(lambda c: sum(c) > 1))
def test_newcombe_holds_the_difference_and_turns_with_the_arms(counts):
    a, b, c, d = counts
    low, high = newcombe(Pairs(a, b, c, d))
    assert low - 1e-12 <= Pairs(a, b, c, d).difference <= high + 1e-12
    assert newcombe(Pairs(a, c, b, d)) == pytest.approx((-high, -low), abs=1e-12)
    assert newcombe(Pairs(d, b, c, a)) == pytest.approx((low, high), abs=1e-12)


def test_newcombe_covers_what_it_promises():
    rng = np.random.default_rng(1)
    truth = np.array([0.5, 0.25, 0.1, 0.15])
    tables = rng.multinomial(60, truth, 3000)
    hits = [low <= 0.15 <= high for low, high in (newcombe(Pairs(*map(int, t))) for t in tables)]
    assert 0.935 < np.mean(hits) < 0.975


def test_power_equals_enumeration():
    p, q, n = 0.35, 0.08, 9
    total = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if b + c <= n:
            weight = stats.multinomial.pmf([b, c, n - b - c], n, [p, q, 1 - p - q])
            total += weight * (mcnemar_exact(Pairs(0, b, c, 0)) <= 0.05)
    assert mcnemar_power(n, p, q) == pytest.approx(total, abs=1e-10)


def test_the_sample_size_gives_the_power_and_fewer_do_not():
    n = mcnemar_sample_size(0.3, 0.05, power=0.8)
    assert mcnemar_power(n, 0.3, 0.05) >= 0.8
    assert mcnemar_power(n - 1, 0.3, 0.05) < 0.8
    with pytest.raises(ValueError, match="no difference"):
        mcnemar_sample_size(0.1, 0.1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(p):
    alpha, order, alive = 0.05, sorted(range(len(p)), key=lambda i: p[i]), True
    rejected = set()
    for step, i in enumerate(order):
        alive = alive and p[i] * (len(p) - step) <= alpha
        if alive:
            rejected.add(i)
    assert {i for i, q in enumerate(holm(p)) if q <= alpha} == rejected


def test_non_inferiority_turns_on_the_margin():
    pairs = Pairs(70, 4, 6, 20)
    low = newcombe(pairs)[0]
    assert non_inferior(pairs, -low + 1e-6)[0]
    assert not non_inferior(pairs, -low - 1e-6)[0]


def test_boundaries_of_five_equal_looks_are_the_published_ones():
    # alpha 0.05 two-sided, 5 looks: as the program LD98 tabulates (Reboussin et al., Control Clin Trials 2000;21:190)
    assert boundaries([0.2, 0.4, 0.6, 0.8, 1.0]) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-3)
    assert boundaries([1.0]) == pytest.approx([stats.norm.isf(0.025)])


@pytest.mark.parametrize("spending", SPENDING)
def test_boundaries_keep_the_error_in_simulation(spending):
    times = np.array([0.25, 0.6, 1.0])
    critical = boundaries(times, 0.05, spending)
    steps = np.random.default_rng(0).normal(size=(200_000, 3)) * np.sqrt(np.diff(times, prepend=0.0))
    z = np.cumsum(steps, axis=1) / np.sqrt(times)
    rate = np.any(np.abs(z) > critical, axis=1).mean()
    assert rate == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 200_000))


def test_the_bootstrap_interval_is_that_of_scipy():
    rng = np.random.default_rng(3)
    x, y = rng.gamma(2.0, size=40), rng.gamma(1.5, size=40)
    got = paired_bootstrap(x, y, np.random.default_rng(0), draws=20_000)
    ref = stats.bootstrap((x - y,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert (got.low, got.high) == pytest.approx((ref.low, ref.high), abs=0.03)
    assert got.value == pytest.approx((x - y).mean())


def test_posterior_samples_widen_the_interval_and_their_share_is_known():
    rng = np.random.default_rng(5)
    twins, samples, between, within = 60, 4, 1.0, 2.0
    effect = rng.normal(0.5, between, (twins, 1)) + rng.normal(0, within, (twins, samples))
    estimate, share = over_posterior(effect, np.zeros_like(effect), np.random.default_rng(0), draws=1500)
    assert estimate.low < 0.5 < estimate.high
    expected = (within**2 / samples) / (between**2 + 2 * within**2 / samples)  # resampling a twin's samples counts its noise once more
    assert share == pytest.approx(expected, rel=0.35)
    _, none = over_posterior(np.repeat(effect[:, :1], 3, axis=1), np.zeros((twins, 3)), np.random.default_rng(0), draws=300)
    assert none == pytest.approx(0.0)


def ishigami(u):
    x = (2 * u - 1) * np.pi
    return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])


def test_sobol_indices_of_the_ishigami_function():
    # analytic values (Ishigami and Homma 1990; a = 7, b = 0.1)
    got = indices(ishigami, 3)
    assert got.first == pytest.approx([0.3139, 0.4424, 0.0], abs=0.02)
    assert got.total == pytest.approx([0.5576, 0.4424, 0.2437], abs=0.02)


def test_the_surrogate_finds_them_from_few_runs_and_says_how_good_it_is():
    points = stats.qmc.Sobol(3, seed=2).random(64)
    got = surrogate_indices(points, ishigami(points), power=9)
    assert got.q2 is not None
    assert got.q2 > 0.8
    assert got.total == pytest.approx([0.5576, 0.4424, 0.2437], abs=0.08)
    noise = surrogate_indices(points, np.random.default_rng(0).normal(size=64), power=8)
    assert noise.q2 is not None
    assert noise.q2 < 0.3
