"""Intervals and tests against published examples, scipy, hand arithmetic and simulation."""

import math
import statistics
import warnings

import numpy
import pytest
from scipy.stats import f_oneway, norm, ttest_1samp, ttest_rel

from mnist_helpers.stats import (
    HOLDS,
    NOT,
    UNDECIDED,
    Mean,
    best_by_luck,
    best_epoch_bias,
    detectable_difference,
    finding,
    holm,
    log_odds,
    mcnemar,
    mean_over_seeds,
    mid_p,
    new_run,
    newcombe_interval,
    newcombe_paired_interval,
    over_seeds_and_images,
    paired_difference,
    pooled_spread,
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
    assert str(ours) == "99.31 (standard deviation 0.07, n = 5)"
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


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_detectable_difference_is_detected_as_often_as_it_says(n):
    std = 0.0006
    difference = detectable_difference(std, n)
    random = numpy.random.default_rng(0)
    a, b = random.normal(0, std, (20_000, n)), random.normal(difference, std, (20_000, n))
    found = (ttest_rel(a, b, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.01)
    with pytest.raises(ValueError, match="at least 2"):
        detectable_difference(std, 1)


def test_best_epoch_bias_by_hand():
    assert best_epoch_bias([0.1, 0.97, 0.99, 0.98, 0.97, 0.98]) == pytest.approx(0.99 - 0.98)
    assert best_epoch_bias([0.99, 0.5, 0.6, 0.7, 0.8, 0.9]) == 0, "the last epoch is the best of the last five"


# ---------------------------------------------------------------- seeds and images


def naive(outcomes, strata, clusters):
    """``(variance of the mean, images' share)`` by loops: every pair of runs, kind and cluster."""
    n, m = outcomes.shape
    shares = []
    for a in range(n):
        for b in range(n):
            if a == b:
                continue
            share = 0.0
            for kind in set(strata):
                sums, who = [], {cluster for cluster, of in zip(clusters, strata, strict=True) if of == kind}
                means = [statistics.fmean(x for x, of in zip(outcomes[run], strata, strict=True) if of == kind)
                         for run in (a, b)]
                for cluster in who:
                    here = [i for i in range(m) if clusters[i] == cluster and strata[i] == kind]
                    sums.append(sum(outcomes[a][i] - means[0] for i in here) *
                                sum(outcomes[b][i] - means[1] for i in here))
                share += len(who) / (len(who) - 1) * sum(sums) / m**2
            shares.append(share)
    share = statistics.fmean(shares)
    return statistics.variance(outcomes.mean(1)) / n + share, share


def test_seeds_and_images_by_loops():
    random = numpy.random.default_rng(0)
    strata = numpy.repeat([0, 1], [30, 40])
    clusters = numpy.concatenate([random.integers(0, 9, 30), random.integers(20, 26, 40)])
    outcomes = (random.random((4, 70)) < 0.4 + 0.3 * strata + 0.2 * (clusters % 2)).astype(float)
    ours = over_seeds_and_images(outcomes, strata, clusters)
    variance, share = naive(outcomes, strata, clusters)
    assert share > 0 and (ours.error**2, ours.images) == pytest.approx((variance, share))
    assert ours.mean == pytest.approx(outcomes.mean()) and ours.n == 4
    order = random.permutation(70)
    shuffled = over_seeds_and_images(outcomes[:, order], strata[order], clusters[order])
    assert (shuffled.low, shuffled.high) == pytest.approx((ours.low, ours.high)), "the order of images is nothing"


def test_seeds_and_images_are_the_components_of_an_analysis_of_variance():
    """Without kinds and clusters: (MS seeds + MS images - MS rest) / (seeds x images), the squares by scipy."""
    outcomes = (numpy.random.default_rng(1).random((3, 200)) < numpy.linspace(0.2, 1, 200)).astype(float)
    n, m = outcomes.shape
    seeds, images = m * outcomes.mean(1).var(ddof=1), n * outcomes.mean(0).var(ddof=1)
    within = images / f_oneway(*outcomes.T).statistic  # of images: seeds and rest together
    rest = (within * m * (n - 1) - seeds * (n - 1)) / ((n - 1) * (m - 1))
    ours = over_seeds_and_images(outcomes)
    assert ours.error**2 == pytest.approx((seeds + images - rest) / (n * m))


@pytest.mark.parametrize("alike", [1.5, 0.0])
@pytest.mark.parametrize("difference", [False, True])
def test_intervals_hold_the_truth_on_new_seeds_and_new_images(difference, alike):
    """By simulation: 60 writers of two kinds, 20 images each, 5 seeds. The truth is the mean over all of them. Seeds
    alone hold it too rarely; so do single images where those of one writer are alike, and where they are not, they hold
    it."""
    random, strata, clusters = numpy.random.default_rng(0), numpy.repeat([0, 1], 600), numpy.repeat(range(60), 20)
    held, times = numpy.zeros(3), 400

    def drawn(shared):
        odds = 2 + strata + shared + random.normal(0, 0.1, (5, 1)) + random.normal(0, 0.5, (5, 1_200))
        return (random.random((5, 1_200)) < 1 / (1 + numpy.exp(-odds))).astype(float)

    def writers():
        return random.normal(0, alike, 60)[clusters] + random.normal(0, 3, 1_200)

    if difference:
        truth = 0.0
    else:
        odds = random.normal(0, math.sqrt(0.1**2 + 0.5**2 + alike**2 + 3**2), 400_000)
        truth = statistics.fmean((1 / (1 + numpy.exp(-(2 + kind + odds)))).mean() for kind in (0, 1))
    for _ in range(times):
        outcomes = drawn(writers()) - (drawn(writers()) if difference else 0)
        found = (over_seeds_and_images(outcomes, strata, clusters), over_seeds_and_images(outcomes, strata),
                 mean_over_seeds(outcomes.mean(1)))
        held += [mean.low <= truth <= mean.high for mean in found]
    by_writer, by_image, seeds_alone = held / times
    assert 0.92 <= by_writer <= 0.98 and seeds_alone < by_writer - 0.02
    assert by_image < by_writer if alike else 0.92 <= by_image <= 0.98


def test_seeds_alone_count_where_images_cannot():
    same = numpy.ones((3, 50))
    assert (over_seeds_and_images(same).low, over_seeds_and_images(same).high) == (1, 1)
    one = over_seeds_and_images(same[:1])
    assert one.n == 1 and math.isnan(one.low) and one.reached(0.5) == "not decided"
    with pytest.raises(ValueError, match="shape"):
        over_seeds_and_images([1, 0, 1])
    with pytest.raises(ValueError, match="one cluster"):
        over_seeds_and_images(same, clusters=[7] * 50)


# ---------------------------------------------------------------- verdicts


def of(mean, error=0.1):
    return Mean(mean, 0.0, 5, images=error**2)


@pytest.mark.parametrize(("says", "matters", "mean", "verdict"), [
    ("more", 0.1, 0.5, HOLDS), ("more", 0.1, 0.1, UNDECIDED), ("more", 0.1, -0.2, NOT),
    ("more", 1.0, 0.3, NOT),  # real, and surely smaller than what matters
    ("no loss", 0.1, 0.2, HOLDS), ("no loss", 0.1, 0.0, UNDECIDED), ("no loss", 0.1, -0.5, NOT),
    ("no loss", 1.0, -0.3, HOLDS),
    ("equal", 0.5, 0.0, HOLDS), ("equal", 0.5, 0.4, UNDECIDED), ("equal", 0.5, -1.0, NOT)])
def test_a_mean_has_its_finding(says, matters, mean, verdict):
    assert finding(of(mean), says, matters)[0] == verdict


def test_a_goal_is_reached_where_the_whole_interval_lies_above_it():
    assert [of(mean).reached(1.0) for mean in (1.25, 1.15, 0.85, 0.75)] == [
        "reached", "not decided", "not decided", "not reached"]
    assert [of(mean).verdict for mean in (0.25, 0.15, -0.25)] == ["more than noise", "within noise", "more than noise"]


def test_p_and_interval_agree_with_scipy():
    values = [0.1, 0.3, 0.2, 0.5, 0.15]
    mean, expected = mean_over_seeds(values), ttest_1samp(values, 0)
    assert mean.freedom == pytest.approx(4) and 2 * mean.above(0) == pytest.approx(expected.pvalue)
    assert mean.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert mean_over_seeds(values, images=0.04).error == pytest.approx((mean.error**2 + 0.04) ** 0.5)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


# ---------------------------------------------------------------- a new run


def test_the_range_of_a_new_run_by_hand():
    odds = [math.log(9_930.5 / 70.5), math.log(9_940.5 / 60.5)]
    mean, std = sum(odds) / 2, abs(odds[0] - odds[1]) / math.sqrt(2)
    ends = [mean + sign * 12.7062 * std * math.sqrt(1.5) for sign in (-1, 1)]  # t(0.975, 1)
    assert new_run([9_930, 9_940], 10_000) == pytest.approx([math.exp(x) / (1 + math.exp(x)) for x in ends], abs=1e-6)
    low, high = new_run([9_990, 10_000, 9_999, 9_998], 10_000)
    assert 0 < low < 0.9995 < high < 1, "no range ends where no run can be"
    assert all(map(math.isnan, new_run([9_930], 10_000)))
    low, high = new_run([9_930], 10_000, pooled=(0.1, 30))
    assert low < 0.993 < high and 0.993 - low > high - 0.993


def test_the_range_of_a_new_run_holds_one():
    """By simulation: the sixth of six runs falls into the range of the other five 95 times in a hundred, with its own
    spread and with the one that ten rows have in common, where they do; and where one of them scatters four times as
    much it keeps its own."""
    random, own, pooled = numpy.random.default_rng(0), [], []
    for trial in range(150):
        std = numpy.full(10, 0.1)
        std[:trial % 2] = 0.4
        odds = numpy.linspace(3, 5.5, 10)[:, None] + std[:, None] * random.normal(size=(10, 6))
        correct = numpy.round(10_000 / (1 + numpy.exp(-odds))).astype(int)
        rows = {str(row): [log_odds(each, 10_000) for each in runs[:5]] for row, runs in enumerate(correct)}
        spread, freedom, names = pooled_spread(rows)
        for row, (*first, last) in enumerate(correct.tolist()):
            for inside, common in ((own, None), (pooled, (spread, freedom) if str(row) in names else None)):
                low, high = new_run(first, 10_000, common)
                inside.append(low <= last / 10_000 <= high)
    assert 0.93 < statistics.fmean(own) < 0.97 and 0.93 < statistics.fmean(pooled) < 0.97


def test_rows_that_scatter_more_are_left_out_by_cochrans_table_and_rows_that_scatter_less_are_not():
    shape = [-1.0, -0.5, 0.0, 0.5, 1.0]  # variance 5/8, and five rows of five values: the table's C is 0.5441
    others = {f"row {i}": shape for i in range(4)}
    for share, left_out in ((0.5439, False), (0.5443, True)):
        rows = others | {"wide": [each * math.sqrt(4 * share / (1 - share)) for each in shape]}
        assert ("wide" not in pooled_spread(rows)[2]) == left_out
    std, freedom, names = pooled_spread(others | {"wide": [9 * x for x in shape], "narrow": [0.01 * x for x in shape],
                                                  "equal": [2.0] * 6})
    assert names == [*others, "narrow"] and freedom == 20
    assert std**2 == pytest.approx((4 * 5 / 8 + 5 / 8 * 0.01**2) / 5)
    with pytest.raises(ValueError, match="two rows"):
        pooled_spread({"one": [1.0, 2.0]})


def test_the_best_of_equal_ideas_by_luck_is_tippetts_table_and_the_closed_form_of_two():
    for count, expected in {1: 0, 2: 0.56419, 3: 0.84628, 5: 1.16296, 7: 1.35218, 10: 1.53875, 100: 2.50759}.items():
        assert best_by_luck([2.0] * count) == pytest.approx(2 * expected, abs=2e-5)
    assert best_by_luck([0.3, 0.4]) == pytest.approx(math.sqrt((0.3**2 + 0.4**2) / (2 * math.pi)), abs=1e-6)
    for nothing in ([], [0.0], [1.0, -1.0]):
        with pytest.raises(ValueError):
            best_by_luck(nothing)
