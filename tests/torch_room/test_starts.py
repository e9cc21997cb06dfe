"""What a trial takes over from a snapshot."""

import pytest
import torch
from torch import nn

from nan_callbacks.diagnosis.lab import Start
from nan_callbacks.torch.lab_start import begin_with_snapshot
from nan_callbacks.torch.snapshot import Snapshot, TrainingState
from nan_callbacks.torch.snapshot_home import SnapshotHome


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trained, self.frozen = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2), requires_grad=False)
        self.register_buffer("count", torch.zeros(()))


@pytest.mark.parametrize(
    ("start", "put_back"),
    [
        (Start.SNAPSHOT, {"trained", "frozen", "count", "momentum"}),
        (Start.TRAINED, {"trained", "momentum"}),
        (Start.WEIGHTS, {"trained"}),
    ],
)
def test_only_what_a_start_speaks_of_goes_back(start, put_back):
    net = Net()
    optimizer = torch.optim.SGD([net.trained], lr=0.1, momentum=0.9)
    optimizer.state[net.trained]["momentum_buffer"] = torch.zeros(2)
    snapshot = Snapshot(TrainingState(modules={"model": net}, optimizers=[optimizer]), SnapshotHome())
    snapshot.capture()
    with torch.no_grad():
        for each in (net.trained, net.frozen, net.count, optimizer.state[net.trained]["momentum_buffer"]):
            each.fill_(7.0)
    begin_with_snapshot(snapshot.state_dict(), net, [optimizer], start=start)
    now = {
        "trained": net.trained,
        "frozen": net.frozen,
        "count": net.count,
        "momentum": optimizer.state[net.trained]["momentum_buffer"],
    }
    assert {name for name, tensor in now.items() if not tensor.any()} == put_back
