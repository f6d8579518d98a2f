"""Say what small, skewed samples allow to be said, and no more.

Randomness is an argument: the same generator gives the same intervals. Nothing is removed from a
sample; what a sample is too small for is None, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9_999
#: With fewer, even [min, max] covers the median in less than 95 % of samples: 1 - 2·0.5**n.
MEDIAN_INTERVAL_MIN_N = 6
#: With fewer, the quartiles are hardly more than the values themselves, and any of them may look far off.
OUTLIERS_MIN_N = 6
#: The smallest n of which the largest value bounds the 95th percentile with 95 % confidence: 0.95**n < 0.05.
P95_MIN_N = 59


@dataclass(frozen=True, slots=True)
class Description:
    """A sample, described.

    Attributes:
        n, median, min, max: of the sample.
        ci95: 95 % interval of the median; None below MEDIAN_INTERVAL_MIN_N.
        iqr: the first and third quartile; None for a single value.
        p95: 95th percentile; None below P95_MIN_N.
        outliers: indices of values beyond 1.5 interquartile ranges: marked, never removed; none below OUTLIERS_MIN_N.
        reasons: why a figure is None, by its name.
    """

    n: int
    median: float
    min: float
    max: float
    ci95: tuple[float, float] | None = None
    iqr: tuple[float, float] | None = None
    p95: float | None = None
    outliers: tuple[int, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)


def describe(values: Sequence[float], rng: Generator) -> Description | None:
    """Describe a sample; None if it is empty."""
    if not len(values):
        return None
    sample: Floats = np.asarray(values, dtype=np.float64)
    n, reasons = len(sample), {}
    interval = iqr = p95 = None
    outliers: tuple[int, ...] = ()
    if n >= MEDIAN_INTERVAL_MIN_N:
        interval = median_interval(sample, rng)
    else:
        covered = max(0.0, 1 - 2 * 0.5**n)
        reasons["ci95"] = f"n = {n}: even the whole range covers the median in only {covered:.0%} of samples"
    if n > 1:
        low, high = (float(value) for value in np.percentile(sample, [25, 75]))
        iqr, fence = (low, high), 1.5 * (high - low)
        if n >= OUTLIERS_MIN_N:
            outliers = tuple(np.flatnonzero((sample < low - fence) | (sample > high + fence)).tolist())
    else:
        reasons["iqr"] = "n = 1"
    if n >= P95_MIN_N:
        p95 = float(np.percentile(sample, 95))
    else:
        reasons["p95"] = f"n = {n}: a one-sided 95 % statement needs {P95_MIN_N}"
    return Description(
        n,
        float(np.median(sample)),
        float(sample.min()),
        float(sample.max()),
        interval,
        iqr,
        p95,
        outliers,
        reasons,
    )


def median_interval(sample: Floats, rng: Generator, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The bias-corrected bootstrap interval of the median (Efron 1987, with acceleration 0).

    The jackknife that would estimate the acceleration is not consistent for a median.

    Args:
        sample: the values.
        rng: where the resamples come from.
        confidence: of the interval.
    """
    draws = np.median(sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))], axis=1)
    return _bias_corrected(draws, float(np.median(sample)), confidence)


def _bias_corrected(draws: Floats, estimate: float, confidence: float) -> tuple[float, float]:
    """Percentiles of bootstrap draws, shifted by the estimate's bias; ties count half on each side."""
    below = float((draws < estimate).mean() + 0.5 * (draws == estimate).mean())
    below = min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws))
    bias = ndtri(below)
    tail = ndtri((1 - confidence) / 2)
    ends = ndtr([2 * bias + tail, 2 * bias - tail])
    low, high = np.percentile(draws, 100 * ends)
    return float(low), float(high)


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), both ends in 0 … 1; (0, 1) without trials."""
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2))
    share, z2 = successes / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n the ends are exactly 0 and 1; the formula misses them by rounding.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True, slots=True)
class Ecdf:
    """An empirical distribution function with a simultaneous band.

    Attributes:
        x: the values, sorted.
        y: the share of values not above each.
        low, high: the Dvoretzky-Kiefer-Wolfowitz band around `y`.
        epsilon: its half width (Massart's constant).
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    epsilon: float


def ecdf(values: Sequence[float], confidence: float = CONFIDENCE) -> Ecdf:
    """The distribution function of a sample; ValueError if it is empty."""
    if not len(values):
        raise ValueError("an empty sample has no distribution function")
    n = len(values)
    epsilon = math.sqrt(math.log(2 / (1 - confidence)) / (2 * n))
    shares = [(index + 1) / n for index in range(n)]
    return Ecdf(
        tuple(sorted(float(value) for value in values)),
        tuple(shares),
        tuple(max(0.0, share - epsilon) for share in shares),
        tuple(min(1.0, share + epsilon) for share in shares),
        epsilon,
    )
