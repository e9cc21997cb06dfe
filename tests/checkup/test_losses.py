"""Whether model and loss agree about the last activation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.checkup.losses import examine_losses
from tests.checkup.facts import classification, normal, of_loss, regression

LABELS = np.arange(64) % 4
LOGITS = 3 * normal(64, 4)


def softmax(scores):
    powers = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(scores):
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def binary(predictions, **more):
    targets = np.resize([0, 1], predictions.shape).astype(np.float32)
    told = {"kind": "binary_cross_entropy", "class_axis": None, "predictions": predictions}
    return classification(targets, **{**told, **more})


# -- losses that take logits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["", "linear", "relu", "tanh", "log_softmax", "log", "softplus"])
def test_logits_where_logits_are_expected(activation):
    assert of_loss(classification(predictions=LOGITS, activation=activation)) == []


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_activation_that_the_loss_applies_once_more(activation):
    assert of_loss(classification(predictions=softmax(LOGITS), activation=activation)) == [("LOSS403", "twice")]
    shown = sigmoid(normal(64, 1))
    assert of_loss(binary(shown, activation=activation)) == [("LOSS403", "twice")]


def test_outputs_that_add_up_to_one_are_no_logits():
    assert of_loss(classification(predictions=softmax(LOGITS), activation="")) == [("LOSS403", "twice")]


# -- losses that take logarithms -------------------------------------------------------------------------------------


def logarithms(predictions, **more):
    return classification(predictions=predictions, from_logits=False, takes_log=True, **{"activation": "", **more})


@given(scale=st.floats(0.01, 50), dtype=st.sampled_from(["float16", "float32", "float64"]))
def test_logarithms_where_logarithms_are_expected(scale, dtype):
    shown = np.log(np.maximum(softmax(scale * normal(64, 4)), 1e-7)).astype(dtype)
    assert of_loss(logarithms(shown)) == []


@pytest.mark.parametrize("activation", ["", "linear", "softmax"])
def test_probabilities_and_scores_where_logarithms_are_expected(activation):
    shown = softmax(LOGITS) if activation == "softmax" else LOGITS
    assert of_loss(logarithms(shown, activation=activation)) == [("LOSS404", "logarithm")]


def test_log_softmax_of_an_image_lies_along_its_classes():
    scores = normal(4, 3, 5, 5)
    shown = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    targets = np.arange(100).reshape(4, 5, 5) % 3
    assert of_loss(logarithms(shown, targets=targets, all_targets=targets)) == []


def test_scores_of_a_divergence():
    def of(shown):
        return of_loss(regression(softmax(normal(64, 4)), kind="kl_divergence", takes_log=True, predictions=shown))

    assert of(np.log(softmax(LOGITS))) == []
    assert of(softmax(LOGITS)) == [("LOSS404", "logarithm")]


# -- losses that take probabilities ----------------------------------------------------------------------------------


def probabilities(predictions, **more):
    return classification(predictions=predictions, from_logits=False, **{"activation": "", **more})


@given(scale=st.floats(0.01, 100), dtype=st.sampled_from(["float16", "float32", "float64"]))
def test_probabilities_where_probabilities_are_expected(scale, dtype):
    scores = scale * normal(64, 4)
    assert of_loss(probabilities(softmax(scores).astype(dtype))) == []
    assert of_loss(binary(sigmoid(scores).astype(dtype), from_logits=False, activation="")) == []


@pytest.mark.parametrize("activation", ["", "linear", "relu", "tanh"])
def test_scores_where_probabilities_are_expected(activation):
    wrong = [("LOSS404", "probability")]
    assert of_loss(probabilities(LOGITS, activation=activation)) == wrong
    assert of_loss(binary(LOGITS, from_logits=False, activation=activation)) == wrong


def test_shares_that_do_not_add_up_are_no_probabilities():
    assert of_loss(probabilities(sigmoid(LOGITS))) == [("LOSS404", "probability")]


def test_one_probability_needs_no_others():
    assert of_loss(binary(sigmoid(LOGITS)[:, :1], from_logits=False, activation="")) == []


# -- rates -----------------------------------------------------------------------------------------------------------


def test_negative_rates():
    def of(shown, **more):
        counts = np.arange(64)[:, None] % 5
        return of_loss(regression(counts, kind="poisson", predictions=shown, **more))

    assert of(normal(64, 1), from_logits=False) == [("LOSS404", "rate")]
    assert of(np.exp(normal(64, 1)), from_logits=False) == []
    assert of(normal(64, 1), from_logits=True) == []


# -- not judged ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["squared_error", "absolute_error", "cosine", "hinge", "unknown"])
@pytest.mark.parametrize("activation", ["", "linear"])
def test_other_losses_take_anything(kind, activation):
    assert of_loss(regression(normal(64, 4), kind=kind, activation=activation)) == []


@pytest.mark.parametrize("takes_log", [True, False])
@pytest.mark.parametrize("shown", [np.full((64, 4), np.nan), np.full((64, 4), np.inf)])
def test_non_finite_outputs_are_another_matter(shown, takes_log):
    assert of_loss(classification(predictions=shown, from_logits=False, takes_log=takes_log, activation="")) == []


@pytest.mark.parametrize("takes_log", [True, False])
def test_huge_scores_do_no_harm(takes_log):
    shown = np.full((64, 4), 1.7e308)
    told = of_loss(classification(predictions=shown, from_logits=False, takes_log=takes_log, activation=""))
    assert [code for code, _ in told] == ["LOSS404"]


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "kl_divergence", "poisson"])
@pytest.mark.parametrize("takes_log", [True, False])
@pytest.mark.parametrize(
    "shown", [np.empty(0), np.empty((0, 4)), np.empty((64, 0)), np.empty((64, 0, 2)), np.array([0.5])]
)
@pytest.mark.parametrize("from_logits", [True, False])
def test_next_to_no_outputs_do_no_harm(kind, takes_log, shown, from_logits):
    told = {"kind": kind, "predictions": shown, "from_logits": from_logits, "takes_log": takes_log, "class_axis": -1}
    of_loss(regression(np.empty(0), **told))


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_single_probability_does_no_harm(from_logits):
    shown = {"kind": "binary_cross_entropy", "predictions": np.array(0.5), "from_logits": from_logits}
    assert of_loss(regression(np.empty(0), **shown)) == []


@pytest.mark.parametrize(("scores", "codes"), [(True, ["LOSS404"]), (False, [])])
def test_an_alignment_takes_logarithms_of_probabilities(scores, codes):
    predictions = np.random.default_rng(0).normal(size=(18, 4, 7)).astype("float32")
    if not scores:
        predictions = predictions - np.log(np.exp(predictions).sum(-1, keepdims=True))
    loss = LossFacts(
        kind="alignment", from_logits=False, takes_log=True, predictions=predictions, targets=np.ones((4, 3), np.int64)
    )

    assert [each.code for each in examine_losses((loss,))] == codes


@pytest.mark.parametrize(("activation", "value"), [("softmax", 1.0), ("log_softmax", 0.0)])
def test_a_softmax_over_a_single_unit_is_no_sigmoid(activation, value):
    outputs = np.full((64, 1), value, np.float32)
    assert of_loss(binary(outputs, activation=activation, from_logits=False)) == [("LOSS404", "single_unit")]
    assert of_loss(binary(outputs, activation=activation, from_logits=True)) == [("LOSS404", "single_unit")]
    assert of_loss(binary(outputs, activation="sigmoid", from_logits=False)) == []  # saturated, at worst


# -- one class -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_a_distribution_over_one_class(from_logits, activation):
    predictions = sigmoid(normal(64, 1)).astype(np.float32)
    targets = np.resize([0, 1], (64, 1)).astype(np.float32)
    told = classification(
        targets, kind="soft_cross_entropy", predictions=predictions, from_logits=from_logits, activation=activation
    )
    assert of_loss(told) == [("LOSS404", "single_class")]
    two = np.concatenate([predictions, 1 - predictions], axis=1)
    both = np.concatenate([targets, 1 - targets], axis=1)
    fine = classification(both, kind="soft_cross_entropy", predictions=two, from_logits=False, activation="softmax")
    assert of_loss(fine) == []
