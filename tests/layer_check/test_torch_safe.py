"""Safe layers pass, and plain overflow is told but no failure."""

import pytest
import torch
from torch import nn

from nan_callbacks.layer_check import InputSpec, check_layer

SHAPE = (4, 6)
IMAGE = (4, 3, 8, 8)
SERIES = (4, 5, 6)

SAFE = [
    (nn.Linear(6, 3), SHAPE),
    (nn.LayerNorm(6), SHAPE),
    (nn.BatchNorm1d(6), SHAPE),
    (nn.Dropout(0.5), SHAPE),
    (nn.GELU(), SHAPE),
    (nn.ReLU(inplace=True), SHAPE),
    (nn.Softmax(-1), SHAPE),
    (nn.LogSoftmax(-1), SHAPE),
    (nn.Softplus(), SHAPE),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1)), IMAGE),
    (nn.LazyLinear(3), SHAPE),
    (nn.LSTM(6, 4, batch_first=True), SERIES),
    (nn.Embedding(10, 4), InputSpec((4, 5), kind="indices", high=10)),
    (nn.MultiheadAttention(6, 2, batch_first=True), [SERIES, SERIES, SERIES]),
    (nn.functional.normalize, SHAPE),
    (lambda x: torch.log1p(x), InputSpec(SHAPE, kind="positive")),
    (lambda x: x / x.sum(-1, keepdim=True), InputSpec(SHAPE, kind="probabilities")),
    (lambda x, mask: (x * mask).sum(-1) / mask.sum(-1).clamp(min=1), [InputSpec(SHAPE), InputSpec(SHAPE, "mask")]),
]


@pytest.mark.parametrize(("layer", "spec"), SAFE, ids=lambda value: type(value).__name__)
def test_safe_layers_pass(layer, spec):
    result = check_layer(layer, spec)

    assert result.passed, result.describe()
    assert "determinism · ordinary noise" in result.checked


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_safe_losses_pass(loss):
    result = check_layer(loss, SHAPE, target_spec=SHAPE)

    assert result.passed, result.describe()
    assert any("sums up the batch" in reason for reason in result.skipped)


def test_losses_with_labels_pass():
    labels = InputSpec((4,), kind="indices", high=6)
    flags = InputSpec(SHAPE, kind="mask")

    assert check_layer(nn.CrossEntropyLoss(), SHAPE, target_spec=labels).passed
    assert check_layer(nn.BCEWithLogitsLoss(), SHAPE, target_spec=flags).passed


def test_keyword_arguments_are_passed_by_name():
    def scaled(*, signal, gain):
        return signal * gain

    assert check_layer(scaled, {"signal": InputSpec(SHAPE), "gain": InputSpec((4, 1))}).passed


def test_a_square_that_overflows_is_told_but_no_failure():
    result = check_layer(lambda x: x**4, SHAPE)

    assert result.passed
    assert {"huge scale (1e10)", "largest finite"} <= {
        name for info in result.infos for name in (info.case, *info.also_in)
    }
    assert all("beyond the number format" in info.message for info in result.infos)


def test_a_norm_of_the_largest_numbers_is_no_failure():
    assert check_layer(lambda x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6), SHAPE).passed


def test_an_exponential_that_grows_without_bound_is_no_failure():
    assert check_layer(torch.exp, SHAPE).passed


def test_a_loss_of_precision_in_the_layer_does_not_count_as_a_wrong_gradient():
    assert check_layer(lambda x: (x.float() * 3).tanh().double().exp(), SHAPE).passed


def test_an_error_at_a_degenerate_input_is_told():
    result = check_layer(nn.BatchNorm1d(6), SHAPE)

    assert any(info.check == "call" and info.case == "one-element batch" for info in result.infos)
