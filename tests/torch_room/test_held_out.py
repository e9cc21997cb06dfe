"""Faults as they occur in real models, written after the replay was finished and run once before anything was changed.

20 of 22 came out as expected. The other two expectations were wrong: `expm1` is an operation of its own, and of
`where(length > 0, x / length, x)` the quotient's derivative fails before that of the root.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nan_callbacks.diagnosis.origin import OriginKind, Phase
from nan_callbacks.torch.replay import replay
from tests.torch_room.step import Net, make_batch, marked, origin_of

FORWARD, BACKWARD = Phase.FORWARD, Phase.BACKWARD


class Variational(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.Linear(6, 12)
        nn.init.constant_(self.heads.bias, 200.0)

    def forward(self, x):
        mean, log_variance = self.heads(x).chunk(2, dim=-1)
        deviation = torch.exp(log_variance)  # @variational
        return mean + deviation * torch.randn_like(deviation)


class Contrastive(nn.Module):
    def forward(self, x):
        keep = torch.ones(8, 1)
        keep[4] = 0
        z = x * keep
        z = z / z.norm(dim=1, keepdim=True)  # @contrastive
        return z @ z.T @ x


class ClampedAngle(nn.Module):
    def forward(self, x):
        cosine = F.cosine_similarity(x, x * 2, dim=-1).clamp(-1, 1)
        cosine = cosine / cosine.detach()
        return x * torch.arccos(cosine.clamp(-1, 1))[:, None]  # @clamped angle


class Standardised(nn.Module):
    def forward(self, x):
        x = torch.cat([x[:, :5], torch.ones(8, 1)], dim=1)
        return (x - x.mean(0)) / x.std(0)  # @standardised


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        chosen = torch.zeros(8, dtype=torch.long)
        load = torch.stack([expert(x[chosen == i]).mean() for i, expert in enumerate(self.experts)])  # @experts
        return x * load.sum()


class Eigenvectors(nn.Module):
    def forward(self, x):
        matrix = torch.eye(6) + x.T @ x * 0
        _, vectors = torch.linalg.eigh(matrix)  # @eigenvectors
        return x @ vectors


class Gumbel(nn.Module):
    def forward(self, x):
        u = (x > 0).float()
        noise = -torch.log(-torch.log(u))  # @gumbel
        return (x + noise).softmax(-1)


class LogSumExp(nn.Module):
    def forward(self, x):
        scores = x.clone()
        scores[3] = -float("inf")
        highest = scores.max(dim=-1, keepdim=True).values
        return torch.exp(scores - highest)  # @log sum exp


class InverseSoftplus(nn.Module):
    def forward(self, x):
        return torch.log(torch.expm1(x * 0 + 120))  # @inverse softplus


class GraphMean(nn.Module):
    def forward(self, x):
        target = torch.tensor([0, 0, 1, 1, 2, 2, 4, 4])
        total = torch.zeros(8, 6).index_add_(0, target, x)
        count = torch.bincount(target, minlength=8).float()
        return total / count[:, None]  # @graph mean


class HalfSquares(nn.Module):
    def forward(self, x):
        h = (x * 1000).half()
        return (h * h).mean(-1, keepdim=True).float() + x  # @half squares


class AssignedMask(nn.Module):
    def forward(self, x):
        scores = x[:, None] * x[:, :, None]
        allowed = torch.ones(8, 6, 6, dtype=torch.bool)
        allowed[1, 2] = False
        scores[~allowed] = float("-inf")
        return (F.softmax(scores, dim=-1) @ x[..., None]).squeeze(-1)  # @assigned mask


class SafeNorm(nn.Module):
    def forward(self, x):
        length = torch.sqrt((x * 0).square().sum(-1, keepdim=True))
        return torch.where(length > 0, x / length, x)  # @safe norm


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(4))
        nn.init.constant_(self.blocks[2][0].weight, 1e39 / 10)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x * 100)  # @residual
        return x


class UnusedRow(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 6)
        with torch.no_grad():
            self.table.weight[8] = float("nan")

    def forward(self, x):
        h = x + self.table(torch.arange(8))
        return h.reciprocal() * (h * 0).rsqrt()  # @unused row


class Huberish(nn.Module):
    def forward(self, x):
        small = x.detach() * 0 + x * 0
        return torch.where(small.abs() < 1, small.abs().pow(0.25), small)  # @huberish


class NoGradBranch(nn.Module):
    def forward(self, x):
        with torch.no_grad():
            scale = 1 / (x.var(dim=0, unbiased=False) * 0)  # @no grad branch
        return x * scale


LAYERS = [
    ("variational", Variational(), "exp", FORWARD, None),
    ("contrastive", Contrastive(), "divide", FORWARD, (4,)),
    ("clamped angle", ClampedAngle(), "acos", BACKWARD, None),
    ("standardised", Standardised(), "divide", FORWARD, tuple(range(8))),
    ("experts", Experts(), "mean", FORWARD, None),
    ("eigenvectors", Eigenvectors(), "decomposition", BACKWARD, None),
    ("gumbel", Gumbel(), "log", FORWARD, None),
    ("log sum exp", LogSumExp(), "subtract", FORWARD, (3,)),
    ("inverse softplus", InverseSoftplus(), "expm1", FORWARD, tuple(range(8))),
    ("graph mean", GraphMean(), "divide", FORWARD, (3, 5, 6, 7)),
    ("half squares", HalfSquares(), "multiply", FORWARD, None),
    ("assigned mask", AssignedMask(), "softmax", FORWARD, (1,)),
    ("safe norm", SafeNorm(), "divide", BACKWARD, tuple(range(8))),
    ("residual", Residual(), "matmul", FORWARD, None),
    ("unused row", UnusedRow(), "rsqrt", FORWARD, tuple(range(8))),
    ("huberish", Huberish(), "power", BACKWARD, tuple(range(8))),
    ("no grad branch", NoGradBranch(), "reciprocal", FORWARD, None),
]
MODULES = {"residual": "body.1.blocks.2.0"}


def run(layer=None, loss=F.cross_entropy, batch=None):
    torch.manual_seed(0)
    net = Net(nn.Identity() if layer is None else layer)
    x, y = batch = make_batch() if batch is None else batch
    return replay(lambda: loss(net(x), y), modules={"": net}, parameters=dict(net.named_parameters()), batch=batch)


@pytest.mark.parametrize(("name", "layer", "operation", "phase", "rows"), LAYERS, ids=[case[0] for case in LAYERS])
def test_layers(name, layer, operation, phase, rows):
    result = run(layer)
    origin = origin_of(result)

    assert origin.kind is OriginKind.OPERATION
    assert (origin.operation, origin.phase) == (operation, phase)
    assert origin.module == MODULES.get(name, "body.1")
    assert marked(result) == name
    if rows is not None:
        assert origin.rows == rows


def dice(logits, y):
    p = logits.sigmoid() * 0
    target = F.one_hot(y, 4) * 0
    return 1 - (2 * (p * target).sum() / (p.sum() + target.sum()))  # @dice


def focal(logits, y):
    p = torch.ones(8) + logits.sum(-1) * 0
    return ((1 - p).pow(0.5) * -torch.log(p)).mean()  # @focal


def weighted(logits, y):
    return F.cross_entropy(logits, y * 0, weight=torch.tensor([0.0, 1, 1, 1]))  # @weighted


def likelihood(logits, y):
    p = F.softmax(logits * 1e3, dim=-1)
    return F.nll_loss(p.log(), y)  # @likelihood


def tasks(logits, y):
    losses = torch.stack([F.cross_entropy(logits, y), logits.pow(2).mean()])
    weights = torch.zeros(2)
    return (losses * weights).sum() / weights.sum()  # @tasks


LOSSES = [(dice, "divide", FORWARD), (focal, "power", BACKWARD), (weighted, "nll_loss", FORWARD),
          (likelihood, "log", FORWARD), (tasks, "divide", FORWARD)]  # fmt: skip


@pytest.mark.parametrize(("loss", "operation", "phase"), LOSSES, ids=[case[0].__name__ for case in LOSSES])
def test_losses(loss, operation, phase):
    result = run(loss=loss)
    origin = origin_of(result)

    assert (origin.operation, origin.phase, origin.module) == (operation, phase, "")
    assert marked(result) == loss.__name__
