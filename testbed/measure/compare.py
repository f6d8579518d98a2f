"""Compare two samples of one figure, less being better, and put the outcome into one of four words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.random import Generator

from testbed.measure.statistics import CONFIDENCE, RESAMPLES, Floats

Word = Literal["improved", "regressed", "within noise", "cannot tell"]

#: With fewer on a side no two samples are far enough apart for p < 0.05 (4 and 4: 2 of 70 splits).
MIN_N = 4


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a sample B stands to a sample A.

    Attributes:
        n_a, n_b: sizes.
        difference: median of B minus median of A.
        ci95: its bootstrap interval; None if a side is smaller than MIN_N.
        cliffs_delta: P(b > a) - P(b < a), in -1 … 1.
        p_value: of the permutation test of Cliff's delta, two-sided.
        floor: the smallest difference that the measurement can resolve.
        word: the outcome.
        why: the reason for the word.
    """

    n_a: int
    n_b: int
    difference: float
    ci95: tuple[float, float] | None
    cliffs_delta: float
    p_value: float | None
    floor: float
    word: Word
    why: str


def compare(a: Sequence[float], b: Sequence[float], rng: Generator, *, floor: float) -> Comparison | None:
    """Compare B with A; None if either is empty.

    Args:
        a: the reference's values.
        b: the candidate's values.
        rng: for the bootstrap and the permutations.
        floor: the probe interval, or what else limits the resolution, in the values' unit.
    """
    if not len(a) or not len(b):
        return None
    first: Floats = np.asarray(a, dtype=np.float64)
    second: Floats = np.asarray(b, dtype=np.float64)
    difference = float(np.median(second) - np.median(first))
    delta = cliffs_delta(first, second)
    if min(len(first), len(second)) < MIN_N:
        why = f"n = {len(first)} and {len(second)}: at least {MIN_N} of each are needed"
        return Comparison(len(first), len(second), difference, None, delta, None, floor, "cannot tell", why)
    interval = difference_interval(first, second, rng)
    p_value = permutation_p(first, second, rng)
    word, why = _word(difference, interval, p_value, floor)
    return Comparison(len(first), len(second), difference, interval, delta, p_value, floor, word, why)


def _word(difference: float, interval: tuple[float, float], p_value: float, floor: float) -> tuple[Word, str]:
    """The outcome: a real difference, one too small to matter, or a sample too small to say."""
    low, high = interval
    excludes_zero = low > 0 or high < 0
    if excludes_zero and p_value < 1 - CONFIDENCE and abs(difference) > floor:
        return (
            "improved" if difference < 0 else "regressed"
        ), "the interval excludes 0, and the permutation test agrees"
    if abs(difference) <= floor and max(abs(low), abs(high)) <= 2 * floor:
        return "within noise", f"the difference is below the floor of {floor:g}, and so is what it may be"
    if excludes_zero and abs(difference) <= floor:
        return "within noise", f"the difference is below the floor of {floor:g}"
    if not excludes_zero and high - low <= 4 * floor:
        return "within noise", "the interval has 0 in it and is hardly wider than the floor"
    return "cannot tell", "neither a difference nor its absence is certain: more runs are needed"


def cliffs_delta(a: Floats, b: Floats) -> float:
    """Cliff's delta of B against A (Cliff 1993): 1 if every b is above every a."""
    return float(np.sign(b[:, None] - a[None, :]).mean())


def difference_interval(a: Floats, b: Floats, rng: Generator) -> tuple[float, float]:
    """The percentile bootstrap interval of median(b) - median(a), both resampled."""
    draws_a = np.median(a[rng.integers(0, len(a), (RESAMPLES, len(a)))], axis=1)
    draws_b = np.median(b[rng.integers(0, len(b), (RESAMPLES, len(b)))], axis=1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(draws_b - draws_a, [tail, 100 - tail])
    return float(low), float(high)


def ranked(values: Floats) -> Floats:
    """The rank of each value from 1 on, equal ones sharing the mean of theirs.

    As `scipy.stats.rankdata`; that module takes a second to import, before a command has said anything.
    """
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Floats = np.cumsum(counts) - (counts - 1) / 2
    return means[which]


def permutation_p(a: Floats, b: Floats, rng: Generator) -> float:
    """The two-sided p-value of the permutation test of Cliff's delta.

    The difference of medians is what the report states, but it is a poor statistic to test: swapping a
    value or two between well separated samples leaves both medians where they are. Exact when all splits
    are fewer than the resamples, otherwise by random splits with the observed one counted (Phipson and
    Smyth 2010), so that it is never 0.
    """
    pooled, n_a = np.concatenate([a, b]), len(a)
    # delta is a linear function of the rank sum of A, so the distance from its expectation tests it.
    ranks = ranked(pooled)
    expected = n_a * (len(pooled) + 1) / 2
    observed = abs(float(ranks[:n_a].sum()) - expected)
    exact = math.comb(len(pooled), n_a) <= RESAMPLES
    if exact:
        splits = np.array(list(combinations(range(len(pooled)), n_a)))
    else:
        splits = rng.permuted(np.tile(np.arange(len(pooled)), (RESAMPLES, 1)), axis=1)[:, :n_a]
    extreme = int((np.abs(ranks[splits].sum(axis=1) - expected) >= observed - 1e-9).sum())
    return extreme / len(splits) if exact else (extreme + 1) / (RESAMPLES + 1)
