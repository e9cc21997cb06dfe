"""The demo's arm on the backend of this process."""

import keras
import numpy as np
import pytest

from nan_callbacks.demo.arm import Arm, ArmResult, Recipe
from nan_callbacks.demo.digits import load_digits
from nan_callbacks.demo.faults import FAULTS
from nan_callbacks.keras.demo import ArmSchedule, train_arm

RECIPE = Recipe(epochs=2)


class Recorder:
    """Keeps what an arm shows."""

    def __init__(self):
        self.accuracies = []
        self.messages = []

    def epoch(self, accuracy):
        self.accuracies.append(accuracy)

    def say(self, message):
        self.messages.append(message)


def an_arm(fault=None, guarded=False, recipe=RECIPE, **options) -> Arm:
    fault = FAULTS[fault] if fault else None
    return Arm(recipe=recipe, digits=load_digits(recipe.seed), fault=fault, guarded=guarded, **options)


def trained(*args, **options) -> tuple[ArmResult, Recorder]:
    recorder = Recorder()
    return train_arm(an_arm(*args, **options), recorder), recorder


def test_an_arm_shows_every_epoch_and_nothing_else(capfd):
    result, shown = trained()

    assert len(shown.accuracies) == RECIPE.epochs
    assert shown.accuracies[-1] == pytest.approx(result.accuracy)
    assert result.accuracy > 0.9
    assert shown.messages == []
    assert (result.summary, result.events) == ({}, [])
    assert capfd.readouterr() == ("", "")


def test_the_guard_skips_the_batches_of_the_fault_and_says_so_through_the_demo(tmp_path, capfd):
    unguarded, _ = trained("nan_rows")
    path = tmp_path / "events.jsonl"
    guarded, shown = trained("nan_rows", guarded=True, events_path=path)

    assert unguarded.accuracy < 0.2
    assert guarded.accuracy > 0.9
    incidents = [event for event in guarded.events if event["event"] == "incident"]
    assert tuple(event["step"] for event in incidents) == FAULTS["nan_rows"].steps(an_arm().batches.total_steps)
    said = [line for event in guarded.events for line in f"NaNGuard: {event['message']}".splitlines()]
    assert said == shown.messages
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(guarded.events)
    assert capfd.readouterr() == ("", "")


def test_a_learning_rate_that_is_far_too_high_is_recovered_from():
    # Twelve epochs are the demo's; by the sixth the guard has found a rate that works.
    guarded, _ = trained("learning_rate", guarded=True, recipe=Recipe(epochs=6))

    assert guarded.summary["rollbacks"] >= 1
    assert guarded.accuracy > 0.9


def test_the_same_arm_ends_the_same():
    first, second = (trained("scaled_samples", guarded=True) for _ in range(2))

    assert first[1].accuracies == second[1].accuracies
    assert first[0].summary == second[0].summary


@pytest.mark.parametrize("fault", [None, "learning_rate"])
def test_the_schedule_says_to_keras_what_the_arm_says(fault):
    arm = an_arm(fault)
    total = arm.batches.total_steps
    steps = [0, 1, total // 3, total - 1, total, total + 5]
    rates = [float(keras.ops.convert_to_numpy(ArmSchedule(arm)(step))) for step in steps]

    np.testing.assert_allclose(rates, [0.03 * arm.learning_rate_scale(step) for step in steps], rtol=1e-6, atol=1e-12)
