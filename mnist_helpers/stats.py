"""What measured accuracies say about the true ones."""

from math import sqrt


def wilson_interval(correct, total, confidence=0.95):
    """``(low, high)``: Wilson's score interval for an accuracy measured as ``correct`` of ``total`` images.

    Unlike accuracy +- 1.96 standard errors it stays between 0 and 1 and holds near 100 %. With p the accuracy, n the
    total and z the normal quantile: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Raises `ValueError` unless 0 <= correct <= total and total > 0.
    """
    from scipy.stats import binomtest  # most of a second, so only when it is needed

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
