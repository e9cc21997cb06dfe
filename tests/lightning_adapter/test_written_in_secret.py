"""State that a step writes without any sign of it, and frozen parameters that it writes: codebooks, teachers."""

import copy

import pytest
import torch
from torch import nn

from nan_callbacks.torch.forward_state import SMALL, ForwardState
from tests.lightning_adapter.runs import TinyModule, fit, healthy_batches, spoiled, strict_guard
from tests.lightning_adapter.test_as_if_never_drawn import AT_FAULT, assert_as_if_never_drawn

WAYS = {
    "in place": lambda old, new: old.mul_(0.9).add_(new, alpha=0.1),
    "in place of .data": lambda old, new: old.data.mul_(0.9).add_(new, alpha=0.1),
    "another .data": lambda old, new: setattr(old, "data", old.data * 0.9 + 0.1 * new),
    "numpy": lambda old, new: old.numpy().__imul__(0.9).__iadd__(0.1 * new.numpy()),
}
"""How a moving average is written."""


class WithBuffer(TinyModule):
    """A moving average of the inputs, kept in a buffer."""

    size = 8

    def __init__(self, write):
        super().__init__()
        self.register_buffer("average", torch.zeros(self.size))
        self.register_buffer("table", torch.full((SMALL + 1,), float("-inf")))
        self.write = write

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            self.write(self.average, batch[0].mean().expand(self.size))
        return super().training_step((batch[0] + 0.1 * self.average[:1], batch[1]), batch_idx)


class WithLargeBuffer(WithBuffer):
    """One that is too large to be copied at every step unless it has to be."""

    size = SMALL + 1


class WithTeacher(TinyModule):
    """A frozen copy of a layer that follows it and is fed with the batch as well."""

    def __init__(self, write):
        super().__init__()
        self.teacher = copy.deepcopy(self.direction).requires_grad_(False)
        self.write = write

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            self.write(self.teacher.weight, self.direction.weight + batch[0].mean())
        loss = super().training_step(batch, batch_idx)
        return loss + 0.01 * self.teacher(batch[0]).mean() * loss


@pytest.mark.parametrize("write", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("module", "at"),
    [(WithBuffer, 0), (WithBuffer, AT_FAULT), (WithLargeBuffer, 0), (WithLargeBuffer, AT_FAULT), (WithTeacher, 6)],
)
def test_state_is_put_back_however_it_was_written(module, at, write):
    assert_as_if_never_drawn(lambda: module(write), (at,))


def test_a_codebook_survives_one_bad_batch_early_and_one_late():
    run = fit(
        lambda: WithLargeBuffer(WAYS["in place of .data"]), spoiled(healthy_batches(), [1, 7]), guard=strict_guard()
    )
    assert run.state["buffers"]["average"].isfinite().all()
    assert (run.guard.summary["skipped_steps"], run.guard.summary["rollbacks"]) == (2, 0)


def test_frozen_weights_that_nobody_writes_are_not_copied():
    module = nn.Linear(64, 64).requires_grad_(False)
    state = ForwardState(module.modules)
    for _ in range(4):
        state.capture()
        state.look()
    assert all(kept.copy is None for kept in state._known.values())
