"""Tuners, evaluation, the sanity check, development runs, several fits: harmless, silent, nothing left behind."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, EarlyStopping, LearningRateFinder
from pytorch_lightning.tuner import Tuner
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.set_ups import (
    EvaluatedRegression,
    Regression,
    equal,
    make_batches,
    make_trainer,
    quiet_guard,
    weights,
)


class Tunable(EvaluatedRegression):
    """A module whose rate and batch size tuners may choose."""

    def __init__(self) -> None:
        super().__init__(lambda module: SGD(module.parameters(), lr=module.learning_rate))
        self.learning_rate = 0.01
        self.batch_size = 2

    def train_dataloader(self) -> DataLoader:
        inputs = torch.cat([batch[0] for batch in make_batches(8)])
        targets = torch.cat([batch[1] for batch in make_batches(8)])
        return DataLoader(TensorDataset(inputs, targets), batch_size=self.batch_size)

    val_dataloader = train_dataloader


def find_learning_rate(trainer: Trainer, module: Tunable) -> Any:
    finder = Tuner(trainer).lr_find(module, num_training=20)
    return finder.results, module.learning_rate


def scale_batch_size(trainer: Trainer, module: Tunable) -> Any:
    return Tuner(trainer).scale_batch_size(module, max_trials=1, steps_per_trial=1)


def validate(trainer: Trainer, module: Tunable) -> Any:
    return trainer.validate(module, make_batches(3, spoiled=[1]), verbose=False)


def evaluate(trainer: Trainer, module: Tunable) -> Any:
    return trainer.test(module, make_batches(3), verbose=False)


def predict(trainer: Trainer, module: Tunable) -> Any:
    return trainer.predict(module, make_batches(3))


ENTRY_POINTS = {
    "lr_find": find_learning_rate,
    "scale_batch_size": scale_batch_size,
    "validate": validate,
    "test": evaluate,
    "predict": predict,
}


@pytest.mark.filterwarnings("ignore:Failed to compute suggestion")
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_without_a_fit_the_guard_changes_nothing_says_nothing_and_writes_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def run(*guards: NaNGuard) -> tuple[str, list[Tensor], str]:
        module = Tunable()
        capsys.readouterr()
        result = ENTRY_POINTS[name](make_trainer(*guards, default_root_dir=tmp_path), module)
        return repr(result), weights(module), capsys.readouterr().out

    guard = NaNGuard(events_path=tmp_path / "events.jsonl", strict=True)
    plain, guarded = run(), run(guard)

    assert guarded[0].replace("nan", "NaN") == plain[0].replace("nan", "NaN")
    assert equal(guarded[1], plain[1])
    assert "NaNGuard" not in guarded[2]
    assert guard.events == []
    assert not list(tmp_path.glob("**/*"))


@pytest.mark.parametrize("find", [find_learning_rate, scale_batch_size])
def test_a_fit_after_tuning_is_guarded_from_its_first_step(find: Callable[..., Any], tmp_path: Path):
    guard, module = quiet_guard(), Tunable()
    trainer = make_trainer(guard, default_root_dir=tmp_path)
    find(trainer, module)
    trainer.fit(module, make_batches(6, spoiled=[0, 3]))

    assert guard.summary["steps"] == 6
    assert [event["step"] for event in guard.events if event["event"] == "incident"] == [0, 3]


def rate_finder() -> Callback:
    return LearningRateFinder(num_training_steps=20)


def size_finder() -> Callback:
    return BatchSizeFinder(max_trials=1, steps_per_trial=1)


@pytest.mark.parametrize(("finder", "guard_first"), [(rate_finder, True), (rate_finder, False), (size_finder, True)])
def test_tuning_callbacks_work_beside_the_guard(finder: Callable[[], Callback], guard_first: bool, tmp_path: Path):
    def fit(*guards: NaNGuard) -> list[Tensor]:
        module = Tunable()
        callbacks = [*guards, finder()] if guard_first else [finder(), *guards]
        make_trainer(*callbacks, default_root_dir=tmp_path).fit(module)
        return weights(module)

    guard = quiet_guard()
    assert equal(fit(guard), fit())
    assert guard.summary["steps"] > 0
    assert guard.summary["incidents"] == 0


@pytest.mark.parametrize("steps", [True, 3])
def test_a_development_run_is_left_alone(steps: int | bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def fit(*guards: NaNGuard) -> list[Tensor]:
        module = EvaluatedRegression()
        make_trainer(*guards, fast_dev_run=steps).fit(module, make_batches(3, spoiled=[0]), make_batches(1))
        return weights(module)

    guard = NaNGuard(events_path=tmp_path / "events.jsonl", strict=True)
    assert list(map(str, fit(guard))) == list(map(str, fit()))
    assert guard.events == []
    assert not list(tmp_path.iterdir())
    assert "NaNGuard" not in capsys.readouterr().out


def test_the_sanity_check_is_not_judged():
    guard = quiet_guard(on_non_finite="stop")
    trainer = make_trainer(guard, num_sanity_val_steps=2)
    trainer.fit(EvaluatedRegression(), make_batches(4), make_batches(2, spoiled=[0, 1]))

    assert guard.summary["steps"] == 4
    assert guard.summary["incidents"] == 0


def test_every_fit_has_a_record_of_its_own():
    guard = quiet_guard()
    make_trainer(guard).fit(Regression(), make_batches(6, spoiled=[2, 4]))
    assert (guard.summary["steps"], guard.summary["skipped_steps"]) == (6, 2)

    trainer = make_trainer(guard)
    trainer.fit(Regression(), make_batches(4))
    assert (guard.summary["steps"], guard.summary["skipped_steps"]) == (4, 0)
    assert [event["event"] for event in guard.events] == ["summary"]

    trainer.fit_loop.max_epochs = 2
    trainer.fit(Regression(), make_batches(4, spoiled=[1]))
    assert (guard.summary["steps"], guard.summary["skipped_steps"]) == (4, 1)


def test_a_guard_that_had_to_step_aside_guards_the_next_fit():
    class BreakTheGuard(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if guard._session is not None:
                guard._session.window = None

    guard = NaNGuard(verbose=False)
    make_trainer(BreakTheGuard(), guard).fit(Regression(), make_batches(4))
    assert guard.is_aside

    make_trainer(guard).fit(Regression(), make_batches(4, spoiled=[1]))
    assert not guard.is_aside
    assert guard.summary["skipped_steps"] == 1


def test_a_module_can_bring_the_guard_itself():
    class BringsAGuard(Regression):
        def configure_callbacks(self) -> list[Any]:
            return [guard]

    guard = quiet_guard()
    make_trainer().fit(BringsAGuard(), make_batches(6, spoiled=[2]))

    assert guard.summary["skipped_steps"] == 1


def test_two_guards_in_one_trainer_are_refused():
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `NaNGuard`"):
        make_trainer(quiet_guard(), quiet_guard())


def test_other_stateful_callbacks_keep_their_own_state():
    guard, stopping = quiet_guard(), EarlyStopping("nan_callbacks/incidents", check_on_train_epoch_end=True)
    trainer = make_trainer(guard, stopping)
    trainer.fit(Regression(), make_batches(4))

    states = trainer._checkpoint_connector.dump_checkpoint()["callbacks"]
    assert states[stopping.state_key]["best_score"] == 0
    assert states["nan_callbacks.NaNGuard"]["monitor"]["step"] == 4


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard))])
@pytest.mark.parametrize("fitted", [False, True], ids=["before a fit", "after a fit"])
def test_a_copy_of_a_guard_works_as_the_original(copied: Callable[[NaNGuard], NaNGuard], fitted: bool):
    original = NaNGuard(max_rollbacks=7, strict=True)
    if fitted:
        make_trainer(original).fit(Regression(), make_batches(4, spoiled=[1]))
    twin = copied(original)
    make_trainer(twin).fit(Regression(), make_batches(6, spoiled=[2, 4]))

    assert twin.config == original.config
    assert twin.summary["skipped_steps"] == 2
    assert original.summary["skipped_steps"] == (1 if fitted else 0)


def test_the_run_is_left_as_it_was_found():
    class Look(Callback):
        def __init__(self) -> None:
            self.seen: list[set[str]] = []

        def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
            self.seen.append({*vars(trainer), *vars(trainer.precision_plugin)})

        on_fit_end = on_fit_start

    look = Look()
    make_trainer(quiet_guard(), look).fit(Regression(), make_batches(4, spoiled=[1]))

    assert look.seen[0] == look.seen[1]
