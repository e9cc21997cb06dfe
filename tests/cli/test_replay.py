"""`nan-callbacks replay`: a saved step is examined again, in another process if need be."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import nan_callbacks
from nan_callbacks.cli import main
from nan_callbacks.errors import NaNCallbacksError
from tests.cli.replay_models import Root, linear, loss

HERE = "tests.cli.replay_models"


def bad_batch():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    x[4] = 0
    return {"x": x, "name": ["a", "b", "c", "d", "e", "f"]}


def without_bias():
    module = Root()
    with torch.no_grad():
        module.net.bias.zero_()
    return module


@pytest.fixture
def saved(tmp_path):
    nan_callbacks.diagnose_step(without_bias(), bad_batch(), batch_index=7, save_batch=tmp_path / "step")
    return tmp_path / "step"


def test_a_step_can_be_examined_on_its_own():
    module = without_bias()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    streams = torch.get_rng_state()
    diagnosis = nan_callbacks.diagnose_step(module, bad_batch())
    assert (diagnosis.cause.code, diagnosis.guilty_rows) == ("NAN113", (4,))
    assert diagnosis.origin.source.text.startswith("return self.net(batch")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(streams, torch.get_rng_state())


def test_a_label_out_of_range_is_found():
    module = torch.nn.Linear(3, 2)
    batch = (torch.randn(5, 3), torch.tensor([0, 1, 1, 2, 0]))
    diagnosis = nan_callbacks.diagnose_step(
        module, batch, loss=lambda m, b: torch.nn.functional.cross_entropy(m(b[0]), b[1])
    )
    assert (diagnosis.cause.code, diagnosis.guilty_rows) == ("DATA505", (3,))


def test_a_plain_module_needs_a_loss():
    with pytest.raises(NaNCallbacksError, match="`loss` must be a function"):
        nan_callbacks.diagnose_step(linear(), torch.zeros(2, 3))
    diagnosis = nan_callbacks.diagnose_step(linear(), torch.randn(4, 3), loss=loss)
    assert diagnosis.cause.code == "NAN111"


def test_something_else_is_refused():
    with pytest.raises(NaNCallbacksError, match="Keras model or a torch module, received int"):
        nan_callbacks.diagnose_step(3, None)


def test_a_saved_step_is_examined_again(saved, capsys):
    assert main(["replay", str(saved), "--model", f"{HERE}:Root"]) == 0
    printed = capsys.readouterr().out
    assert "gradient singularity (NAN113, confirmed)" in printed
    assert "sample 4" in printed


def test_as_json(saved, capsys):
    assert main(["replay", str(saved), "--model", f"{HERE}:Root", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["guilty_rows"] == [4]


@pytest.mark.slow
def test_in_a_process_of_its_own(saved):
    command = [sys.executable, "-m", "nan_callbacks.cli", "replay", str(saved), "--model", f"{HERE}:Root"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "NAN113" in done.stdout


def test_nothing_in_the_folder_is_pickled(saved):
    with np.load(saved / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiub" for name in arrays.files)


def test_bfloat16_survives(saved):
    from nan_callbacks.diagnosis.saved_step import read_step
    from nan_callbacks.torch.saving import window_of

    failed, _ = window_of(read_step(saved))
    assert failed[0].index == 7
    assert torch.equal(failed[0].batch["x"], bad_batch()["x"])
    assert failed[0].batch["x"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_colon", "expected PACKAGE.MODULE:NAME, received 'no_colon'"),
        (f"{HERE}:Missing", "cannot be imported"),
        ("no_such_package_at_all:x", "cannot be imported"),
        (f"{HERE}:NOT_A_MODEL", "expected a function or class"),
        (f"{HERE}:Other", "received one that differs in more.bias, more.weight"),
        (f"{HERE}:linear", "`loss` must be a function"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(saved, model, message, capsys):
    assert main(["replay", str(saved), "--model", model]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_without_a_step(tmp_path, capsys):
    assert main(["replay", str(tmp_path), "--model", f"{HERE}:Root"]) == 2
    assert "holds no saved step" in capsys.readouterr().err


def test_a_guard_saves_what_it_examined(tmp_path, capsys):
    from nan_callbacks.lightning import NaNGuard
    from tests.lightning_adapter.runs import tiny_trainer

    batches = [{"x": torch.randn(6, 3).to(torch.bfloat16)} for _ in range(5)]
    batches[3]["x"][2] = 0
    guard = NaNGuard(strict=True, verbose=False, save_batch=tmp_path / "incidents")
    module = without_bias()
    module.net.bias.requires_grad_(False)
    tiny_trainer(guard).fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    assert [path.name for path in (tmp_path / "incidents").iterdir()] == ["step_000003"]
    assert main(["replay", str(tmp_path / "incidents" / "step_000003"), "--model", f"{HERE}:Root"]) == 0
    printed = capsys.readouterr().out
    assert "step 3 · NAN101" in printed
    assert "sample 2" in printed
