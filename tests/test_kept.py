"""Answers kept by content: one computation for equal questions, another for any difference, none for what failed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meshing.phantom import Ventricles
from twin.image import Image
from twin.imaging import lge, thickness
from twin.kept import kept
from twin.volume import LabelVolume


def test_equal_content_is_computed_once_and_any_difference_again() -> None:
    asked: list[float] = []

    @kept(2)
    def total(volume: LabelVolume, factor: float = 1.0) -> list[float]:
        asked.append(factor)
        if factor < 0:
            raise ValueError
        return [float(volume.data.sum()) * factor]

    first = LabelVolume(np.ones((2, 3, 4), np.uint8), np.eye(4), "a")
    answer = total(first)
    assert total(replace(first, data=first.data.copy())) is answer
    moved = first.affine.copy()
    moved[0, 3] = 1e-6
    others = (replace(first, affine=moved), replace(first, source="b"), replace(first, data=first.data.reshape(4, 3, 2)))
    for other in others:
        assert total(other) is not answer
    # two are kept: the first has been pushed out by three others
    assert total(first) == answer
    assert len(asked) == 5
    assert total(first, factor=2.0) == [48.0]
    for _ in range(2):
        with pytest.raises(ValueError):
            total(first, factor=-1.0)
    assert asked[5:] == [2.0, -1.0, -1.0]
    # a change in place is a change of content
    first.data[0, 0, 0] = 0
    assert total(first) == [23.0]


def test_stages_of_a_plan_share_enhancement_and_thickness() -> None:
    labels = Ventricles().volume(4.0, scar=True)
    tone = np.where(labels.mask("lv_blood", "rv_blood"), 300.0, np.where(labels.mask("scar"), 500.0, 60.0))
    noise = np.random.default_rng(0).normal(0.0, 8.0, tone.shape)
    image = Image((tone + noise).astype(np.float32), labels.affine, "MR", 4.0)
    again = replace(labels, data=labels.data.copy())
    first = lge.classify(image, labels)
    assert lge.classify(image, again) is first
    assert lge.classify(replace(image, data=image.data + 1.0), labels) is not first
    assert thickness.wall_thickness(labels) is thickness.wall_thickness(again)
