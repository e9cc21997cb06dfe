"""Where snapshots are kept. There is no second device here: a CPU tensor is taken for one on an accelerator."""

import pytest
import torch
from torch import nn

from nan_callbacks.torch import snapshot_home
from nan_callbacks.torch.snapshot import Snapshot, TrainingState, original
from nan_callbacks.torch.snapshot_home import SnapshotHome, memory_of

STATE = [torch.zeros(1000)]
BYTES = 4000


@pytest.fixture
def accelerator(monkeypatch):
    """The CPU passes for an accelerator whose memory can be set."""
    sizes = {"total": None}
    monkeypatch.setattr(snapshot_home, "ON_HOST", ("meta",))
    monkeypatch.setattr(snapshot_home, "memory_of", lambda device: sizes["total"])
    return sizes


@pytest.mark.parametrize(("shares", "on_host"), [(40.5, False), (39.5, True)])
def test_snapshots_move_to_the_host_where_two_would_take_more_than_a_twentieth(accelerator, shares, on_host):
    accelerator["total"] = int(shares * BYTES)
    home = SnapshotHome()
    home.look(STATE)

    assert home.on_host is on_host


def test_what_has_moved_stays_when_the_state_shrinks(accelerator):
    accelerator["total"] = BYTES
    home = SnapshotHome()
    home.look(STATE)
    home.look([])

    assert home.on_host


@pytest.mark.parametrize(("choice", "on_host"), [("device", False), ("host", True)])
def test_the_user_decides(accelerator, choice, on_host):
    accelerator["total"] = BYTES if choice == "device" else 10**15
    home = SnapshotHome(choice)
    home.look(STATE)

    assert home.on_host is on_host


def test_the_memory_of_a_cpu_is_the_hosts():
    home = SnapshotHome()
    home.look([torch.empty(2**40, device="meta"), torch.zeros(3)])

    assert not home.on_host
    assert memory_of(torch.device("cpu")) is None


@pytest.mark.usefixtures("accelerator")
def test_a_copy_that_finds_no_memory_beside_the_state_is_kept_by_the_host(monkeypatch):
    def no_memory(tensor, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    tensor = torch.arange(6.0).reshape(2, 3).t()
    monkeypatch.setattr(torch.Tensor, "clone", no_memory)
    home = SnapshotHome()
    copy = home.copy_of(tensor)

    assert home.on_host
    assert torch.equal(copy, tensor)
    assert copy.stride() == tensor.stride()
    assert copy.data_ptr() != tensor.data_ptr()
    with pytest.raises(torch.OutOfMemoryError):
        SnapshotHome("device").copy_of(tensor)


@pytest.mark.usefixtures("accelerator")
def test_a_state_that_is_kept_by_the_host_is_put_back_into_the_same_tensors():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    snapshot = Snapshot(TrainingState(modules={"model": net}, optimizers=[optimizer]), SnapshotHome("host"))

    def step():
        optimizer.zero_grad()
        net(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()

    step()
    snapshot.capture()
    before = [tensor.clone() for tensor in net.state_dict().values()]
    places = [parameter.data_ptr() for parameter in net.parameters()]
    step()
    snapshot.restore()

    assert all(map(torch.equal, net.state_dict().values(), before))
    assert [parameter.data_ptr() for parameter in net.parameters()] == places
    saved = snapshot.state_dict()
    key = "optimizer/0/0.0/exp_avg"
    assert torch.equal(original(saved, key), optimizer.state[net[0].weight]["exp_avg"])
    assert original(saved, key).data_ptr() != saved["tensors"][key].data_ptr()
