"""What the fusion models are made of: the penalised regression, the boosted trees, and how columns are brought to one scale."""

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.fusion.blocks import FLAG_SPREAD, Block, Encoder
from twin.fusion.boosting import BoostedTrees
from twin.fusion.logistic import RidgeLogistic, expit, inner_folds, log_loss
from twin.fusion.metrics import auc
from twin.fusion.models.trees import Mixture


def outcomes(z, seed=1):
    return (np.random.default_rng(seed).random(len(z)) < expit(z)).astype(float)


@pytest.mark.parametrize("true_c", [0.01, 0.1, 1.0])
def test_the_evidence_finds_the_spread_of_the_coefficients(true_c):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 60))
    y = outcomes(x @ (rng.normal(size=60) * np.sqrt(true_c)))
    assert abs(np.log10(RidgeLogistic().fit(x, y).chosen_c / true_c)) < 0.35


def test_left_out_logits_are_those_of_fits_without_the_fold():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 8)) * (rng.random((200, 8)) < 0.2)
    y = outcomes(x[:, 0] - 2.0)
    fitted = RidgeLogistic().fit(x, y)
    fold = inner_folds(y)
    for k in range(5):
        without = RidgeLogistic(fitted.chosen_c).fit(x[fold != k], y[fold != k])
        assert np.allclose(fitted.left_out_logit[fold == k], without.logit(x[fold == k]), atol=1e-4)


def test_noise_is_penalised_until_it_says_nothing():
    rng = np.random.default_rng(3)
    fitted = RidgeLogistic().fit(rng.normal(size=(200, 40)), (rng.random(200) < 0.3).astype(float))
    assert fitted.chosen_c < 0.01
    assert np.ptp(fitted.logit(rng.normal(size=(50, 40)))) < 1.0


def test_trees_find_what_no_sum_of_columns_says():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(800, 4))
    y = outcomes(3.0 * np.sign(x[:, 0] * x[:, 1]))
    seen = np.ones(x.shape, bool)
    trees = BoostedTrees(share=1.0).fit(x[:500], seen[:500], y[:500])
    assert auc(y[500:], trees.logit(x[500:], seen[500:])) > 0.85
    assert auc(y[500:], RidgeLogistic().fit(x[:500], y[:500]).logit(x[500:])) < 0.6


def test_empty_cells_have_a_side_of_their_own():
    rng = np.random.default_rng(5)
    x, seen = rng.normal(size=(600, 3)), np.ones((600, 3), bool)
    seen[:, 1] = rng.random(600) < 0.6
    y = outcomes(np.where(seen[:, 1], -2.0, 2.0))
    trees = BoostedTrees(share=1.0).fit(x[:400], seen[:400], y[:400])
    z = trees.logit(x[400:], seen[400:])
    assert z[~seen[400:, 1]].min() > z[seen[400:, 1]].max()


def test_trees_of_noise_stop_at_once_and_left_out_logits_are_not_of_the_rows_themselves():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(300, 10)), (rng.random(300) < 0.3).astype(float)
    trees = BoostedTrees().fit(x, np.ones(x.shape, bool), y)
    assert trees.trees < 30
    assert abs(auc(y, trees.left_out_logit) - 0.5) < 0.15
    assert log_loss(y, trees.left_out_logit).mean() <= log_loss(y, np.full(300, np.log(y.mean() / (1 - y.mean())))).mean() + 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(12, 60), st.integers(1, 6), st.integers(0, 10**6))
def test_trees_are_the_same_again_and_finite_whatever_is_empty(n, p, seed):
    rng = np.random.default_rng(seed)
    x, seen = np.round(rng.normal(size=(n, p)), 1), rng.random((n, p)) < 0.7
    y = (np.arange(n) % 3 == 0).astype(float)
    first, second = (BoostedTrees(least=2.0, most=20).fit(x, seen, y).logit(x * 10, seen) for _ in range(2))
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)


def test_a_sign_that_few_have_is_not_stretched():
    frame = pandas.DataFrame({"rare": (np.arange(400) < 4) * 1.0, "half": np.arange(400) % 2 * 1.0, "value": np.linspace(0, 1, 400)})
    block = Block("signs", numeric=("rare", "half", "value"))
    part = Encoder({"signs": block}).fit(frame).transform(frame).parts["signs"]
    assert np.ptp(part[:, 0]) == pytest.approx(1 / FLAG_SPREAD)
    assert np.ptp(part[:, 1]) == pytest.approx(2.0)
    assert part[:, 2].std() == pytest.approx(1.0)


def test_the_mixture_is_between_its_parts_and_may_be_blind_to_emptiness():
    rng = np.random.default_rng(8)
    frame = pandas.DataFrame({"a": rng.normal(size=300), "b": rng.normal(size=300)})
    y = outcomes(1.5 * frame.a.to_numpy())
    frame.loc[rng.random(300) < 0.1 + 0.6 * y, "b"] = np.nan
    blocks = {"all": Block("all", numeric=("a", "b"))}
    design = Encoder(blocks).fit(frame).transform(frame)
    losses = {}
    for name, emptiness in (("sees", True), ("blind", False)):
        mixture = Mixture(blocks, emptiness)
        mixture.fit_design(design, y)
        losses[name] = log_loss(y, mixture.left_out_).mean()
        parts = [log_loss(y, part.left_out_).mean() for part in mixture.parts_]
        assert losses[name] < max(parts)
    assert losses["sees"] < losses["blind"]
