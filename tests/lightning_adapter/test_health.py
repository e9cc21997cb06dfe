"""Samples of the layers in Lightning runs: what they tell, and that a sampled run is the run without them."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.nn.utils.rnn import pack_padded_sequence
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from nan_callbacks.core import health
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import (
    BATCH_SIZE,
    FEATURES,
    OPTIMIZERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    spoiled,
    strict_guard,
)
from tests.lightning_adapter.test_do_no_harm import SETUPS, TwoOptimizers

WIDTH = 32


@pytest.fixture(autouse=True)
def samples(monkeypatch):
    """Every sample that is due is taken, whatever the clock says; what each has shown.

    One thread: with several, little tensors in several test processes wait for one another.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(health, "ALLOWANCE", math.inf)
    taken, observe = [], health.HealthMonitor.observe

    def observing(self, seen):
        taken.append(seen)
        return observe(self, seen)

    monkeypatch.setattr(health.HealthMonitor, "observe", observing)
    yield taken
    torch.set_num_threads(threads)


def sampling(every=1, **settings):
    """A guard that looks at the layers in every step and only watches."""
    return strict_guard(**{"health_every_n_steps": every, "checkup": False, "diagnose": "never", **settings})


def watching(**settings):
    """The same; it lets everything happen to the run."""
    return sampling(on_non_finite="observe", on_spike="observe", on_divergence="observe", **settings)


def told(run):
    """Codes of the health events, in order."""
    return [event["code"] for event in run.guard.events if event["event"] == "health"]


def hooks(module):
    """Names of the modules that have hooks, and the hooks of all modules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_backward_hooks")
    own = [name for name, each in module.named_modules() if any(getattr(each, kind) for kind in kinds)]
    return [*own, *torch_module._global_forward_hooks, *torch_module._global_forward_pre_hooks]


def nothing_left(module):
    functions = (torch.relu, torch.tanh, nn.functional.relu, torch.Tensor.sigmoid, torch._VF.lstm, torch._VF.gru_cell)
    functions += tuple(nn.modules.rnn._rnn_impls.values())
    replaced = [each for each in functions if hasattr(each, "__wrapped__")]
    return hooks(module) == [] and _get_current_function_mode_stack() == [] and not replaced


class Module(LightningModule):
    """A network, a loss, an optimizer."""

    def __init__(self, net, loss=F.mse_loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3)):
        super().__init__()
        self.net, self._loss, self._make_optimizer = net, loss, optimizer

    def training_step(self, batch, batch_idx):
        return self._loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return self._make_optimizer(self.parameters())


# -- a sampled run is the run without samples --------------------------------------------------------------------------


class Teacher(TinyModule):
    """Learns from a transformer that only evaluates: PyTorch has a fast path for that."""

    def __init__(self):
        super().__init__()
        encoder = nn.TransformerEncoderLayer(FEATURES, 2, 16, batch_first=True)
        self.teacher = nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False).requires_grad_(False)

    def loss(self, x, y):
        self.teacher.eval()
        with torch.no_grad():
            taught = self.teacher(x.reshape(4, -1, FEATURES)).mean(-1).reshape(-1, 1)
        return super().loss(x, y + taught)


class Checkpointed(TinyModule):
    """Runs a part of its forward pass a second time in the backward pass."""

    def __init__(self, use_reentrant=False):
        super().__init__()
        self.first, self.use_reentrant = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh()), use_reentrant

    def loss(self, x, y):
        x = x.clone().requires_grad_()
        return super().loss(checkpoint(self.first, x, use_reentrant=self.use_reentrant), y)


class Scripted(TinyModule):
    """A part is TorchScript."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.first = torch.jit.script(nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh()))

    def loss(self, x, y):
        return super().loss(self.first(x), y)


class Recurrent(TinyModule):
    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(FEATURES, FEATURES, 2, dropout=0.2, batch_first=True)

    def loss(self, x, y):
        return super().loss(self.first(x.reshape(4, -1, FEATURES))[0].reshape(-1, FEATURES), y)


class Cells(TinyModule):
    """Steps through its series by hand."""

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(1, FEATURES), nn.GRUCell(FEATURES, FEATURES)])

    def loss(self, x, y):
        state, hidden = None, None
        for at in range(FEATURES):
            state = self.cells[0](x[:, at, None], state)
            hidden = self.cells[1](state[0], hidden)
        return super().loss(hidden, y)


class Packed(TinyModule):
    """Series of several lengths, in both directions and in half of the precision."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(1, FEATURES // 2, 2, bidirectional=True, dropout=0.2, batch_first=True)

    def loss(self, x, y):
        lengths = torch.arange(len(x)) % FEATURES + 1
        packed = pack_padded_sequence(x[:, :, None], lengths, batch_first=True, enforce_sorted=False)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.first(packed)[1][-2:]
        return super().loss(hidden.transpose(0, 1).reshape(-1, FEATURES).float(), y)


class Adversarial(LightningModule):
    """Two networks against each other, by hand."""

    def __init__(self, set_to_none=True):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, FEATURES))
        self.critic = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, 1))
        self.set_to_none = set_to_none

    def training_step(self, batch, batch_idx):
        x, _ = batch
        one, two = self.optimizers()
        made = self.generator(torch.randn(len(x), 4))
        loss = F.softplus(self.critic(made.detach())).mean() + F.softplus(-self.critic(x)).mean()
        two.zero_grad(set_to_none=self.set_to_none)
        self.manual_backward(loss)
        two.step()
        loss = F.softplus(-self.critic(made)).mean()
        one.zero_grad(set_to_none=self.set_to_none)
        self.manual_backward(loss)
        one.step()
        one.zero_grad(set_to_none=self.set_to_none)
        self.log("loss", loss)

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (self.generator, self.critic)]


class Counting(TorchFunctionMode):
    """Somebody else's look at the functions that are called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


class OwnMode(TwoOptimizers):
    """Does its whole step inside of a mode, and notes how many calls that has seen."""

    def training_step(self, batch, batch_idx):
        with Counting() as mode:
            super().training_step(batch, batch_idx)
            before = mode.calls
            torch.relu(batch[0]).sum().sigmoid()
            inside = mode.calls - before
            self.log("inside", float(inside))
            assert _get_current_function_mode_stack()[-1] is mode


class Dictionaries(TinyModule):
    """Layers that take keywords and return dictionaries."""

    class Part(nn.Module):
        def forward(self, *, x):
            return {"x": torch.tanh(x), "count": len(x)}

    def __init__(self):
        super().__init__()
        self.part = self.Part()

    def loss(self, x, y):
        return super().loss(self.part(x=x)["x"], y)


class Copying(TinyModule):
    """Copies a part of itself in every step."""

    def loss(self, x, y):
        vars(self)["kept"] = copy.deepcopy(self.net)  # not as a part of this module
        return super().loss(x, y)


class Pickling(TinyModule):
    def loss(self, x, y):
        vars(self)["kept"] = pickle.loads(pickle.dumps(self.net))
        return super().loss(x, y)


MORE_SETUPS = {
    "transformer-that-evaluates": (Teacher, {}),
    "checkpointed": (Checkpointed, {}),
    "checkpointed-reentrant": (lambda: Checkpointed(True), {}),
    "lstm": (Recurrent, {}),
    "cells": (Cells, {}),
    "packed": (Packed, {}),
    "adversarial": (Adversarial, {}),
    "a-mode-of-its-own": (OwnMode, {}),
    "dictionaries": (Dictionaries, {}),
    "copies": (Copying, {}),
    "pickles": (Pickling, {}),
    "lbfgs-accumulating": (lambda: TinyModule(OPTIMIZERS["LBFGS"]), {"accumulate_grad_batches": 2}),
}
MORE_SETUPS |= {f"{name}-shared": setup for name, setup in SETUPS.items()}


@pytest.mark.parametrize("name", MORE_SETUPS)
def test_a_run_with_samples_at_every_step_is_bitwise_the_unguarded_one(name, samples):
    module, options = MORE_SETUPS[name]
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(options.get("precision"), torch.float32)
    batches = healthy_batches(dtype=dtype)

    plain = fit(module, batches, **options)
    guarded = fit(module, batches, guard=sampling(), **options)

    assert differences(plain.state, guarded.state) == []
    assert nothing_left(guarded.module)
    assert len(samples) >= 3
    assert all(sample.layers for sample in samples)
    if name in ("lstm", "cells", "packed"):
        assert any("gate" in layer.name for layer in samples[-1].layers)


def test_a_sampled_run_with_faulty_batches_is_the_run_without_samples(samples):
    batches = spoiled(healthy_batches(40), [7, 25])

    without = fit(TinyModule, batches, guard=strict_guard(health_every_n_steps=None, checkup=False, diagnose="never"))
    with_samples = fit(TinyModule, batches, guard=sampling())

    assert differences(without.state, with_samples.state) == []
    assert with_samples.guard.summary["skipped_steps"] == 2
    assert {sample.batch_index for sample in samples} == {*range(1, 40)} - {7, 25}


def test_layers_are_measured_as_they_are(samples):
    run = fit(TinyModule, healthy_batches(), guard=sampling())

    seen = {layer.name: layer for layer in samples[-1].layers}
    assert {"net.0", "net.1", "net.4", "direction"} <= set(seen)
    for name in ("net.0", "net.4", "direction"):
        weight = run.module.get_submodule(name).weight
        assert seen[name].update_norm > 0
        assert seen[name].grad_norm > 0
        assert seen[name].weight_norm == pytest.approx(float(weight.norm()), rel=0.1)
        assert seen[name].trainable
    assert [sample.step for sample in samples] == list(range(1, 14))


def test_the_size_of_an_update_is_that_of_the_measured_weight(samples):
    fit(lambda: Series(256), series(4), guard=sampling())

    seen = {layer.name: layer for layer in samples[-1].layers}["net"]
    input_weight, largest_step = 1.15, 1e-3
    assert seen.weight_norm == pytest.approx(input_weight, rel=0.1)
    assert seen.update_norm <= largest_step * math.sqrt(4 * 256 * 1) * 1.5


def test_no_samples_are_taken_where_none_are_wanted(samples):
    fit(TinyModule, healthy_batches(), guard=sampling(every=None))

    assert samples == []


class Validating(TinyModule):
    """Notes whether its validation is being watched; batches may give no loss."""

    def __init__(self, silent_from=100):
        super().__init__()
        self.silent_from, self.watched = silent_from, []

    def training_step(self, batch, batch_idx):
        return None if batch_idx >= self.silent_from else super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.watched.append(not nothing_left(self))
        self.net(batch[0])


VALIDATIONS = {
    "after-steps-without-a-loss": (lambda: Validating(10), {"max_epochs": 2}),
    "amid-an-accumulation": (Validating, {"accumulate_grad_batches": 4, "val_check_interval": 3}),
}


@pytest.mark.parametrize("name", VALIDATIONS)
def test_a_validation_is_not_watched(name):
    module, options = VALIDATIONS[name]
    run = fit(module, healthy_batches(), guard=sampling(), validation=healthy_batches(1), **options)

    assert run.module.watched
    assert not any(run.module.watched)


# -- compiled models ---------------------------------------------------------------------------------------------------


class CountingBackend:
    """Counts compilations."""

    def __init__(self):
        self.compiled = 0

    def __call__(self, graph, inputs):
        self.compiled += 1
        return graph.forward


def compiled_part(backend):
    module = TinyModule()
    module.net = torch.compile(module.net, backend=backend)
    return module


class Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def compiled_in_place(backend):
    module = TinyModule()
    module.net = Wrapped(module.net)
    module.net.compile(backend=backend)
    return module


def compiled_function(backend):
    module = TinyModule()
    inner = torch.compile(lambda x: F.relu(x * 2.0).tanh(), backend=backend)
    loss = module.loss
    module.loss = lambda x, y: loss(inner(x), y)
    return module


def compiled_forward(backend):
    module = TinyModule()
    module.net.forward = torch.compile(module.net.forward, backend=backend)
    return module


def compiled_loss(backend):
    module = TinyModule()
    module.criterion = torch.compile(F.mse_loss, backend=backend)
    loss = module.loss
    module.loss = lambda x, y: loss(x, y) + module.criterion(module.direction(x).sum(1, keepdim=True), y)
    return module


@pytest.mark.parametrize("make", [compiled_part, compiled_in_place, compiled_function, compiled_forward, compiled_loss])
def test_nothing_is_compiled_anew_for_a_sample(make):
    compilations = []
    runs = []
    for guard in (None, strict_guard(health_every_n_steps=3, checkup=False, diagnose="never")):
        torch._dynamo.reset()
        backend = CountingBackend()
        runs.append(fit(lambda backend=backend: make(backend), healthy_batches(), guard=guard))
        compilations.append(backend.compiled)
    torch._dynamo.reset()

    assert compilations[0] >= 1
    assert compilations[1] == compilations[0]
    assert differences(runs[0].state, runs[1].state) == []


def test_a_compiled_model_is_left_alone(samples):
    torch._dynamo.reset()
    run = fit(lambda: compiled_part("eager"), healthy_batches(), guard=sampling())
    torch._dynamo.reset()

    assert samples == []
    assert nothing_left(run.module)


# -- what is told ------------------------------------------------------------------------------------------------------


def mlp(activation, depth=4, width=WIDTH):
    layers = [nn.Linear(FEATURES, width), activation()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


class DyingReLU(Module):
    """Biases that no input of the hidden layers can overcome, from the 22nd batch on."""

    def __init__(self):
        super().__init__(mlp(nn.ReLU), optimizer=lambda p: torch.optim.SGD(p, lr=0.01))

    def on_train_batch_start(self, batch, batch_idx):
        if batch_idx == 21:
            for layer in self.net[:-1]:
                if isinstance(layer, nn.Linear):
                    layer.bias.data -= 100.0


def test_rectifiers_that_die_are_told():
    run = fit(DyingReLU, healthy_batches(60), guard=watching())

    assert set(told(run)) & {"ACT308", "GRAD202"}
    assert told(run).count("ACT308") <= 1
    assert min(event["step"] for event in run.guard.events if event["event"] == "health") > 20


def test_the_same_run_is_told_of_in_the_record_and_changes_no_total(tmp_path):
    path = tmp_path / "events.jsonl"
    run = fit(DyingReLU, healthy_batches(60), guard=watching(events_path=path))

    assert path.read_text().count('"event": "health"') == len(told(run)) > 0
    assert run.guard.summary["skipped_steps"] == 0


def test_ignored_codes_are_not_told():
    codes = set(told(fit(DyingReLU, healthy_batches(60), guard=watching())))
    run = fit(DyingReLU, healthy_batches(60), guard=watching(ignore=sorted(codes)))

    assert codes
    assert told(run) == []


def test_a_code_that_does_not_exist_cannot_be_ignored():
    with pytest.raises(ConfigurationError, match="ACT999"):
        NaNGuard(ignore=["ACT999"])


def test_a_deep_sigmoid_net_is_told_to_have_vanishing_gradients():
    run = fit(lambda: Module(mlp(nn.Sigmoid, 16)), healthy_batches(20), guard=sampling())

    assert told(run) == ["GRAD202"]
    assert next(event["where"] for event in run.guard.events if event["event"] == "health") == "net.0"


def test_saturated_units_are_told():
    def driven():
        net = mlp(nn.Tanh)
        with torch.no_grad():
            net[2].weight *= 1e4
        return Module(net)

    run = fit(driven, healthy_batches(20), guard=sampling())

    assert "ACT307" in told(run) or "GRAD202" in told(run)


class Unscaled(Module):
    """A forecast from raw numbers, such as prices of houses."""

    def __init__(self, make, **options):
        super().__init__(make(1, WIDTH, batch_first=True, **options))
        self.head = nn.Linear(WIDTH * (2 if self.net.bidirectional else 1), 1)

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.head(self.net(1e5 + 3e4 * batch[0])[0][:, -1]), batch[1])


RECURRENT = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "rnn": (nn.RNN, {}),
    "two-layers": (nn.LSTM, {"num_layers": 2}),
    "both-directions": (nn.GRU, {"num_layers": 2, "bidirectional": True, "dropout": 0.1}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_gates_that_are_saturated_by_unscaled_inputs_are_told(name):
    make, options = RECURRENT[name]

    run = fit(lambda: Unscaled(make, **options), series(30), guard=watching())

    found = [event for event in run.guard.events if event["event"] == "health" and event["code"] == "ACT307"]
    assert found
    assert found[0]["where"].startswith("net.l0" if "num_layers" in options else "net.")


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_gates_that_are_saturated_by_huge_weights_are_told(make):
    def huge():
        module = Series()
        module.net = make(1, WIDTH, batch_first=True)
        with torch.no_grad():
            for parameter in module.net.parameters():
                parameter *= 1000
        return module

    assert "ACT307" in told(fit(huge, series(30), guard=watching()))


def test_updates_that_replace_the_weights_are_told():
    run = fit(
        lambda: Module(mlp(nn.Tanh), optimizer=lambda p: torch.optim.AdamW(p, lr=1.0, weight_decay=0.9)),
        healthy_batches(150),
        guard=watching(),
    )

    assert "OPT606" in told(run)


def test_an_epsilon_that_is_larger_than_the_moments_is_told():
    run = fit(
        lambda: Module(mlp(nn.Tanh), optimizer=lambda p: torch.optim.Adam(p, lr=1e-3, eps=100.0)),
        healthy_batches(10),
        guard=sampling(),
    )

    assert told(run) == ["OPT607"]
    assert [event["severity"] for event in run.guard.events if event["event"] == "health"] == ["info"]


class InHalf(nn.Module):
    """Computes in half precision, and makes its outputs larger by a factor with every step."""

    def __init__(self, start, growth):
        super().__init__()
        self.linear = nn.Linear(FEATURES, WIDTH).half()
        self.size, self.growth = start, growth

    def forward(self, x):
        out = self.linear(torch.full_like(x, self.size).half()).float()
        self.size *= self.growth
        return out


class HalfNet(Module):
    def __init__(self, start, growth=1.0):
        super().__init__(nn.Sequential(InHalf(start, growth), nn.Linear(WIDTH, 1)))
        nn.init.constant_(self.net[0].linear.weight, 1 / FEATURES)
        nn.init.zeros_(self.net[0].linear.bias)
        nn.init.constant_(self.net[1].weight, 1e-9)
        self._make_optimizer = lambda p: torch.optim.SGD(p, lr=1e-12)


def test_a_layer_in_half_precision_that_is_near_its_end_is_told():
    near = fit(lambda: HalfNet(50_000.0), healthy_batches(8), guard=watching(ignore=["OPT606"]))
    far = fit(lambda: HalfNet(100.0), healthy_batches(8), guard=watching(ignore=["OPT606"]))

    assert told(near) == ["ACT306"]
    assert told(far) == []


def test_a_layer_in_half_precision_on_its_way_to_the_end_is_told_in_time():
    run = fit(lambda: HalfNet(2000.0, 2**0.02), healthy_batches(30), guard=watching(ignore=["OPT606"]))

    assert told(run) == ["ACT306"]
    (event,) = [event for event in run.guard.events if event["event"] == "health"]
    left = math.log2(65504 / 2000) / 0.02 - event["step"]
    assert float(event["detail"].partition("about ")[2].partition(" steps")[0]) == pytest.approx(left, rel=0.1)


# -- healthy runs are told of nothing ----------------------------------------------------------------------------------

LONG = 300


def series(count, noise=0.0):
    """Batches of one-dimensional series and their next value."""
    generator = torch.Generator().manual_seed(5)
    starts = [torch.rand(BATCH_SIZE, 1, generator=generator) * 6 for _ in range(count)]
    waves = [torch.sin(start + 0.3 * torch.arange(21.0)) for start in starts]
    waves = [wave + noise * torch.randn(wave.shape, generator=generator) for wave in waves]
    return [(wave[:, :20, None], wave[:, 20:]) for wave in waves]


def noisy_series(count):
    return series(count, 2.0)


class Series(Module):
    """A forecast with an LSTM."""

    def __init__(self, width=WIDTH, **options):
        super().__init__(nn.LSTM(1, width, batch_first=True), **options)
        self.head = nn.Linear(width, 1)

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.head(self.net(batch[0])[0][:, -1]), batch[1])


class Decided(Module):
    """A forecast with gates that are open, or closed, from the start: for long memories as for short ones.

    Args:
        make: The recurrent layer.
        biases: Of each gate.
    """

    def __init__(self, make, biases):
        super().__init__(make(1, WIDTH, batch_first=True), optimizer=adam(3e-3))
        self.head = nn.Linear(WIDTH, 1)
        with torch.no_grad():
            self.net.bias_ih_l0.copy_(torch.tensor(biases).repeat_interleave(WIDTH))

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.head(self.net(batch[0])[0][:, -1]), batch[1])


class Text(Module):
    """Which word is in a text: most of each row is padding."""

    def __init__(self, *, packed):
        super().__init__(nn.Embedding(20, 16, padding_idx=0), optimizer=adam(1e-2))
        self.body, self.head, self.packed = nn.LSTM(16, WIDTH, batch_first=True), nn.Linear(WIDTH, 1), packed

    def training_step(self, batch, batch_idx):
        words = (batch[0].abs() * 9).long().clamp(1, 19)
        words = torch.cat([words, torch.zeros(len(words), 3 * FEATURES, dtype=torch.long)], 1)
        lengths = torch.arange(len(words)) % FEATURES + 1
        words = words * (torch.arange(words.shape[1]) < lengths[:, None])
        inputs = self.net(words if self.packed else words.flip(1))  # padding behind the text would be learnt through
        if self.packed:
            inputs = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        hidden = self.body(inputs)[1][0][0]
        return F.binary_cross_entropy_with_logits(self.head(hidden), (words == 3).any(1, keepdim=True).float())


class Attention(Module):
    def __init__(self):
        super().__init__(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True))
        self.embed, self.head = nn.Linear(1, 16), nn.Linear(16, 1)

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.head(self.net(self.embed(batch[0])).mean(1)), batch[1])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for _ in range(4)
        )
        for block in self.blocks:  # as usual: every block begins as the identity
            nn.init.zeros_(block[2].weight)
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.body(x.reshape(-1, 1, 2, 4)).mean((2, 3)))


class TwoHeads(Module):
    """A question that soon has sure answers, and one that keeps its noise; the first head is called first."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()))
        self.sure = nn.Sequential(nn.Linear(WIDTH, 1), nn.Sigmoid())
        self.unsure = nn.Linear(WIDTH, 1)
        self._make_optimizer = lambda p: torch.optim.Adam(p, lr=0.02)

    def training_step(self, batch, batch_idx):
        x, y = batch
        x = torch.cat([torch.sign(x[:, :1]) * 20, x[:, 1:]], 1)
        hidden = self.net(x)
        sure = F.binary_cross_entropy(self.sure(hidden), (x[:, :1] > 0).float())
        return sure + F.mse_loss(self.unsure(hidden), y + 3 * torch.randn_like(y))


class Words(Module):
    """Many words, few of which are in a batch."""

    def __init__(self):
        super().__init__(nn.Embedding(5000, 16))
        self.head = nn.Linear(16, 1)

    def training_step(self, batch, batch_idx):
        rows = (batch[0].abs() * 1600).long().clamp(max=4999)
        return F.mse_loss(self.head(self.net(rows).mean(1)), batch[1])


class FineTuned(Module):
    """A frozen, saturated body under a new head."""

    def __init__(self):
        super().__init__(mlp(nn.Tanh))
        self.net[:-1].requires_grad_(False)
        with torch.no_grad():
            self.net[2].weight *= 100

    def configure_optimizers(self):
        return torch.optim.Adam(self.net[-1].parameters(), lr=1e-3)


class Annealed(Module):
    """A cosine schedule over the whole run, with every update sampled."""

    def __init__(self):
        super().__init__(mlp(nn.ReLU))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, LONG)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def adam(rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


HEALTHY = {
    "relu": (lambda: Module(mlp(nn.ReLU)), healthy_batches),
    "relu-fast": (lambda: Module(mlp(nn.ReLU), optimizer=adam(1e-2)), healthy_batches),
    "relu-sgd": (lambda: Module(mlp(nn.ReLU), optimizer=lambda p: torch.optim.SGD(p, lr=0.05)), healthy_batches),
    "tanh": (lambda: Module(mlp(nn.Tanh)), healthy_batches),
    "sigmoid": (lambda: Module(mlp(nn.Sigmoid, 3), optimizer=adam(1e-2)), healthy_batches),
    "lstm": (Series, series),
    "wide-lstm": (lambda: Series(256, optimizer=adam(3e-3)), noisy_series),
    "lstm-that-remembers": (lambda: Decided(nn.LSTM, [0.0, 9.0, 0.0, 0.0]), series),
    "lstm-whose-gates-are-open": (lambda: Decided(nn.LSTM, [9.0, 9.0, 0.0, 9.0]), series),
    "gru-with-sure-gates": (lambda: Decided(nn.GRU, [9.0, -9.0, 0.0]), series),
    "text": (lambda: Text(packed=False), healthy_batches),
    "text-packed": (lambda: Text(packed=True), healthy_batches),
    "transformer-layer": (Attention, series),
    "residual": (lambda: Module(Residual()), healthy_batches),
    "convolution": (lambda: Module(Convolution()), healthy_batches),
    "two-heads": (TwoHeads, healthy_batches),
    "words": (Words, healthy_batches),
    "fine-tuned": (FineTuned, healthy_batches),
    "cosine-schedule": (Annealed, healthy_batches),
    "adversarial": (Adversarial, healthy_batches),
    "adversarial-gradients-set-to-zero": (lambda: Adversarial(set_to_none=False), healthy_batches),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_told_nothing_of(name, samples):
    module, batches = HEALTHY[name]

    run = fit(module, batches(LONG), guard=sampling())

    assert [event["message"] for event in run.guard.events if event["event"] == "health"] == []
    assert len(samples) >= LONG - 5


def test_gates_that_have_made_up_their_minds_are_seen_as_such(samples):
    fit(lambda: Decided(nn.LSTM, [9.0, 9.0, 0.0, 9.0]), series(LONG), guard=sampling())

    seen = {layer.name: layer.saturated_share for layer in samples[-1].layers}
    assert min(seen[f"net.{name}_gate"] for name in ("input", "forget", "output")) > 0.9
    assert seen["net.candidate"] < 0.5


def test_bfloat16_is_told_nothing_of():
    run = fit(lambda: Module(mlp(nn.ReLU)), healthy_batches(60), guard=sampling(), precision="bf16-mixed")

    assert told(run) == []


# -- nothing is left behind --------------------------------------------------------------------------------------------


class Break(Callback):
    """Raises an error at some place of a sampled step, and notes whether that step was being watched."""

    def __init__(self, place, error=RuntimeError, at=5):
        self.place, self.error, self.at, self.was_watched = place, error, at, False

    def _come(self, place, module, batch_idx):
        if place == self.place and batch_idx == self.at:
            self.was_watched = bool(hooks(module))
            raise self.error("broken off")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._come("batch start", pl_module, batch_idx)

    def on_before_backward(self, trainer, pl_module, loss):
        self._come("backward", pl_module, trainer.fit_loop.batch_idx)

    def on_after_backward(self, trainer, pl_module):
        self._come("after backward", pl_module, trainer.fit_loop.batch_idx)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._come("batch end", pl_module, batch_idx)


@pytest.mark.parametrize("place", ["batch start", "backward", "after backward", "batch end"])
def test_an_error_in_the_middle_of_a_sampled_step_leaves_no_hooks(place):
    module, breaking = TinyModule(), Break(place)
    with pytest.raises(RuntimeError, match="broken off"):
        fit(lambda: module, healthy_batches(), breaking, guard=sampling())

    assert breaking.was_watched is (place != "batch end")
    assert nothing_left(module)


def test_an_interrupted_sampled_step_leaves_no_hooks():
    module, breaking = TinyModule(), Break("backward", KeyboardInterrupt)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(lambda: module, healthy_batches(), breaking, guard=sampling())

    assert breaking.was_watched
    assert nothing_left(module)


class Breaking(TinyModule):
    """A layer raises an error."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 5:
                raise ValueError("a layer broke")
            return x

    def __init__(self, passes_over=False):
        super().__init__()
        self.net.insert(1, self.Layer())
        self.passes_over = passes_over

    def training_step(self, batch, batch_idx):
        try:
            return super().training_step(batch, batch_idx)
        except ValueError:
            if not self.passes_over:
                raise


def test_an_error_inside_of_a_watched_layer_is_the_users_and_leaves_no_hooks():
    module = Breaking()
    with pytest.raises(ValueError, match="a layer broke"):
        fit(lambda: module, healthy_batches(), guard=sampling())

    assert nothing_left(module)


def test_an_error_that_the_step_passes_over_changes_nothing(samples):
    plain = fit(lambda: Breaking(True), healthy_batches())
    guarded = fit(lambda: Breaking(True), healthy_batches(), guard=sampling())

    assert differences(plain.state, guarded.state) == []
    assert nothing_left(guarded.module)
    assert {layer.name for layer in samples[-1].layers} == {layer.name for layer in samples[0].layers}


def test_a_model_that_is_copied_in_a_sampled_step_has_no_hooks():
    run = fit(Copying, healthy_batches(), guard=sampling())

    assert hooks(run.module.kept) == []


def test_hooks_of_the_user_stay_and_see_what_they_would_see():
    def seen_by(guard):
        seen = []

        def hooked():
            module = TinyModule()
            module.net[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].clone()))
            module.net[0].register_forward_hook(lambda layer, inputs, output: output * 2)
            module.net[1].register_full_backward_hook(lambda layer, before, after: seen.append(after[0].clone()))
            return module

        return fit(hooked, healthy_batches(), guard=guard), seen

    (plain, one), (guarded, two) = seen_by(None), seen_by(sampling())

    assert differences(plain.state, guarded.state) == []
    assert differences(one, two) == []
    assert hooks(guarded.module) == ["net.0", "net.1"]


def test_a_sample_that_fails_is_the_last_one_and_the_guard_stays(monkeypatch, caplog):
    def failing(self, *args):
        raise RuntimeError("measuring broke")

    monkeypatch.setattr("nan_callbacks.torch.health_probe.HealthProbe.layers", failing)
    guard = NaNGuard(health_every_n_steps=1, checkup=False, diagnose="never", verbose=False)
    plain = fit(TinyModule, healthy_batches())
    run = fit(TinyModule, healthy_batches(), guard=guard)

    assert not guard.is_aside
    assert caplog.text.count("measuring broke") == 1
    assert nothing_left(run.module)
    assert differences(plain.state, run.state) == []


def test_torchscript_as_a_part_keeps_the_guard_awake():
    guard = NaNGuard(health_every_n_steps=1, checkup=False, diagnose="never", verbose=False)
    run = fit(Scripted, spoiled(healthy_batches(), [7]), guard=guard)

    assert not guard.is_aside
    assert guard.summary["skipped_steps"] == 1
    assert hooks(run.module.net) == []


def test_a_watch_that_cannot_begin_leaves_no_hooks(monkeypatch):
    plain = fit(TinyModule, healthy_batches())

    class NoHooks(nn.Identity):
        def register_forward_hook(self, *args, **kwargs):
            raise RuntimeError("no hooks here")

    class Refusing(TinyModule):
        def __init__(self):
            super().__init__()
            self.refusing = NoHooks()

    run = fit(
        Refusing,
        healthy_batches(),
        guard=NaNGuard(health_every_n_steps=1, checkup=False, diagnose="never", verbose=False),
    )

    assert nothing_left(run.module)
    assert differences(plain.state, run.state) == []


def test_a_checkpoint_carries_what_the_samples_have_shown(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 21:  # ill, and not yet told
                trainer.save_checkpoint(tmp_path / "broken-off.ckpt")

    unbroken = fit(DyingReLU, healthy_batches(60), Save(), guard=watching())
    state = torch.load(tmp_path / "broken-off.ckpt", weights_only=False)["callbacks"][unbroken.guard.state_key]
    resumed = health.HealthMonitor(1)
    resumed.load_state_dict(state["health"])

    assert told(unbroken)
    assert resumed.state_dict() == state["health"]
    assert min(state["health"]["DeadUnitsDetector"]["lowest"].values()) < 0.5
