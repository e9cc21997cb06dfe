"""What the guard explains, to whom, and that explaining changes nothing."""

import copy
import pickle

import pytest
import torch
from pytorch_lightning import Callback
from torch.nn import functional as F

from nan_callbacks.errors import NaNCallbacksError
from nan_callbacks.lightning import NaNGuard
from nan_callbacks.lightning.examiner import Examination
from nan_callbacks.lightning.recent import RecentBatches
from nan_callbacks.torch.lab_bench import Fed
from tests.lightning_adapter.runs import (
    FAULTS,
    OPTIMIZERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    spoiled,
    strict_guard,
)

AT = 6
CAUSES = {"nan": {"DATA501"}, "spike": {"DATA512", "DATA503"}, "backward-nan": {"NAN113"}}
"""A whole batch on another scale: in half precision it overflows, and counts as samples that are too large."""


def run(guard, fault="nan", at=(AT,), **options):
    return fit(TinyModule, spoiled(healthy_batches(), at, fault), guard=guard, **options)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2}, {"scale": 64.0}, {"gradient_clip_val": 0.1}, {"precision": "bf16-mixed"}],
    ids=str,
)
def test_explaining_changes_nothing(fault, options):
    at = (AT, 9)
    silent = run(strict_guard(diagnose="never"), fault, at, **options)
    explained = run(strict_guard(), fault, at, **options)
    assert differences(silent.state, explained.state) == []
    assert silent.guard.summary == explained.guard.summary
    if "scale" in options and fault == "backward-nan":  # an overflow to the scaler, which skips it by itself
        assert explained.guard.incidents == ()
    else:
        assert explained.guard.incidents[0].diagnosis.cause.code in CAUSES[fault]


def test_a_rollback_after_an_explanation_is_the_same():
    settings = {"snapshot_every_n_steps": 3, "probation_steps": 2}
    silent = run(strict_guard(diagnose="never", **settings), "backward-nan", (6, 7, 8))
    explained = run(strict_guard(**settings), "backward-nan", (6, 7, 8))
    assert explained.guard.summary["rollbacks"] == 1
    assert differences(silent.state, explained.state) == []


def test_incidents_are_records_with_their_diagnosis():
    told = []
    guard = strict_guard(on_incident=told.append)
    run(guard, at=(AT, 9))
    assert [incident.step for incident in guard.incidents] == [AT, 9]
    assert tuple(told) == guard.incidents
    first = guard.incidents[0]
    assert (first.code, first.action, first.diagnosis.guilty_rows) == ("NAN101", "skip_step", (2,))
    assert "DATA501" in first.describe()
    with pytest.raises(AttributeError):
        first.step = 3


def test_a_second_fit_begins_with_an_empty_list():
    guard = strict_guard()
    run(guard)
    fit(TinyModule, healthy_batches(4), guard=guard)
    assert guard.incidents == ()


class Asks(Callback):
    """Asks for a diagnosis in the middle of an accumulation window."""

    def __init__(self, guard, at=5):
        self.guard, self.at, self.answer = guard, at, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.at:
            self.answer = self.guard.diagnose()


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("at", [4, 5, 6])
def test_asking_during_the_fit_changes_nothing(accumulate, at):
    plain = fit(TinyModule, healthy_batches(), accumulate_grad_batches=accumulate)
    guard = strict_guard()
    asks = Asks(guard, at)
    asked = fit(TinyModule, healthy_batches(), asks, guard=guard, accumulate_grad_batches=accumulate)
    assert differences(plain.state, asked.state) == []
    assert asks.answer.steps_spent > 0
    told = [event["event"] for event in guard.events if not event["event"].startswith("checkup")]
    assert told == ["diagnosis", "summary"]


def test_asking_after_the_fit_looks_at_the_last_batch():
    guard = strict_guard()
    asked = fit(TinyModule, healthy_batches(5), guard=guard)
    before = copy.deepcopy(asked.state)
    assert guard.diagnose().steps_spent > 0
    assert differences(before["parameters"], {n: p.detach() for n, p in asked.module.named_parameters()}) == []


def test_a_batch_that_made_the_step_raise_can_be_asked_about():
    class Fails(TinyModule):
        def training_step(self, batch, batch_idx):
            labels = (batch[1].squeeze(1) > 0).long() + (5 if batch_idx == AT else 0)
            return F.cross_entropy(self.direction(batch[0]), labels)

    guard = strict_guard()
    with pytest.raises(IndexError):
        fit(lambda: Fails(OPTIMIZERS["SGD"]), healthy_batches(), guard=guard)
    assert guard.diagnose().cause.code == "DATA505"


def test_without_a_fit_there_is_nothing_to_ask_about():
    with pytest.raises(NaNCallbacksError, match="expected a fit with this guard"):
        NaNGuard().diagnose()


def test_an_error_of_the_diagnosis_leaves_the_guard_on_its_post(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("our own mistake")

    monkeypatch.setattr(Examination, "replay", broken)
    silent = run(strict_guard(diagnose="never"), at=(AT, 9))
    guarded = run(NaNGuard(verbose=False), at=(AT, 9))
    assert not guarded.guard.is_aside
    assert guarded.guard.summary["skipped_steps"] == 2
    assert differences(silent.state, guarded.state) == []
    assert sum("our own mistake" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(RuntimeError, match="our own mistake"):
        run(strict_guard())


def test_what_is_kept_after_a_fit_travels_with_no_copy():
    guard = strict_guard()
    run(guard)
    assert guard.__getstate__()["_last_step"] is None  # the trainer hangs on it
    (told,) = (incident.describe() for incident in guard.incidents)
    assert [incident.describe() for incident in copy.deepcopy(guard).incidents] == [told]
    assert [incident.describe() for incident in pickle.loads(pickle.dumps(guard.incidents))] == [told]


class PopsItsLabels(TinyModule):
    """Takes its batch apart, as many training steps do."""

    def training_step(self, batch, batch_idx):
        y = batch.pop("labels")
        return self.loss(batch["x"], y)


def test_a_step_that_takes_its_batch_apart_can_be_run_again():
    batches = [{"x": x, "labels": y} for x, y in spoiled(healthy_batches(), [AT], "backward-nan")]
    told = []
    data = torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=dict)
    fit(PopsItsLabels, data, guard=strict_guard(on_incident=told.append))
    assert told[0].diagnosis.cause.code == "NAN113"
    assert told[0].diagnosis.guilty_rows == (2,)


@pytest.mark.parametrize(
    ("on_device", "size", "window", "kept"),
    [
        (False, 10, 1, 8),
        (False, 10, 4, 2),
        (True, 10, 1, 2),
        (True, 2**24, 1, 1),
        (True, 2**25, 1, 0),
        (False, 2**25, 1, 2),
    ],
)
def test_recent_batches_are_bounded(on_device, size, window, kept):
    recent = RecentBatches(on_device=on_device)
    batch = torch.empty(size, dtype=torch.float32)
    for _ in range(12):
        recent.add([Fed(batch)] * window)
    assert len(recent.windows) == kept


def test_batches_of_loader_workers_are_not_hoarded():
    batch = torch.empty(10).share_memory_()
    recent = RecentBatches(on_device=False)
    for _ in range(5):
        recent.add([Fed(batch)])
    assert len(recent.windows) == 2


class WritesIntoItsBatch(TinyModule):
    """Scales its inputs in place: every run of the step begins with the batch as it was kept."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(x.mul_(2.0), y)


def test_a_step_that_writes_into_its_batch_sees_the_same_batch_in_every_trial():
    told = []
    batches = spoiled(healthy_batches(), [AT], "nan")
    fit(WritesIntoItsBatch, [(x.clone(), y) for x, y in batches], guard=strict_guard(on_incident=told.append))
    assert told[0].diagnosis.guilty_rows == (2,)


class CountsToThree(TinyModule):
    """Three classes, whose loss raises at a fourth."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        classes = torch.where(y[:, 0] > 100, 7, (y[:, 0] > 0).long())
        return F.cross_entropy(self.direction(x)[:, :3], classes)


def raising_run(module, guard, error=IndexError, callbacks=()):
    batches = healthy_batches()
    batches[AT][1][5] = 1000.0
    with pytest.raises(error):
        fit(lambda: module(OPTIMIZERS["SGD"]), batches, *callbacks, guard=guard)


def test_an_error_of_the_training_step_is_explained_and_still_raised():
    guard = strict_guard()
    raising_run(CountsToThree, guard)
    (incident,) = guard.incidents
    assert (incident.code, incident.step) == ("ENV703", AT)
    assert "IndexError: Target 7 is out of bounds" in incident.message
    assert (incident.diagnosis.cause.code, incident.diagnosis.guilty_rows) == ("DATA505", (5,))
    assert guard.summary["incidents"] == 1


class Misspells(TinyModule):
    """Asks for something that is not there, from a certain batch on."""

    def training_step(self, batch, batch_idx):
        if batch[1].max() > 100:
            return self.no_such_thing
        return super().training_step(batch, batch_idx)


def test_an_error_of_the_program_is_told_without_trials():
    guard = strict_guard()
    raising_run(Misspells, guard, AttributeError)
    (incident,) = guard.incidents
    assert incident.diagnosis.cause.code == "ENV703"
    assert incident.diagnosis.trials == ()
    assert "no_such_thing" in incident.diagnosis.describe()


def test_an_error_is_not_explained_to_those_who_want_no_explanations():
    guard = strict_guard(diagnose="never")
    raising_run(CountsToThree, guard)
    assert guard.incidents == ()


class Stumbles(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == AT:
            raise IndexError("mine")


def test_an_error_of_another_callback_is_no_incident():
    guard = strict_guard()
    raising_run(TinyModule, guard, callbacks=[Stumbles()])
    assert guard.incidents == ()
