"""What was non-finite before the step began: a part of the batch, a parameter, a buffer."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nan_callbacks.diagnosis.origin import OriginKind
from nan_callbacks.torch.replay import batch_size, replay, select_rows
from tests.torch_room.step import Net, make_batch, origin_of, replay_net


@dataclass
class Sample:
    image: Tensor
    label: Tensor


def with_nan(value=float("nan")):
    x, y = make_batch()
    x[3, 1] = value
    x[6, 0] = value
    return x, y


CONTAINERS = [
    ("batch[0]", lambda x, y: (x, y), lambda b: b),
    ("batch['x']", lambda x, y: {"x": x, "y": y}, lambda b: (b["x"], b["y"])),
    ("batch[0]['x']", lambda x, y: [{"x": x}, y], lambda b: (b[0]["x"], b[1])),
    ("batch.image", Sample, lambda b: (b.image, b.label)),
    ("batch[0]", lambda x, y: (x.numpy(), y), lambda b: (torch.from_numpy(b[0]), b[1])),
    ("batch[0]", lambda x, y: (x.double(), y), lambda b: (b[0].float(), b[1])),
]


@pytest.mark.parametrize(("name", "pack", "unpack"), CONTAINERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_part_of_the_batch_is_named_with_its_rows(name, pack, unpack, value):
    batch = pack(*with_nan(value))
    torch.manual_seed(0)
    net = Net(nn.Identity())

    def step():
        x, y = unpack(batch)
        return F.cross_entropy(net(x), y)

    origin = origin_of(replay(step, modules={"": net}, parameters=dict(net.named_parameters()), batch=batch))

    assert (origin.kind, origin.operation, origin.rows) == (OriginKind.BATCH, name, (3, 6))
    assert origin.result is not None
    assert origin.result.name == name
    assert origin.result.nan + origin.result.positive_inf == 2


def test_a_non_finite_number_of_the_batch_is_named():
    x, y = make_batch()
    net = Net(nn.Identity())
    batch = {"x": x, "weight": float("nan")}
    result = replay(
        lambda: F.cross_entropy(net(batch["x"]), y) * batch["weight"],
        modules={"": net},
        parameters=dict(net.named_parameters()),
        batch=batch,
    )

    assert (origin_of(result).kind, origin_of(result).operation) == (OriginKind.BATCH, "batch['weight']")


def test_a_non_finite_target_is_named():
    x, _ = make_batch()
    y = torch.zeros(8, 4)
    y[5] = float("nan")
    origin = origin_of(replay_net(nn.Identity(), loss=F.mse_loss, batch=(x, y)))

    assert (origin.kind, origin.operation, origin.rows) == (OriginKind.BATCH, "batch[1]", (5,))


def test_gaps_that_the_model_handles_are_not_to_blame():
    class FillsGaps(nn.Module):
        def forward(self, x):
            return torch.log(x * 0)

    net = nn.Sequential(nn.Linear(6, 6), FillsGaps())
    x = with_nan()[0]
    batch = {"x": x}

    def step():
        known = torch.where(torch.isnan(batch["x"]), torch.zeros(()), batch["x"])
        return net(known).mean()

    origin = origin_of(replay(step, modules={"": net}, parameters=dict(net.named_parameters()), batch=batch))

    assert (origin.kind, origin.operation) == (OriginKind.OPERATION, "log")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_parameter_is_named_with_its_module(value):
    torch.manual_seed(0)
    net = Net(nn.Linear(6, 6))
    with torch.no_grad():
        net.body[1].weight[1, 1] = value
    x, y = make_batch()
    result = replay(
        lambda: F.cross_entropy(net(x), y),
        modules={"model": net},
        parameters=dict(net.named_parameters()),
        batch=(x, y),
    )
    origin = origin_of(result)

    assert (origin.kind, origin.operation) == (OriginKind.PARAMETERS, "body.1.weight")
    assert origin.module_type == "Linear"
    assert origin.result is not None
    assert not origin.result.is_finite


def test_non_finite_running_statistics_are_named():
    net = Net(nn.BatchNorm1d(6)).eval()
    net.body[1].running_mean[2] = float("inf")
    x, y = make_batch()
    origin = origin_of(
        replay(lambda: F.cross_entropy(net(x), y), modules={"": net}, parameters=dict(net.named_parameters()), batch=x)
    )

    assert (origin.kind, origin.operation) == (OriginKind.PARAMETERS, "body.1.running_mean")


@pytest.mark.parametrize("kind", ["buffer", "frozen parameter", "parameter"])
def test_only_what_is_trained_is_an_optimizers_doing(kind):
    net = Net(nn.Linear(6, 6))
    value = torch.tensor([1.0, float("nan")])
    if kind == "buffer":
        net.register_buffer("scale", value)
    else:
        net.scale = nn.Parameter(value, requires_grad=kind == "parameter")
    x, y = make_batch()
    result = replay(
        lambda: F.cross_entropy(net(x) * net.scale.sum(), y),
        modules={"": net},
        parameters={name: each for name, each in net.named_parameters() if each.requires_grad},
        batch=(x, y),
    )
    origin = origin_of(result)

    assert (origin.kind, origin.operation) == (OriginKind.PARAMETERS, "scale")
    assert origin.is_trained is (kind == "parameter")
    said = "" if kind == "parameter" else f"a {kind}: no optimizer writes it"
    assert origin.detail.startswith(said)
    assert bool(origin.detail) is bool(said)


def test_who_picks_an_entry_of_a_legal_mask_is_named_rather_than_the_mask():
    net = Net(nn.Linear(6, 6))
    net.register_buffer("forbidden", torch.tensor([0.0, 0.0, float("-inf"), 0.0]))
    x, y = make_batch()
    y = y.clamp(max=1)
    y[5] = 2
    scores = nn.Parameter(torch.zeros(4))
    result = replay(
        lambda: F.cross_entropy(net(x), y) - (scores + net.forbidden)[y].mean(),
        modules={"": net},
        parameters={**dict(net.named_parameters()), "scores": scores},
        batch=(x, y),
    )
    origin = origin_of(result)

    assert (origin.kind, origin.operation, origin.rows) == (OriginKind.OPERATION, "index", (5,))
    assert "forbidden holds as a mask" in origin.detail


def test_the_batch_comes_before_the_parameters():
    net = Net(nn.Linear(6, 6))
    with torch.no_grad():
        net.first.weight[0, 0] = float("nan")
    x, y = with_nan()
    result = replay(
        lambda: F.cross_entropy(net(x), y), modules={"": net}, parameters=dict(net.named_parameters()), batch=(x, y)
    )

    assert origin_of(result).kind is OriginKind.BATCH
    assert result.others[0].operation == "first.weight"


def test_batch_size_and_rows_of_nested_batches():
    batch = {"x": torch.arange(12.0).reshape(4, 3), "ids": ["a", "b", "c", "d"], "meta": [np.arange(4), torch.ones(2)]}

    assert batch_size(batch) == 4
    kept = select_rows(batch, [2, 0])
    assert kept["x"][:, 0].tolist() == [6.0, 0.0]
    assert kept["ids"] == ["c", "a"]
    assert kept["meta"][0].tolist() == [2, 0]
    assert kept["meta"][1].tolist() == [1.0, 1.0]
    assert batch_size("nothing") == 0
