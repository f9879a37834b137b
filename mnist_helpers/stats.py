"""What measured accuracies say about the true ones: intervals, paired tests, and what a number of seeds can show.

scipy.stats is imported where it is used, since it takes most of a second.
"""

from dataclasses import dataclass
from math import sqrt


def wilson_interval(correct, total, confidence=0.95):
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


def newcombe_interval(correct_a, total_a, correct_b, total_b, confidence=0.95):
    """``(low, high)``: the interval for accuracy a minus accuracy b, each measured on images of its own.

    Two networks tested on the *same* images differ by less chance than this allows for, so it errs towards calling a
    difference noise. With l and u the limits of `wilson_interval` and d = a - b:
    d - sqrt((a - l_a)^2 + (u_b - b)^2) to d + sqrt((u_a - a)^2 + (b - l_b)^2).
    Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.
    """
    a, b = correct_a / total_a, correct_b / total_b
    low_a, high_a = wilson_interval(correct_a, total_a, confidence)
    low_b, high_b = wilson_interval(correct_b, total_b, confidence)
    return a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2), a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2)


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % interval; prints in percentage points."""

    mean: float
    std: float  #: of a single value, with n - 1 in the denominator
    n: int
    low: float
    high: float

    def new_run(self, confidence=0.95):
        """``(low, high)``: where a run under a seed that nobody tried falls with this probability.

        Student's prediction interval mean +- t(n - 1) std sqrt(1 + 1/n); NaN for a single value.
        """
        from scipy.stats import t

        half = t.ppf(0.5 + confidence / 2, self.n - 1) * self.std * sqrt(1 + 1 / self.n) if self.n > 1 else float("nan")
        return float(self.mean - half), float(self.mean + half)

    @property
    def verdict(self):
        """Of a difference: is 0 inside its interval? One seed has none."""
        if self.n < 2:
            return "unknown"
        return "within noise" if self.low <= 0 <= self.high else "more than noise"

    def __str__(self):
        spread = f" ± {100 * self.std:.2f}" if self.n > 1 else ""
        return f"{100 * self.mean:.2f}{spread} (n = {self.n})"


def mean_over_seeds(values, confidence=0.95):
    """The `Mean` of one value per seed, with Student's interval mean +- t(n - 1) std / sqrt(n).

    With a single value the spread is unknown: std, low and high are NaN. Raises `ValueError` for no value.
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("there are no values to take the mean of")
    mean, n = values.mean(), len(values)
    std = values.std(ddof=1) if n > 1 else float("nan")
    half = t.ppf(0.5 + confidence / 2, n - 1) * std / sqrt(n) if n > 1 else float("nan")
    return Mean(float(mean), float(std), n, float(mean - half), float(mean + half))


def paired_difference(a, b, confidence=0.95):
    """The `Mean` of a minus b over seeds, where ``a[i]`` and ``b[i]`` share seed and test images (paired t interval).

    It contains 0 exactly if the paired t test finds no difference at this confidence.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need as many values on either side, not {len(a)} and {len(b)}")
    return mean_over_seeds([x - y for x, y in zip(a, b, strict=True)], confidence)


def mcnemar(mistakes_a, mistakes_b):
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


def detectable_difference(std, n, confidence=0.95, power=0.8):
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


def best_epoch_bias(curve, last=5):
    """How much the best of the ``last`` epochs of an accuracy curve exceeds the last one: what picking it gains.

    At a small learning rate the networks of the last epochs hardly differ, and what differs is mostly luck.
    """
    return max(curve[-last:]) - curve[-1]
