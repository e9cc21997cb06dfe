"""What the checkup tells of inputs that look rows up, in tables or in other inputs."""

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import nan_callbacks
from nan_callbacks.core.finding import Severity
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.set_ups import make_trainer

SIZES = (3, 9, 20)
ROWS, NODES, EDGES = 48, 400, 900


class Step(LightningModule):
    """Layers and a step that computes a loss with them.

    Args:
        step: Of the module and a batch.
        **layers: By name.
    """

    def __init__(self, step, **layers):
        super().__init__()
        self.step_of = step
        self.layers = nn.ModuleDict(layers)

    def training_step(self, batch, batch_idx):
        return self.step_of(self.layers, batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def look(module, data):
    return nan_callbacks.checkup(module, data, strict=True)


def found(report):
    return {(each.code, each.where) for each in report if each.severity >= Severity.WARNING}


def drawn():
    return torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=drawn())


# -- tables ----------------------------------------------------------------------------------------------------------

WAYS = {
    "getitem": lambda x: [x[:, at] for at in range(len(SIZES))],
    "ellipsis": lambda x: [x[..., at : at + 1] for at in range(len(SIZES))],
    "unbind": lambda x: x.unbind(1),
    "select": lambda x: [x.select(1, at) for at in range(len(SIZES))],
    "index_select": lambda x: [x.index_select(1, torch.tensor([at])) for at in range(len(SIZES))],
    "split": lambda x: x.split(1, dim=1),
    "transposed": lambda x: list(x.T),
    "joined": lambda x: [torch.cat([x, x])[: len(x), at] for at in range(len(SIZES))],
    "moved": lambda x: [(x + 1)[:, at] - 1 for at in range(len(SIZES))],
}
"""The columns of a table, each by itself."""


def one_table_per_column(way, sizes=SIZES):
    def step(layers, batch):
        columns = WAYS[way](batch["x"])
        looked_up = [layers[f"table{at}"](each).reshape(len(each), 4) for at, each in enumerate(columns)]
        return (layers["head"](torch.cat(looked_up, 1)) - batch["y"]).square().mean()

    tables = {f"table{at}": nn.Embedding(size, 4) for at, size in enumerate(sizes)}
    return Step(step, head=nn.Linear(4 * len(sizes), 1), **tables)


def columns(bad=None, row=2):
    """Indices of three columns, each within its own table, or one of them not."""
    x = torch.stack([torch.randint(0, size, (ROWS,), generator=drawn()) for size in SIZES], 1)
    if bad is not None:
        x[row, bad] = SIZES[bad]
    return DataLoader([{"x": x, "y": y} for x, y in zip(x, normal(ROWS, 1), strict=True)], 16)


@pytest.mark.parametrize("way", WAYS)
def test_one_table_per_column_is_healthy(way):
    report = look(one_table_per_column(way), columns())
    assert found(report) == set(), report.describe()
    assert report.notes == ()


@pytest.mark.parametrize("bad", range(len(SIZES)))
@pytest.mark.parametrize("way", WAYS)
def test_an_index_beyond_the_table_of_its_column_is_told(way, bad):
    report = look(one_table_per_column(way), columns(bad))
    (notice,) = (each for each in report if each.code == "DATA511")
    assert notice.where == "batch['x']"
    assert f"table{bad} has {SIZES[bad]} rows" in notice.evidence[0]


@pytest.mark.parametrize("way", ["getitem", "ellipsis", "unbind", "select", "index_select", "split", "transposed"])
def test_an_index_beyond_its_table_is_told_of_later_batches_too(way):
    report = look(one_table_per_column(way), columns(1, row=40))
    (notice,) = (each for each in report if each.code == "DATA511")
    assert "table1" in notice.evidence[0]
    assert "row 40" in notice.evidence[0]


def test_every_table_with_an_index_beyond_it_is_told():
    data = columns(0, row=40)
    data.dataset[41]["x"][2] = SIZES[2]
    told = [each.evidence[0] for each in look(one_table_per_column("getitem"), data) if each.code == "DATA511"]
    assert len(told) == 2
    assert "table0" in told[0]
    assert "table2" in told[1]


def test_columns_of_two_inputs_that_are_joined_are_healthy():
    def step(layers, batch):
        both = torch.cat([batch["encoder"], batch["decoder"]], 1)
        seen = torch.cat([layers["small"](both[..., 1]), layers["big"](both[..., 0])], -1).mean(1)
        return (layers["head"](seen)[:, 0] - batch["y"]).square().mean()

    module = Step(step, big=nn.Embedding(9, 4), small=nn.Embedding(3, 4), head=nn.Linear(8, 1))
    both = torch.stack([torch.randint(0, size, (ROWS, 5), generator=drawn()) for size in (9, 3)], -1)
    data = [{"encoder": x[:3], "decoder": x[3:], "y": y} for x, y in zip(both, normal(ROWS), strict=True)]
    report = look(module, DataLoader(data, 16))
    assert found(report) == set(), report.describe()
    assert report.notes == ()


def test_a_text_without_its_last_token_is_judged_in_all_rows():
    def step(layers, batch):
        logits = layers["head"](layers["table"](batch[:, :-1]))
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    texts = torch.randint(0, 20, (ROWS, 7), generator=drawn())
    texts[40, 2] = 21
    report = look(Step(step, table=nn.Embedding(20, 8), head=nn.Linear(8, 30)), DataLoader(texts, 16))
    (notice,) = (each for each in report if each.code == "DATA511")
    assert "row 40" in notice.evidence[0]


# -- indices ---------------------------------------------------------------------------------------------------------

CHOOSING = {
    "getitem": lambda nodes, index: nodes[index],
    "index_select": lambda nodes, index: nodes.index_select(0, index),
    "index by name": lambda nodes, index: torch.index_select(nodes, dim=0, index=index),
    "gather": lambda nodes, index: torch.gather(nodes, 0, index[:, None].expand(-1, 4)),
    "take_along_dim": lambda nodes, index: torch.take_along_dim(nodes, index[:, None], 0),
    "take": lambda nodes, index: nodes.take(index[:, None] * 4 + torch.arange(4)),
}
PLACING = {
    "index_add": lambda sums, index, values: sums.index_add(0, index, values),
    "scatter_add": lambda sums, index, values: sums.scatter_add(0, index[:, None].expand_as(values), values),
    "scatter_reduce": lambda sums, to, near: sums.scatter_reduce(0, to[:, None].expand_as(near), near, "sum"),
    "index_put": lambda sums, index, values: sums.index_put((index,), values, accumulate=True),
}


def graph(choose, place, scale=1.0):
    """A step that collects the features of neighbours, and its data."""

    def step(layers, batch):
        ends = batch["edges"]
        near = torch.cat([choose(batch["nodes"], ends[0]), batch["lengths"]], 1)
        collected = place(torch.zeros(NODES, 6), ends[1], near)
        hidden = torch.relu(layers["body"](collected))
        return (layers["head"](hidden) - batch["y"]).square().mean()

    def one():
        return {
            "nodes": scale * torch.randn(NODES, 4, generator=generator),
            "lengths": torch.randn(EDGES, 2, generator=generator),
            "edges": torch.randint(0, NODES, (2, EDGES), generator=generator).sort(1)[0],
            "y": torch.randn(NODES, 1, generator=generator),
        }

    generator = drawn()
    data = DataLoader([one() for _ in range(4)], batch_size=None)
    return Step(step, body=nn.Linear(6, 8), head=nn.Linear(8, 1)), data


@pytest.mark.parametrize("choose", CHOOSING)
def test_indices_that_choose_rows_are_no_numbers(choose):
    report = look(*graph(CHOOSING[choose], PLACING["index_add"]))
    assert found(report) == set(), report.describe()
    assert report.notes == ()


@pytest.mark.parametrize("place", PLACING)
def test_indices_that_place_rows_are_no_numbers(place):
    report = look(*graph(CHOOSING["getitem"], PLACING[place]))
    assert found(report) == set(), report.describe()
    assert report.notes == ()


def test_a_single_input_of_numbers_is_judged_by_its_chosen_rows():
    def step(layers, batch):
        return (layers["head"](batch["x"][batch["chosen"]]) - batch["y"]).square().mean()

    def one():
        x = 1e4 * torch.randn(NODES, 4, generator=generator)
        return {"x": x, "chosen": torch.arange(0, NODES, 2), "y": torch.randn(NODES // 2, 1, generator=generator)}

    generator = drawn()
    report = look(Step(step, head=nn.Linear(4, 1)), DataLoader([one() for _ in range(2)], batch_size=None))
    assert ("DATA502", "batch['x']") in found(report), report.describe()


class OwnLoss(LightningModule):
    """A regression that leaves missing values out or does not."""

    def __init__(self, *, leaves_out: bool) -> None:
        super().__init__()
        self.net, self.leaves_out = nn.Linear(4, 2), leaves_out

    def training_step(self, batch, batch_idx):
        x, y = batch
        if self.leaves_out:
            known = ~torch.isnan(y)
            return F.mse_loss(torch.where(known, self.net(x), 0.0), torch.where(known, y, 0.0))
        return F.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def report_of_fit(module, *tensors):
    guard = NaNGuard(strict=True, verbose=False)
    loader = DataLoader(TensorDataset(*tensors), 32, shuffle=True)
    make_trainer(guard, max_epochs=1).fit(module, loader)
    return guard.checkup_report


def test_rows_of_a_fit_are_those_of_its_data_set():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    x[[3, 150], 1] = torch.nan
    told = report_of_fit(OwnLoss(leaves_out=False), x, torch.zeros(200, 2)).notices[0].evidence[0]
    assert told == "2 of 800 values are NaN or Inf, in rows 3 and 150."


@pytest.mark.parametrize("leaves_out", [True, False])
def test_missing_targets_that_the_loss_leaves_out_are_meant(leaves_out):
    x = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
    y = torch.where(x[:, :2] > 0.5, torch.nan, x[:, 2:])
    codes = {notice.code for notice in report_of_fit(OwnLoss(leaves_out=leaves_out), x, y)}
    assert ("DATA501" in codes) == (not leaves_out)
