"""Radiomics against the digital phantom of the Image Biomarker Standardisation Initiative, analytic shapes, and coronary categories."""

import numpy as np
import pytest

from twin.errors import InputError
from twin.imaging.radiomics import features, fractal_dimension, glrlm, shape
from twin.imaging.radiomics_coronary import agatston, cad_rads, calcium_group

SLICES = (
    "14411 14611 41641 44641",
    "14411 11611 01311 44611",
    "14400 11111 11011 11611",
    "14400 11111 11111 11611",
)
"""The phantom, slice by slice, 0 outside the region; voxels of 2 mm."""
PHANTOM = np.array([[[int(c) for c in row] for row in s.split()] for s in SLICES]).transpose(2, 1, 0)

# consensus values of the reference manual (arXiv 1612.07003), three figures; texture: 3-D, merged
PUBLISHED = {
    "intensity": {
        "mean": 2.15, "variance": 3.05, "skewness": 1.08, "excess_kurtosis": -0.355, "median": 1, "minimum": 1, "percentile_10": 1,
        "percentile_90": 4, "maximum": 6, "interquartile_range": 3, "range": 5, "mean_absolute_deviation": 1.55,
        "robust_mean_absolute_deviation": 1.11, "median_absolute_deviation": 1.15, "coefficient_of_variation": 0.812,
        "quartile_dispersion": 0.6, "energy": 567, "root_mean_square": 2.77, "entropy_of_values": 1.27, "uniformity_of_values": 0.512,
    },
    "shape": {
        "mesh_volume_mm3": 556, "voxel_volume_mm3": 592, "surface_mm2": 388, "surface_to_volume_1_mm": 0.698, "compactness_1": 0.0411,
        "compactness_2": 0.599, "sphericity": 0.843, "asphericity": 0.186, "spherical_disproportion": 1.19, "maximum_diameter_mm": 13.1,
        "major_axis_mm": 11.4, "minor_axis_mm": 9.31, "least_axis_mm": 8.54, "elongation": 0.816, "flatness": 0.749,
    },
    "glcm": {
        "joint_maximum": 0.509, "joint_average": 2.15, "joint_variance": 3.13, "joint_entropy": 2.57, "difference_average": 1.38,
        "difference_variance": 3.21, "difference_entropy": 1.64, "sum_average": 4.3, "sum_variance": 7.41, "sum_entropy": 2.11,
        "angular_second_moment": 0.291, "contrast": 5.12, "inverse_difference": 0.688, "inverse_difference_normalised": 0.856,
        "inverse_difference_moment": 0.631, "inverse_difference_moment_normalised": 0.902, "inverse_variance": 0.0574,
        "correlation": 0.183, "autocorrelation": 5.19, "cluster_tendency": 7.41, "cluster_shade": 17.4, "cluster_prominence": 147,
        "information_correlation_1": -0.0288, "information_correlation_2": 0.269,
    },
    "glrlm": {
        "short_runs_emphasis": 0.729, "long_runs_emphasis": 2.76, "low_grey_level_run_emphasis": 0.607,
        "high_grey_level_run_emphasis": 9.64, "short_run_low_grey_level_emphasis": 0.372, "short_run_high_grey_level_emphasis": 8.67,
        "long_run_low_grey_level_emphasis": 2.16, "long_run_high_grey_level_emphasis": 15.6, "grey_level_non_uniformity": 281,
        "grey_level_non_uniformity_normalised": 0.43, "run_length_non_uniformity": 328, "run_length_non_uniformity_normalised": 0.501,
        "run_percentage": 0.68, "grey_level_variance": 3.48, "run_length_variance": 0.598, "run_entropy": 2.62,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return features(PHANTOM, PHANTOM > 0, (2.0, 2.0, 2.0), bins=None)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, values in PUBLISHED.items() for name in values])
def test_the_phantom_gives_the_published_values(found, family, name):
    published = PUBLISHED[family][name]
    assert found[family][name] == pytest.approx(published, rel=0.005, abs=0.0005)


def test_a_ball_has_the_shape_of_a_ball():
    grid = np.mgrid[-24:25, -24:25, -24:25].astype(float)
    ball = shape((grid**2).sum(axis=0) <= 20.0**2, (0.5, 0.5, 0.5))
    assert ball["mesh_volume_mm3"] == pytest.approx(4 / 3 * np.pi * 1000, rel=0.02)
    assert 0.9 < ball["sphericity"] <= 1.0
    assert ball["maximum_diameter_mm"] == pytest.approx(20, abs=0.8)
    assert ball["flatness"] == pytest.approx(1.0, abs=0.01)


def test_fractal_dimension_of_a_plane_is_two():
    plane = np.zeros((64, 64, 64), bool)
    plane[:, :, 31] = True
    assert fractal_dimension(plane) == pytest.approx(2.0, abs=0.05)


def test_runs_cover_every_voxel_once_in_every_direction():
    levels = np.random.default_rng(0).integers(0, 4, (6, 5, 4))
    runs = glrlm(levels)
    assert (runs * np.arange(1, runs.shape[1] + 1)).sum() == 13 * (levels > 0).sum()
    assert (runs >= 0).all()


def test_an_empty_region_is_refused():
    with pytest.raises(InputError, match="no voxel"):
        features(np.zeros((3, 3, 3)), np.zeros((3, 3, 3), bool), (1, 1, 1))


def test_agatston_weighs_area_by_the_densest_voxel():
    hu, mask = np.zeros((20, 20, 2)), np.ones((20, 20, 2), bool)
    hu[2:4, 2:4, 0] = 250.0  # 4 mm2, weight 2
    hu[10:12, 10:13, 1] = 150.0
    hu[10, 10, 1] = 410.0  # 6 mm2, weight 4
    hu[18, 18, 0] = 500.0  # 1 mm2: counts
    assert agatston(hu, mask, (1.0, 1.0, 3.0)) == pytest.approx(4 * 2 + 6 * 4 + 1 * 4)
    assert agatston(hu, mask, (0.5, 0.5, 3.0)) == pytest.approx((4 * 2 + 6 * 4) * 0.25 - 8 * 0.25 + 8 * 0.25)
    assert agatston(hu, mask, (1.0, 1.0, 1.5)) == pytest.approx(18.0)
    with pytest.raises(InputError, match="shape"):
        agatston(hu, mask[:, :, :1], (1.0, 1.0, 3.0))


@pytest.mark.parametrize(
    ("stenoses", "category"),
    [
        ({}, "N"),
        ({"lad": 0}, "0"),
        ({"lad": 10}, "1"),
        ({"lad": 25, "rca": 10}, "2"),
        ({"lad": 50}, "3"),
        ({"lad": 69.9}, "3"),
        ({"rca": 70}, "4A"),
        ({"left_main": 50}, "4B"),
        ({"lad": 70, "lcx": 75, "rca": 90}, "4B"),
        ({"lad": 100, "left_main": 60}, "5"),
    ],
)
def test_cad_rads_by_the_worst_stenosis(stenoses, category):
    assert cad_rads(stenoses) == category


def test_calcium_groups():
    assert [calcium_group(s) for s in (0, 5, 100, 101, 401)] == ["0", "1-10", "11-100", "101-400", "over 400"]
    with pytest.raises(InputError, match="not a vessel"):
        cad_rads({"aorta": 10})


def test_a_region_gives_the_same_wherever_it_lies():
    values = np.random.default_rng(1).normal(size=PHANTOM.shape)
    far = np.pad(values, ((3, 1), (0, 5), (2, 2)), constant_values=np.nan)
    here = features(values, PHANTOM > 0, (1.0, 1.0, 2.0))
    there = features(far, np.pad(PHANTOM > 0, ((3, 1), (0, 5), (2, 2))), (1.0, 1.0, 2.0))
    assert here == there
