"""What the gate does at the moment of the update."""

import inspect

import pytest
import torch
from pytorch_lightning import Callback

from nan_callbacks.torch.gate import WithheldSteps, drop_gradients
from tests.lightning_adapter.runs import (
    OPTIMIZERS,
    SCHEDULERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    is_finite,
    spoiled,
    strict_guard,
    without,
)

AT_FAULT = 6


def stepped_once(name: str) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    """A parameter whose optimizer has a history."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = OPTIMIZERS[name]([parameter])
    parameter.grad = torch.full((3,), 0.5)
    optimizer.step()
    return parameter, optimizer


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "LBFGS"])  # LBFGS cannot step without closure
def test_an_optimizer_without_gradients_changes_neither_weights_nor_state(name):
    parameter, optimizer = stepped_once(name)
    parameter.grad = torch.full((3,), torch.nan)
    before = parameter.detach().clone()
    state = {key: torch.as_tensor(value).clone() for key, value in optimizer.state[parameter].items()}

    drop_gradients(optimizer)
    optimizer.step()

    assert torch.equal(parameter, before)
    assert differences({k: torch.as_tensor(v) for k, v in optimizer.state[parameter].items()}, state) == []


@pytest.mark.parametrize("name", ["SGD-nesterov", "Adam-amsgrad", "AdamW-foreach", "RMSprop", "NAdam"])
def test_zeroed_gradients_would_still_move_the_weights(name):
    """Why the gate does not zero: momentum and weight decay act on a zero gradient."""
    parameter, optimizer = stepped_once(name)
    before = parameter.detach().clone()
    parameter.grad = torch.zeros(3)
    optimizer.step()
    assert not torch.equal(parameter, before)


class Weights(Callback):
    """Copies of all parameters after every batch."""

    def __init__(self):
        self.after = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after.append([parameter.detach().clone() for parameter in pl_module.parameters()])


@pytest.mark.parametrize("optimizer", ["SGD-nesterov", "AdamW-foreach", "AdamW-fused", "RMSprop"])
def test_momentum_and_decay_do_not_move_the_weights_on_a_skipped_step(optimizer):
    weights = Weights()
    bad = spoiled(healthy_batches(), [AT_FAULT])
    fit(lambda: TinyModule(OPTIMIZERS[optimizer]), bad, weights, guard=strict_guard())
    assert differences(weights.after[AT_FAULT - 1], weights.after[AT_FAULT]) == []
    assert differences(weights.after[AT_FAULT], weights.after[AT_FAULT + 1]) != []


def test_lbfgs_does_not_even_count_the_evaluation_of_a_dropped_step():
    def module():
        return TinyModule(OPTIMIZERS["LBFGS"])

    plain = fit(module, without(healthy_batches(), [AT_FAULT]))
    guarded = fit(module, spoiled(healthy_batches(), [AT_FAULT]), guard=strict_guard())
    counts = [run.trainer.optimizers[0].state_dict()["state"][0]["func_evals"] for run in (plain, guarded)]
    assert counts[0] == counts[1] > 0


class Watching(TinyModule):
    """Looks at its gradients where Lightning offers them, and clips by itself."""

    def __init__(self):
        super().__init__(OPTIMIZERS["AdamW-foreach"])
        self.norms, self.clipped = [], 0

    def on_before_optimizer_step(self, optimizer):
        self.norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None]))

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clipped += 1
        self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="value")


def test_the_users_own_hook_sees_the_real_gradients_of_a_dropped_step():
    batches = healthy_batches()
    guarded = fit(Watching, spoiled(batches, [AT_FAULT]), guard=strict_guard())
    finite = [bool(torch.isfinite(norm)) for norm in guarded.module.norms]
    assert finite == [index != AT_FAULT for index in range(len(batches))]
    assert min(norm for norm in guarded.module.norms if torch.isfinite(norm)) > 0


def test_the_users_own_clipping_runs_for_every_step_but_the_dropped_one():
    batches = healthy_batches()
    plain = fit(Watching, without(batches, [AT_FAULT]))
    guarded = fit(Watching, spoiled(batches, [AT_FAULT]), guard=strict_guard())
    assert guarded.module.clipped == len(batches) - 1
    assert differences(plain.state, guarded.state) == []


class Counting(torch.optim.Optimizer):
    """Of somebody else: counts its steps wherever it can, and takes it for granted that every weight has a gradient."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.05, "k": 0, "weight_sum": 0.0})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        self.steps += 1
        self.state["all"]["total"] = self.state["all"].get("total", 0) + 1
        for group in self.param_groups:
            group["k"] += 1
            group["weight_sum"] += group["lr"]
            group.setdefault("begun", torch.zeros(())).add_(1)
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 / group["k"])
                weight.sub_(group["lr"] * average)
        return loss


class ByHand(TinyModule):
    def __init__(self):
        super().__init__(Counting)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(*batch))
        optimizer.step()


def counting():
    return TinyModule(Counting, SCHEDULERS["StepLR"])


@pytest.mark.parametrize(("module", "options"), [(counting, {}), (counting, {"scale": 64.0}), (ByHand, {})])
@pytest.mark.parametrize(("at", "fault"), [(0, "nan"), (AT_FAULT, "nan"), (AT_FAULT, "spike")])
def test_an_optimizer_that_needs_every_gradient_and_counts_its_steps_forgets_as_well(module, options, at, fault):
    batches = healthy_batches()
    plain = fit(module, without(batches, [at]), **options)
    guarded = fit(module, spoiled(batches, [at], fault), guard=strict_guard(), **options)
    assert guarded.guard.summary["codes"]
    assert "unless_withheld" not in repr(guarded.trainer.optimizers[0].step)  # given back
    assert differences(plain.state, guarded.state) == []
    one, other = plain.trainer.optimizers[0], guarded.trainer.optimizers[0]
    assert one.steps == other.steps == len(batches) - 1
    assert differences(one.state_dict(), other.state_dict()) == []


class Sharp(torch.optim.Optimizer):
    """Sharpness-aware: climbs, evaluates the loss there, comes back, and only then descends."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        moved = [(weight, weight.clone()) for weight in self.param_groups[0]["params"] if weight.grad is not None]
        for weight, _ in moved:
            weight.add_(0.5)
        with torch.enable_grad():
            closure()
        for weight, before in moved:
            weight.copy_(before)
            if weight.grad is not None:
                weight.sub_(0.01 * weight.grad)
        return loss


class FailsOnTheHill(TinyModule):
    """The second evaluation of one step is not finite."""

    def __init__(self):
        super().__init__(Sharp)
        self.evaluated = 0

    def training_step(self, batch, batch_idx):
        self.evaluated += 1
        return self.loss(*batch) * (torch.nan if self.evaluated == 2 * AT_FAULT + 2 else 1.0)


def test_who_moves_weights_to_evaluate_a_loss_is_let_move_them_back():
    weights = Weights()
    fit(FailsOnTheHill, healthy_batches(), weights, guard=strict_guard())
    assert differences(weights.after[AT_FAULT - 1], weights.after[AT_FAULT]) == []


class OwnAdam(torch.optim.AdamW):
    """Of the user, and unscales by itself."""


def test_the_step_after_a_withheld_one_of_a_fused_optimizer_is_not_lost():
    weights = Weights()
    bad = spoiled(healthy_batches(), [AT_FAULT], "spike")
    own = fit(
        lambda: TinyModule(lambda p: OwnAdam(p, lr=1e-2, fused=True)), bad, weights, guard=strict_guard(), scale=64.0
    )
    assert own.guard.summary["skipped_steps"] == 1
    assert differences(weights.after[AT_FAULT - 1], weights.after[AT_FAULT]) == []
    assert differences(weights.after[AT_FAULT], weights.after[AT_FAULT + 1]) != []


def test_the_signature_of_a_step_that_can_be_withheld_is_its_own():
    optimizer = Sharp([torch.nn.Parameter(torch.ones(2))])
    wrapped = WithheldSteps().wrap(optimizer)
    assert list(inspect.signature(wrapped).parameters) == ["closure"]


class Around(torch.optim.Optimizer):
    """A lookahead around an optimizer of torch's, whose state is its own."""

    def __init__(self, parameters):
        parameters = list(parameters)
        self.inner = torch.optim.AdamW(parameters, lr=1e-2)
        super().__init__(parameters, {})
        self.param_groups = self.inner.param_groups

    def step(self, closure=None):
        return self.inner.step(closure)


def test_an_optimizer_around_another_one_is_left_alone_by_trials_and_forgets():
    def module():
        return TinyModule(Around)

    batches = healthy_batches()
    plain, guarded = fit(module, batches), fit(module, batches, guard=strict_guard())
    assert differences(plain.state, guarded.state) == []
    shorter, forgetful = fit(module, without(batches, [6])), fit(module, spoiled(batches, [6]), guard=strict_guard())
    assert differences(shorter.state, forgetful.state) == []


class NoEpsilon(TinyModule):
    """An optimizer that makes NaN from finite gradients: Adam without an epsilon divides 0 by 0."""

    def __init__(self):
        super().__init__(lambda p: torch.optim.Adam(p, lr=0.01, eps=0.0))
        self.idle = torch.nn.Parameter(torch.ones(2))

    def training_step(self, batch, batch_idx):
        return self.loss(*batch) + 0.0 * self.idle.sum()


def test_nan_made_by_the_optimizer_itself_is_named_rolled_back_and_in_the_end_given_up():
    guarded = fit(NoEpsilon, healthy_batches(40), guard=strict_guard())
    summary = guarded.guard.summary
    assert summary["codes"]["NAN103"] >= 1
    assert summary["rollbacks"] == guarded.guard.config.max_rollbacks
    assert summary["stopped"]
    assert is_finite(guarded)
    first = next(event for event in guarded.guard.events if event["event"] == "incident")
    assert "idle" in first["where"]
    assert "Adam" in first["detail"]
