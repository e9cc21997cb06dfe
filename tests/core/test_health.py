"""What samples of the layers show, when they are taken, and what looks ill and is not."""

import json
import math
import random
from types import SimpleNamespace

import pytest

from nan_callbacks.core import Action, health
from nan_callbacks.core.detectors.health import SAMPLES
from nan_callbacks.core.events import health_events
from nan_callbacks.core.finding import Severity
from nan_callbacks.core.health import HealthMonitor
from nan_callbacks.core.layer_observation import HealthObservation, LayerObservation

SETTLED = 1000
"""A step of a run that is well under way."""


def layer(name, grad=0.1, **seen):
    """A layer with weights."""
    return LayerObservation(**{"name": name, "kind": "Linear", "weight_norm": 1.0, "grad_norm": grad, **seen})


def activation(name, **seen):
    return LayerObservation(name=name, trainable=False, **seen)


def net(*changed, output=()):
    """Four healthy layers; those that are named alike stand in for them."""
    usual = {name: layer(name, update_norm=1e-3) for name in ("first", "second", "third", "last")}
    own = {each.name: each for each in changed}
    layers = [own.pop(name, each) for name, each in usual.items()]
    return (layers[0], *own.values(), *layers[1:], *output)


def saturated(share=0.99, starved=5e-5):
    return net(layer("first", starved), activation("squash", kind="Sigmoid", saturated_share=share))


def dead(share=0.95):
    return net(activation("relu", kind="ReLU", dead_share=share))


def half(largest, dtype="float16"):
    return net(layer("first", largest=largest, dtype=dtype))


WELL = {
    "ACT306": half(10.0),
    "ACT307": saturated(starved=0.1),
    "ACT308": dead(0.3),
    "GRAD202": net(),
    "GRAD203": net(),
    "OPT606": net(),
    "OPT607": net(layer("first", at_epsilon=0.1), layer("last", at_epsilon=0.3)),
}
ILL = {
    "ACT306": half(50_000.0),
    "ACT307": saturated(),
    "ACT308": dead(),
    "GRAD202": net(layer("first", 1e-9)),
    "GRAD203": net(layer("first", 1e5)),
    "OPT606": net(layer("second", update_norm=0.5)),
    "OPT607": net(layer("first", at_epsilon=0.97), layer("last", at_epsilon=0.99)),
}
NEEDED = {"ACT306": 2}
"""Samples that show an illness before it is told, where they are not the usual number."""
WHERE = {"ACT307": "squash", "ACT308": "relu", "OPT606": "second", "OPT607": "optimizer"}


class Samples:
    """A run as its samples."""

    def __init__(self, every=50, ignore=(), start=SETTLED):
        self.monitor = HealthMonitor(every, ignore)
        self.step, self.every = start, every

    def take(self, layers, times=1, **about):
        """Codes that each of some samples tells."""
        return [[each.code for each in self.findings(layers, **about)] for _ in range(times)]

    def findings(self, layers, **about):
        self.step += self.every
        seen = HealthObservation(step=self.step, epoch=2, batch_index=7, layers=tuple(layers), **about)
        return self.monitor.observe(seen)


def told(course, **options):
    """Everything that a course of samples tells, in order."""
    run = Samples(**options)
    return [code for layers in course for code in run.take(layers)[0]]


# -- when something is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ILL)
def test_an_illness_is_told_once_and_only_after_some_samples(code):
    run, needed = Samples(), NEEDED.get(code, SAMPLES)
    assert run.take(WELL[code], 4) == [[]] * 4

    assert run.take(ILL[code], needed - 1) == [[]] * (needed - 1)
    assert run.take(ILL[code]) == [[code]]
    assert run.take(ILL[code], 10) == [[]] * 10


@pytest.mark.parametrize("code", ILL)
def test_a_strange_batch_now_and_then_is_not_told(code):
    run, needed = Samples(), NEEDED.get(code, SAMPLES)
    run.take(WELL[code])

    for _ in range(5):
        assert run.take(ILL[code], needed - 1) == [[]] * (needed - 1)
        assert run.take(WELL[code]) == [[]]


@pytest.mark.parametrize("code", ILL)
def test_an_illness_that_comes_back_is_told_again(code):
    run, needed = Samples(), NEEDED.get(code, SAMPLES)
    run.take(WELL[code])
    run.take(ILL[code], needed + 2)
    run.take(WELL[code])

    assert run.take(ILL[code], needed) == [*[[]] * (needed - 1), [code]]


@pytest.mark.parametrize("code", ILL)
def test_a_finding_names_the_layer_the_step_and_the_numbers_and_changes_nothing(code):
    run = Samples()
    run.take(WELL[code])
    run.take(ILL[code], NEEDED.get(code, SAMPLES) - 1)

    (found,) = run.findings(ILL[code])

    assert found.where == WHERE.get(code, "first")
    assert (found.step, found.epoch, found.batch_index) == (run.step, 2, 7)
    assert found.action is Action.OBSERVE
    assert found.severity is (Severity.INFO if code == "OPT607" else Severity.WARNING)
    assert math.isfinite(found.value)
    assert found.limit is not None
    (event,) = health_events([found])
    assert (event["event"], event["code"], event["step"]) == ("health", code, run.step)
    assert found.where in event["message"]
    json.dumps(event, allow_nan=False)


def test_layers_that_fall_ill_together_are_told_together():
    run = Samples()
    layers = net(*(layer(name, update_norm=0.5) for name in ("first", "second", "third", "last")))
    run.take(layers, SAMPLES - 1)

    (found,) = run.findings(layers)

    assert found.where == "first"
    assert all(name in found.detail for name in ("second", "third", "last"))


def test_a_layer_that_falls_ill_later_is_told_by_itself():
    run = Samples()
    run.take(net(layer("first", update_norm=0.5)), SAMPLES)
    both = net(layer("first", update_norm=0.5), layer("last", update_norm=0.5))
    run.take(both, SAMPLES - 1)

    assert [(each.code, each.where) for each in run.findings(both)] == [("OPT606", "last")]


def test_several_illnesses_are_told_side_by_side():
    layers = (*net(layer("first", 1e-9)), layer("wild", update_norm=2.0))

    assert Samples().take(layers, SAMPLES)[-1] == ["GRAD202", "OPT606"]


def test_a_layer_that_is_not_always_called_is_not_confused_with_others():
    run = Samples()
    run.take(ILL["OPT606"], SAMPLES - 1)
    run.take(net()[2:])

    assert run.take(ILL["OPT606"]) == [[]]


def test_ignored_codes_are_not_told():
    assert told([ILL["GRAD202"]] * 5, ignore=["grad202"]) == []
    assert told([ILL["GRAD202"]] * 5, ignore=["GRAD203"]) == ["GRAD202"]


def test_a_sample_without_layers_shows_nothing():
    assert told([()] * 5) == []


# -- what looks ill and is not -----------------------------------------------------------------------------------------

LOOK_ALIKES = {
    "a confident output": [
        net(layer("last", 1e-5), output=[activation("sigmoid", saturated_share=1.0, is_output=True)])
    ],
    "dead units of an output": [
        net(output=[activation("relu", dead_share=0.1, is_output=True)]),
        net(output=[activation("relu", dead_share=1.0, is_output=True)]),
    ],
    "a sparse rectifier from the start": [dead(0.97)],
    "a rectifier that is becoming sparse": [dead(0.3), dead(0.85)],
    "a rectifier that was half dead at its best": [dead(0.55), dead(0.95)],
    "frozen layers": [
        net(
            layer("first", None, trainable=False, update_norm=None),
            layer("second", None, trainable=False, update_norm=None),
        )
    ],
    "frozen layers with gradients": [net(layer("first", 0.0, trainable=False), layer("second", 0.0, trainable=False))],
    "frozen saturated layers": [
        (
            layer("first", None, trainable=False),
            activation("tanh", saturated_share=1.0),
            *(layer(name) for name in ("second", "third", "last")),
        )
    ],
    "a decided gate while the others learn": [
        net(layer("second", 0.05), activation("gate", kind="Sigmoid", saturated_share=0.99))
    ],
    "a decided gate that is a layer with weights": [net(layer("second", 0.01, saturated_share=0.99))],
    "half-saturated units over a starved layer": [saturated(share=0.5)],
    "a saturated input": [(activation("squash", saturated_share=1.0), *net())],
    "bfloat16 near the end of float16": [half(60_000.0, "bfloat16"), half(3e38, "bfloat16")],
    "float32 near the end of float16": [half(60_000.0, "float32")],
    "float16 far from its end": [half(900.0)],
    "moments of an embedding": [net(layer("first", at_epsilon=0.999), layer("last", at_epsilon=0.2))],
    "moments of a frozen layer": [
        net(layer("first", trainable=False, at_epsilon=1.0), layer("last", at_epsilon=0.2)),
        net(layer("first", trainable=False, at_epsilon=1.0)),
    ],
    "no gradients at all": [net(*(layer(name, 0.0) for name in ("first", "second", "third", "last")))],
    "gradients that grow a hundredfold": [net(layer("first", 10.0))],
    "gradients that shrink a millionfold": [net(layer("first", 1e-7))],
    "two layers": [(layer("first", 1e-12), layer("last"))],
    "weights of zero": [net(layer("first", weight_norm=0.0, update_norm=0.1))],
    "nothing measured": [(LayerObservation(name="first"), LayerObservation(name="last"))],
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_healthy_look_alikes_are_not_told(name):
    first, *rest = LOOK_ALIKES[name]

    assert told([first] * 10 + [each for each in rest for _ in range(10)]) == []


def test_large_updates_of_the_first_steps_are_not_told():
    assert told([ILL["OPT606"]] * 9, every=10, start=0) == []
    assert told([ILL["OPT606"]] * 20, every=10, start=0) == ["OPT606"]


@pytest.mark.parametrize(("steps", "every"), [(300, 1), (300, 50), (10_000, 50), (100_000, 50), (1_000_000, 50)])
def test_the_end_of_a_cosine_schedule_is_not_told(steps, every):
    run = Samples(every, start=0)
    codes = []
    for step in range(every, steps + 1, every):
        factor = 0.5 * (1 + math.cos(math.pi * step / steps))
        names = ("first", "second", "third", "last")
        codes += run.take(net(*(layer(name, update_norm=1e-3 * factor) for name in names)), rate_share=factor)[0]

    assert codes == []


def test_a_run_whose_updates_are_lost_in_rounding_is_told():
    names = ("first", "second", "third", "last")
    lost = net(*(layer(name, update_norm=1e-10) for name in names))
    one_moves = net(*(layer(name, update_norm=1e-10) for name in names[1:]))

    assert told([lost] * 10) == ["OPT606"]
    assert told([one_moves] * 10) == []


# -- headroom ----------------------------------------------------------------------------------------------------------


def falling(bits, per_step, count, every=50, noise=0.0):
    """Samples of a layer that loses headroom steadily."""
    generator = random.Random(0)
    courses = [bits - per_step * every * index + noise * generator.gauss(0, 1) for index in range(count)]
    return [half(65504.0 / 2**each) for each in courses]


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(("bits", "per_step"), [(5.5, 0.01), (5.5, 0.004), (12.0, 0.02)])
def test_a_trend_towards_overflow_says_in_about_how_many_steps(bits, per_step, noise):
    run, found = Samples(), []
    start = run.step + run.every
    for layers in falling(bits, per_step, 40, noise=noise):
        found = run.findings(layers)
        if found:
            break

    (finding,) = found
    said = float(finding.detail.partition("about ")[2].partition(" steps")[0])
    assert finding.code == "ACT306"
    assert said == pytest.approx(bits / per_step - (run.step - start), rel=0.25)


def test_a_trend_that_takes_long_or_leads_away_is_not_told():
    assert told(falling(5.5, 0.0005, 15)) == []
    assert told(falling(3.0, -0.01, 30)) == []


def test_noisy_headroom_without_a_trend_is_not_told():
    assert told(falling(4.0, 0.0, 200, noise=0.3)) == []


# -- when samples are taken --------------------------------------------------------------------------------------------


def due(monitor, steps=301):
    return [step for step in range(steps) if monitor.is_due(step)]


def test_samples_are_taken_at_the_second_step_and_at_the_cadence():
    assert due(HealthMonitor(100)) == [1, 100, 200, 300]
    assert due(HealthMonitor(1), 5) == [1, 2, 3, 4]
    assert due(HealthMonitor(None)) == []


def test_samples_wait_until_they_cost_next_to_nothing(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(health, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monitor = HealthMonitor(1)
    monitor.has_cost(1.5)
    assert monitor.is_due(2)
    monitor.has_cost(1.5)
    assert not monitor.is_due(3)

    clock.now += 900.0
    assert not monitor.is_due(4)
    clock.now += 101.0
    assert monitor.is_due(5)


# -- resuming ----------------------------------------------------------------------------------------------------------


def mixed(code, seed, count=24):
    """Ill and well samples as they come."""
    generator = random.Random(seed)
    course = [WELL[code]]
    while len(course) < count:
        course += [generator.choice([ILL[code], WELL[code], ILL[code]])] * generator.randint(1, 4)
    return course[:count]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("code", ILL)
def test_a_run_that_is_resumed_tells_what_the_unbroken_one_tells(code, seed):
    course = mixed(code, seed)
    unbroken = Samples()
    expected = [unbroken.take(layers)[0] for layers in course]
    assert any(expected)

    for cut in range(len(course)):
        first, second = Samples(), Samples()
        seen = [first.take(layers)[0] for layers in course[:cut]]
        second.step = first.step
        second.monitor.load_state_dict(json.loads(json.dumps(first.monitor.state_dict())))
        assert seen + [second.take(layers)[0] for layers in course[cut:]] == expected


def test_a_trend_survives_a_resume():
    course = falling(5.5, 0.01, 8)
    unbroken = Samples()
    expected = [unbroken.findings(layers) for layers in course]

    for cut in range(len(course)):
        first, second = Samples(), Samples()
        seen = [first.findings(layers) for layers in course[:cut]]
        second.step = first.step
        second.monitor.load_state_dict(json.loads(json.dumps(first.monitor.state_dict())))
        assert seen + [second.findings(layers) for layers in course[cut:]] == expected


def test_a_state_without_some_detectors_can_be_loaded():
    run = Samples()
    state = run.monitor.state_dict()
    state.pop("HeadroomDetector")
    run.monitor.load_state_dict(state)
    run.monitor.load_state_dict({})

    assert run.take(ILL["GRAD202"], SAMPLES)[-1] == ["GRAD202"]


def test_the_state_of_one_monitor_does_not_change_with_another():
    run = Samples()
    run.take(ILL["ACT306"])
    state = run.monitor.state_dict()
    kept = json.dumps(state)
    other = Samples()
    other.monitor.load_state_dict(state)
    other.take(ILL["ACT306"], 5)
    run.take(WELL["ACT306"], 5)

    assert json.dumps(state) == kept
