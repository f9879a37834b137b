"""Intervals against statsmodels' published examples and scipy's normal quantile."""

import math

import pytest
from scipy.stats import norm

from mnist_helpers.stats import newcombe_interval, wilson_interval


@pytest.mark.parametrize(("correct", "total", "confidence"), [(9_931, 10_000, 0.95), (0, 20, 0.95), (7, 7, 0.9)])
def test_wilson_is_its_formula(correct, total, confidence):
    p, z = correct / total, norm.ppf(0.5 + confidence / 2)
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    assert wilson_interval(correct, total, confidence) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_wilson_as_published():
    """R. G. Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_newcombe_as_published():
    """R. G. Newcombe, "Interval estimation for the difference" (1998), table II, method 10."""
    assert newcombe_interval(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe_interval(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_newcombe_mirrors():
    low, high = newcombe_interval(9_931, 10_000, 9_921, 10_000)
    assert newcombe_interval(9_921, 10_000, 9_931, 10_000) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("correct", "total"), [(5, 4), (-1, 4), (0, 0)])
def test_what_is_no_accuracy_is_refused(correct, total):
    with pytest.raises(ValueError, match="is no accuracy"):
        wilson_interval(correct, total)
