"""The laboratory of a fit: every variation does what it says, and leaves nothing behind."""

import copy
import dataclasses
import math
import random
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F

from nan_callbacks.diagnosis.lab import Half, Start, Variation
from nan_callbacks.diagnosis.origin import OriginKind, Phase
from nan_callbacks.lightning.lab import LightningLab
from nan_callbacks.torch.lab_bench import Fed
from tests.lightning_adapter.runs import (
    FEATURES,
    OPTIMIZERS,
    SCHEDULERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    spoiled,
    state_of,
)
from tests.lightning_adapter.test_do_no_harm import TwoOptimizers

HELD_AT = 5
HEALTHY = healthy_batches()
BAD = spoiled(HEALTHY, [HELD_AT], "backward-nan")[HELD_AT]

VARIATIONS = {
    "same": Variation(),
    "without-rows": Variation(without_rows=(2,)),
    "only-rows": Variation(only_rows=(1, 3, 5)),
    "other-batch": Variation(other_batch=True),
    "standardise": Variation(standardise=True),
    "input-scale": Variation(input_scale=0.5),
    "target-scale": Variation(target_scale=2.0),
    "clip-targets": Variation(clip_targets=True),
    "float32": Variation(dtype="float32"),
    "float64": Variation(dtype="float64"),
    "fresh": Variation(start=Start.FRESH),
    "snapshot": Variation(start=Start.SNAPSHOT),
    "steps": Variation(steps=4, other_batch=True),
    "steps-lr": Variation(steps=4, other_batch=True, lr_factor=0.1),
    "steps-clipped": Variation(steps=4, other_batch=True, clip_norm=0.01),
    "steps-float64": Variation(steps=3, other_batch=True, dtype="float64"),
    "steps-fresh": Variation(steps=3, other_batch=True, start=Start.FRESH),
    "steps-snapshot": Variation(steps=3, other_batch=True, start=Start.SNAPSHOT),
    "held-out": Variation(steps=3, start=Start.TRAINED, held_out=Half.NEWER),
}


class Messy(TinyModule):
    """Changes everything that a training step can change besides its gradients."""

    def __init__(self, *args):
        super().__init__(*args)
        self.count, self.history, self.by_name = 0, [], {"last": None}
        self.meter = SimpleNamespace(total=0.0)
        self.plain, self.generator = torch.zeros(2), torch.Generator().manual_seed(5)
        self.hidden = [nn.Linear(2, 2)]
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def training_step(self, batch, batch_idx):
        self.count += 1
        self.history.append(batch_idx)
        self.by_name["last"] = batch_idx
        self.meter.total += 1.0
        self.plain += torch.rand(2, generator=self.generator)
        with torch.no_grad():
            self.hidden[0].weight.mul_(0.5)
            self.hidden[0].bias.data = self.hidden[0].bias.data * 0.5
            self.plain.data = self.plain.data * 0.5
            self.seen.data.mul_(0.5)
            self.frozen.data = self.frozen.data * 0.5
            self.direction.weight.mul_(0.999)
        self.net.eval() if batch_idx == HELD_AT else self.net.train()
        print("loud")
        if self.trainer.loggers:
            self.logger.log_metrics({"mine": 1.0})
        return super().training_step(batch, batch_idx)

    def everything(self):
        return {
            "attributes": [self.count, list(self.history), dict(self.by_name), self.meter.total, self.plain.clone(),
                           self.generator.get_state().clone(), copy.deepcopy(self.hidden[0].state_dict()),
                           [module.training for module in self.modules()], sorted(vars(self))],
            "gradients": [None if p.grad is None else p.grad.clone() for p in self.parameters()],
            "flags": [p.requires_grad for p in self.parameters()],
            "identities": [(id(p), p.data_ptr()) for p in self.parameters()] + [id(b) for b in self.buffers()],
        }  # fmt: skip


class InLab(Callback):
    """Opens a laboratory in the middle of a fit, after a healthy batch, and runs something in it."""

    def __init__(self, action, failed=BAD, window=1):
        self.action, self.failed, self.window = action, failed, window
        self.left_behind, self.result, self.progress = ["never ran"], None, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx != HELD_AT:
            return
        windows = [(Fed(each, index),) for index, each in enumerate(HEALTHY[:4])]
        failed = tuple(Fed(self.failed if i == self.window - 1 else HEALTHY[0], HELD_AT) for i in range(self.window))
        lab = LightningLab(trainer, pl_module, failed, windows, trusted=lambda: None)
        before = self._look(trainer, pl_module)
        self.result = self.action(lab)
        self.left_behind = differences(before, self._look(trainer, pl_module))

    def _look(self, trainer, module):
        more = module.everything() if isinstance(module, Messy) else {}
        logged = trainer.fit_loop.epoch_loop._results.items()
        results = {key: {name: each for name, each in vars(value).items() if name != "meta"} for key, value in logged}
        return copy.deepcopy(
            {
                **state_of(module, trainer),
                **more,
                "logged": results,
                "step": trainer.global_step,
                "metric": {name: getattr(module.mean_error, name) for name in module.mean_error._defaults},
                "updates": module.mean_error._update_count,
                "batches": trainer.fit_loop.epoch_loop.batch_progress.state_dict(),
            }
        )


def in_lab(action, module=Messy, **options):
    held = {name: options.pop(name) for name in ("failed", "window") if name in options}
    callback = InLab(action, **held)
    fit(module, HEALTHY, callback, **options)
    return callback


SET_UPS = {
    "plain": {},
    "scheduler": {"module": lambda: Messy(OPTIMIZERS["SGD-nesterov"], SCHEDULERS["OneCycle"])},
    "fused": {"module": lambda: Messy(OPTIMIZERS["AdamW-fused"])},
    "tensor-rate": {"module": lambda: Messy(OPTIMIZERS["AdamW-tensor-lr"], SCHEDULERS["Cosine"])},
    "lbfgs": {"module": lambda: Messy(OPTIMIZERS["LBFGS"])},
    "by-hand": {"module": TwoOptimizers},
    "fp16-scaler": {"scale": 64.0},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "clipped": {"gradient_clip_val": 0.1},
    "window": {"window": 2, "accumulate_grad_batches": 2},
}


class Remembering(TinyModule):
    """Reads its rows with an LSTM.

    Args:
        scale: Factor on its weights.
    """

    def __init__(self, scale=1.0):
        super().__init__()
        self.first = nn.LSTM(1, FEATURES, 2, batch_first=True).requires_grad_(False)  # large ones would explode
        with torch.no_grad():
            for parameter in self.first.parameters():
                parameter *= scale

    def loss(self, x, y):
        return super().loss(self.first(x[:, :, None])[0][:, -1], y)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_gates_are_a_part_of_the_evidence(scale):
    layers = {layer.name: layer for layer in in_lab(lambda lab: lab.layers(), lambda: Remembering(scale)).result}

    assert {"first.l0.gates", "first.l1.gates"} <= layers.keys()
    assert [layers[f"first.{part}.gates"].saturated_share > 0.8 for part in ("l0", "l1")] == [scale > 1] * 2
    assert layers["first.l0.gates"].weight_scale is None


@pytest.mark.parametrize("set_up", SET_UPS)
def test_no_variation_leaves_anything_behind(set_up):
    def all_of_them(lab):
        return {name: lab.run(variation) for name, variation in VARIATIONS.items()}, lab.replay(), lab.layers()

    held = in_lab(all_of_them, **SET_UPS[set_up])

    assert held.left_behind == []
    trials, replay, layers = held.result
    assert {name for name, trial in trials.items() if not trial.supported or trial.raised} == set()
    assert all(
        len(trial.losses) == max(trial.variation.steps, 1) for name, trial in trials.items() if "fresh" not in name
    )
    assert replay.origin is not None
    assert (replay.origin.kind, replay.origin.operation, replay.origin.phase) == (
        OriginKind.OPERATION, "sqrt", Phase.BACKWARD,
    )  # fmt: skip
    assert {"net.0", "direction"} <= {layer.name for layer in layers}


def test_the_run_goes_on_as_if_no_laboratory_had_been_there():
    plain = fit(Messy, HEALTHY)
    callback = InLab(lambda lab: [lab.run(variation) for variation in VARIATIONS.values()])
    held = fit(Messy, HEALTHY, callback)
    assert differences(plain.state, held.state) == []


def test_the_failed_step_fails_again_and_rows_can_be_blamed():
    def blame(lab):
        names = ("same", "without-rows", "only-rows", "float64")
        return lab.rows, {name: lab.run(VARIATIONS[name]).grad_norms[0] for name in names}

    rows, norms = in_lab(blame).result
    assert rows == 16
    assert math.isnan(norms["same"])
    assert math.isnan(norms["float64"])
    assert math.isfinite(norms["without-rows"])
    assert math.isfinite(norms["only-rows"])


class Exact(TinyModule):
    """Without anything random: the numbers of a trial can be computed by hand."""

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.direction(batch[0]).sum(1, keepdim=True), batch[1])

    def loss_by_hand(self, x, y):
        return float(F.mse_loss(self.direction(x).sum(1, keepdim=True), y))


def exact():
    return Exact(lambda p: torch.optim.SGD(p, lr=0.1))


def test_each_change_is_the_one_that_its_name_says():
    x, y = HEALTHY[6]
    recent = torch.cat([each for each, _ in HEALTHY[:4]])
    targets = torch.cat([each for _, each in HEALTHY[:4]])
    changed = {
        Variation(): (x, y),
        Variation(without_rows=(0, 15)): (x[1:15], y[1:15]),
        Variation(only_rows=(4, 2)): (x[[4, 2]], y[[4, 2]]),
        Variation(other_batch=True): HEALTHY[3],
        Variation(input_scale=3.0): (x * 3, y),
        Variation(target_scale=0.25): (x, y * 0.25),
        Variation(clip_targets=True): (x, y.clamp(targets.min(), targets.max())),
        Variation(standardise=True): ((x - recent.mean(0)) / recent.std(0, correction=0), y),
    }

    class ByHand(InLab):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == HELD_AT:
                self.expected = [pl_module.loss_by_hand(*each) for each in changed.values()]
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    callback = ByHand(lambda lab: [lab.run(variation).losses[0] for variation in changed], failed=(x, y))
    fit(exact, HEALTHY, callback)
    assert callback.result == pytest.approx(callback.expected, rel=1e-5)


def test_steps_are_those_of_the_runs_own_optimizer_and_rate():
    """Gradient descent on a frozen set of batches, computed by hand."""

    def losses_by_hand(module, rate, clip):
        weight = module.direction.weight.detach().clone().requires_grad_(True)
        losses = []
        for x, y in [HEALTHY[0], HEALTHY[1], HEALTHY[6]]:
            loss = F.mse_loss((x @ weight.T).sum(1, keepdim=True), y)
            (gradient,) = torch.autograd.grad(loss, weight)
            losses.append(float(loss.detach()))
            norm = float(gradient.norm())
            weight = (weight - rate * gradient * min(1.0, clip / norm)).detach().requires_grad_(True)
        return losses

    class ByHand(InLab):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == HELD_AT:
                settings = [(0.1, 1e9), (1.0, 1e9), (0.1, 0.01)]
                self.expected = [losses_by_hand(pl_module, *setting) for setting in settings]
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    variations = [Variation(steps=3), Variation(steps=3, lr_factor=10.0), Variation(steps=3, clip_norm=0.01)]
    callback = ByHand(lambda lab: [list(lab.run(variation).losses) for variation in variations], failed=HEALTHY[6])
    fit(exact, HEALTHY, callback)
    for got, expected in zip(callback.result, callback.expected, strict=True):
        assert got == pytest.approx(expected, rel=1e-4)


def test_a_half_that_is_held_out_is_measured_after_steps_over_the_other():
    def losses_by_hand(module, used, held, steps):
        weight = module.direction.weight.detach().clone().requires_grad_(True)
        for step in range(steps):
            x, y = used[step % len(used)]
            (gradient,) = torch.autograd.grad(F.mse_loss((x @ weight.T).sum(1, keepdim=True), y), weight)
            weight = (weight - 0.1 * gradient).detach().requires_grad_(True)
        return [float(F.mse_loss((x @ weight.T).sum(1, keepdim=True), y)) for x, y in held]

    known = [*HEALTHY[:4], HEALTHY[6]]
    halves = {Half.NEWER: (known[:2], known[2:]), Half.OLDER: (known[2:], known[:2])}
    variations = [Variation(steps=steps, held_out=half) for half in Half for steps in (0, 5)]

    class ByHand(InLab):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == HELD_AT:
                self.expected = [losses_by_hand(pl_module, *halves[v.held_out], v.steps) for v in variations]
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    callback = ByHand(lambda lab: [list(lab.run(variation).held_out) for variation in variations], failed=HEALTHY[6])
    fit(exact, HEALTHY, callback)
    for got, expected in zip(callback.result, callback.expected, strict=True):
        assert got == pytest.approx(expected, rel=1e-4)


def test_fresh_weights_undo_a_bad_scale_of_the_users_own_layer():
    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(1e6 * torch.ones(8, 4))

        def reset_parameters(self):  # the user's own, hence not to be trusted
            nn.init.constant_(self.weight, 1e6)

    class WithLoud(Exact):
        def __init__(self, *args):
            super().__init__(*args)
            self.loud = Loud()

        def training_step(self, batch, batch_idx):
            return (batch[0] @ self.loud.weight).square().mean() + super().training_step(batch, batch_idx)

    held = in_lab(
        lambda lab: [lab.run(Variation()).losses[0], lab.run(Variation(start=Start.FRESH)).losses[0]],
        module=lambda: WithLoud(lambda p: torch.optim.SGD(p, lr=0.0)),
    )
    present, fresh = held.result
    assert present > 1e10
    assert fresh < 100.0


def test_an_error_of_the_model_is_the_trials_result():
    class Fails(Exact):
        def training_step(self, batch, batch_idx):
            if len(batch[0]) < 4:
                raise ValueError("too few samples")
            return super().training_step(batch, batch_idx)

    held = in_lab(lambda lab: lab.run(VARIATIONS["only-rows"]), module=lambda: Fails(OPTIMIZERS["SGD"]))
    assert held.result.raised == "ValueError: too few samples"
    assert held.left_behind == []


def test_what_cannot_be_tried_says_why():
    inputs_only = {"ids": torch.ones(16, 8, dtype=torch.long)}

    class Ids(Exact):
        def training_step(self, batch, batch_idx):
            ids = batch["ids"] if isinstance(batch, dict) else batch[0]
            return self.direction(ids.float()).square().mean()

    held = in_lab(
        lambda lab: [lab.run(VARIATIONS[n]).note for n in ("target-scale", "input-scale", "clip-targets")],
        module=lambda: Ids(OPTIMIZERS["SGD"]),
        failed=inputs_only,
    )
    assert all(note.startswith("no ") for note in held.result)


def test_of_an_accumulated_window_the_bad_batch_is_blamed():
    held = in_lab(lambda lab: (lab.suspect, lab.rows), window=3)
    assert held.result == (2, 16)


def test_loggers_callbacks_and_the_terminal_hear_nothing(tmp_path, capsys):
    class Hears(Callback):
        def __init__(self):
            self.heard = 0

        def on_before_backward(self, *_):
            self.heard += 1

        def on_before_optimizer_step(self, *_):
            self.heard += 1

        def on_before_zero_grad(self, *_):
            self.heard += 1

    counts = []
    for action in (lambda lab: None, lambda lab: [lab.run(each) for each in VARIATIONS.values()]):
        logger, hears = CSVLogger(tmp_path), Hears()
        logger.log_metrics = lambda *args, **kwargs: counts.append("logged")
        capsys.readouterr()
        callback = InLab(action)
        model_runs = fit(Messy, HEALTHY, callback, hears)
        model_runs.trainer.loggers = [logger]
        counts.append((hears.heard, capsys.readouterr().out.count("loud")))
    assert counts[0] == counts[1]


Pair = namedtuple("Pair", "x y")


@dataclasses.dataclass
class Record:
    x: torch.Tensor
    y: torch.Tensor


@pytest.mark.parametrize(
    "wrap",
    [lambda x, y: (x, y), lambda x, y: [x, y], lambda x, y: {"x": x, "y": y, "name": "text"}, Pair, Record,
     lambda x, y: {"inner": [(x,), {"y": y}], "scalar": torch.tensor(3.0)}],
    ids=["tuple", "list", "dict", "namedtuple", "dataclass", "nested"],
)  # fmt: skip
def test_rows_are_taken_from_every_structure(wrap):
    from nan_callbacks.torch.replay import batch_size, select_rows

    batch = wrap(torch.arange(12.0).reshape(6, 2), torch.arange(6))
    taken = select_rows(batch, [4, 1])
    assert type(taken) is type(batch)
    assert (batch_size(batch), batch_size(taken)) == (6, 2)


def test_random_streams_of_a_trial_are_those_of_the_step():
    class Random(Exact):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (
                torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002
            )

    held = in_lab(
        lambda lab: [lab._run(Variation()).losses, lab._run(Variation()).losses],
        module=lambda: Random(OPTIMIZERS["SGD"]),
    )
    assert held.result[0] == held.result[1]
