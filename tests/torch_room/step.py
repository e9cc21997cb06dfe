"""A small network around the layer under test, and the replay of one step of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nan_callbacks.diagnosis.origin import Origin, ReplayResult
from nan_callbacks.torch.replay import replay

ROWS, WIDTH, CLASSES = 8, 6, 4


class Net(nn.Module):
    """The layer under test is `body.1`; the loss is outside of the module."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.body = nn.Sequential(nn.Tanh(), layer)
        self.last = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x)))


def make_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, WIDTH, generator=generator), torch.arange(ROWS) % CLASSES


def replay_net(
    layer: nn.Module, *, loss: Callable[..., Tensor] = F.cross_entropy, batch: Any = None, **options: Any
) -> ReplayResult:
    """Replay a step of the small network with a layer of one's own."""
    torch.manual_seed(0)
    net = Net(layer)
    x, y = batch = make_batch() if batch is None else batch
    return replay(
        lambda: loss(net(x), y), modules={"": net}, parameters=dict(net.named_parameters()), batch=batch, **options
    )


def origin_of(result: ReplayResult) -> Origin:
    assert result.reproduced, result.note
    assert result.origin is not None, result.note
    return result.origin


def marked(result: ReplayResult) -> str:
    """The mark at the end of the origin's source line: `# @name`."""
    source = origin_of(result).source
    assert source is not None
    assert "# @" in source.text, source.describe()
    return source.text.rsplit("# @", 1)[1]
