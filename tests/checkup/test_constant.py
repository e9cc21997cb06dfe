"""What the best constant prediction costs, by each kind of loss."""

import math

import numpy as np
import pytest

from nan_callbacks.checkup.constant import loss_of_a_constant
from nan_callbacks.checkup.facts import LossFacts

rng = np.random.default_rng(0)
TARGETS = 3.0 + 2.0 * rng.normal(size=(400, 2))
KINDS = rng.choice(4, size=400, p=[0.7, 0.1, 0.1, 0.1])
ENTROPY = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))
SOME = rng.uniform(size=(400, 1)) < 0.2


def loss(kind, predictions, targets, **about):
    axis = {"class_axis": 1} if "cross" in kind and "binary" not in kind else {}
    return LossFacts(kind=kind, predictions=predictions, targets=targets, **{**axis, **about})


def logits(size, width=4):
    return rng.normal(size=(size, width))


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


SCORES = logits(400)
PAID = float(-np.log(softmax(SCORES))[np.arange(400), KINDS].mean())
BINARY = logits(400, 1)
PAID_BINARY = float(np.log1p(np.exp(np.where(SOME, -BINARY, BINARY))).mean())

CASES = {
    "squares": (loss("squared_error", np.zeros((400, 2)), TARGETS), float(np.square(TARGETS).mean()), 4.0),
    "absolute": (loss("absolute_error", np.zeros((400, 2)), TARGETS), float(np.abs(TARGETS).mean()), 1.6),
    "indices": (loss("cross_entropy", SCORES, KINDS, from_logits=True), PAID, ENTROPY),
    "probabilities": (loss("cross_entropy", softmax(SCORES), KINDS, from_logits=False), PAID, ENTROPY),
    "logarithms": (loss("cross_entropy", np.log(softmax(SCORES)), KINDS, takes_log=True), PAID, ENTROPY),
    "one-hot": (loss("soft_cross_entropy", SCORES, np.eye(4)[KINDS], from_logits=True), PAID, ENTROPY),
    "two classes": (loss("binary_cross_entropy", BINARY, SOME, from_logits=True), PAID_BINARY, 0.5004),
}


@pytest.mark.parametrize("name", CASES)
def test_the_price_of_knowing_nothing_of_the_inputs(name):
    facts, paid, expected = CASES[name]
    assert loss_of_a_constant([facts], paid) == pytest.approx(expected, rel=0.1)
    assert loss_of_a_constant([facts], 1.05 * paid) is not None


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_said_of_a_step_that_minimises_something_else(name):
    facts, paid, _ = CASES[name]
    assert loss_of_a_constant([facts], 1.5 * paid) is None
    assert loss_of_a_constant([facts], math.nan) is None
    assert loss_of_a_constant([facts], None) is None
    assert loss_of_a_constant([facts, facts], paid) is None


def test_labels_that_are_left_out_do_not_count():
    labels = np.where(np.arange(400) % 2, KINDS, -100)
    facts = loss("cross_entropy", SCORES, labels, from_logits=True, ignore_index=-100)
    kept = np.arange(400) % 2 == 1
    paid = float(-np.log(softmax(SCORES))[np.arange(400), KINDS][kept].mean())
    assert loss_of_a_constant([facts], paid) == pytest.approx(ENTROPY, rel=0.1)


def test_targets_that_are_all_the_same_have_no_price():
    facts = loss("squared_error", np.zeros((8, 1)), np.ones((8, 1)))
    assert loss_of_a_constant([facts], 1.0) is None


def test_a_broadcast_is_not_computed():
    assert loss_of_a_constant([loss("squared_error", np.zeros((8, 1)), np.ones(8))], 1.0) is None
