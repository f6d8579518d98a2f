"""Generations of locators: when the first packet to a new one is news."""

from __future__ import annotations

from ipaddress import ip_address

from testbed.dataplane.generations import REMEMBERED, Generations
from testbed.dataplane.model import Locator

A, B = (Locator(ip_address(f"10.0.{site}.2"), 1, 100) for site in (1, 2))


def test_the_same_locators_are_the_same_generation_whatever_their_weights() -> None:
    generations = Generations()
    first = generations.after(0, (A, B))
    assert generations.after(first, (B, Locator(A.rloc, 1, 50))) == first
    assert generations.after(first, (B,)) != first
    assert generations.after(first, ()) == 0


def test_the_first_packet_is_announced_once_with_where_it_went_before() -> None:
    generations = Generations()
    second = generations.after(generations.after(0, (A,)), (B,))
    assert not generations.has_nothing_to_announce(second)
    announced = generations.announce(second)
    assert announced is not None
    assert announced.old_rloc == A.rloc
    assert generations.announce(second) is None
    assert generations.has_nothing_to_announce(second)


def test_what_was_never_there_is_not_announced() -> None:
    generations = Generations()
    assert generations.announce(7) is None
    assert generations.has_nothing_to_announce(0)


def test_the_oldest_that_nobody_uses_are_forgotten() -> None:
    generations = Generations()
    used = number = generations.after(0, (A,))
    while not generations.are_many(1):
        number = generations.after(number, (B,) if number % 2 else (A,))
    generations.forget({used, number})
    assert not generations.has_nothing_to_announce(used)
    assert not generations.has_nothing_to_announce(number)
    assert generations.has_nothing_to_announce(used + 1)
    kept = sum(not generations.has_nothing_to_announce(each) for each in range(1, number + 1))
    assert kept == REMEMBERED // 2 + 2
