"""What measured accuracies say about the true ones: intervals, paired tests, and what a number of seeds can show.

scipy.stats is imported where it is used, since it takes most of a second.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log, nan, sqrt


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """``(low, high)``: Wilson's score interval for an accuracy measured as ``correct`` of ``total`` images.

    Unlike accuracy +- 1.96 standard errors it stays between 0 and 1 and holds near 100 %. With p the accuracy, n the
    total and z the normal quantile: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Raises `ValueError` unless 0 <= correct <= total and total > 0.
    """
    from scipy.stats import binomtest

    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct of {total} is no accuracy")
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return interval.low, interval.high


def newcombe_interval(correct_a: int, total_a: int, correct_b: int, total_b: int,
                      confidence: float = 0.95) -> tuple[float, float]:
    """``(low, high)``: the interval for accuracy a minus accuracy b, each measured on images of its own.

    For two networks tested on the *same* images, `newcombe_paired_interval` is narrower. With l and u the limits of
    `wilson_interval` and d = a - b:
    d - sqrt((a - l_a)^2 + (u_b - b)^2) to d + sqrt((u_a - a)^2 + (b - l_b)^2).
    Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.

    Raises `ValueError` as `wilson_interval` does.
    """
    low_a, high_a = wilson_interval(correct_a, total_a, confidence)
    low_b, high_b = wilson_interval(correct_b, total_b, confidence)
    a, b = correct_a / total_a, correct_b / total_b
    return a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2), a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2)


def newcombe_paired_interval(mistakes_a: Iterable, mistakes_b: Iterable, total: int,
                             confidence: float = 0.95) -> tuple[float, float]:
    """``(low, high)``: the interval for accuracy a minus accuracy b, both measured on the same ``total`` images, given
    the images each gets wrong.

    Both networks tend to stumble over the same images, and what they share cancels in the difference. With d = a - b,
    the limits l and u of `wilson_interval`, and the correlation phi of being right:
    d - sqrt((a - l_a)^2 - 2 phi (a - l_a)(u_b - b) + (u_b - b)^2) to
    d + sqrt((u_a - a)^2 - 2 phi (u_a - a)(b - l_b) + (b - l_b)^2).
    With n the total and the numbers of images that both get right (r), only a (s), only b (t) or neither (u):
    phi = c / sqrt((r + s)(t + u)(r + t)(s + u)), where c is ru - st if that is negative, else
    max(ru - st - n/2, 0); and phi is 0 where a sum in the root is.
    Source: R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data" (1998), method 10.

    Raises `ValueError` as `wilson_interval` does, and for more mistakes than images.
    """
    mistakes_a, mistakes_b = set(mistakes_a), set(mistakes_b)
    only_a, only_b = len(mistakes_b - mistakes_a), len(mistakes_a - mistakes_b)  # that only this one gets right
    neither = len(mistakes_a & mistakes_b)
    both = total - only_a - only_b - neither
    if both < 0:
        raise ValueError(f"{total - both} different mistakes on {total} images is no accuracy")
    low_a, high_a = wilson_interval(both + only_a, total, confidence)
    low_b, high_b = wilson_interval(both + only_b, total, confidence)
    a, b = (both + only_a) / total, (both + only_b) / total
    covariance = both * neither - only_a * only_b
    if covariance > 0:
        covariance = max(covariance - total / 2, 0)
    root = sqrt((both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither))
    phi = covariance / root if root else 0.0

    def half(x, y):
        return sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))  # rounding may make it negative where phi is 1
    return a - b - half(a - low_a, high_b - b), a - b + half(high_a - a, b - low_b)


HOLDS, NOT, UNDECIDED = "holds", "does not hold", "not decided"
CHANCE = 0.05  #: of a wrong verdict


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, or a mean difference, with its interval; prints in percentage points.

    The interval counts one kind of chance or two: seeds always, and test images where ``images`` says what other ones
    would add.
    """

    mean: float
    std: float  #: of a single value, with n - 1 in the denominator
    n: int  #: seeds
    images: float = 0.0  #: the variance of the mean that other test images would add
    images_freedom: float = inf  #: degrees of freedom of that variance
    confidence: float = 0.95

    @property
    def error(self) -> float:
        """The standard error: the root of std^2/n + images."""
        return sqrt(self.std ** 2 / self.n + self.images)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error, after Welch and Satterthwaite: the sum of the variances, squared,
        over the sum of each one's square over its own degrees of freedom."""
        parts = (self.std ** 2 / self.n, self.n - 1), (self.images, self.images_freedom)
        below = sum(variance ** 2 / freedom for variance, freedom in parts if variance)
        return self.error ** 4 / below if below else inf

    @property
    def half(self) -> float:
        """Half the width of the interval: Student's t times the standard error. NaN for a single seed."""
        from scipy.stats import t

        return float(t.ppf(0.5 + self.confidence / 2, self.freedom)) * self.error if self.n > 1 else nan

    @property
    def low(self) -> float:
        return self.mean - self.half

    def in_points(self) -> "Mean":
        """The same in percentage points, of a mean of shares."""
        return replace(self, mean=100 * self.mean, std=100 * self.std, images=1e4 * self.images)

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high

    def below(self, bound: float) -> float:
        """The one-sided p-value of the hypothesis that the true value is at or above ``bound``."""
        from scipy.stats import t

        if not self.error:
            return 1.0 if self.mean >= bound else 0.0
        return float(t.cdf((self.mean - bound) / self.error, self.freedom))

    def above(self, bound: float) -> float:
        """The one-sided p-value of the hypothesis that the true value is at or below ``bound``."""
        return replace(self, mean=-self.mean).below(-bound)

    @property
    def verdict(self) -> str:
        """Of a difference: does `finding` tell it from 0? One seed tells nothing."""
        if self.n < 2:
            return "unknown"
        return "within noise" if finding(self, "more", 0)[0] == UNDECIDED else "more than noise"

    def reached(self, goal: float) -> str:
        """``"reached"``, ``"not reached"`` or ``"not decided"``: what `finding` says of a goal."""
        return {HOLDS: "reached", NOT: "not reached", UNDECIDED: "not decided"}[
            finding(replace(self, mean=self.mean - goal), "more", 0)[0]]

    def __str__(self):
        spread = f"standard deviation {100 * self.std:.2f}, " if self.n > 1 else ""
        return f"{100 * self.mean:.2f} ({spread}n = {self.n})"


def mean_over_seeds(values: Iterable[float], confidence: float = 0.95, images: float = 0.0) -> Mean:
    """The `Mean` of one value per seed. Without ``images``, the variance that other images would add, its interval is
    Student's: mean +- t(n - 1) std / sqrt(n).

    With a single value the spread is unknown: std, low and high are NaN. Raises `ValueError` for no value.
    """
    import numpy as np

    values = np.asarray(list(values), dtype=float)
    if not len(values):
        raise ValueError("there are no values to take the mean of")
    if len(values) == 1:
        return Mean(float(values[0]), nan, 1, images, confidence=confidence)
    if not np.ptp(values):  # rounding of the mean would make a spread of equal values
        return Mean(float(values[0]), 0.0, len(values), images, confidence=confidence)
    return Mean(float(values.mean()), float(values.std(ddof=1)), len(values), images, confidence=confidence)


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Mean:
    """The `Mean` of a minus b over seeds, where ``a[i]`` and ``b[i]`` share seed and test images (paired t interval).

    The same interval as that of scipy's `ttest_rel`, which does not tell the standard deviation. It contains 0 exactly
    if the paired t test finds no difference at this confidence.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need as many values on either side, not {len(a)} and {len(b)}")
    return mean_over_seeds([x - y for x, y in zip(a, b, strict=True)], confidence)


# ---------------------------------------------------------------- seeds and images


def over_seeds_and_images(outcomes: Iterable, strata: Iterable | None = None, clusters: Iterable | None = None,
                          confidence: float = 0.95) -> Mean:
    """The `Mean` of ``outcomes``, an array ``(seeds, images)``, whose interval counts both kinds of chance: other
    seeds, and other images. An outcome is 1 where the run of a seed reads an image, else 0; or the difference of two
    networks' outcomes.

    Seeds are crossed with images: every run is tested on the same ones. The variance of the mean is
    s^2/n + c, with s the standard deviation between the n runs' accuracies, and c what two different runs share:
    the covariance of their means over images drawn anew, averaged over all pairs of runs. (What they do not share is
    in s already.) ``strata`` names for each image the kind it is of; each kind keeps its share. ``clusters`` names who
    wrote it: writers are drawn anew then, with all their images. With r the outcomes minus the mean of their run and
    kind, R their sums over each of the G clusters of a kind, and m the number of all images,
    c = sum over kinds of G / (G - 1) sum over clusters of (R_a R_b, averaged over pairs of runs a, b) / m^2;
    a negative sum counts as 0. Without clusters each image is one of its own.
    Sources: S. Searle, G. Casella and C. McCulloch, "Variance components" (1992), for crossed factors; W. Cochran,
    "Sampling techniques" (1977), 11.8, for clusters; F. Satterthwaite (1946) for the degrees of freedom.

    Raises `ValueError` for outcomes of no two dimensions, and for a kind of one cluster.
    """
    import numpy as np

    outcomes = np.asarray(outcomes, dtype=float)
    if outcomes.ndim != 2 or 0 in outcomes.shape:
        raise ValueError(f"outcomes need the shape (seeds, images), not {outcomes.shape}")
    n, m = outcomes.shape
    runs = mean_over_seeds(outcomes.mean(1), confidence)
    if n == 1:
        return runs
    strata = np.zeros(m, int) if strata is None else np.asarray(strata)
    clusters = np.arange(m) if clusters is None else np.asarray(clusters)
    shares, freedoms = [], []
    for kind in np.unique(strata):
        here = strata == kind
        names, group = np.unique(clusters[here], return_inverse=True)
        if len(names) < 2:
            raise ValueError(f"all images of the kind {kind} are of one cluster, which shows no spread")
        residuals = outcomes[:, here] - outcomes[:, here].mean(1, keepdims=True)
        sums = np.stack([np.bincount(group, row, len(names)) for row in residuals])
        pairs = (sums.sum(0) ** 2 - (sums ** 2).sum(0)).sum() / (n * (n - 1))
        shares.append(len(names) / (len(names) - 1) * pairs / m ** 2)
        freedoms.append(len(names) - 1)
    share = max(0.0, float(sum(shares)))
    below = sum(each ** 2 / freedom for each, freedom in zip(shares, freedoms, strict=True))
    return replace(runs, images=share, images_freedom=share ** 2 / float(below) if share else inf)


def finding(mean: Mean, says: str, matters: float) -> tuple[str, float]:
    """``(verdict, p)`` of a statement by the interval alone, with the p-value of what settles it. Every verdict of the
    course comes from here.

    more      holds above 0, fails below ``matters``: no difference that matters is left.
    no loss   holds above -``matters``, fails below 0.
    equal     holds within ``matters`` on both sides, fails outside on one.

    A difference that is real but surely smaller than what matters does not bear out "more"; a loss that is real but
    surely smaller does bear out "no loss".
    """
    if mean.n < 2:
        return UNDECIDED, 1.0
    if says == "more":
        sides = mean.above(0), mean.below(matters)
    elif says == "no loss":
        sides = mean.above(-matters), mean.below(0)
    else:
        sides = (max(mean.above(-matters), mean.below(matters)), min(mean.above(matters), mean.below(-matters)))
    holds, fails = (min(1.0, 2 * p) for p in sides)  # both sides count
    if max(holds, fails) < CHANCE:
        return (NOT, fails) if says == "more" else (HOLDS, holds)
    if min(holds, fails) >= CHANCE:
        return UNDECIDED, min(holds, fails)
    return (HOLDS, holds) if holds < CHANCE else (NOT, fails)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the chance of even one wrong verdict stays below 5 %.

    The k-th smallest of m is multiplied by m - k + 1, and none falls below the one before it.
    Source: S. Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    corrected, last = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        corrected[index] = last = max(last, min(1.0, (len(ps) - rank) * ps[index]))
    return corrected


# ---------------------------------------------------------------- a new run


def log_odds(correct: int, total: int) -> float:
    """log((correct + 1/2) / (wrong + 1/2)): a scale without ends, on which a spread is about that of the mistakes in
    proportion. Source of the halves: J. Haldane (1956), F. Anscombe (1956)."""
    return log((correct + 0.5) / (total - correct + 0.5))


def pooled_spread(groups: Mapping[str, Sequence[float]]) -> tuple[float, int, list[str]]:
    """``(std, degrees of freedom, names)``: the standard deviation that rows ``{name: values}`` have in common, and
    which rows do.

    While one row scatters more than the others together can explain, the widest is left out: Cochran's C test as
    ISO 5725-2 repeats it, at 5 %, for rows of any length. A row that scatters *less* stays, for a few runs that happen
    to agree are no promise that the next one will. The variance is the mean of the rows', weighted by their degrees of
    freedom. Rows of one value, or of equal ones, are left out from the start. Source: R. 't Lam, "Scrutiny of variance
    results for outliers" (2010).

    Raises `ValueError` where no two rows are left.
    """
    from statistics import variance

    from scipy.stats import f

    rows = {name: (variance(values), len(values) - 1) for name, values in groups.items() if len(set(values)) > 1}

    def pool(names):
        free = sum(rows[name][1] for name in names)
        return sum(own * freedom for own, freedom in map(rows.get, names)) / free, free

    def p(name):
        others, free = pool([each for each in names if each != name])
        own, freedom = rows[name]
        return len(names) * f.sf(own / others, freedom, free)

    names = list(rows)
    while len(names) > 1 and p(widest := min(names, key=p)) < 0.05:
        names.remove(widest)
    if len(names) < 2:
        raise ValueError("a spread in common takes two rows of different values")
    common, free = pool(names)
    return sqrt(common), free, names


def new_run(correct: Sequence[int], total: int, pooled: tuple[float, int] | None = None,
            confidence: float = 0.95) -> tuple[float, float]:
    """``(low, high)``: accuracies between which a run under a seed that nobody tried falls with this probability, on
    the same ``total`` images. ``correct`` are the numbers of images that the runs so far read.

    Student's prediction interval mean +- t std sqrt(1 + 1/n) of `log_odds`, turned back into accuracies: it is longer
    on the side of more mistakes, and never reaches 100 %. ``pooled`` is ``(std, degrees of freedom)`` of log-odds;
    without it the runs' own count. NaN where neither is known.
    """
    from statistics import fmean, stdev

    from scipy.stats import t

    odds = [log_odds(each, total) for each in correct]
    if not pooled and len(odds) < 2:
        return nan, nan
    std, freedom = pooled or (stdev(odds), len(odds) - 1)
    half = float(t.ppf(0.5 + confidence / 2, freedom)) * std * sqrt(1 + 1 / len(odds))
    return tuple(1 / (1 + exp(-(fmean(odds) + side))) for side in (-half, half))


# ---------------------------------------------------------------- two networks, and studies


def mcnemar(mistakes_a: Iterable, mistakes_b: Iterable) -> tuple[int, int, float]:
    """``(only_a, only_b, p)`` for two networks on the same images, given the images each gets wrong.

    Only the images that exactly one of them gets wrong tell the two apart: ``only_a`` of them are a's mistakes. p is
    the exact probability of a split at least as uneven if either were equally likely (binomial, two-sided).
    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions" (1947).
    """
    from scipy.stats import binomtest

    mistakes_a, mistakes_b = set(mistakes_a), set(mistakes_b)
    only_a, only_b = len(mistakes_a - mistakes_b), len(mistakes_b - mistakes_a)
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return only_a, only_b, float(p)


def mid_p(only_a: int, only_b: int) -> float:
    """The mid-p value of McNemar's test, given the numbers of images that only one of two networks gets wrong.

    Twice the probability of fewer than min(only_a, only_b) of them on that side, and half that of as many. The exact
    p of `mcnemar` is careful: where neither network is better, it falls below 0.05 less often than 5 times in 100.
    Source: M. W. Fagerland, S. Lydersen and P. Laake, "The McNemar test for binary matched-pairs data: mid-p and
    asymptotic are better than exact conditional" (2013).
    """
    from scipy.stats import binom

    fewer, total = min(only_a, only_b), only_a + only_b
    return float(min(1.0, 2 * binom.cdf(fewer, total, 0.5) - binom.pmf(fewer, total, 0.5)))


def detectable_difference(std: float, n: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference of two recipes that ``n`` seeds of each show with probability ``power``, judged as
    `paired_difference` judges it.

    ``std`` is that of a single run, and runs that share a seed are taken to be no more alike than others. The paired
    t test of a difference d has a noncentral t with n - 1 degrees of freedom and noncentrality d / (std sqrt(2/n));
    the d is found at which it exceeds t(1 - alpha/2), to the side of the difference, with probability ``power``.
    Source: J. Cohen, "Statistical power analysis for the behavioral sciences" (1988), chapter 2.

    Raises `ValueError` for fewer than two seeds.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    if n < 2:
        raise ValueError(f"a difference cannot be judged from {n} seed a side: take at least 2")
    needed = t.ppf(0.5 + confidence / 2, n - 1)
    return float(brentq(lambda shift: nct.sf(needed, n - 1, shift) - power, 0, 10 * needed)) * std * sqrt(2 / n)


def best_epoch_bias(curve: Sequence[float], last: int = 5) -> float:
    """How much the best of the ``last`` epochs of an accuracy curve exceeds the last one: what picking it gains.

    At a small learning rate the networks of the last epochs hardly differ, and what differs is mostly luck.
    """
    return max(curve[-last:]) - curve[-1]


def best_by_luck(spreads: Sequence[float]) -> float:
    """How far the best of several equally good ideas lies above their common truth, on average: the expected maximum
    of independent normal deviations, whose standard deviations are ``spreads``.

    With F(x) = product of Phi(x / s) over the spreads s, it is the integral of 1 - F over x > 0 less that of F over
    x < 0. For k equal spreads s: 0.56 s for two, 1.16 s for five, 1.54 s for ten.
    Source: H. A. David and H. N. Nagaraja, "Order statistics" (2003); tables by L. H. C. Tippett, "On the extreme
    individuals and the range of samples taken from a normal population" (1925).

    Raises `ValueError` unless there are spreads and all are positive.
    """
    import numpy as np
    from scipy.integrate import trapezoid
    from scipy.stats import norm

    spreads = np.asarray(list(spreads), dtype=float)
    if not len(spreads) or not (spreads > 0).all():
        raise ValueError("luck is computed from one or more spreads above 0")
    x = np.linspace(0, 9 * spreads.max(), 4001)[:, None]
    above, below = norm.cdf(x / spreads).prod(1), norm.cdf(-x / spreads).prod(1)
    return float(trapezoid(1 - above - below, x[:, 0]))
