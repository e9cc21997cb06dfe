"""Whether the learning rate moves the loss, and in the right direction."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.checkup.learning_rate import HIGHER, LOWER, examine_rate, probe_rate
from tests.checkup.facts import rate

FALLING = (2.0, 1.9, 1.8, 1.7, 1.6)
RISING = (2.0, 10.0, 100.0, 1e3, 1e4)
STANDING = (2.0, 2.0, 2.0, 2.0, 2.0)
BROKEN = (2.0, 1e30, math.inf, math.nan, math.nan)


def told(*losses, **more):
    return [notice.code for notice in examine_rate(rate(*losses, **more))]


# -- judging ---------------------------------------------------------------------------------------------------------


def test_a_rate_with_which_the_loss_falls_is_healthy():
    assert told(FALLING) == []


@pytest.mark.parametrize("high", [RISING, BROKEN])
def test_a_rate_that_explodes_is_too_high_if_a_smaller_one_works(high):
    assert told(high, FALLING) == ["OPT601"]
    assert told(high, high, FALLING) == ["OPT601"]
    assert told(high, high, high, high) == []
    assert told(high) == []


def test_a_rate_that_moves_nothing_is_too_low_if_a_larger_one_works():
    assert told(STANDING, FALLING, factors=(1.0, 1e3)) == ["OPT602"]
    assert told(STANDING, STANDING, factors=(1.0, 1e3)) == []


def test_a_rate_that_comes_down_from_a_loss_that_it_has_blown_up_itself_does_not_work():
    blown_up = (5e17, 5e17, 1e17, 1e16, 1e16)
    assert told(STANDING, blown_up, factors=(1.0, 1e3)) == []
    assert told(STANDING, blown_up, FALLING, factors=(1.0, 1e3, 1e5)) == ["OPT602"]
    facts = probe_rate({1.0: STANDING, **dict.fromkeys(HIGHER, blown_up)}.get, 0.1)
    assert facts.factors == (1.0, *HIGHER)


def test_the_remedy_names_the_rate_that_worked():
    (high,) = examine_rate(rate(RISING, RISING, FALLING))
    assert "about 0.001" in high.remedy
    (low,) = examine_rate(rate(STANDING, FALLING, factors=(1.0, 1e3)))
    assert "100" in low.remedy or "1e+02" in low.remedy
    assert low.where == "SGD"


def test_a_loss_that_rises_by_little_or_comes_back_is_healthy():
    assert told((2.0, 2.5, 2.2, 2.1, 2.3), FALLING) == []
    assert told((2.0, 1.0, 3.0, 4.0, 9.0), FALLING) == []


@pytest.mark.parametrize("first", [(math.nan,) * 5, (math.inf, 1.0, 1.0, 1.0, 1.0)])
def test_a_loss_that_begins_broken_says_nothing_of_the_rate(first):
    assert told(first, FALLING) == []


@pytest.mark.parametrize("losses", [(0.0,) * 5, (-1.0,) * 5, (1e-300,) * 5, (1.7e308,) * 5])
def test_constants_do_no_harm(losses):
    assert told(losses, losses) == []


def test_nothing_was_tried():
    assert list(examine_rate(None)) == []
    assert told() == []


@given(st.lists(st.lists(st.floats(), min_size=5, max_size=5).map(tuple), min_size=1, max_size=4))
def test_any_losses_can_be_judged(losses):
    assert set(told(*losses)) <= {"OPT601", "OPT602"}


# -- probing ---------------------------------------------------------------------------------------------------------


class Runs:
    """Losses by factor, and which factors were asked for."""

    def __init__(self, answers, default=None):
        self.answers, self.default, self.asked = answers, default, []

    def __call__(self, factor):
        self.asked.append(factor)
        return self.answers.get(factor, self.default)


def test_a_working_rate_is_tried_once():
    run = Runs({1.0: FALLING})
    assert probe_rate(run, 0.1).losses == (FALLING,)
    assert run.asked == [1.0]


def test_smaller_rates_are_tried_until_one_works():
    run = Runs({0.01: FALLING}, RISING)
    assert probe_rate(run, 0.1).factors == (1.0, 0.1, 0.01)
    assert Runs({}, RISING).asked == []


def test_all_smaller_rates_are_tried_if_none_works():
    run = Runs({}, RISING)
    facts = probe_rate(run, 0.1)
    assert run.asked == [1.0, *LOWER]
    assert list(examine_rate(facts)) == []


def test_larger_rates_are_tried_until_one_works():
    run = Runs({HIGHER[1]: FALLING}, STANDING)
    assert probe_rate(run, 1e-9, optimizer="Adam").factors == (1.0, *HIGHER[:2])


def test_a_warm_up_begins_with_next_to_nothing():
    run = Runs({}, STANDING)
    assert list(examine_rate(probe_rate(run, 1e-9, is_scheduled=True))) == []
    assert run.asked == [1.0]


@pytest.mark.parametrize("nothing", [None, ()])
def test_what_cannot_be_tried_is_not_judged(nothing):
    assert probe_rate(Runs({}, nothing), 0.1) is None
    facts = probe_rate(Runs({1.0: RISING}, nothing), 0.1)
    assert list(examine_rate(facts)) == []


def test_a_loss_that_is_thrown_about_may_touch_its_first_value():
    assert told((2.4, 113.0, 2.0, 5.6, 10.0), FALLING) == ["OPT601"]
    assert told((2.4, 6.0, 2.0, 4.0, 5.5), FALLING) == []  # momentum and dropout


def test_lower_rates_are_tried_far_down():
    def run(factor):
        return FALLING if factor < 1e-4 else RISING

    facts = probe_rate(run, 1e3)
    assert [notice.code for notice in examine_rate(facts)] == ["OPT601"]
