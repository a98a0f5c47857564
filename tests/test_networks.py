"""The trainable networks at toy size: they learn what is there, are written and read whole, refuse damage, and no plan imports them."""

import json
from pathlib import Path

import numpy as np
import pytest

from twin.errors import InputError

pytest.importorskip("torch")
from twin.imaging import networks

ROOT = Path(__file__).parents[1]


def hearts(n, seed=0):
    """Wall thickness in a volume of 8^3, thin in a random place; enhancement where it is thin; outcome: whether much is thin."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[0:8, 0:8, 0:8]).astype(float)
    centre, radius = rng.uniform(2, 6, (n, 3, 1, 1, 1)), rng.choice([1.2, 3.0], n)
    thin = ((grid[None] - centre) ** 2).sum(axis=1) < radius[:, None, None, None] ** 2
    thickness = np.where(thin, 3.0, 9.0) + rng.normal(0, 0.5, thin.shape)
    return thickness[:, None].astype(np.float32), thin.astype(np.float32), (radius > 2).astype(float)


@pytest.fixture(scope="module")
def predictor():
    volumes, _, outcome = hearts(60)
    return networks.train_predictor(volumes, outcome, ("thickness_mm",), steps=60, width=4)


@pytest.fixture(scope="module")
def generator():
    volumes, image, _ = hearts(60)
    return networks.train_generator(volumes, image, ("thickness_mm",), steps=80, width=4)


def test_the_prediction_beats_the_share_of_events_on_held_out_volumes(predictor):
    figures = predictor.card.figures
    assert figures["brier"] < 0.5 * figures["brier_of_the_prior"]
    volumes, _, outcome = hearts(40, seed=1)
    assert ((predictor.probability(volumes) > 0.5) == (outcome > 0.5)).mean() >= 0.9


def test_the_made_image_is_nearer_than_the_mean_image(generator):
    figures = generator.card.figures
    assert figures["mean_squared_error"] < 0.5 * figures["mean_squared_error_of_the_mean_image"]
    volumes, image, _ = hearts(10, seed=2)
    mean, spread = generator.image(volumes)
    assert mean[image > 0.5].mean() > mean[image < 0.5].mean() + 0.5
    assert (spread >= 0).all()


def test_a_network_is_written_and_read_whole(predictor, tmp_path):
    predictor.save(tmp_path / "net")
    again = networks.load(tmp_path / "net")
    volumes, _, _ = hearts(5, seed=3)
    assert again.card == predictor.card
    assert (again.probability(volumes) == predictor.probability(volumes)).all()


@pytest.mark.parametrize("damage", ["cut", "noise", "other card", "no card"])
def test_damaged_networks_are_refused(predictor, tmp_path, damage):
    predictor.save(tmp_path)
    weights, card = tmp_path / "weights.safetensors", tmp_path / "card.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:200])
    elif damage == "noise":
        weights.write_bytes(b"\xff" * 400)
    elif damage == "other card":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"width": 200}))
    else:
        card.write_text("{}")
    with pytest.raises(InputError, match=r"network|card"):
        networks.load(tmp_path)


def test_wrong_volumes_and_kinds_are_refused(predictor):
    volumes, image, outcome = hearts(12)
    with pytest.raises(InputError, match="shape"):
        predictor.probability(volumes[:, :, :4])
    with pytest.raises(InputError, match="this is a predictor"):
        predictor.image(volumes)
    with pytest.raises(InputError, match="too few"):
        networks.train_predictor(volumes[:5], outcome[:5], ("thickness_mm",))
    with pytest.raises(InputError, match="one image per volume"):
        networks.train_generator(volumes, image[:, :4], ("thickness_mm",))


def test_no_plan_uses_them():
    users = [
        path
        for folder in ("planners", "solvers", "meshing")
        for path in (ROOT / folder).rglob("*.py")
        if "imaging.networks" in path.read_text()
    ]
    assert users == []
