"""The one measurement of a step: norms, the loss, and what is non-finite."""

import math

import pytest
import torch

from nan_callbacks.torch.measure import measure


def test_norms_of_other_tensors_come_with_the_same_read():
    gradients = [torch.full((4,), 3.0), torch.full((9,), 4.0)]
    beside = [torch.full((16,), 2.0), torch.tensor([5.0])]

    measured = measure(gradients, loss=torch.tensor(0.5), beside=beside)

    assert measured.grad_norm == pytest.approx(math.hypot(6.0, 12.0))
    assert measured.norms_beside == (8.0, 5.0)
    assert measured.loss == 0.5
    assert measured.non_finite == ()


def test_what_is_beside_is_no_part_of_the_gradients():
    broken = torch.tensor([math.nan, 1.0])
    measured = measure([torch.ones(4), broken, torch.ones(1)], loss=None, beside=[torch.tensor([math.inf])])

    assert measured.non_finite == (1,)
    assert math.isnan(measured.grad_norm)
    assert measured.norms_beside == (math.inf,)
    assert measure([torch.ones(4)], loss=None, beside=[broken]).non_finite == ()


def test_a_norm_that_overflows_is_not_taken_for_inf():
    measured = measure([torch.full((2,), 3e38), torch.ones(1)], loss=None, beside=[torch.ones(4)], inverse_scale=0.5)

    assert measured.non_finite == ()
    assert measured.grad_norm == pytest.approx(0.5 * math.hypot(3e38, 3e38))


def test_without_gradients_the_rest_is_measured():
    measured = measure([], loss=torch.tensor(2.0), statistics_jump=torch.tensor(1.5), beside=[torch.ones(4)])

    assert measured.grad_norm is None
    assert (measured.loss, measured.statistics_jump, measured.norms_beside) == (2.0, 1.5, (2.0,))


def test_double_precision_and_sparse_gradients_share_a_read_with_single_ones():
    table = torch.nn.Embedding(10, 2, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()

    measured = measure([table.weight.grad, torch.ones(4, dtype=torch.float64)], loss=None, beside=[torch.ones(1)])

    assert measured.grad_norm == pytest.approx(math.sqrt(2 * 4 + 2 * 1 + 4))
    assert measured.norms_beside == (1.0,)
