"""Intervals and tests against published examples, scipy, hand arithmetic and simulation."""

import math
import statistics
import warnings

import numpy
import pytest
from scipy.stats import norm, ttest_1samp, ttest_rel

from mnist_helpers.stats import (
    best_by_luck,
    best_epoch_bias,
    detectable_difference,
    mcnemar,
    mean_over_seeds,
    mid_p,
    newcombe_interval,
    newcombe_paired_interval,
    paired_difference,
    wilson_interval,
)


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
    with pytest.raises(ValueError, match="is no accuracy"):
        newcombe_interval(1, 2, correct, total)
    with pytest.raises(ValueError, match="is no accuracy"):
        newcombe_interval(correct, total, 1, 2)


def counted(both, only_a, only_b, neither):
    """The mistakes of two networks, by these numbers of images that they get right; and the number of images."""
    images = iter(range(both + only_a + only_b + neither))
    parts = [[next(images) for _ in range(count)] for count in (both, only_a, only_b, neither)]
    return parts[2] + parts[3], parts[1] + parts[3], both + only_a + only_b + neither


@pytest.mark.parametrize(("counts", "low", "high"), [
    ((36, 12, 2, 0), 0.0569, 0.3404),      # Newcombe (1998), paired data, table II, method 10
    ((59, 6, 16, 80), -0.1186, -0.0046),   # Cavo et al. (2012), as CRAN's contingencytables has it
    ((1, 1, 7, 12), -0.507, -0.026),       # Bentur et al. (2009), as Fagerland, Lydersen and Laake have it
])
def test_newcombe_paired_as_published(counts, low, high):
    digits = 5e-5 if round(low, 3) != low else 5e-4
    assert newcombe_paired_interval(*counted(*counts)) == pytest.approx((low, high), abs=digits)
    a, b, total = counted(*counts)
    assert newcombe_paired_interval(b, a, total) == pytest.approx((-high, -low), abs=digits)


def test_newcombe_paired_without_a_correlation_is_that_of_independent_images():
    """All right, all wrong, and mistakes that overlap no more than by chance."""
    for counts in ((10, 0, 0, 0), (0, 0, 0, 10), (80, 8, 10, 1)):
        a, b, total = counted(*counts)
        assert newcombe_paired_interval(a, b, total) == pytest.approx(
            newcombe_interval(total - len(a), total, total - len(b), total))
    with pytest.raises(ValueError, match="is no accuracy"):
        newcombe_paired_interval([], [], 0)
    with pytest.raises(ValueError, match="is no accuracy"):
        newcombe_paired_interval([1, 2], [3], 2)


def test_newcombe_paired_holds_the_true_difference_as_often_as_it_says():
    """By simulation: two networks that share most of their mistakes, 2,000 images, 600 times. The interval for
    independent images holds it nearly always, which is too often."""
    random = numpy.random.default_rng(0)
    paired = unpaired = 0
    for both, only_a, only_b, neither in random.multinomial(2_000, [0.962, 0.007, 0.004, 0.027], size=600):
        low, high = newcombe_paired_interval(*counted(both, only_a, only_b, neither))
        paired += low <= 0.003 <= high
        low, high = newcombe_interval(both + only_a, 2_000, both + only_b, 2_000)
        unpaired += low <= 0.003 <= high
    assert 0.93 < paired / 600 < 0.98 < unpaired / 600


def test_mean_over_seeds_is_scipys_interval():
    values = [0.9931, 0.9922, 0.9935, 0.9928, 0.9940]
    ours, theirs = mean_over_seeds(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.mean == pytest.approx(sum(values) / 5) and ours.std == pytest.approx(statistics.stdev(values))
    assert str(ours) == "99.31 ± 0.07 (n = 5)"
    assert math.isnan(mean_over_seeds([0.99]).std) and str(mean_over_seeds([0.99])) == "99.00 (n = 1)"
    with pytest.raises(ValueError, match="no values"):
        mean_over_seeds([])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy's, about a standard deviation of 0
        same = mean_over_seeds([0.1 + 0.2] * 3)
    assert (same.low, same.std, same.high) == (0.1 + 0.2, 0, 0.1 + 0.2)


def test_paired_difference_is_the_paired_t_test():
    a, b = [0.9931, 0.9922, 0.9935, 0.9928], [0.9921, 0.9925, 0.9920, 0.9919]
    ours, theirs = paired_difference(a, b), ttest_rel(a, b)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert (ours.low <= 0 <= ours.high) == (theirs.pvalue >= 0.05)
    assert paired_difference(a[:1], b[:1]).verdict == "unknown", "one seed shows nothing"
    with pytest.raises(ValueError, match="4 and 3"):
        paired_difference(a, b[:3])


def test_mcnemar_by_hand():
    # 1 and 5 of 6: 2 * (1 + 6) / 2^6.
    assert mcnemar({1, 2, 3}, {2, 3, 4, 5, 6, 7, 8}) == (1, 5, pytest.approx(14 / 64))
    assert mcnemar(iter([1, 2, 3]), map(int, "2345678")) == (1, 5, pytest.approx(14 / 64)), "any iterable will do"
    assert mcnemar({1, 2}, {2, 1}) == (0, 0, 1.0)


@pytest.mark.parametrize(("only_a", "only_b", "p"), [
    (6, 16, 0.034690), (1, 7, 0.0390625), (7, 1, 0.0390625),  # the first as published by Fagerland et al. (2013)
    (1, 5, 2 * (1 + 6 / 2) / 64), (3, 3, 1), (0, 0, 1)])
def test_mid_p_as_published_and_by_hand(only_a, only_b, p):
    assert mid_p(only_a, only_b) == pytest.approx(p, abs=5e-7)


def test_detectable_difference_is_detected_as_often_as_it_says():
    std, n = 0.0006, 5
    difference = detectable_difference(std, n)
    random = numpy.random.default_rng(0)
    a, b = random.normal(0, std, (20_000, n)), random.normal(difference, std, (20_000, n))
    found = (ttest_rel(a, b, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)
    with pytest.raises(ValueError, match="at least 2"):
        detectable_difference(std, 1)


def test_best_epoch_bias_by_hand():
    assert best_epoch_bias([0.1, 0.97, 0.99, 0.98, 0.97, 0.98]) == pytest.approx(0.99 - 0.98)
    assert best_epoch_bias([0.99, 0.5, 0.6, 0.7, 0.8, 0.9]) == 0, "the last epoch is the best of the last five"


def test_the_range_of_a_new_run_holds_one():
    """By simulation: of six normal values the sixth falls into the range of the other five 95 times in a hundred."""
    values = numpy.random.default_rng(0).normal(0.99, 0.001, (2_000, 6))
    inside = [low <= last <= high for *first, last in values for low, high in [mean_over_seeds(first).new_run()]]
    assert 0.94 < statistics.fmean(inside) < 0.96
    assert all(map(math.isnan, mean_over_seeds([0.99]).new_run()))


def test_the_best_of_equal_ideas_by_luck_is_tippetts_table_and_the_closed_form_of_two():
    for count, expected in {1: 0, 2: 0.56419, 3: 0.84628, 5: 1.16296, 7: 1.35218, 10: 1.53875, 100: 2.50759}.items():
        assert best_by_luck([2.0] * count) == pytest.approx(2 * expected, abs=2e-5)
    assert best_by_luck([0.3, 0.4]) == pytest.approx(math.sqrt((0.3**2 + 0.4**2) / (2 * math.pi)), abs=1e-6)
    for nothing in ([], [0.0], [1.0, -1.0]):
        with pytest.raises(ValueError):
            best_by_luck(nothing)
