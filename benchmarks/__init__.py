"""What the course's speed claims rest on, and the search behind its challenges: ``python -m benchmarks --help``."""

import statistics


def spread(values, form=".1f", unit=""):
    """The median of several measurements, with the smallest and the largest: ``"3.5x [3.0, 4.3]"``."""
    median, low, high = (f"{value:{form}}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median}{unit} [{low}, {high}]"
