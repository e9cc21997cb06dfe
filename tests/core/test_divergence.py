"""LOSS402: weights that were thrown about while the loss has nothing to show for it."""

import math
from collections.abc import Callable, Iterable

import pytest

from nan_callbacks.core import Action, Finding, StepObservation
from nan_callbacks.core.detectors.divergence import DivergenceDetector
from tests.core.series import log_normal
from tests.core.simulated_run import SimulatedRun

CADENCE = 16
ONSET = 64
END = 400
NOISE = log_normal(END, sigma=0.2)


def findings_of(
    level: Callable[[int], float],
    norm: Callable[[int], float],
    *,
    competing: bool = False,
    noise: Iterable[float] = NOISE,
    detector: DivergenceDetector | None = None,
) -> list[Finding]:
    """What the detector says about a run whose loss level and parameter norm are given by the step."""
    detector = detector or DivergenceDetector()
    found = []
    for step, factor in enumerate(noise):
        found += detector.update(
            StepObservation(
                step=step,
                loss=level(step) * factor,
                param_norm=norm(step) if step % CADENCE == 0 else None,
                competing=competing,
            )
        )
    return found


def grows_by(factor: float) -> Callable[[int], float]:
    """A parameter norm that grows within 16 steps and stays."""
    return lambda step: 10.0 if step < ONSET else 10.0 * factor


def constant(value: float) -> Callable[[int], float]:
    return lambda step: value


def after_onset(factor: float) -> Callable[[int], float]:
    """A loss level that changes when the weights grow."""
    return lambda step: 1.0 if step < ONSET else factor


@pytest.mark.parametrize("growth", [2.0, 10.0, 1e9])
@pytest.mark.parametrize("loss_factor", [1.0, 3.0, 1e6])
def test_weights_that_jump_without_progress_are_divergence(growth: float, loss_factor: float):
    found = findings_of(after_onset(loss_factor), grows_by(growth))

    assert [finding.code for finding in found] == ["LOSS402"]
    assert found[0].action is Action.ROLLBACK
    assert ONSET < found[0].step <= ONSET + 64


@pytest.mark.parametrize("growth", [2.0, 10.0, 1e3])
def test_weights_that_jump_while_the_loss_falls_are_a_healthy_start(growth: float):
    assert findings_of(after_onset(0.3), grows_by(growth)) == []


@pytest.mark.parametrize(("least", "found"), [(0.0, 1), (10.0, 0), (1.0, 1)])
def test_weights_that_began_smaller_than_usual_may_grow_to_the_usual(least: float, found: int):
    detector = DivergenceDetector()
    findings = []
    for step in range(200):
        norm = 0.05 * min(100.0, 1.04**step) if step % CADENCE == 0 else None
        findings += detector.update(StepObservation(step=step, loss=1.0, param_norm=norm, least_norm=least))
    assert bool(findings) == bool(found)


@pytest.mark.parametrize(("sigma", "found"), [(1.5, False), (0.1, True)])
def test_the_first_loss_of_a_single_sample_is_no_level(sigma: float, found: bool):
    """A hundredth of the others by chance; of large batches, it tells that the loss has risen a hundredfold."""
    noise = [0.01, *log_normal(END, sigma=sigma)[1:]]
    assert bool(findings_of(constant(1.0), lambda step: 10.0 * min(1.5, 1.0 + step / 64), noise=noise)) is found


def travels(until: int) -> Callable[[int], float]:
    """Weights on their way to large targets, at the even pace of an adaptive optimizer."""
    return lambda step: 12.0 + 1.3 * min(step, until)


def test_weights_that_travel_far_at_an_even_pace_are_waited_for():
    """A regression on raw house prices: hundreds of steps until the loss, noisy with batches of 8, shows the way."""
    noise = log_normal(END, sigma=0.35)
    assert findings_of(lambda step: 4.6 - 0.008 * step, travels(END), noise=noise) == []
    arrived = findings_of(constant(4.6), travels(160), noise=noise)
    assert [finding.step >= 160 for finding in arrived[:1]] == [True]
    worse = findings_of(lambda step: 4.6 * 3.0 ** min(step / 64, 2.0), travels(END), noise=noise)
    assert [finding.step <= 64 for finding in worse[:1]] == [True]


def test_what_had_grown_before_the_restored_state_is_not_held_against_it():
    """Otherwise a rollback is followed by the next one at once, until the budget is spent."""
    detector = DivergenceDetector()
    findings_of(constant(1.0), lambda step: 10.0 + 0.1 * step, noise=NOISE[:50], detector=detector)
    detector.begin_parole()
    assert findings_of(constant(1.0), constant(15.6), noise=NOISE[50:], detector=detector) == []


def test_weights_may_grow_while_the_loss_leaves_a_plateau():
    """As that of parity does: at chance level for long, then down in steps, the first of them a small one."""
    assert findings_of(after_onset(0.88), grows_by(3.0), noise=log_normal(END, sigma=0.02)) == []
    gradual = findings_of(
        lambda step: 0.69 if step < ONSET else max(0.6, 0.69 - 0.002 * (step - ONSET)),
        lambda step: 7.0 * 1.025 ** min(max(step - ONSET, 0), 64),
        noise=log_normal(END, sigma=0.02),
    )
    assert gradual == []
    torn = findings_of(after_onset(0.88), grows_by(5.0), noise=log_normal(END, sigma=0.02))
    assert [finding.code for finding in torn] == ["LOSS402"]


@pytest.mark.parametrize("fall", [1.0, 0.97])
def test_a_plateau_that_was_left_long_ago_excuses_nothing(fall: float):
    """The run has learnt since; now its rate is raised too far, and the loss goes up, or hardly down."""

    def level(step: int) -> float:
        if step < 48:
            return 0.69
        return 0.69 * 0.96 ** (step - 48) if step < 96 else 0.1 * (fall if step < 160 else 4.0 * fall)

    found = findings_of(level, lambda step: 10.0 if step < 160 else 30.0, noise=log_normal(END, sigma=0.05))
    assert [finding.code for finding in found] == ["LOSS402"]


@pytest.mark.parametrize("rise", [2.0, 100.0, 1e6])
def test_a_loss_that_rises_under_steady_weights_is_no_divergence(rise: float):
    assert findings_of(after_onset(rise), constant(10.0)) == []


def test_weights_that_drift_slowly_are_no_divergence():
    assert findings_of(constant(1.0), lambda step: 10.0 * 1.01**step) == []


def test_adversaries_may_raise_each_others_loss():
    assert findings_of(after_onset(3.0), grows_by(2.0), competing=True) == []
    assert len(findings_of(after_onset(100.0), grows_by(5.0), competing=True)) == 1


def test_too_noisy_a_loss_is_given_the_benefit_of_the_doubt_for_moderate_growth():
    noise = log_normal(END, sigma=1.0)

    assert findings_of(constant(1.0), grows_by(2.0), noise=noise) == []
    assert len(findings_of(constant(1.0), grows_by(10.0), noise=noise)) == 1


def test_below_zero_worse_means_higher():
    fell = findings_of(lambda step: -1.0 if step < ONSET else -3.0, grows_by(5.0))
    rose = findings_of(lambda step: -3.0 if step < ONSET else -1.0, grows_by(5.0))

    assert fell == []
    assert [finding.code for finding in rose] == ["LOSS402"]
    assert rose[0].value is not None
    assert rose[0].limit is not None
    assert rose[0].value > rose[0].limit


@pytest.mark.parametrize("level", [0.0, -2.0])
def test_a_loss_that_cannot_fall_any_further_makes_no_progress_and_no_divergence(level: float):
    assert findings_of(constant(level), grows_by(5.0), noise=[1.0] * END) == []


def test_one_finding_per_episode():
    assert len(findings_of(constant(1.0), lambda step: 10.0 if step < ONSET else 100.0)) == 1


def test_the_finding_says_what_grew_and_from_where():
    (finding,) = findings_of(after_onset(4.0), grows_by(10.0), noise=[1.0] * END)

    assert (finding.quantity, finding.value) == ("loss level", 4.0)
    assert finding.detail == "it was 1 before the weights grew 10-fold"


@pytest.mark.parametrize("norm", [math.nan, math.inf, 0.0])
def test_a_norm_that_is_no_size_is_nothing_to_compare_with(norm: float):
    assert findings_of(constant(1.0), lambda step: 10.0 if step != ONSET else norm) == []


def test_no_snapshot_is_taken_while_the_state_is_suspicious():
    run = SimulatedRun(snapshot_every_n_steps=8, probation_steps=1)
    while not run.codes:
        norm = 10.0 if run.monitor.step < ONSET else 50.0
        run.attempt(param_norm=norm if run.monitor.wants_param_norm() else None)

    assert run.codes == ["LOSS402"]
    assert run.snapshot_steps == [*range(0, ONSET + 1, 8)]


def test_no_snapshot_earns_trust_while_the_state_is_suspicious():
    run = SimulatedRun(snapshot_every_n_steps=8, probation_steps=30)

    while not run.codes:
        norm = 10.0 if run.monitor.step < ONSET else 50.0
        run.attempt(param_norm=norm if run.monitor.wants_param_norm() else None)

    assert run.snapshot_steps == [0, 8, 40]  # the last one lacked six of its thirty steps when the weights grew
    assert run.decisions[-1].restore_step == 8


def test_the_losses_of_dropped_steps_are_no_level():
    detector = DivergenceDetector()
    found = []
    for step in range(3 * ONSET):
        level, norm = (1.0, 10.0) if step < ONSET else (0.3, 50.0)
        for spike in (1e9, 1e9):
            found += detector.update(StepObservation(step=step, loss=spike, applied=False))
        found += detector.update(
            StepObservation(step=step, loss=level, param_norm=norm if step % CADENCE == 0 else None)
        )

    assert found == []


def test_a_suspicion_survives_a_resume():
    detector, resumed = DivergenceDetector(), DivergenceDetector()
    for step, norm in ((0, 10.0), (1, 50.0)):
        detector.update(StepObservation(step=step, loss=1.0, param_norm=norm))
    assert detector.suspicious

    resumed.load_state_dict(detector.state_dict())

    assert resumed.suspicious


def test_the_norm_is_measured_anew_from_a_restored_state_on():
    run = SimulatedRun()
    run.healthy(70)
    run.actions(3, grad_norm=math.nan)

    wanted = []
    for step in range(40):
        if run.monitor.wants_param_norm():
            wanted.append(step)
        run.attempt()

    assert wanted == [*range(9), 16, 32]  # and closely at first, where a rate that is still far too high shows at once


def test_divergence_rolls_the_run_back_to_the_state_before_it():
    run = SimulatedRun()

    for step in range(240):
        norm = 10.0 if step < 160 else 100.0
        run.attempt(loss=1.0, param_norm=norm if run.monitor.wants_param_norm() else None)
        if run.decisions[-1].action is Action.ROLLBACK:
            break

    assert run.codes == ["LOSS402"]
    assert run.decisions[-1].restore_step == 100
    assert run.decisions[-1].reason == "divergence"
    assert run.decisions[-1].lr_cut == 0.5


@pytest.mark.parametrize(("reaction", "action"), [("observe", Action.OBSERVE), ("stop", Action.STOP)])
def test_the_user_chooses_the_reaction(reaction: str, action: Action):
    run = SimulatedRun(on_divergence=reaction)

    for step in range(160):
        run.attempt(param_norm=10.0 if step < ONSET else 100.0)

    found = [decision for decision in run.decisions if decision.findings]
    assert [decision.action for decision in found] == [action]


def test_below_zero_a_rise_within_the_noise_is_none():
    def level(step: int) -> float:
        return -2.0 if step < ONSET else -1.9

    noise = log_normal(END, sigma=0.3)

    assert findings_of(level, grows_by(2.0), noise=noise) == []
    assert len(findings_of(level, grows_by(2.0), noise=[1.0] * END)) == 1


def falls_to_chance_and_back(step: int) -> float:
    """The first loss is above chance; the level falls below it for 100 steps and returns to chance for good."""
    return 3.6 if step == 0 else (1.4 if step < 150 else 2.5)


def inflated_from_the_start(step: int) -> float:
    return 10.0 if step == 0 else 45.0


def on_parole() -> DivergenceDetector:
    detector = DivergenceDetector()
    detector.begin_parole()
    return detector


def test_after_a_rollback_a_relapse_to_chance_is_seen_although_the_start_looked_like_progress():
    found = findings_of(falls_to_chance_and_back, inflated_from_the_start, detector=on_parole())

    assert [finding.code for finding in found] == ["LOSS402"]
    assert 150 < found[0].step < 224


def test_a_restart_that_keeps_its_progress_is_not_judged():
    found = findings_of(lambda step: max(3.6 * 0.98**step, 1.0), inflated_from_the_start, detector=on_parole())

    assert found == []


def test_weights_inflated_since_the_rollback_are_not_trusted_however_good_the_loss_looks():
    detector = on_parole()
    findings_of(lambda step: 3.6 * 0.98**step, inflated_from_the_start, noise=NOISE[:100], detector=detector)

    assert detector.suspicious


def test_trust_comes_back_when_the_parole_ends():
    detector = on_parole()
    findings_of(lambda step: 3.6 * 0.98**step, inflated_from_the_start, noise=NOISE[:300], detector=detector)

    assert not detector.suspicious


def test_the_parole_survives_a_resume():
    whole, first, second = on_parole(), on_parole(), DivergenceDetector()
    findings_of(falls_to_chance_and_back, inflated_from_the_start, noise=NOISE[:160], detector=whole)
    findings_of(falls_to_chance_and_back, inflated_from_the_start, noise=NOISE[:160], detector=first)
    second.load_state_dict(first.state_dict())

    assert second.state_dict() == whole.state_dict()
    assert second.suspicious
