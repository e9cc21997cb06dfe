"""The rules of the game, whatever the laboratory answers: budget, honesty, order."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.bench import Bench, Budget, Result
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.diagnosis import Confidence, Diagnosis
from nan_callbacks.diagnosis.evidence import BatchPart, Concern, Evidence, History, LayerEvidence, Role
from nan_callbacks.diagnosis.experiments import Experiment, without_rows
from nan_callbacks.diagnosis.goal import Kind, goal_of
from nan_callbacks.diagnosis.hypotheses import hypothesise
from nan_callbacks.diagnosis.hypotheses.numerics import code_of_origin
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, ReplayResult


class ScriptedLab:
    """Answers as it is told."""

    rows = 16

    def __init__(self, answer, step_seconds: float = 0.0) -> None:
        self.answer, self.step_seconds, self.ran = answer, step_seconds, []

    def replay(self) -> ReplayResult:
        return ReplayResult()

    def run(self, variation: Variation) -> Trial:
        self.ran.append(variation)
        return self.answer(variation)


def trial(variation: Variation, *, broken: bool) -> Trial:
    losses = (math.nan if broken else 1.0,) * max(1, variation.steps)
    return Trial(variation=variation, losses=losses, grad_norms=losses)


def seen(**about) -> StepObservation:
    return StepObservation(**{"step": 100, "loss": math.nan, "grad_norm": math.nan, **about})


def broken_rows(*rows: int) -> Evidence:
    part = BatchPart(
        role=Role.INPUT, failed=TensorSummary(name="input", shape=(16, 3), dtype="float32"), outlier_rows=rows,
        outlier_ratio=1e3,
    )  # fmt: skip
    return Evidence(seen=seen(), batch=(part,), history=History(losses=(1.0,) * 50), framework="lightning")


def test_a_treatment_that_helps_while_its_control_helps_as_well_proves_nothing():
    lab = ScriptedLab(lambda variation: trial(variation, broken=not variation.without_rows))
    found = diagnose(broken_rows(3), lab)
    assert [(verdict.code, verdict.confidence) for verdict in found.verdicts] == [("DATA503", Confidence.POSSIBLE)]


def test_a_treatment_that_does_not_help_refutes():
    found = diagnose(broken_rows(3), ScriptedLab(lambda variation: trial(variation, broken=True)))
    assert found.cause is None
    assert "no cause of the catalogue fits" in found.describe()


def test_a_treatment_that_helps_alone_confirms():
    lab = ScriptedLab(lambda variation: trial(variation, broken=3 not in variation.without_rows))
    found = diagnose(broken_rows(3), lab)
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("DATA503", Confidence.CONFIRMED)
    assert len(found.verdicts) == 1
    paragraph = found.describe()
    assert "without sample 3: finite" in paragraph
    assert "the same step again: still non-finite" in paragraph
    assert "outlier samples (DATA503, confirmed)" in paragraph
    assert "torch.clamp" in paragraph


def test_what_the_laboratory_cannot_do_proves_nothing():
    lab = ScriptedLab(
        lambda variation: (
            Trial(variation=variation, supported=False, note="no rows")
            if variation.without_rows
            else trial(variation, broken=True)
        )
    )
    found = diagnose(broken_rows(3), lab)
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("DATA503", Confidence.LIKELY)
    assert "not possible here (no rows)" in found.describe()


def test_steps_and_seconds_are_kept_within_the_budget():
    lab = ScriptedLab(lambda variation: trial(variation, broken=True))
    found = diagnose(broken_rows(3), lab, Budget(steps=2))
    assert found.steps_spent == len(lab.ran) == 2
    assert "budget" in found.note
    slow = ScriptedLab(lambda variation: trial(variation, broken=True), step_seconds=100.0)
    assert diagnose(broken_rows(3), slow, Budget(seconds=30.0)).steps_spent == 0
    assert slow.ran == []


def test_no_trial_is_made_twice():
    lab = ScriptedLab(lambda variation: trial(variation, broken=True))
    diagnose(broken_rows(3), lab)
    assert len(set(lab.ran)) == len(lab.ran)


def test_a_laboratory_that_cannot_nudge_is_never_asked_to():
    origin = Origin(kind=OriginKind.OPERATION, operation="sqrt", phase=Phase.BACKWARD)
    evidence = Evidence(seen=seen(), replay=ReplayResult(origin=origin, reproduced=True))
    lab = ScriptedLab(lambda variation: trial(variation, broken=True))
    found = diagnose(evidence, lab)
    assert all(variation.nudge is None for variation in lab.ran)
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("NAN113", Confidence.LIKELY)


def test_the_control_leaves_out_as_many_other_rows():
    goal = goal_of(Evidence(seen=seen()))
    (experiment,) = without_rows(goal, (2, 5), 16)
    control = experiment.controls[-1].without_rows
    assert experiment.treatment.without_rows == (2, 5)
    assert len(control) == 2
    assert not {2, 5} & set(control)
    assert without_rows(goal, tuple(range(16)), 16) == ()


def test_a_failure_that_does_not_come_back_in_a_control_cannot_be_turned_off():
    lab = ScriptedLab(lambda variation: trial(variation, broken=False))
    bench = Bench(lab, goal_of(Evidence(seen=seen())), Budget())
    experiment = Experiment(treatment=Variation(lr_factor=0.1), controls=(Variation(),))
    assert bench.test(experiment) is Result.UNSPECIFIC
    assert lab.ran == [Variation()]


def test_parameters_broken_before_are_looked_into_from_the_last_good_state():
    base = goal_of(Evidence(seen=seen(non_finite_parameters=2))).base
    assert (base.start, base.steps) == (Start.SNAPSHOT, 12)


def test_a_known_issue_is_named_but_never_confirmed():
    evidence = Evidence(seen=seen(), known_issues=("pytorch-1",), history=History(losses=(1.0,) * 50))
    found = diagnose(evidence, ScriptedLab(lambda variation: trial(variation, broken=True)))
    assert [(verdict.code, verdict.confidence) for verdict in found.verdicts] == [("ENV701", Confidence.LIKELY)]


def test_a_gradient_that_vanishes_is_likely_by_what_was_measured():
    layers = tuple(
        LayerEvidence(name=f"dense_{index}", kind="sigmoid", grad_norm=10.0 ** (index - 9)) for index in range(10)
    )
    evidence = Evidence(seen=seen(loss=1.0, grad_norm=1.0), layers=layers)
    found = diagnose(evidence, ScriptedLab(lambda variation: trial(variation, broken=False)))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("GRAD202", Confidence.LIKELY)


numbers = st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e30, math.nan, math.inf, -1.0])
origins = st.builds(
    Origin,
    kind=st.sampled_from(OriginKind),
    operation=st.sampled_from(["log", "divide", "exp", "sqrt", "matmul", "power", "strange"]),
    phase=st.sampled_from(Phase),
    operands=st.lists(
        st.builds(TensorSummary.of, st.lists(numbers, max_size=3)), max_size=2
    ).map(tuple),
    rows=st.sampled_from([None, (), (0,), (1, 2)]),
    custom_gradient=st.booleans(),
    module_is_custom=st.booleans(),
    detail=st.sampled_from(["", "Target 10 is out of bounds."]),
)  # fmt: skip
parts = st.builds(
    BatchPart,
    role=st.sampled_from(Role),
    failed=st.builds(TensorSummary.of, st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=4, max_size=4)),
    recent=st.sampled_from([None, TensorSummary.of([[0.0, 1.0]])]),
    mean=st.sampled_from([None, 0.0, 500.0]),
    std=st.sampled_from([None, 1.0, 500.0]),
    outlier_rows=st.sampled_from([(), (1,), (0, 1, 2, 3)]),
    outlier_ratio=st.sampled_from([1.0, 1e3]),
    is_integral=st.booleans(),
)
findings = st.sampled_from(["NAN101", "NAN103", "GRAD201", "LOSS401", "LOSS402", "ACT301", "OPT603", "ACT302"]).map(
    lambda code: Finding(
        code=code, title="", step=1, epoch=0, batch_index=1, severity=Severity.ERROR, action=Action.SKIP_STEP,
        quantity="loss", limit=2.0,
    )
)  # fmt: skip
evidences = st.builds(
    Evidence,
    seen=st.builds(StepObservation, step=st.just(3), loss=numbers, grad_norm=numbers, learning_rates=st.just((0.1,))),
    findings=st.lists(findings, max_size=2).map(tuple),
    replay=st.none() | st.builds(ReplayResult, origin=st.none() | origins, reproduced=st.booleans()),
    batch=st.lists(parts, max_size=2).map(tuple),
    guilty_rows=st.sampled_from([(), (1,), (0, 1, 2, 3)]),
    history=st.builds(
        History,
        losses=st.lists(st.floats(-1, 10), max_size=80).map(tuple),
        grad_norms=st.lists(st.floats(0, 100), max_size=40).map(tuple),
        param_norms=st.lists(st.floats(0, 100), max_size=5).map(tuple),
    ),
    precision=st.sampled_from(["float32", "float16"]),
    recurrent=st.booleans(),
    known_issues=st.sampled_from([(), ("x",)]),
    framework=st.sampled_from(["", "keras", "lightning"]),
)


@settings(max_examples=150, deadline=None)
@given(evidence=evidences, seed=st.randoms(use_true_random=False))
def test_whatever_is_known_and_whatever_trials_say_confirmed_means_treated_and_controlled(evidence: Evidence, seed):
    def answer(variation: Variation) -> Trial:
        steps = max(1, variation.steps)
        losses = tuple(seed.choice([1.0, 0.1, 5.0, math.nan]) for _ in range(steps))
        return Trial(variation=variation, losses=losses, grad_norms=losses, supported=seed.random() > 0.1)

    found = diagnose(evidence, ScriptedLab(answer))

    assert found.steps_spent <= (120 if goal_of(evidence).kind is Kind.STALL else 60)
    assert Diagnosis.from_dict(found.to_dict()) == found
    assert found.describe()
    order = [list(Confidence).index(verdict.confidence) for verdict in found.verdicts]
    assert order == sorted(order)
    for verdict in found.verdicts:
        if verdict.confidence is Confidence.CONFIRMED and verdict.code != "ENV702":
            assert [trial.failed for trial in verdict.trials if trial.control].count(True) >= 1
            assert all(trial.failed for trial in verdict.trials if trial.control)
            assert any(trial.failed is False for trial in verdict.trials if not trial.control)


@settings(max_examples=100, deadline=None)
@given(evidence=evidences)
def test_rules_are_pure_and_ranked(evidence: Evidence):
    first, second = hypothesise(evidence), hypothesise(evidence)
    assert [each.code for each in first] == [each.code for each in second]
    assert [each.score for each in first] == sorted((each.score for each in first), reverse=True)
    assert all(0 < each.score <= 1 for each in first)


STALLED = {"loss": 1.0, "grad_norm": 0.0}


def labels_of(least: float, largest: float, *, most: float | None = None) -> BatchPart:
    """Labels of recent batches, and of a failed one that reaches up to `most`."""
    recent = TensorSummary(name="y", shape=(64,), dtype="int64", minimum=least, maximum=largest)
    failed = replace(recent, shape=(16,), maximum=largest if most is None else most)
    return BatchPart(role=Role.TARGET, failed=failed, recent=recent, is_integral=True)


def numbers_of(size: float) -> BatchPart:
    """Targets of a regression."""
    failed = TensorSummary(name="y", shape=(16,), dtype="float32", minimum=0.5 * size, maximum=size)
    return BatchPart(role=Role.TARGET, failed=failed, recent=failed, recent_mean=0.7 * size, recent_std=0.1 * size)


def standing_still(variation: Variation) -> Trial:
    return Trial(variation=variation, losses=(1.0,) * max(1, variation.steps), grad_norms=(0.0,))


def test_a_learning_rate_of_zero_needs_no_experiment():
    history = History(losses=(1.0,) * 50, grad_norms=(0.5,) * 50, learning_rates=(1e-3, 5e-4, *[0.0] * 16))
    evidence = Evidence(seen=seen(loss=1.0, grad_norm=0.5, learning_rates=(0.0,)), history=history)
    found = diagnose(evidence, ScriptedLab(standing_still))

    assert [(verdict.code, verdict.confidence) for verdict in found.verdicts] == [("OPT602", Confidence.LIKELY)]
    assert "it has fallen from 0.001" in found.describe()
    start = History(losses=(1.0,) * 3, grad_norms=(0.5,) * 3, learning_rates=(0.0, 1e-5, 0.0))
    warming = diagnose(replace(evidence, history=start), ScriptedLab(standing_still))
    assert "OPT602" not in [verdict.code for verdict in warming.verdicts if verdict.confidence is Confidence.LIKELY]


def test_a_rate_that_a_backend_has_flushed_to_zero():
    halved = tuple(0.003 * 0.5**step for step in range(100))
    history = History(losses=(1.0,) * 50, grad_norms=(0.5,) * 50, learning_rates=halved)
    evidence = Evidence(seen=seen(loss=1.0, grad_norm=0.5, learning_rates=(0.0,)), history=history)
    found = diagnose(evidence, ScriptedLab(standing_still))
    assert [(verdict.code, verdict.confidence) for verdict in found.verdicts] == [("OPT602", Confidence.LIKELY)]


def moving_at_a_higher_rate(variation: Variation) -> Trial:
    """A stall, as good as fresh weights half the time: whether the run has learnt, only its own past can tell."""
    start = 1.0 if variation.start is not Start.FRESH else 1.5
    losses = tuple(
        start * (0.8**step if variation.lr_factor >= 100 else 1.0) for step in range(max(1, variation.steps))
    )
    return Trial(variation=variation, losses=losses, grad_norms=(0.5,) * len(losses))


def test_a_run_whose_loss_never_fell_has_not_learnt():
    stalled = History(losses=(1.0,) * 50, grad_norms=(0.5,) * 50, learning_rates=(1e-4,) * 50, from_start=True)
    fallen = replace(stalled, losses=(2.0,) * 20 + (1.0,) * 30)
    verdicts = {}
    for name, history in {"stalled": stalled, "fallen": fallen, "unknown": replace(stalled, from_start=False)}.items():
        evidence = Evidence(seen=seen(loss=1.0, grad_norm=0.5, learning_rates=(1e-4,)), history=history)
        verdicts[name] = [verdict.code for verdict in diagnose(evidence, ScriptedLab(moving_at_a_higher_rate)).verdicts]
    assert verdicts == {"stalled": ["OPT602"], "fallen": [], "unknown": []}


def test_two_matrices_of_zeros_block_each_other():
    history = History(losses=(1.0,) * 50, grad_norms=(0.0,) * 50)
    evidence = Evidence(seen=seen(**STALLED), history=history, zero_weights=("net.down", "net.up"))

    def answer(variation: Variation) -> Trial:
        fresh = variation.start is Start.FRESH
        losses = tuple((0.9 if fresh else 1.0) ** step for step in range(max(1, variation.steps)))
        return Trial(variation=variation, losses=losses, grad_norms=(1.0 if fresh else 0.0,))

    found = diagnose(evidence, ScriptedLab(answer))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("ACT305", Confidence.CONFIRMED)
    one = diagnose(Evidence(seen=seen(**STALLED), history=history, zero_weights=("net.last",)), ScriptedLab(answer))
    assert "ACT305" not in [verdict.code for verdict in one.verdicts]


@pytest.mark.parametrize(
    ("about", "code", "told"),
    [
        ({}, "GRAD202", "every gradient of the last 16 steps is exactly 0"),
        ({"alike_weights": ("lstm.weight_ih_l0",)}, "ACT305", "many units of lstm.weight_ih_l0"),
        ({"batch": (labels_of(3.0, 3.0),), "labels_used": {"y"}}, "DATA510", "y is 3 in every row"),
        ({"batch": (numbers_of(2e8),)}, "DATA509", "standard deviation"),
    ],
    ids=["no slope", "copies", "one label", "nanoseconds"],
)
def test_a_stall_whose_reason_is_seen_although_nothing_within_reach_ends_it(about, code, told):
    norm = 0.0 if code == "GRAD202" else 0.5
    history = History(losses=(1.0,) * 50, grad_norms=(norm,) * 50)
    found = diagnose(
        Evidence(seen=seen(loss=1.0, grad_norm=norm), history=history, **about), ScriptedLab(standing_still)
    )
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == (code, Confidence.LIKELY)
    assert told in found.describe()


def test_a_label_that_nothing_was_seen_to_look_at_may_be_there_because_something_must_be():
    history = History(losses=(1.0,) * 50, grad_norms=(0.5,) * 50)
    about = {"seen": seen(loss=1.0, grad_norm=0.5), "history": history, "batch": (labels_of(0.0, 0.0),)}
    codes = [
        [verdict.code for verdict in diagnose(Evidence(**about, **more), ScriptedLab(standing_still)).verdicts]
        for more in ({}, {"classifies": True})
    ]
    assert ["DATA510" in each for each in codes] == [False, True]


def test_years_are_whole_numbers_of_no_scale():
    history = History(losses=(1.0,) * 50, grad_norms=(0.5,) * 50)
    kept = TensorSummary(name="x", shape=(64,), dtype="int64", minimum=1990.0, maximum=2020.0)
    for dtype, accused in (("int64", False), ("float32", True)):
        summary = replace(kept, dtype=dtype)
        part = BatchPart(role=Role.INPUT, failed=summary, recent=summary, recent_mean=2005.0, recent_std=8.0)
        evidence = Evidence(seen=seen(**STALLED), history=history, batch=(part,))
        assert ("DATA502" in [each.code for each in hypothesise(evidence)]) is accused


def test_a_classifier_that_guesses_may_have_the_labels_of_other_samples():
    def verdicts(loss: float, **about) -> list[tuple[str, Confidence]]:
        history = History(losses=(loss,) * 50, grad_norms=(0.5,) * 50)
        evidence = Evidence(
            seen=seen(loss=loss, grad_norm=0.5), history=history, batch=(labels_of(0.0, 9.0),), classifies=True
        )
        found = diagnose(replace(evidence, **about), ScriptedLab(standing_still))
        return [(verdict.code, verdict.confidence) for verdict in found.verdicts]

    guess = math.log(10.0)
    assert verdicts(guess) == [("DATA504", Confidence.POSSIBLE)]
    assert verdicts(0.5 * guess) == []
    assert verdicts(guess, classifies=False) == []
    assert verdicts(0.3, constant_loss=0.31) == [("DATA504", Confidence.POSSIBLE)], "classes are not equally frequent"
    saturated = LayerEvidence(name="hidden", kind="tanh", saturated_share=1.0)
    assert [code for code, _ in verdicts(guess, layers=(saturated,))] == ["ACT302"]


@pytest.mark.parametrize(("mean", "std"), [(-1.0, 0.01), (0.001, 0.002), (1e5, 3.0)], ids=["offset", "tiny", "large"])
def test_inputs_on_no_scale_that_a_layer_learns_from(mean, std):
    failed = TensorSummary(name="x", shape=(16, 4), dtype="float32", minimum=mean - std, maximum=mean + std)
    inputs = BatchPart(role=Role.INPUT, failed=failed, recent=failed, recent_mean=mean, recent_std=std)

    def answer(variation: Variation) -> Trial:
        losses = tuple((0.8 if variation.standardise else 1.0) ** step for step in range(max(1, variation.steps)))
        return Trial(variation=variation, losses=losses, grad_norms=(0.5,) * len(losses))

    history = History(losses=(1.0,) * 50, grad_norms=(0.5,) * 50)
    stalled = Evidence(seen=seen(loss=1.0, grad_norm=0.5), history=history, batch=(inputs,))
    found = diagnose(stalled, ScriptedLab(answer))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("DATA502", Confidence.CONFIRMED)
    ordinary = replace(inputs, recent_mean=-0.1, recent_std=0.9)
    assert "DATA502" not in [each.code for each in hypothesise(replace(stalled, batch=(ordinary,)))]


def test_a_sample_that_only_a_hand_written_gradient_does_not_bear():
    origin = Origin(kind=OriginKind.OPERATION, operation="exp", phase=Phase.BACKWARD, custom_gradient=True)
    far = TensorSummary(name="x", shape=(16, 4), dtype="float32", minimum=-200.0, maximum=250.0)
    usual = replace(far, minimum=-2.0, maximum=2.0)
    inputs = BatchPart(role=Role.INPUT, failed=far, recent=usual, outlier_rows=(3,), outlier_ratio=120.0)
    evidence = Evidence(
        seen=seen(), replay=ReplayResult(origin=origin, reproduced=True), batch=(inputs,), guilty_rows=(3,)
    )
    codes = [each.code for each in hypothesise(evidence)]
    assert codes.index("NAN115") < codes.index("DATA503")
    forward = replace(evidence, replay=ReplayResult(origin=replace(origin, phase=Phase.FORWARD), reproduced=True))
    codes = [each.code for each in hypothesise(forward)]
    assert codes.index("DATA503") < codes.index("NAN115")


def test_units_that_were_switched_off_are_not_cut_off():
    dead = LayerEvidence(name="hidden", kind="relu", dead_share=1.0)
    evidence = Evidence(
        seen=seen(**STALLED), history=History(losses=(1.0,) * 50, grad_norms=(0.0,) * 50), layers=(dead,)
    )
    found = diagnose(evidence, ScriptedLab(standing_still))
    assert [verdict.code for verdict in found.verdicts][:1] == ["ACT303"]


def test_a_rate_is_not_tried_again_once_it_makes_no_difference():
    """A batch that fails whatever came before it leaves the budget to what may explain it."""

    def answer(variation: Variation) -> Trial:
        steps = max(1, variation.steps)
        norms = (1.0,) * (steps - 1) + (math.nan,)
        return Trial(variation=variation, losses=(1.0,) * steps, grad_norms=norms)

    lab = ScriptedLab(answer)
    diagnose(Evidence(seen=seen(), history=History(losses=(1.0,) * 50, grad_norms=(1.0,) * 50)), lab)
    rates = [variation.lr_factor for variation in lab.ran if variation.steps > 2]
    assert rates.count(0.1) == 1
    assert 0.01 not in rates


def test_a_label_that_was_never_seen_before_is_to_blame_only_where_something_is_looked_up_by_it():
    part = labels_of(0.0, 9.0, most=77.0)

    def codes(operation: str) -> list[str]:
        origin = Origin(kind=OriginKind.OPERATION, operation=operation, operands=())
        evidence = Evidence(seen=seen(), replay=ReplayResult(origin=origin, reproduced=True), batch=(part,))
        return [each.code for each in hypothesise(evidence)]

    assert "DATA505" in codes("gather")
    assert "DATA505" not in codes("divide")


def test_a_table_that_answers_nan_was_asked_for_a_row_that_it_does_not_have():
    """As on JAX; the index need be no part of the batch: a text may be longer than there are places."""
    origin = Origin(kind=OriginKind.OPERATION, operation="gather", module="places/table", module_type="Embedding")

    def answer(variation: Variation) -> Trial:
        return trial(variation, broken=not variation.other_batch)

    evidence = Evidence(seen=seen(), replay=ReplayResult(origin=origin, reproduced=True))
    found = diagnose(evidence, ScriptedLab(answer))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("DATA511", Confidence.CONFIRMED)
    assert "places/table was asked for a row" in found.describe()


def test_a_quotient_of_ordinary_numbers_had_next_to_nothing_below_it():
    """The divisor was a plain number of the program, which no tracer sees."""

    def code(largest: float) -> str | None:
        numbers = TensorSummary(name="x", shape=(4,), dtype="float32", minimum=1.0, maximum=largest)
        return code_of_origin(Origin(kind=OriginKind.OPERATION, operation="divide", operands=(numbers,)))

    assert code(9.0) == "NAN112"
    assert code(1e30) == "NAN110"


def test_gradients_that_a_half_precision_format_swallows():
    evidence = Evidence(
        seen=seen(**STALLED), history=History(losses=(1.0,) * 50, grad_norms=(0.0,) * 50), precision="float16"
    )

    def answer(variation: Variation) -> Trial:
        wide = variation.dtype == "float32"
        losses = tuple((0.9 if wide else 1.0) ** step for step in range(max(1, variation.steps)))
        return Trial(variation=variation, losses=losses, grad_norms=(1.0,))

    found = diagnose(evidence, ScriptedLab(answer))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("OPT604", Confidence.CONFIRMED)
    assert "all gradients are 0" in found.describe()


def spike(**about) -> Evidence:
    finding = Finding(
        code="GRAD201", title="", step=100, epoch=0, batch_index=1, severity=Severity.ERROR, action=Action.SKIP_STEP,
        quantity="grad_norm", limit=20.0,
    )  # fmt: skip
    history = History(losses=(1.0,) * 50, grad_norms=(1.0,) * 50, param_norms=(5.0,) * 4)
    return Evidence(**{"seen": seen(loss=1.0, grad_norm=1e4), "findings": (finding,), "history": history, **about})


def test_an_unclipped_explosion_is_proved_by_what_its_update_does_to_another_batch():
    def answer(variation: Variation) -> Trial:
        losses = [1.0] * max(1, variation.steps)
        if variation.then_other:
            losses.append(1.1 if variation.clip_norm else 80.0)
        return Trial(variation=variation, losses=tuple(losses), grad_norms=(1.0 if variation.other_batch else 1e4,))

    found = diagnose(spike(), ScriptedLab(answer))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("GRAD203", Confidence.CONFIRMED)
    assert "then another batch, 1 step from the state before the failure: the loss of that batch is 80" in (
        found.describe()
    )


def test_an_explosion_that_an_adaptive_optimizer_takes_calmly_is_likely_all_the_same():
    def answer(variation: Variation) -> Trial:
        norm = 1.0 if variation.other_batch else 1e4
        return Trial(variation=variation, losses=(1.0,) * (max(1, variation.steps) + 1), grad_norms=(norm,))

    found = diagnose(spike(), ScriptedLab(answer))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("GRAD203", Confidence.LIKELY)


def test_labels_are_not_accused_by_a_model_that_has_lost_its_way():
    labels = labels_of(0.0, 3.0)
    history = History(losses=(400.0,) * 50, grad_norms=(1.0,) * 50)
    lost = hypothesise(spike(batch=(labels,), guilty_rows=(4,), history=history, classifies=True))
    sound = hypothesise(spike(batch=(labels,), guilty_rows=(4,), classifies=True))
    other = hypothesise(spike(batch=(labels,), guilty_rows=(4,)))

    assert "DATA504" not in [each.code for each in lost]
    assert "DATA504" in [each.code for each in sound]
    assert "DATA504" not in [each.code for each in other], "how sure a model is shows in nats only"


@pytest.mark.parametrize("rows", [(), (4,)])
def test_labels_are_not_accused_by_a_model_that_knows_nothing(rows):
    """Whose loss is that of a guess, though one batch that wakes a unit of it costs hundreds of times that."""
    about = {"batch": (labels_of(0.0, 3.0),), "guilty_rows": rows, "classifies": True}
    about["seen"] = seen(loss=700.0, grad_norm=1e4)
    for loss, accused in ((math.log(4.0), False), (0.5 * math.log(4.0), True)):
        history = History(losses=(loss,) * 50, grad_norms=(1.0,) * 50)
        assert ("DATA504" in [each.code for each in hypothesise(spike(history=history, **about))]) is accused


def test_a_rare_target_that_does_no_harm_is_not_to_blame():
    # Without sample 17 the step succeeds, but not because of its target: brought back into range, it fails again.
    target = BatchPart(
        role=Role.TARGET, failed=TensorSummary(name="time", shape=(16,), dtype="float32"),
        recent=TensorSummary(name="time", shape=(64,), dtype="float32"), outlier_rows=(7,), outlier_ratio=31.0,
    )  # fmt: skip
    origin = Origin(
        kind=OriginKind.OPERATION, operation="log", operands=(TensorSummary.of([0.0, 1.0]),),
        result=TensorSummary.of([-math.inf]), rows=(7,),
    )  # fmt: skip
    evidence = Evidence(
        seen=seen(), batch=(target,), guilty_rows=(7,), replay=ReplayResult(origin=origin, reproduced=True),
        history=History(losses=(1.0,) * 50),
    )  # fmt: skip
    found = diagnose(evidence, ScriptedLab(lambda variation: trial(variation, broken=7 not in variation.without_rows)))
    assert found.cause is not None
    assert (found.cause.code, found.cause.confidence) == ("NAN111", Confidence.CONFIRMED)


@pytest.mark.parametrize(("constant", "learnt"), [(1.0, False), (5.0, True), (None, True)])
def test_a_model_that_is_no_better_than_a_constant_has_learnt_nothing(constant, learnt):
    """Although its fresh weights were far worse."""

    def answer(variation: Variation) -> Trial:
        start = 9.0 if variation.start is Start.FRESH else 1.0
        losses = tuple(start * 0.999**step for step in range(max(1, variation.steps)))
        return Trial(variation=variation, losses=losses, grad_norms=(0.5,) * len(losses))

    history = History(losses=(1.0,) * 64, grad_norms=(0.5,) * 64)
    evidence = Evidence(seen=seen(loss=1.0, grad_norm=0.5), history=history, constant_loss=constant)
    assert diagnose(evidence, ScriptedLab(answer)).note.endswith("that of fresh weights 9.") is learnt


def stalled(**about) -> Evidence:
    history = History(losses=(1.0,) * 64, grad_norms=(0.5,) * 64)
    return Evidence(seen=seen(loss=1.0, grad_norm=0.5), history=history, **about)


def sequences(steps: int) -> BatchPart:
    return BatchPart(role=Role.INPUT, failed=TensorSummary(name="x", shape=(16, steps, 4), dtype="float32"))


@pytest.mark.parametrize(
    ("about", "reversal_helps", "confirmed"),
    [
        ({"recurrent": True, "batch": (sequences(100),)}, True, True),
        ({"recurrent": True, "batch": (sequences(100),)}, False, False),
        ({"recurrent": False, "batch": (sequences(100),)}, True, False),
        ({"recurrent": True, "batch": (sequences(8),)}, True, False),
    ],
    ids=["forgotten", "not to be learnt either way", "no recurrence", "too short to be forgotten"],
)
def test_what_stood_at_the_beginning_is_learnt_from_reversed_sequences(about, reversal_helps, confirmed):
    def answer(variation: Variation) -> Trial:
        falls = variation.reverse_time and reversal_helps
        losses = tuple((0.99 if falls else 1.0) ** step for step in range(max(1, variation.steps)))
        return Trial(variation=variation, losses=losses, grad_norms=(0.5,) * len(losses))

    cause = diagnose(stalled(**about), ScriptedLab(answer)).cause
    assert (cause is not None and (cause.code, cause.confidence) == ("GRAD202", Confidence.CONFIRMED)) is confirmed


def test_a_softmax_of_a_softmax_is_named_though_its_loss_falls():
    def falling(variation: Variation) -> Trial:
        losses = tuple(0.9**step for step in range(max(1, variation.steps)))
        return Trial(variation=variation, losses=losses, grad_norms=(0.5,) * len(losses))

    twice = Concern(code="LOSS403", kind="twice", because=("applied twice",))
    assert [each.code for each in diagnose(stalled(concerns=(twice,)), ScriptedLab(falling)).verdicts] == ["LOSS403"]
    assert diagnose(stalled(), ScriptedLab(falling)).verdicts == ()


def test_a_rate_that_has_risen_is_tried_before_clipping():
    rates = tuple(0.001 * 1.1**step for step in range(64))
    history = History(losses=(1.0,) * 64, grad_norms=(1.0,) * 64, learning_rates=rates)
    step = seen(loss=90.0, grad_norm=90.0, learning_rates=(rates[-1],))
    finding = Finding.of(
        step, code="LOSS401", title="loss spike", severity=Severity.ERROR, action=Action.SKIP_STEP, quantity="loss",
        value=90.0, limit=10.0,
    )  # fmt: skip
    history = replace(history, grad_norms=(*history.grad_norms, 50.0))
    codes = {
        rose: [each.code for each in hypothesise(Evidence(seen=step, history=known, findings=(finding,)))]
        for rose, known in ((True, history), (False, replace(history, learning_rates=(rates[-1],) * 64)))
    }
    assert codes[True].index("OPT601") < codes[True].index("GRAD203")
    assert codes[False].index("OPT601") > codes[False].index("GRAD203")


@pytest.mark.parametrize(
    ("dtype", "operation", "largest", "told"),
    [("float16", "power", 418.0, True), ("bfloat16", "exp", 200.0, False), ("float16", "divide", 1.0, False)],
)
def test_a_cast_by_hand_is_to_blame_for_what_float32_would_hold(dtype, operation, largest, told):
    operand = TensorSummary(name="x", shape=(8,), dtype=dtype, minimum=0.0, maximum=largest, zeros=2)
    result = TensorSummary(name="y", shape=(8,), dtype=dtype, positive_inf=1)
    origin = Origin(
        kind=OriginKind.OPERATION, phase=Phase.FORWARD, operation=operation, operands=(operand,), result=result
    )
    evidence = Evidence(seen=seen(), replay=ReplayResult(origin=origin, reproduced=True))
    assert ("OPT604" in [each.code for each in hypothesise(evidence)]) is told


@pytest.mark.parametrize("is_trained", [True, False])
def test_an_optimizer_is_not_blamed_for_what_it_does_not_write(is_trained):
    origin = Origin(kind=OriginKind.PARAMETERS, operation="codebook", is_trained=is_trained)
    evidence = Evidence(seen=seen(), replay=ReplayResult(origin=origin, reproduced=True))
    assert ("OPT605" in [each.code for each in hypothesise(evidence)]) is is_trained


@pytest.mark.parametrize("frozen", [0, 2])
def test_an_optimizer_is_not_blamed_for_frozen_parameters(frozen):
    broken = seen(non_finite_parameters=2, non_finite_frozen=frozen)
    assert ("OPT605" in [each.code for each in hypothesise(Evidence(seen=broken))]) is (frozen == 0)


@pytest.mark.parametrize("rows", [(9,), tuple(range(12))])
def test_labels_that_a_mask_rules_out_are_wrong_if_they_are_few(rows):
    scores = TensorSummary(name="self", shape=(3, 3), dtype="float32", negative_inf=1)
    origin = Origin(kind=OriginKind.OPERATION, operation="index", operands=(scores,), rows=rows)
    tags = TensorSummary(name="tags", shape=(16, 10), dtype="int64", minimum=0.0, maximum=2.0)
    evidence = Evidence(
        seen=seen(),
        batch=(BatchPart(role=Role.TARGET, failed=tags, recent=tags, is_integral=True),),
        replay=ReplayResult(origin=origin, reproduced=True),
    )
    assert ("DATA504" in [each.code for each in hypothesise(evidence)]) is (len(rows) == 1)


def raising(kind):
    origin = Origin(kind=OriginKind.EXCEPTION, operation=kind, detail=f"{kind}: something about it")
    replay = ReplayResult(origin=origin, reproduced=True)
    return replace(broken_rows(3), seen=seen(loss=None, grad_norm=None), replay=replay)


@pytest.mark.parametrize("kind", ["TypeError", "AttributeError", "NameError", "ImportError"])
def test_an_error_of_the_program_is_told_at_once(kind):
    lab = ScriptedLab(lambda variation: trial(variation, broken=True))
    found = diagnose(raising(kind), lab)
    assert [verdict.code for verdict in found.verdicts] == ["ENV703"]
    assert lab.ran == []
    assert f"the step raised {kind}" in found.describe()
    assert Diagnosis.from_dict(found.to_dict()) == found
    assert [verdict.code for verdict in diagnose(raising(kind), None).verdicts] == ["ENV703"]


def test_a_sample_that_is_missing_is_no_error_of_the_program():
    lab = ScriptedLab(lambda variation: trial(variation, broken=3 not in variation.without_rows))
    evidence = raising("TypeError")
    origin = replace(evidence.replay.origin, detail="TypeError: unsupported operand: 'NoneType' and 'float'")
    missing = replace(evidence, replay=replace(evidence.replay, origin=origin))
    assert [verdict.code for verdict in diagnose(missing, lab).verdicts] == ["DATA503"]


@pytest.mark.parametrize("kind", ["IndexError", "ValueError", "RuntimeError", "KeyError", "NotImplementedError"])
def test_an_error_that_numbers_may_cause_is_tried(kind):
    lab = ScriptedLab(lambda variation: trial(variation, broken=3 not in variation.without_rows))
    assert [verdict.code for verdict in diagnose(raising(kind), lab).verdicts] == ["DATA503"]
    assert lab.ran
