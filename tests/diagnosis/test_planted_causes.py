"""Causes planted in runs that are really trained; the laboratory must name them, and prove them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.diagnosis import Confidence, Diagnosis
from nan_callbacks.diagnosis.evidence import LayerEvidence
from nan_callbacks.diagnosis.origin import OriginKind, Phase
from tests.diagnosis.data import FEATURES, classes, counts, positive, regression, sequences
from tests.diagnosis.models import net, recurrent, recurrent_weights, weights
from tests.diagnosis.simulated_lab import Accident, Batch, Run, descend, train

WEIGHTS = weights(FEATURES, 16, 1)
CLASSIFIER = weights(FEATURES, 16, 3)


def confirmed(accident: Accident) -> str:
    found = diagnose(accident.evidence, accident.lab)
    assert found.cause is not None, found.describe()
    assert found.cause.confidence is Confidence.CONFIRMED, found.describe()
    assert any(not trial.failed and not trial.control for trial in found.cause.trials), found.describe()
    assert all(trial.failed for trial in found.cause.trials if trial.control), found.describe()
    assert found.steps_spent <= 60
    return found.cause.code


def likely(accident: Accident) -> str:
    found = diagnose(accident.evidence, accident.lab)
    assert found.cause is not None, found.describe()
    assert found.cause.confidence is Confidence.LIKELY, found.describe()
    return found.cause.code


def spoiled(batches: list[Batch], step: int, spoil: Callable[[np.ndarray, np.ndarray], None]) -> list[Batch]:
    """The batches up to one that is changed in place."""
    inputs, targets = (array.copy() for array in batches[step])
    spoil(inputs, targets)
    return [*batches[:step], (inputs, targets)]


def inputs_of(row: int, value: float) -> Callable[[np.ndarray, np.ndarray], None]:
    return lambda inputs, targets: inputs.__setitem__(row, value)


def targets_of(row: int, value: float) -> Callable[[np.ndarray, np.ndarray], None]:
    return lambda inputs, targets: targets.__setitem__(row, value)


class TestLearningRate:
    def test_too_high_from_the_start(self):
        assert confirmed(train(Run(net("poisson"), WEIGHTS, counts(50), 8.0))) == "OPT601"

    def test_a_thousand_times_too_high(self):
        run = Run(net("log_of_softmax", "relu"), CLASSIFIER, classes(50), 50.0)
        assert confirmed(train(run)) == "OPT601"

    def test_the_weights_blow_up_before_anything_overflows(self):
        assert confirmed(train(Run(net("squared", "relu"), WEIGHTS, regression(50), 3.0))) == "OPT601"

    def test_raised_by_a_schedule_in_the_middle_of_the_run(self):
        steps = iter(range(1000))

        def schedule(parameters, gradients, rate):
            return descend(parameters, gradients, 60 * rate if next(steps) > 62 else rate)

        accident = train(Run(net("squared", "relu"), WEIGHTS, regression(100), 0.05, update=schedule)).at_rate(3.0)
        accident.lab.run_ = replace(accident.lab.run_, update=None)
        assert len(accident.evidence.history.losses) > 60
        assert confirmed(accident) == "OPT601"

    def test_divergence_without_any_nan(self):
        healthy = train(Run(net("squared"), WEIGHTS, regression(60), 0.05), code="LOSS402")
        assert confirmed(healthy.at_rate(2.5)) == "OPT601"

    def test_too_low(self):
        run = Run(net("squared"), WEIGHTS, regression(120), 5e-4)
        assert confirmed(train(run).on_demand(skip_history=True)) == "OPT602"

    def test_so_low_that_nothing_moves(self):
        run = Run(net("squared"), WEIGHTS, regression(120), 1e-9)
        assert confirmed(train(run).on_demand(skip_history=True)) == "OPT602"


class TestData:
    def test_a_sample_of_nan(self):
        run = Run(net("poisson", "relu"), WEIGHTS, spoiled(counts(50), 30, inputs_of(5, np.nan)), 0.02)
        accident = train(run)
        assert confirmed(accident) == "DATA501"
        assert accident.evidence.batch[0].non_finite_rows == (5,)

    def test_a_batch_of_nan(self):
        everything = spoiled(counts(50), 30, lambda inputs, targets: inputs.fill(np.nan))
        assert confirmed(train(Run(net("poisson", "relu"), WEIGHTS, everything, 0.02))) == "DATA501"

    def test_an_absurd_sample_that_overflows(self):
        run = Run(net("squared", "relu"), WEIGHTS, spoiled(regression(100), 60, inputs_of(5, 1e30)), 0.02)
        assert confirmed(train(run)) == "DATA503"

    def test_an_absurd_sample_that_only_spikes(self):
        run = Run(net("squared", "relu"), WEIGHTS, spoiled(regression(100), 60, inputs_of(5, 1e4)), 0.02)
        assert confirmed(train(run, limit=20.0, code="LOSS401")) == "DATA503"

    def test_an_absurd_sample_at_the_fourth_step(self):
        run = Run(net("squared", "relu"), WEIGHTS, spoiled(regression(100), 3, inputs_of(5, 1e30)), 0.02)
        assert confirmed(train(run)) == "DATA503"

    def test_an_absurd_target(self):
        run = Run(net("squared", "relu"), WEIGHTS, spoiled(regression(100), 60, targets_of(5, 1e4)), 0.02)
        assert confirmed(train(run, limit=20.0, code="LOSS401")) == "DATA504"

    def test_labels_that_contradict_their_samples(self):
        def mislabel(inputs: np.ndarray, targets: np.ndarray) -> None:
            targets[:3] = (targets[:3] + 1) % 3

        run = Run(net("softmax", "relu"), CLASSIFIER, spoiled(classes(200), 199, mislabel), 0.3)
        spike = train(run, limit=1.6, code="LOSS401").with_evidence(guilty_rows=(0, 1, 2))
        assert confirmed(spike) == "DATA504"

    def test_a_batch_with_the_labels_of_another(self):
        def shift(inputs: np.ndarray, targets: np.ndarray) -> None:
            targets[:] = (targets + 1) % 3

        run = Run(net("softmax", "relu"), CLASSIFIER, spoiled(classes(400), 399, shift), 0.5)
        assert confirmed(train(run, limit=1.6, code="LOSS401")) == "DATA504"

    def test_a_label_without_a_class(self):
        run = Run(net("softmax", "relu"), CLASSIFIER, spoiled(classes(100), 60, targets_of(4, 7)), 0.1)
        assert confirmed(train(run)) == "DATA505"

    def test_features_in_the_hundreds(self):
        assert confirmed(train(Run(net("poisson", "relu"), WEIGHTS, counts(50, scale=300.0), 0.01))) == "DATA502"
        assert confirmed(train(Run(net("squared", "relu"), WEIGHTS, regression(50, scale=100.0), 0.05))) == "DATA502"

    def test_targets_in_the_thousands(self):
        salaries = [(inputs, targets * 900 + 5000) for inputs, targets in regression(50)]
        assert confirmed(train(Run(net("squared", "relu"), WEIGHTS, salaries, 0.05))) == "DATA509"


class TestWeights:
    def test_weights_thirty_times_too_large(self):
        run = Run(net("poisson", "relu"), weights(FEATURES, 16, 1, scale=30.0), counts(50), 0.02, fresh=WEIGHTS)
        assert confirmed(train(run)) == "ACT304"

    def test_rectifiers_that_are_all_dead(self):
        run = Run(net("squared", "relu"), weights(FEATURES, 16, 1, bias=-50.0), regression(120), 0.05, fresh=WEIGHTS)
        dead = LayerEvidence(name="dense", kind="relu", dead_share=1.0)
        assert confirmed(train(run).on_demand(layers=(dead,))) == "ACT303"

    def test_tanhs_that_are_all_saturated(self):
        run = Run(net("squared"), weights(FEATURES, 16, 1, bias=50.0), regression(200), 0.02, fresh=WEIGHTS)
        flat = LayerEvidence(name="dense", kind="tanh", saturated_share=1.0)
        assert confirmed(train(run).on_demand(layers=(flat,))) == "ACT302"

    def test_a_recurrent_product_that_explodes(self):
        run = Run(recurrent, recurrent_weights(6.0), sequences(5), 0.01, fresh=recurrent_weights(0.97))
        accident = train(run).with_evidence(recurrent=True)
        traced = accident.with_origin(kind=OriginKind.OPERATION, operation="matmul", time_step=41)
        assert confirmed(traced) == "GRAD203"

    def test_one_unclipped_step_throws_a_recurrent_net_off_its_cliff(self):
        def steep(inputs: np.ndarray, targets: np.ndarray) -> None:
            inputs *= 9.0
            targets *= -300.0

        batches = [*spoiled(sequences(100), 99, steep), *sequences(5, seed=1)]
        accident = train(Run(recurrent, recurrent_weights(0.97), batches, 0.02)).with_evidence(recurrent=True)
        assert accident.evidence.seen.step == 101
        assert confirmed(accident) == "GRAD203"


class TestArithmetic:
    def test_a_sum_of_squares_in_half_precision(self):
        large = [(inputs, targets * 300) for inputs, targets in regression(50)]
        assert confirmed(train(Run(net("squared", "relu"), WEIGHTS, large, 1e-4, dtype="float16"))) == "OPT604"

    def test_an_epsilon_that_is_zero_in_half_precision(self):
        def sign_like(parameters, gradients, rate):
            kind = next(iter(parameters.values())).dtype.type
            return {
                name: value - kind(rate) * gradients[name] / (np.abs(gradients[name]) + kind(1e-8))
                for name, value in parameters.items()
            }

        unused = [(np.where(np.arange(FEATURES) == 0, 0.0, inputs), targets) for inputs, targets in regression(50)]
        run = Run(net("squared", "relu"), WEIGHTS, unused, 0.01, dtype="float16", update=sign_like)
        with np.errstate(all="ignore"):
            assert confirmed(train(run, code="NAN103")) == "OPT605"

    def test_an_ordinary_zero_in_a_logarithm_is_no_outlier(self):
        run = Run(net("log_of_targets", "relu"), WEIGHTS, spoiled(positive(100), 60, targets_of(3, 0.0)), 0.02)
        accident = train(run)
        operand = TensorSummary.of(accident.lab.failed[1].astype(np.float32))
        traced = accident.with_origin(kind=OriginKind.OPERATION, operation="log", operands=(operand,), rows=(3,))
        assert confirmed(traced) == "NAN111"

    def test_an_absurd_sample_in_an_operation_is_an_outlier_and_the_operation_its_victim(self):
        run = Run(net("squared", "relu"), WEIGHTS, spoiled(regression(100), 60, inputs_of(5, 1e30)), 0.02)
        operand = TensorSummary.of(np.array([1e30], np.float32))
        traced = train(run).with_origin(kind=OriginKind.OPERATION, operation="power", operands=(operand,), rows=(5,))
        assert confirmed(traced) == "DATA503"
        codes = [verdict.code for verdict in diagnose(traced.evidence, traced.lab).verdicts]
        assert codes == ["DATA503", "NAN110"]

    def test_a_rate_that_is_too_high_is_the_cause_and_the_operation_its_victim(self):
        operand = TensorSummary.of(np.array([90.0], np.float32))
        accident = train(Run(net("poisson"), WEIGHTS, counts(50), 8.0))
        traced = accident.with_origin(kind=OriginKind.OPERATION, operation="exp", operands=(operand,))
        assert confirmed(traced) == "OPT601"

    def test_a_confident_prediction_underflows_in_the_formula_of_the_textbook(self):
        def surprise(inputs: np.ndarray, targets: np.ndarray) -> None:
            inputs *= 9.0
            targets[:] = (targets + 1) % 3

        run = Run(net("log_of_softmax", "relu"), CLASSIFIER, spoiled(classes(301), 300, surprise), 2.0)
        operand = TensorSummary.of(np.array([0.0, 1.0], np.float32))
        traced = train(run).with_origin(kind=OriginKind.OPERATION, operation="log", operands=(operand,))
        assert confirmed(traced) == "NAN111"

    def test_a_formula_that_fails_on_every_sample_is_likely_and_never_confirmed(self):
        def log_of_nothing(parameters, batch):
            with np.errstate(all="ignore"):
                loss, gradients = net("squared")(parameters, batch)
                return loss + np.log(np.float64(0.0) * loss), gradients

        operand = TensorSummary.of(np.zeros(16, np.float32))
        traced = train(Run(log_of_nothing, WEIGHTS, regression(5), 0.02)).with_origin(
            kind=OriginKind.OPERATION, operation="log", operands=(operand,)
        )
        assert likely(traced) == "NAN111"

    def test_such_a_formula_is_confirmed_where_the_laboratory_can_keep_it_off_its_edge(self):
        def root_of_nothing(edge: float):
            def model(parameters, batch):
                loss, gradients = net("squared")(parameters, batch)
                slope = np.float32(np.inf) if edge == 0 else np.float32(edge)
                return loss, {name: value + (slope - slope if edge == 0 else 0) for name, value in gradients.items()}

            return model

        operand = TensorSummary.of(np.zeros(16, np.float32))
        with np.errstate(all="ignore"):
            accident = train(Run(root_of_nothing(0.0), WEIGHTS, regression(5), 0.02))
            accident.lab.nudged = root_of_nothing
            about = {"kind": OriginKind.OPERATION, "operation": "sqrt", "operands": (operand,)}
            assert confirmed(accident.with_origin(phase=Phase.BACKWARD, **about)) == "NAN113"


class TestNothingIsMadeUp:
    def found(self, accident: Accident) -> Diagnosis:
        found = diagnose(accident.evidence, accident.lab)
        assert all(verdict.confidence is not Confidence.CONFIRMED for verdict in found.verdicts), found.describe()
        return found

    def test_a_run_that_learns(self):
        found = self.found(train(Run(net("squared"), WEIGHTS, regression(60), 0.05)).on_demand())
        assert found.verdicts == ()
        assert "Nothing to diagnose" in found.note

    def test_a_run_that_has_learnt(self):
        found = self.found(train(Run(net("squared"), WEIGHTS, regression(1200), 0.05)).on_demand())
        assert found.verdicts == ()
        assert "has learnt" in found.note

    def test_a_failure_that_does_not_come_back(self):
        accident = train(Run(net("squared"), WEIGHTS, regression(60), 0.05), code="NAN101")
        found = self.found(accident)
        assert found.cause is not None
        assert (found.cause.code, found.cause.confidence) == ("ENV702", Confidence.LIKELY)
        assert "did not happen again" in found.note

    def test_a_step_that_gives_different_results_is_nondeterministic_beyond_doubt(self):
        accident = train(Run(net("squared"), WEIGHTS, regression(60), 0.05), code="NAN101")
        model, calls = accident.lab.run_.model, iter(range(100))

        def shaky(parameters, batch):
            loss, gradients = model(parameters, batch)
            return loss * (1 + 1e-6 * next(calls)), gradients

        accident.lab.run_ = replace(accident.lab.run_, model=shaky)
        found = diagnose(accident.evidence, accident.lab)
        assert found.cause is not None
        assert (found.cause.code, found.cause.confidence) == ("ENV702", Confidence.CONFIRMED)

    def test_a_divergence_that_does_not_come_back(self):
        self.found(train(Run(net("squared"), WEIGHTS, regression(60), 0.05), code="LOSS402"))

    def test_a_sound_rate_is_not_accused_although_a_lower_one_would_have_put_the_failure_off(self):
        def draw(rng: np.random.Generator):
            return {"c": np.zeros(1), **WEIGHTS(rng)}

        def edge_model(parameters, batch):
            counter = {"c": parameters["c"]}
            rest = {name: value for name, value in parameters.items() if name != "c"}
            loss, gradients = net("squared")(rest, batch)
            with np.errstate(all="ignore"):
                return loss + 0 * float(np.log(1 - counter["c"]).sum()), {**gradients, "c": -np.ones(1, np.float32)}

        accident = train(Run(edge_model, draw, regression(200), 0.013))
        assert 70 < accident.evidence.seen.step < 90
        operand = TensorSummary.of(np.array([-0.01], np.float32))
        traced = accident.with_origin(kind=OriginKind.OPERATION, operation="log", operands=(operand,))
        assert [verdict.code for verdict in self.found(traced).verdicts] == ["NAN114"]
        assert self.found(accident).verdicts == ()

    def test_an_early_failure_that_nothing_explains_is_at_most_possible(self):
        run = Run(net("log_of_targets", "relu"), WEIGHTS, spoiled(positive(100), 10, targets_of(3, 0.0)), 0.02)
        found = self.found(train(run))
        assert all(verdict.confidence is Confidence.POSSIBLE for verdict in found.verdicts), found.describe()

    def test_rows_are_not_guilty_if_others_do_as_well(self):
        accident = train(Run(net("poisson"), WEIGHTS, counts(50), 8.0)).with_evidence(guilty_rows=(1,))
        assert confirmed(accident) == "OPT601"

    def test_without_a_laboratory_nothing_is_confirmed(self):
        run = Run(net("squared", "relu"), WEIGHTS, spoiled(regression(100), 60, inputs_of(5, 1e30)), 0.02)
        found = diagnose(train(run).evidence, None)
        assert found.cause is not None
        assert (found.cause.code, found.cause.confidence) == ("DATA503", Confidence.LIKELY)
        assert found.trials == ()
