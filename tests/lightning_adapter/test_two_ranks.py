"""Two processes on the CPU: whatever one rank sees, both do the same."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.lightning_adapter.runs import differences
from tests.lightning_adapter.two_ranks import CASES

pytestmark = pytest.mark.distributed

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Results of both ranks, of all cases."""
    folder, port = tmp_path_factory.mktemp("ranks"), str(free_port())
    processes = []
    for rank in ("0", "1"):
        setting = {"LOCAL_RANK": rank, "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-m", "tests.lightning_adapter.two_ranks", str(folder / rank)]
        processes.append(
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **setting},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [torch.load(folder / rank, weights_only=False) for rank in ("0", "1")]


@pytest.mark.parametrize("case", CASES)
def test_a_bad_batch_on_one_rank_is_forgotten_by_both(ranks, case):
    for rank in ranks:
        assert differences(rank[case]["state"], rank[f"{case} reference"]["state"]) == []
        assert rank[case]["summary"]["skipped_steps"] == 1
        assert rank[case]["summary"]["rollbacks"] == 0


@pytest.mark.parametrize("case", [*CASES, "rollback"])
def test_both_ranks_decide_the_same_and_hold_the_same_weights(ranks, case):
    zero, one = (rank[case] for rank in ranks)
    # Rank 0 looks the model over for all.
    assert [event for event in zero["events"] if not event[0].startswith("checkup")] == one["events"]
    assert zero["summary"] == one["summary"]
    for part in ("parameters", "optimizers", "schedulers"):
        assert differences(zero["state"][part], one["state"][part]) == []


def test_both_ranks_roll_back_together(ranks):
    for rank in ranks:
        summary = rank["rollback"]["summary"]
        assert (summary["skipped_steps"], summary["rollbacks"], summary["lr_scale"]) == (3, 1, 0.5)
        assert all(bool(torch.isfinite(value).all()) for value in rank["rollback"]["state"]["parameters"].values())


CAUSES = {
    "nan": "DATA501",
    "nan-at-the-start": "DATA501",
    "spike": "DATA512",
    "backward-nan": "NAN113",
    "nan-accumulating": "DATA501",
}


@pytest.mark.parametrize("case", CASES)
def test_only_the_rank_whose_batch_failed_says_why(ranks, case):
    zero, one = (rank[case]["diagnosed"] for rank in ranks)
    assert one == [CAUSES[case]]
    assert zero == []


def test_the_ranks_do_train_on_different_data(ranks):
    zero, one = (rank["nan reference"]["state"]["buffers"]["seen"] for rank in ranks)
    assert not torch.equal(zero, one)
