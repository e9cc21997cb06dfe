"""What every detector promises. The detectors are discovered, not listed."""

import copy
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nan_callbacks.core import Finding, GuardConfig, StepObservation, detectors
from nan_callbacks.core.detectors import loss_scale
from nan_callbacks.core.detectors.base import Detector
from nan_callbacks.core.stream import build_detectors
from tests.conformance.cases import CASES, stationary
from tests.conformance.discovery import detector_classes, fresh

HISTORY = 300
LONG = 20_000
NAMES = sorted(set(CASES) & set(detector_classes()))
NON_FINITE = [math.nan, math.inf, -math.inf]

every_detector = pytest.mark.parametrize("name", NAMES)


def feed(detector: Detector, observations: Iterable[StepObservation]) -> list[Finding]:
    return [finding for observation in observations for finding in detector.update(observation)]


def with_symptom(name: str, onset: int, steps: int, **changes: Any) -> list[StepObservation]:
    """A healthy run whose steps show the detector's symptom from one on."""
    symptom = CASES[name].symptom
    return [
        replace(seen, **symptom(seen.step - onset), **changes) if seen.step >= onset else seen
        for seen in stationary(onset + steps)
    ]


def leaves(state: Any) -> int:
    if isinstance(state, dict):
        return sum(leaves(item) for item in state.values())
    return sum(map(leaves, state)) if isinstance(state, list) else 1


def after_history(name: str, extra: Iterable[StepObservation] = ()) -> Detector:
    """A detector that has seen a healthy run, and some other steps after it."""
    detector = fresh(name)
    assert feed(detector, stationary(HISTORY)) == []
    feed(detector, extra)
    return detector


def test_every_detector_has_a_case():
    assert set(detector_classes()) == set(CASES)


def test_a_detector_that_nobody_listed_is_discovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = Path(loss_scale.__file__).read_text(encoding="utf-8").replace("class LossScale", "class Invented")
    (tmp_path / "invented.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(detectors, "__path__", [*detectors.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "nan_callbacks.core.detectors.invented", raising=False)

    assert set(detector_classes()) - set(CASES) == {"InventedDetector"}


def test_every_detector_is_built_exactly_once():
    built = sorted(type(detector).__name__ for detector in build_detectors(GuardConfig()).values())

    assert built == sorted(CASES)


@every_detector
def test_it_finds_its_symptom_within_its_delay(name: str):
    case = CASES[name]

    found = feed(fresh(name), with_symptom(name, case.onset, case.delay))

    assert found[0].code == case.code
    assert case.onset <= found[0].step < case.onset + case.delay


@every_detector
def test_its_finding_belongs_to_the_step_that_showed_it(name: str):
    case = CASES[name]
    steps = with_symptom(name, case.onset, case.delay, epoch=7, batch_index=3, stream=1)

    finding = feed(fresh(name), steps)[0]

    assert (finding.epoch, finding.batch_index, finding.stream) == (7, 3, 1)
    assert finding.title
    assert finding.quantity


@every_detector
def test_a_long_healthy_run_raises_no_alarm_and_takes_no_more_memory(name: str):
    detector = fresh(name)
    sizes = []

    for observation in stationary(LONG, seed=1):
        assert detector.update(observation) == []
        if observation.step in (LONG // 10, LONG - 1):
            sizes.append(leaves(detector.state_dict()))

    assert sizes[1] <= sizes[0]


@every_detector
def test_its_state_survives_json_at_any_step(name: str):
    steps = with_symptom(name, HISTORY + 4, 2 * CASES[name].delay + 20)
    for middle in (0, 1, 19, 150, HISTORY, HISTORY + 5, HISTORY + 20):
        unbroken, old, new = fresh(name), fresh(name), fresh(name)
        before = [(repr(unbroken.update(step)), unbroken.limits()) for step in steps]

        feed(old, steps[:middle])
        new.load_state_dict(json.loads(json.dumps(old.state_dict(), allow_nan=False)))

        assert new.limits() == old.limits()
        assert [(repr(new.update(step)), new.limits()) for step in steps[middle:]] == before[middle:]


@every_detector
def test_a_loaded_state_replaces_what_was_there(name: str):
    used = after_history(name, with_symptom(name, 0, 40))

    used.load_state_dict(fresh(name).state_dict())

    assert used.state_dict() == fresh(name).state_dict()
    assert used.limits() == fresh(name).limits()


@every_detector
def test_a_saved_state_does_not_change_when_the_run_goes_on(name: str):
    detector = after_history(name)
    state = detector.state_dict()
    text = json.dumps(state)

    feed(detector, with_symptom(name, 0, 40))

    assert json.dumps(state) == text


@every_detector
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("bad", NON_FINITE)
def test_what_is_not_finite_is_never_learned(name: str, bad: float, applied: bool):
    broken = StepObservation(
        step=HISTORY, loss=bad, grad_norm=bad, statistics_jump=bad, param_norm=bad, loss_scale=65536.0, applied=applied
    )
    clean, poisoned = after_history(name), after_history(name, [broken] * 3)

    assert poisoned.limits() == clean.limits()
    assert poisoned.limits().max_loss == poisoned.limits().max_loss, "NaN"
    steps = with_symptom(name, HISTORY + 20, CASES[name].delay + 20)[HISTORY:]
    assert repr(feed(poisoned, steps)) == repr(feed(clean, steps))


@every_detector
def test_what_is_dropped_is_never_learned(name: str):
    dropped = CASES[name].dropped or {"loss": 1e9, "grad_norm": 1e9}
    # Enough to move a median of 16 values, too few to be taken for a new level.
    spikes = [replace(seen, **dropped, param_norm=None, applied=False) for seen in stationary(12)]
    clean, spiked = after_history(name), after_history(name, spikes)

    assert spiked.limits() == clean.limits()
    steps = with_symptom(name, HISTORY + 20, CASES[name].delay + 20)[HISTORY:]
    assert repr(feed(spiked, steps)) == repr(feed(clean, steps))


@every_detector
def test_what_is_flagged_changes_no_limit_even_if_it_was_applied(name: str):
    symptom = with_symptom(name, HISTORY, 2, applied=True)[HISTORY:]
    clean, flagged = after_history(name), after_history(name, symptom)

    assert flagged.limits() == clean.limits()


@every_detector
def test_it_is_silent_before_it_knows_the_run(name: str):
    first = with_symptom(name, 0, 3)

    found = feed(fresh(name), first)

    assert bool(found) is CASES[name].judges_from_the_start


@every_detector
def test_a_lively_start_raises_no_alarm(name: str):
    """Four times as noisy as later on, and falling by a factor of 50, all within warm-up."""
    warmup = GuardConfig().warmup_steps
    lively = [
        replace(seen, loss=50.0 ** (1 - seen.step / warmup) * seen.loss**2, grad_norm=seen.grad_norm**2)
        for seen in stationary(warmup)
    ]

    assert feed(fresh(name), lively) == []


@every_detector
def test_it_does_not_change_what_it_is_shown(name: str):
    steps = with_symptom(name, 40, 40)
    before = repr(copy.deepcopy(steps))

    feed(fresh(name), steps)

    assert repr(steps) == before


@every_detector
def test_it_does_not_change_itself_when_asked_for_limits(name: str):
    detector = after_history(name)
    before = json.dumps(detector.state_dict())

    assert detector.limits() == detector.limits()
    assert json.dumps(detector.state_dict()) == before


@every_detector
def test_an_accepted_level_is_no_symptom_any_more(name: str):
    """Not so for what can never be normal."""
    detector = after_history(name)

    detector.accept_level()
    found = feed(detector, with_symptom(name, 0, 100))

    assert bool(found) is CASES[name].judges_from_the_start


@every_detector
def test_a_step_without_any_measurement_is_nothing_to_judge(name: str):
    clean, idle = after_history(name), after_history(name, [StepObservation(step=HISTORY)] * 50)

    assert idle.limits() == clean.limits()
    assert feed(idle, [StepObservation(step=HISTORY)]) == []
