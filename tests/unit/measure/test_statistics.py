"""Statistics against simulation, against hand-worked values, and against what they must refuse to say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from testbed.measure.compare import MIN_N, cliffs_delta, compare, permutation_p, ranked
from testbed.measure.statistics import P95_MIN_N, describe, ecdf, median_interval, wilson
from tests.effort import examples


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_median_interval_covers_the_median_of_a_skewed_law_in_about_95_of_100_samples() -> None:
    draw, truth = rng(7), math.log(2)
    covered = 0
    for _ in range(200):
        low, high = median_interval(draw.exponential(1.0, 25), draw)
        covered += low <= truth <= high
    assert 180 <= covered <= 199  # 95 % of 200 is 190; binomial 99.9 % range, and not always


def test_of_few_values_none_is_called_an_outlier() -> None:
    few, enough = describe([1.0, 1.1, 1.2, 1.1, 9.0], rng()), describe([1.0, 1.1, 1.2, 1.1, 1.0, 9.0], rng())
    assert few is not None
    assert enough is not None
    assert (few.outliers, enough.outliers) == ((), (5,))


def test_description_of_a_known_sample() -> None:
    found = describe([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 100.0], rng())
    assert found is not None
    assert (found.n, found.median, found.min, found.max) == (10, 5.5, 1.0, 100.0)
    assert found.iqr == (3.25, 7.75)
    assert found.outliers == (9,)
    assert found.ci95 is not None
    assert found.ci95[0] <= 5.5 <= found.ci95[1]
    assert found.p95 is None
    assert "59" in found.reasons["p95"]


def test_one_value_has_no_interval() -> None:
    found = describe([3.0], rng())
    assert found is not None
    assert (found.ci95, found.iqr, found.p95) == (None, None, None)
    assert set(found.reasons) == {"ci95", "iqr", "p95"}


def test_p95_from_59_on() -> None:
    assert 0.95**P95_MIN_N < 0.05 < 0.95 ** (P95_MIN_N - 1)
    few, enough = describe([1.0] * 58, rng()), describe([1.0] * 59, rng())
    assert few is not None
    assert enough is not None
    assert (few.p95, enough.p95) == (None, 1.0)


def test_nothing_is_described_as_nothing() -> None:
    assert describe([], rng()) is None


def test_same_seed_same_interval() -> None:
    sample = list(rng(3).exponential(1.0, 20))
    assert describe(sample, rng(5)) == describe(sample, rng(5))


@settings(max_examples=examples(30))
@given(st.lists(st.floats(0, 1e6), min_size=6, max_size=30))
def test_interval_lies_within_the_sample(sample: list[float]) -> None:
    found = describe(sample, rng())
    assert found is not None
    assert found.ci95 is not None
    low, high = found.ci95
    assert found.min <= low <= high <= found.max


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (29, 30, 0.8333, 0.9941),
        (0, 0, 0, 1),
    ],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_ecdf_band() -> None:
    curve = ecdf([3.0, 1.0, 2.0, 4.0])
    assert curve.x == (1.0, 2.0, 3.0, 4.0)
    assert curve.y == (0.25, 0.5, 0.75, 1.0)
    assert curve.epsilon == pytest.approx(math.sqrt(math.log(40) / 8))
    assert min(curve.low) == 0.0
    assert max(curve.high) == 1.0


def test_ecdf_band_covers_the_law_in_about_95_of_100_samples() -> None:
    draw, covered = rng(11), 0
    for _ in range(200):
        curve = ecdf(list(draw.uniform(size=40)))
        edges = [abs(y - x) for x, y in zip(curve.x, curve.y, strict=True)]
        edges += [abs(y - 1 / 40 - x) for x, y in zip(curve.x, curve.y, strict=True)]
        covered += max(edges) <= curve.epsilon
    assert 182 <= covered <= 200


def test_cliffs_delta() -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    assert cliffs_delta(a, b) == 1.0
    assert cliffs_delta(b, a) == -1.0
    assert cliffs_delta(a, a) == 0.0


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, 7.25]) | st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_ranks_are_those_of_the_library(values: list[float]) -> None:
    assert ranked(np.array(values)).tolist() == rankdata(values).tolist()


def test_exact_permutation_test() -> None:
    """Only the observed split and its mirror image are so extreme; with an overlap, two more are."""
    a, b = np.arange(1.0, 5.0), np.arange(11.0, 15.0)
    assert permutation_p(a, b, rng()) == pytest.approx(2 / 70)
    # Rank sums of A not above 1+2+3+5 = 11: {1,2,3,4}, {1,2,3,5}; with their mirror images 4.
    a, b = np.array([1.0, 2.0, 3.0, 5.0]), np.array([4.0, 6.0, 7.0, 8.0])
    assert permutation_p(a, b, rng()) == pytest.approx(4 / 70)


def test_sampled_permutation_test_is_near_the_exact_one() -> None:
    a, b = np.arange(9.0), np.arange(9.0) + 100.0
    assert permutation_p(a, b, rng()) == pytest.approx(2 / math.comb(18, 9), abs=5e-4)


def test_permutation_test_keeps_its_level() -> None:
    draw, rejected = rng(5), 0
    for _ in range(100):
        sample = draw.exponential(1.0, 12)
        rejected += permutation_p(sample[:6], sample[6:], draw) < 0.05
    assert rejected <= 11  # 5 expected


@pytest.mark.parametrize(
    ("shift", "spread", "n", "word"),
    [
        (-300.0, 20.0, 10, "improved"),
        (300.0, 20.0, 10, "regressed"),
        (0.0, 4.0, 20, "within noise"),
        (5.0, 1.0, 20, "within noise"),  # real, and below the probe interval
        (30.0, 300.0, 6, "cannot tell"),
        (300.0, 20.0, MIN_N - 1, "cannot tell"),
    ],
)
def test_words(shift: float, spread: float, n: int, word: str) -> None:
    draw = rng(2)
    a = list(1000 + spread * draw.standard_normal(n))
    b = list(1000 + shift + spread * draw.standard_normal(n))
    found = compare(a, b, rng(9), floor=10.0)
    assert found is not None
    assert found.word == word, found


def test_comparison_with_nothing() -> None:
    assert compare([], [1.0], rng(), floor=10.0) is None


#: Of 100 simulated comparisons of 10 runs with 10, at least so many must come out right.
RIGHT_OF_100 = 95


def simulated_words(shift: float, seed: int) -> list[str]:
    """The words of 100 comparisons of skewed outages: 1 s and an exponential tail, standard deviation 50 ms."""
    draw, words = rng(seed), []
    for _ in range(100):
        a, b = (1000 + 50 * draw.exponential(size=10) for _ in range(2))
        found = compare(list(a), list(b + shift), draw, floor=10.0)
        assert found is not None
        words.append(found.word)
    return words


def test_no_difference_is_not_called_one() -> None:
    words = simulated_words(0.0, seed=5)
    assert sum(word in ("within noise", "cannot tell") for word in words) >= RIGHT_OF_100


def test_a_difference_of_three_standard_deviations_is_found() -> None:
    assert simulated_words(150.0, seed=6).count("regressed") >= RIGHT_OF_100
    assert simulated_words(-150.0, seed=7).count("improved") >= RIGHT_OF_100
