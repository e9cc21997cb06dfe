"""What the checkup tells of a Lightning module or a torch module before its first step, and that it leaves no trace."""

import copy
import random

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import nan_callbacks
from nan_callbacks.core.finding import Severity
from nan_callbacks.errors import ConfigurationError, NaNCallbacksError
from tests.lightning_adapter.runs import OPTIMIZERS, TinyModule, healthy_batches, loader, seed_all

ROWS, FEATURES, CLASSES = 256, 8, 4


def codes(report, least=Severity.WARNING):
    """Codes of everything but information."""
    return [notice.code for notice in report if notice.severity >= least]


def look(module, data, **options):
    return nan_callbacks.checkup(module, data, strict=True, **options)


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def features(rows=ROWS, width=FEATURES):
    return torch.randn(rows, width, generator=drawn())


def labels(x):
    """Classes that the first columns decide."""
    return (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()


def spoil(x, *at, value=torch.nan):
    x = x.clone()
    x[at] = value
    return x


def batches(*tensors, size=32, **options):
    return DataLoader(TensorDataset(*tensors), batch_size=size, **options)


class Net(nn.Module):
    """A healthy classifier: logits."""

    def __init__(self, width=FEATURES, outputs=CLASSES, *last):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(32, outputs), *last)

    def forward(self, x):
        return self.head(self.body(x))


class Module(LightningModule):
    """A network and a loss.

    Args:
        net: The network; None: a healthy classifier.
        loss: Of outputs and targets.
        optimizer: Makes the optimizer; None for none.
    """

    def __init__(self, net=None, loss=F.cross_entropy, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3)):
        super().__init__()
        self.net, self.loss_function, self._make_optimizer = net or Net(), loss, optimizer

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.loss_function(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return None if self._make_optimizer is None else self._make_optimizer(self.parameters())


@pytest.fixture(autouse=True)
def _seeded():
    seed_all(1)


# -- no trace --------------------------------------------------------------------------------------------------------


def streams():
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002


def trace(module, optimizer=None):
    """Everything of a module that can be compared, bit by bit."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    told = {name: each.detach().clone().numpy().tobytes() for name, each in tensors}
    told |= {f"grad {n}": None if p.grad is None else p.grad.numpy().tobytes() for n, p in module.named_parameters()}
    told |= {f"mode {name}": each.training for name, each in module.named_modules()}
    told |= {f"hooks {name}": (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in module.named_modules()}
    told |= {f"wants {name}": p.requires_grad for name, p in module.named_parameters()}
    told |= {"attributes": sorted(module.__dict__)}
    if optimizer is not None:
        told["optimizer"] = repr(copy.deepcopy(optimizer.state_dict()))
    return told


def trained(module, optimizer, batch):
    """One step, so that there is a state; and gradients of another."""
    for _ in range(2):
        optimizer.zero_grad()
        module.loss(*batch).backward()
        optimizer.step()
    module.loss(*batch).backward()


@pytest.mark.parametrize(
    "make", ["SGD-nesterov", "AdamW-foreach", "AdamW-fused", "AdamW-tensor-lr", "Adafactor", "Rprop"]
)
def test_module_and_optimizer_are_left_bitwise_as_they_were(make):
    module = TinyModule(OPTIMIZERS[make])
    optimizer = module.configure_optimizers()
    trained(module, optimizer, healthy_batches(1)[0])
    before, drawn_before = trace(module, optimizer), streams()
    look(module, loader(healthy_batches(), augment=True), optimizer=optimizer)
    assert trace(module, optimizer) == before
    assert streams() == drawn_before


@pytest.mark.parametrize("fault", ["nan", "raises", "none"])
def test_a_faulty_first_step_leaves_no_trace(fault):
    class Faulty(TinyModule):
        def training_step(self, batch, batch_idx):
            loss = self.loss(*batch)
            if fault == "raises":
                raise RuntimeError("out of luck")
            return None if fault == "none" else loss * torch.nan

    module = Faulty()
    before, drawn_before = trace(module), streams()
    look(module, loader(healthy_batches()))
    assert trace(module) == before
    assert streams() == drawn_before


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_each_part_is_kept(training):
    module = TinyModule()
    module.train(training)
    module.net[3].train(not training)
    before = trace(module)
    look(module, loader(healthy_batches()))
    assert trace(module) == before


def test_batches_are_left_as_they_were():
    class InPlace(Module):
        def training_step(self, batch, batch_idx):
            batch[0].mul_(2).add_(1)
            return super().training_step(batch, batch_idx)

    given = [(features(), labels(features()))]
    look(InPlace(), given)
    assert torch.equal(given[0][0], features())


SHUFFLED = {
    "in order": lambda data: DataLoader(data, 16),
    "shuffled": lambda data: DataLoader(data, 16, shuffle=True),
    "with a generator": lambda data: DataLoader(data, 16, shuffle=True, generator=drawn(5)),
    "with a sampler": lambda data: DataLoader(
        data, 16, sampler=WeightedRandomSampler(torch.ones(len(data)), len(data), generator=drawn(6))
    ),
    "with a batch sampler": lambda data: DataLoader(
        data,
        batch_sampler=torch.utils.data.BatchSampler(
            torch.utils.data.RandomSampler(data, generator=drawn(7)), 16, drop_last=True
        ),
    ),
}


@pytest.mark.parametrize("kind", SHUFFLED)
def test_batches_come_in_the_order_in_which_they_would_have(kind):
    def order(step):
        seed_all(2)
        data = SHUFFLED[kind](TensorDataset(features(), labels(features())))
        step(Module(), data)
        return [batch[0].numpy().tobytes() for _ in range(2) for batch in data], streams()

    assert order(look) == order(lambda module, data: None)


def test_a_loader_that_is_being_read_goes_on():
    given = batches(features(), labels(features()), shuffle=True, generator=drawn(3))
    again = batches(features(), labels(features()), shuffle=True, generator=drawn(3))
    first, other = iter(given), iter(again)
    assert torch.equal(next(first)[0], next(other)[0])
    look(Module(), given)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


@pytest.mark.slow
def test_workers_that_persist_are_left_alone():
    given = batches(features(), labels(features()), num_workers=1, persistent_workers=True)
    assert codes(look(Module(), given)) == []
    assert given._iterator is None
    assert len(list(given)) == 8


class SplitAtRandom(LightningDataModule):
    """Draws from the global stream in ``setup``."""

    def setup(self, stage):
        self.parts = torch.utils.data.random_split(TensorDataset(features(), labels(features())), [128, 128])

    def train_dataloader(self):
        return DataLoader(self.parts[0], batch_size=16, shuffle=True)


def test_a_data_module_is_read():
    report = look(Module(), SplitAtRandom())
    assert codes(report) == []
    assert report.notes == ()


def test_a_data_module_that_splits_at_random_leaves_the_streams():
    module, before = Module(), streams()
    look(module, SplitAtRandom())
    assert streams() == before


def test_two_looks_give_the_same_report():
    module, data = Module(), batches(features() * 300, labels(features()))
    one, other = look(module, data), look(module, data)
    assert (one.notices, one.notes) == (other.notices, other.notes)


# -- healthy ---------------------------------------------------------------------------------------------------------


def images(rows=64):
    return torch.rand(rows, 3, 16, 16, generator=drawn())


class Convolutions(nn.Module):
    def __init__(self, normalised=True):
        super().__init__()
        norm = nn.BatchNorm2d(8) if normalised else nn.Identity()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        )

    def forward(self, x):
        return self.net(x)


class Words(nn.Module):
    def __init__(self, rows=50):
        super().__init__()
        self.table, self.cell = nn.Embedding(rows, 16, padding_idx=0), nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, tokens):
        return self.head(self.cell(self.table(tokens))[0][:, -1])


def huge_gates(make=nn.LSTM):
    words = Words()
    words.cell = make(16, 16, batch_first=True)
    with torch.no_grad():
        for parameter in words.cell.parameters():
            parameter *= 300
    return words


def long_memory():
    """Gates that begin at a bound, as by "chrono" initialisation (Tallec & Ollivier 2018)."""
    words = Words()
    with torch.no_grad():
        words.cell.bias_ih_l0[:16], words.cell.bias_ih_l0[16:32] = -6.5, 6.5
    return words


class Attention(nn.Module):
    """A transformer without dropout, so that its losses fall."""

    def __init__(self, rows=50):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.table, self.body = nn.Embedding(rows, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, tokens):
        return self.head(self.body(self.table(tokens)).mean(1))


def tokens(rows=64, most=50):
    return torch.randint(0, most, (rows, 12), generator=drawn())


def some_labels(rows=64):
    return torch.arange(rows) % CLASSES


def probabilities(x):
    return F.one_hot(labels(x), CLASSES).float()


def rare(net):
    """A head that begins at a probability of 0.005, as detectors do."""
    torch.nn.init.normal_(net.head[0].weight, std=0.01)
    torch.nn.init.constant_(net.head[0].bias, -5.3)
    return net


def focal(outputs, targets):
    """Weighted by a sigmoid of the logits, which is no hidden layer."""
    found = outputs.sigmoid()
    hit = found * targets + (1 - found) * (1 - targets)
    return ((1 - hit) ** 2 * F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")).mean()


HEALTHY = {
    "focal": lambda: (Module(rare(Net(FEATURES, 1)), focal), batches(features(), (features()[:, :1] > 1).float())),
    "classes": lambda: (Module(), batches(features(), labels(features()))),
    "log-softmax": lambda: (
        Module(Net(FEATURES, 4, nn.LogSoftmax(-1)), F.nll_loss),
        batches(features(), labels(features())),
    ),
    "soft labels": lambda: (Module(), batches(features(), probabilities(features()))),
    "binary": lambda: (
        Module(Net(FEATURES, 1), F.binary_cross_entropy_with_logits),
        batches(features(), (features()[:, :1] > 0).float()),
    ),
    "probabilities": lambda: (
        Module(Net(FEATURES, 1, nn.Sigmoid()), F.binary_cross_entropy),
        batches(features(), (features()[:, :1] > 0).float()),
    ),
    "regression": lambda: (Module(Net(FEATURES, 1), F.mse_loss), batches(features(), features()[:, :1])),
    "huber": lambda: (Module(Net(FEATURES, 2), F.huber_loss), batches(features(), features()[:, :2])),
    "counts": lambda: (
        Module(Net(FEATURES, 1), F.poisson_nll_loss),
        batches(features(), torch.poisson(features()[:, :1].exp(), drawn())),
    ),
    "images": lambda: (Module(Convolutions()), batches(images(), some_labels())),
    "words": lambda: (Module(Words()), batches(tokens(), some_labels())),
    "a long memory": lambda: (Module(long_memory()), batches(tokens(), some_labels())),
    "attention": lambda: (Module(Attention()), batches(tokens(), some_labels())),
    "half precision": lambda: (
        Module(Net().to(torch.bfloat16)),
        batches(features().to(torch.bfloat16), labels(features())),
    ),
    "double precision": lambda: (Module(Net().double()), batches(features().double(), labels(features()))),
    "own loss": lambda: (
        Module(Net(FEATURES, 1), lambda out, y: (out - y).square().mean()),
        batches(features(), features()[:, :1]),
    ),
    "a module of the tests": lambda: (TinyModule(OPTIMIZERS["SGD"]), loader(healthy_batches())),
    "a resnet's pixels": lambda: (
        Module(Convolutions()),
        batches((images() - 0.45) / 0.25, some_labels()),
    ),
    "no optimizer": lambda: (Module(optimizer=None), batches(features(), labels(features()))),
    "a schedule": lambda: (
        TinyModule(OPTIMIZERS["SGD"], lambda o: torch.optim.lr_scheduler.StepLR(o, 2)),
        loader(healthy_batches()),
    ),
    "one row a batch": lambda: (Module(), batches(features(), labels(features()), size=1)),
    "two rows of many columns": lambda: (
        Module(Net(1000)),
        batches(features(64, 1000), labels(features(64, 1000)), size=2),
    ),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_modules_get_no_notice(kind):
    report = look(*HEALTHY[kind]())
    assert codes(report) == [], report.describe()
    assert report.notes == ()


def test_standardised_pixels_of_a_flat_image_get_no_warning():
    """Dark pixels at the rim never change; one mean and one deviation for all pixels, as everybody does it."""
    pixels = torch.rand(256, 28, 28, generator=drawn())
    pixels[:, :3], pixels[:, -3:] = 0, 0
    flat = ((pixels - pixels.mean()) / pixels.std()).flatten(1)
    assert codes(look(Module(Net(784)), batches(flat, some_labels(256)))) == []


# -- faults ----------------------------------------------------------------------------------------------------------


def rows_of_copies():
    x = features()
    x[:20] = x[-20:]
    y = labels(x)
    y[:20] = (y[:20] + 1) % CLASSES
    return x, y


def equal_units():
    net = Net()
    for layer in net.body:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)
    nn.init.constant_(net.head[0].weight, 0.1)
    return net


def scaled_weights(factor):
    net = nn.Sequential(
        *[part for _ in range(6) for part in (nn.Linear(FEATURES, FEATURES), nn.ReLU())], nn.Linear(FEATURES, 4)
    )
    with torch.no_grad():
        for layer in net[:-1]:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(factor)
    return net


FAULTS = {
    "NaN in the data": ("DATA501", lambda: (Module(), batches(spoil(features(), 5, 2), labels(features())))),
    "NaN in a later batch": ("DATA501", lambda: (Module(), batches(spoil(features(), 200, 2), labels(features())))),
    "Inf in the data": (
        "DATA501",
        lambda: (Module(), batches(spoil(features(), 5, 2, value=torch.inf), labels(features()))),
    ),
    "NaN in the targets": (
        "DATA501",
        lambda: (Module(Net(FEATURES, 1), F.mse_loss), batches(features(), spoil(features()[:, :1], 200))),
    ),
    "unscaled": ("DATA502", lambda: (Module(), batches(features() * 300 + 500, labels(features())))),
    "one unscaled column": (
        "DATA502",
        lambda: (Module(), batches(features() * torch.tensor([1, 1, 1, 1, 1, 1, 1, 1e4]), labels(features()))),
    ),
    "bytes": (
        "DATA502",
        lambda: (Module(Convolutions(normalised=False)), batches((images() * 255).round(), some_labels())),
    ),
    "an outlier": (
        "DATA503",
        lambda: (Module(), batches(spoil(features(), 77, 2, value=1e6), labels(features()))),
    ),
    "copies": ("DATA504", lambda: (Module(), batches(*rows_of_copies()))),
    "a label out of range": ("DATA505", lambda: (Module(), batches(features(), spoil(labels(features()), 3, value=4)))),
    "a label out of range in a later batch": (
        "DATA505",
        lambda: (Module(), batches(features(), spoil(labels(features()), 200, value=-1))),
    ),
    "targets beyond a sigmoid": (
        "DATA505",
        lambda: (Module(Net(FEATURES, 1, nn.Sigmoid()), F.mse_loss), batches(features(), features()[:, :1])),
    ),
    "a constant column": (
        "DATA506",
        lambda: (Module(), batches(spoil(features(), slice(None), 2, value=1.5), labels(features()))),
    ),
    "broadcast": (
        "DATA508",
        lambda: (Module(Net(FEATURES, 1), F.mse_loss), batches(features(), features()[:, 0])),
    ),
    "one-hot indices": (
        "DATA508",
        lambda: (Module(), batches(features(), F.one_hot(labels(features()), CLASSES))),
    ),
    "floats as indices": ("DATA508", lambda: (Module(), batches(features(), labels(features()).float()))),
    "unscaled targets": (
        "DATA509",
        lambda: (Module(Net(FEATURES, 1), F.mse_loss), batches(features(), 5e4 + 1e4 * features()[:, :1])),
    ),
    "a single class": ("DATA510", lambda: (Module(), batches(features(), torch.ones(ROWS, dtype=torch.long)))),
    "an index out of its table": ("DATA511", lambda: (Module(Words()), batches(tokens(most=70), some_labels()))),
    "softmax before cross entropy": (
        "LOSS403",
        lambda: (Module(Net(FEATURES, 4, nn.Softmax(-1))), batches(features(), labels(features()))),
    ),
    "sigmoid before logits": (
        "LOSS403",
        lambda: (
            Module(Net(FEATURES, 1, nn.Sigmoid()), F.binary_cross_entropy_with_logits),
            batches(features(), (features()[:, :1] > 0).float()),
        ),
    ),
    "scores as logarithms": ("LOSS404", lambda: (Module(loss=F.nll_loss), batches(features(), labels(features())))),
    "softmax as logarithms": (
        "LOSS404",
        lambda: (Module(Net(FEATURES, 4, nn.Softmax(-1)), F.nll_loss), batches(features(), labels(features()))),
    ),
    "scores as probabilities": (
        "LOSS404",
        lambda: (
            Module(Net(FEATURES, 3), lambda out, y: F.binary_cross_entropy(3 * out, y)),
            batches(features(), (features()[:, :3] > 0).float()),
        ),
    ),
    "equal units": ("ACT305", lambda: (Module(equal_units()), batches(features(), labels(features())))),
    "an lstm with huge weights": ("ACT302", lambda: (Module(huge_gates()), batches(tokens(), some_labels()))),
    "a gru with huge weights": ("ACT302", lambda: (Module(huge_gates(nn.GRU)), batches(tokens(), some_labels()))),
    "large weights": ("ACT304", lambda: (Module(scaled_weights(30)), batches(features(), labels(features())))),
    "small weights": ("ACT304", lambda: (Module(scaled_weights(0.05)), batches(features(), labels(features())))),
    "a high rate": (
        "OPT601",
        lambda: (
            Module(Net(FEATURES, 1), F.mse_loss, lambda p: torch.optim.SGD(p, lr=100.0)),
            batches(features(), features()[:, :1]),
        ),
    ),
    "a low rate": (
        "OPT602",
        lambda: (
            Module(optimizer=lambda p: torch.optim.SGD(p, lr=1e-9)),
            batches(features(), labels(features())),
        ),
    ),
    "logarithm of softmax": (
        "NAN111",
        lambda: (
            Module(loss=lambda out, y: -torch.log(torch.softmax(out, -1)).gather(1, y[:, None]).mean()),
            batches(features(), labels(features())),
        ),
    ),
}


NOT_ALONE = {
    "large weights": {"GRAD203"},  # a signal that grows takes its gradient with it
    "small weights": {"GRAD202"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_and_nothing_else(fault):
    code, make = FAULTS[fault]
    report = look(*make())
    assert {code} <= set(codes(report)) <= {code, *NOT_ALONE.get(fault, ())}, report.describe()
    assert all(notice.remedy for notice in report)


@pytest.mark.parametrize("fault", ["unscaled", "a label out of range", "a low rate", "logarithm of softmax"])
def test_a_named_code_is_not_told(fault):
    code, make = FAULTS[fault]
    module, data = make()
    everything = look(module, data)
    silent = look(module, data, ignore=[code.lower()])
    assert silent.notices == tuple(notice for notice in everything if notice.code != code)


def test_the_line_of_the_loss_is_told():
    (notice,) = (each for each in look(*FAULTS["softmax before cross entropy"][1]()) if each.code == "LOSS403")
    assert notice.source.file.endswith("test_checkup.py")
    assert "loss_function" in notice.source.text


def test_the_layer_that_receives_is_told():
    (notice,) = (each for each in look(*FAULTS["unscaled"][1]()) if each.code == "DATA502")
    assert notice.where == "batch[0]"
    assert "net.body.0" in notice.evidence[0]


def test_pixels_that_the_module_rescales_are_healthy():
    class Rescales(Convolutions):
        def forward(self, x):
            return self.net(x.float() / 255)

    assert codes(look(Module(Rescales()), batches((images() * 255).byte(), some_labels()))) == []


def test_inputs_that_a_first_normalisation_scales_are_healthy():
    net = nn.Sequential(nn.BatchNorm1d(FEATURES), Net())
    assert codes(look(Module(net), batches(features() * 300 + 500, labels(features())))) == []


def test_padded_labels_are_healthy():
    y = labels(features())
    y[::3] = -100
    assert codes(look(Module(), batches(features(), y))) == []


# -- steps that fail -------------------------------------------------------------------------------------------------


class Raises(Module):
    def training_step(self, batch, batch_idx):
        self.net(batch[0])
        raise RuntimeError("out of luck")


def test_a_step_that_raises_gives_a_report_with_a_note():
    report = look(Raises(), batches(features(), labels(features())))
    assert report.notes == ("the first step raises an error: RuntimeError: out of luck",)
    assert codes(report) == []


def test_a_coloured_message_of_many_lines_gives_a_note_in_one_line():
    class RaisesInColour(Module):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("\x1b[1mout of luck\x1b[0m\n\n" + "and of words\n" * 50)

    (note,) = look(RaisesInColour(), batches(features(), labels(features()))).notes
    assert note.startswith("the first step raises an error: RuntimeError: out of luck and of words")
    assert note.isprintable()
    assert len(note) < 250


def test_data_are_looked_at_even_if_the_step_raises():
    report = look(Raises(), batches(spoil(features(), 5, 2), labels(features())))
    assert codes(report) == ["DATA501"]


def test_inputs_of_the_wrong_width_give_a_note():
    report = look(Module(Net(5)), batches(features(), labels(features())))
    assert len(report.notes) == 1
    assert "RuntimeError" in report.notes[0]


def test_scores_of_a_regression_as_class_labels_give_a_note():
    """Floats from 0 to 1, one per row, for a cross entropy: torch raises, the checkup tells."""
    report = look(Module(), batches(features(), torch.rand(ROWS, generator=drawn())))
    assert len(report.notes) == 1


def test_a_step_without_a_loss_gives_a_report():
    class Skips(Module):
        def training_step(self, batch, batch_idx):
            self.net(batch[0])

    assert codes(look(Skips(), batches(features(), labels(features())))) == []


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (F.cross_entropy, torch.tensor(2)),
        (lambda out, y: F.binary_cross_entropy_with_logits(out.mean(), y), torch.tensor(1.0)),
        (lambda out, y: F.mse_loss(out.mean(), y), torch.tensor(0.5)),
    ],
)
def test_batches_of_a_single_row_without_an_axis(loss, target):
    assert codes(look(Module(loss=loss), [(features()[0], target)] * 4)) == []


def test_a_nan_target_without_an_axis_is_found():
    module = Module(loss=lambda out, y: F.mse_loss(out.mean(), y))
    assert codes(look(module, [(features()[0], torch.tensor(torch.nan))] * 4)) == ["DATA501"]


# -- other steps -----------------------------------------------------------------------------------------------------


class Adversaries(LightningModule):
    """Two optimizers, by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.maker, self.judge = (
            nn.Linear(4, FEATURES),
            nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 1)),
        )

    def training_step(self, batch, batch_idx):
        (real,) = batch
        for_maker, for_judge = self.optimizers()
        made = self.maker(torch.randn(len(real), 4))
        yes, no = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        loss = F.binary_cross_entropy_with_logits(self.judge(made), yes)
        for_maker.zero_grad()
        self.manual_backward(loss)
        for_maker.step()
        loss = F.binary_cross_entropy_with_logits(self.judge(real), yes)
        loss = loss + F.binary_cross_entropy_with_logits(self.judge(made.detach()), no)
        for_judge.zero_grad()
        self.manual_backward(loss)
        for_judge.step()
        self.log("loss", loss)

    def configure_optimizers(self):
        return torch.optim.Adam(self.maker.parameters(), 1e-3), torch.optim.Adam(self.judge.parameters(), 1e-3)


def test_steps_by_hand_are_looked_over():
    module = Adversaries()
    before, drawn_before = trace(module), streams()
    assert "DATA510" not in codes(look(module, batches(features()), ignore=["DATA510"]))
    assert codes(look(module, batches(features() * 1e4), ignore=["DATA510"])) == ["DATA502"]
    assert codes(look(module, batches(spoil(features(), 9, 1)), ignore=["DATA510"])) == ["DATA501"]
    assert trace(module) == before
    assert streams() == drawn_before


def test_constant_targets_of_adversaries_are_meant():
    """Targets that the step itself makes are all ones: that is how it is done."""
    report = look(Adversaries(), batches(features()))
    assert codes(report) == [], report.describe()
    assert report.notes == ()


class Rows(Dataset):
    """Rows as dictionaries.

    Args:
        columns: Tensors by name.
    """

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}


class Several(LightningModule):
    """Numbers, tokens and a mask of them."""

    def __init__(self):
        super().__init__()
        self.dense, self.table = nn.Linear(FEATURES, 16), nn.Embedding(50, 16, padding_idx=0)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(32, CLASSES))

    def training_step(self, batch, batch_idx):
        words = self.table(batch["tokens"]) * batch["mask"][..., None]
        words = words.sum(1) / batch["mask"].sum(1, keepdim=True).clamp_min(1)
        return F.cross_entropy(self.head(torch.cat([self.dense(batch["numbers"]), words], 1)), batch["label"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def dictionary(**spoilt):
    x = features(64)
    mask = (torch.arange(12)[None] < 3 + torch.arange(64)[:, None] % 9).float()
    told = {"numbers": x, "tokens": tokens(), "mask": mask, "label": labels(x)}
    return DataLoader(Rows(**{**told, **spoilt}), batch_size=16)


def test_several_inputs_in_a_dictionary():
    report = look(Several(), dictionary())
    assert codes(report) == [], report.describe()
    assert report.notes == ()


@pytest.mark.parametrize(
    ("spoilt", "code", "where"),
    [
        ({"numbers": features(64) * 1e4}, "DATA502", "batch['numbers']"),
        ({"numbers": spoil(features(64), 40, 2)}, "DATA501", "batch['numbers']"),
        ({"tokens": tokens(most=70)}, "DATA511", "batch['tokens']"),
        ({"label": spoil(labels(features(64)), 3, value=9)}, "DATA505", "targets of cross_entropy"),
    ],
)
def test_the_faulty_input_of_several_is_named(spoilt, code, where):
    report = look(Several(), dictionary(**spoilt), ignore=["DATA506"])
    (notice,) = (each for each in report if each.severity >= Severity.WARNING)
    assert notice.code == code
    assert notice.where.startswith(where)


class Masked(nn.Module):
    """Attention in which padding is hidden."""

    def __init__(self):
        super().__init__()
        self.table, self.attention = nn.Embedding(50, 16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, words, hidden):
        x = self.table(words)
        return self.head(self.attention(x, x, x, key_padding_mask=hidden)[0].mean(1))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_of_attention_are_healthy(dtype):
    class Step(Module):
        def training_step(self, batch, batch_idx):
            words, hidden, y = batch
            return F.cross_entropy(self.net(words, hidden), y)

    hidden = torch.arange(12)[None] >= 3 + torch.arange(64)[:, None] % 9
    if dtype is not torch.bool:
        hidden = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
    report = look(Step(Masked()), batches(tokens(), hidden, some_labels()))
    assert codes(report) == [], report.describe()
    assert report.notes == ()


@pytest.mark.parametrize("closure", ["LBFGS"])
def test_optimizers_that_call_the_step_themselves(closure):
    module = TinyModule(OPTIMIZERS[closure])
    before, drawn_before = trace(module), streams()
    look(module, loader(healthy_batches()))
    assert trace(module) == before
    assert streams() == drawn_before


# -- compiled --------------------------------------------------------------------------------------------------------


def compiled_part(module):
    module.net = torch.compile(module.net, backend="eager")
    return module


def compiled_in_place(module):
    module.net.compile(backend="eager")
    return module


@pytest.mark.parametrize("compiled", [compiled_part, compiled_in_place])
def test_compiled_modules_are_looked_over(compiled):
    torch._dynamo.reset()
    module = compiled(Module())
    before = trace(module)
    report = look(module, batches(features(), labels(features())))
    assert codes(report) == []
    assert report.notes == ()
    told = look(module, batches(features() * 300, spoil(labels(features()), 3, value=7)))
    assert set(codes(told)) == {"DATA502", "DATA505"}
    assert trace(module) == before


def test_a_lightning_module_compiled_as_a_whole():
    """As ``Trainer.fit`` takes it."""
    torch._dynamo.reset()
    module = torch.compile(Module(), backend="eager")
    report = look(module, batches(features() * 300, labels(features())))
    assert codes(report) == ["DATA502"]


def test_a_compiled_torch_module():
    torch._dynamo.reset()
    net = torch.compile(Net(), backend="eager")
    report = look(net, batches(features() * 300, labels(features())), loss=loss_of_net)
    assert codes(report) == ["DATA502"]
    assert report.notes == ()


# -- plain torch -----------------------------------------------------------------------------------------------------


def loss_of_net(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


@pytest.mark.parametrize("loss", [None, "mse", 3])
def test_a_torch_module_needs_its_loss(loss):
    with pytest.raises(ConfigurationError, match="loss"):
        look(Net(), batches(features(), labels(features())), loss=loss)


def test_a_torch_module_is_left_bitwise_as_it_was():
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    loss_of_net(net, (features(), labels(features()))).backward()
    optimizer.step()
    data = batches(features(), labels(features()), shuffle=True)
    before, drawn_before = trace(net, optimizer), streams()
    assert codes(look(net, data, loss=loss_of_net, optimizer=optimizer)) == []
    assert trace(net, optimizer) == before
    assert streams() == drawn_before


def test_without_an_optimizer_the_rate_is_not_judged():
    net = Net()
    low = torch.optim.SGD(net.parameters(), 1e-9)
    data = batches(features(), labels(features()))
    assert codes(look(net, data, loss=loss_of_net)) == []
    assert codes(look(net, data, loss=loss_of_net, optimizer=low)) == ["OPT602"]


# -- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[], (), DataLoader(TensorDataset(torch.empty(0, 3)))])
def test_data_without_a_batch_are_refused(data):
    with pytest.raises(ConfigurationError, match="data"):
        look(Module(), data)


def test_any_iterable_of_batches_is_read():
    given = [(features()[at : at + 32], labels(features())[at : at + 32]) for at in range(0, ROWS, 32)]
    for data in (given, tuple(given), iter(given)):
        assert codes(look(Module(), data)) == []


def test_a_batch_of_another_shape_does_no_harm():
    x, y = features(), labels(features())
    given = [(x[:32], y[:32]), (x[32:40], y[32:40]), (spoil(x[40:72], 1, 1), y[40:72])]
    assert codes(look(Module(), given)) == ["DATA501"]


def test_endless_data_are_read_for_a_while():
    def endless():
        while True:
            yield features(), labels(features())

    assert codes(look(Module(), endless(), ignore=["DATA504"])) == []


@pytest.mark.parametrize("model", [object(), "model", lambda batch: 0.0, None])
def test_models_of_no_known_kind_are_refused(model):
    with pytest.raises(NaNCallbacksError, match="expected a Lightning module"):
        look(model, batches(features()))


@pytest.mark.parametrize("ignore", ["DATA502", ["DATA999"], [3]])
def test_codes_that_do_not_exist_are_refused(ignore):
    """``ignore="DATA502"`` would be a set of letters, and silence nothing."""
    with pytest.raises(ConfigurationError, match="ignore"):
        look(Module(), batches(features() * 300, labels(features())), ignore=ignore)


# -- hazards that `where` and half precision make --------------------------------------------------------------------


class Chosen(nn.Module):
    """`where` keeps the value of a root apart from negative operands, but not its gradient."""

    def __init__(self, guarded):
        super().__init__()
        self.net, self.guarded = nn.Linear(8, 4), guarded

    def forward(self, x):
        out = self.net(x)
        inner = torch.where(out > 0, out, 1.0) if self.guarded else out
        return torch.where(out > 0, torch.sqrt(inner), 0.0)


def test_a_choice_that_does_not_guard_the_gradient_is_told():
    report = look(Module(Chosen(guarded=False)), batches(features(), labels(features())))

    found = [notice for notice in report if notice.kind == "unguarded_gradient"]
    assert [notice.code for notice in found] == ["NAN113"]
    assert "torch.sqrt(inner)" in found[0].source.text


def test_a_choice_that_guards_the_gradient_is_not_told():
    report = look(Module(Chosen(guarded=True)), batches(features(), labels(features())))

    assert [notice for notice in report if notice.kind == "unguarded_gradient"] == []


class Half(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.net, self.scale = nn.Linear(8, 4), scale

    def forward(self, x):
        return (self.net(x) * self.scale).half().float() / self.scale


@pytest.mark.parametrize(("scale", "codes"), [(9000.0, ["OPT604"]), (10.0, [])])
def test_values_of_half_precision_near_its_end_are_a_remark(scale, codes):
    report = look(Module(Half(scale)), batches(features(), labels(features())))

    assert [notice.code for notice in report if notice.kind == "half_precision"] == codes


class HalfMasked(Half):
    """Adds the mask of a half-precision format, which hides nothing here."""

    def forward(self, x):
        hiding = torch.where(torch.tensor([False, True]), 0.0, torch.finfo(torch.half).min).half()
        return super().forward(x) + hiding[1].float()


def test_a_mask_of_half_precision_is_no_value_near_its_end():
    report = look(Module(HalfMasked(1.0)), batches(features(), labels(features())))
    assert [notice.code for notice in report if notice.kind == "half_precision"] == []


def test_a_remark_has_no_empty_lines():
    report = look(Module(Half(9000.0)), batches(features(), labels(features())))
    assert all(line.strip() for notice in report for line in notice.evidence)


class Places(nn.Module):
    """Logarithms of distances, as of buckets of relative positions, or of something that is drawn or given."""

    def __init__(self, far):
        super().__init__()
        self.net, self.far = nn.Linear(8, 4), far

    def forward(self, x):
        places = torch.arange(4).float()
        far = {"places": places, "drawn": torch.rand(4) * places, "given": x[:, :4].abs() * places}[self.far]
        return self.net(x) + torch.log(far).clamp(min=-1.0)


@pytest.mark.parametrize(("far", "codes"), [("places", []), ("drawn", ["NAN111"]), ("given", ["NAN111"])])
def test_what_no_batch_can_change_is_no_hazard(far, codes):
    report = look(Module(Places(far)), batches(features(), labels(features())))
    assert [notice.code for notice in report if notice.code == "NAN111"] == codes


# -- divisors --------------------------------------------------------------------------------------------------------


def divided_by(make):
    """Codes of a step that divides by what is made of its outputs."""

    def loss(out, y):
        return (out.square().sum(1) / make(out)).mean() + F.cross_entropy(out, y)

    report = look(Module(loss=loss), batches(features(), labels(features())))
    assert report.notes == ()
    return codes(report, Severity.INFO)


@pytest.mark.parametrize(
    "make",
    [
        lambda out: (out > -100).sum(1),
        lambda out: (out > -100).sum(1).float(),
        lambda out: (out > -100).long().sum(1).to(out.dtype),
        lambda out: torch.ones_like(out).sum(1),
        lambda out: torch.zeros(len(out)).index_add(0, torch.arange(len(out)), torch.ones(len(out))).reshape(-1),
    ],
)
def test_counts_are_no_hazard_as_divisors(make):
    assert "NAN112" not in divided_by(make)


@pytest.mark.parametrize("make", [lambda out: out.sum(1), lambda out: out.square().sum(1)])
def test_sums_are_hazards_as_divisors(make):
    assert "NAN112" in divided_by(make)
