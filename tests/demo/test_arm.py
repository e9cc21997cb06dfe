from itertools import pairwise

import pytest

from nan_callbacks.demo.arm import Arm, Recipe
from nan_callbacks.demo.digits import load_digits
from nan_callbacks.demo.faults import FAULTS


def arm(fault: str | None) -> Arm:
    return Arm(recipe=Recipe(), digits=load_digits(seed=0), fault=FAULTS[fault] if fault else None, guarded=False)


def test_the_schedule_falls_from_one_to_zero():
    run = arm(None)
    scales = [run.learning_rate_scale(step) for step in range(run.batches.total_steps + 1)]

    assert scales[0] == 1.0
    assert scales[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(later < earlier for earlier, later in pairwise(scales))


def test_a_wrong_learning_rate_is_a_hundred_times_the_schedule_from_its_step_on():
    right, wrong = arm(None), arm("learning_rate")
    (start,) = FAULTS["learning_rate"].steps(wrong.batches.total_steps)

    assert wrong.learning_rate_scale(start - 1) == right.learning_rate_scale(start - 1)
    assert wrong.learning_rate_scale(start) == 100.0 * right.learning_rate_scale(start)


@pytest.mark.parametrize("fault", ["nan_rows", "scaled_samples"])
def test_corrupted_data_are_learned_on_the_right_schedule(fault: str):
    assert arm(fault).learning_rate_scale(300) == arm(None).learning_rate_scale(300)
