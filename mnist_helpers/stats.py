"""What measured accuracies say about the true ones: intervals, paired tests, and what a number of seeds can show.

scipy.stats is imported where it is used, since it takes most of a second.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt


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


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % interval; prints in percentage points."""

    mean: float
    std: float  #: of a single value, with n - 1 in the denominator
    n: int
    low: float
    high: float

    def new_run(self, confidence: float = 0.95) -> tuple[float, float]:
        """``(low, high)``: where a run under a seed that nobody tried falls with this probability.

        Student's prediction interval mean +- t(n - 1) std sqrt(1 + 1/n); NaN for a single value.
        """
        from scipy.stats import t

        half = t.ppf(0.5 + confidence / 2, self.n - 1) * self.std * sqrt(1 + 1 / self.n) if self.n > 1 else float("nan")
        return float(self.mean - half), float(self.mean + half)

    @property
    def verdict(self) -> str:
        """Of a difference: is 0 inside its interval? One seed has none."""
        if self.n < 2:
            return "unknown"
        return "within noise" if self.low <= 0 <= self.high else "more than noise"

    def __str__(self):
        spread = f" ± {100 * self.std:.2f}" if self.n > 1 else ""
        return f"{100 * self.mean:.2f}{spread} (n = {self.n})"


def mean_over_seeds(values: Iterable[float], confidence: float = 0.95) -> Mean:
    """The `Mean` of one value per seed, with Student's interval mean +- t(n - 1) std / sqrt(n).

    With a single value the spread is unknown: std, low and high are NaN. Raises `ValueError` for no value.
    """
    import numpy as np
    from scipy.stats import ttest_1samp

    values = np.asarray(list(values), dtype=float)
    if not len(values):
        raise ValueError("there are no values to take the mean of")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Mean(mean, float("nan"), n, float("nan"), float("nan"))
    if not np.ptp(values):  # scipy warns of dividing by a standard deviation of 0
        return Mean(mean, 0.0, n, mean, mean)
    low, high = ttest_1samp(values, 0).confidence_interval(confidence)
    return Mean(mean, float(values.std(ddof=1)), n, float(low), float(high))


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Mean:
    """The `Mean` of a minus b over seeds, where ``a[i]`` and ``b[i]`` share seed and test images (paired t interval).

    The same interval as that of scipy's `ttest_rel`, which does not tell the standard deviation. It contains 0 exactly
    if the paired t test finds no difference at this confidence.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need as many values on either side, not {len(a)} and {len(b)}")
    return mean_over_seeds([x - y for x, y in zip(a, b, strict=True)], confidence)


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

    ``std`` is that of a single run, and runs that share a seed are taken to be no more alike than others.
    (t(1 - alpha/2) + t(power)) std sqrt(2/n), with n - 1 degrees of freedom: an approximation, a little too hopeful
    below five seeds. Source: G. Snedecor and W. Cochran, "Statistical methods", on choosing the size of a sample.

    Raises `ValueError` for fewer than two seeds.
    """
    from scipy.stats import t

    if n < 2:
        raise ValueError(f"a difference cannot be judged from {n} seed a side: take at least 2")
    return float((t.ppf(0.5 + confidence / 2, n - 1) + t.ppf(power, n - 1)) * std * sqrt(2 / n))


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
