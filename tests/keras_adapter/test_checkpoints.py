"""What other callbacks write and read: never poisoned, and a backup resumes the guard as well."""

import keras
import numpy as np
import pytest

from tests.keras_adapter.runs import compiled, data, finite, guard, same, state, train, with_fault, with_targets
from tests.keras_adapter.test_recovery import Breaker


def every_batch(folder):
    return keras.callbacks.ModelCheckpoint(f"{folder}/{{batch}}.weights.h5", save_weights_only=True, save_freq=1)


def loaded(path, **options):
    model = compiled(**options)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    return model


def test_no_checkpoint_holds_non_finite_weights_whoever_broke_them(tmp_path):
    options = {"optimizer": lambda: Breaker(0.01), "jit_compile": False}
    model, callback = compiled(**options), guard(snapshot_every_n_steps=2, probation_steps=1)
    train(model, data(), every_batch(tmp_path), callback)
    files = sorted(tmp_path.glob("*.weights.h5"))

    assert callback.summary["codes"]["NAN103"] == len(files) - 4  # the same update breaks them after every rollback
    assert all(finite(state(loaded(file, **options))) for file in files)


def test_a_checkpoint_after_a_skipped_step_is_a_plain_one(tmp_path):
    model = compiled()
    path = tmp_path / "model.keras"
    train(model, with_fault(data(), [9]), guard(), keras.callbacks.ModelCheckpoint(path))

    kept = keras.models.load_model(path)
    assert same(kept.get_weights(), model.get_weights())  # Keras does not restore the state of seeds
    assert len(kept.optimizer.variables) == len(model.optimizer.variables)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.keras"]


class KilledError(Exception):
    pass


class KillAfter(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KilledError


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "backup first"])
def test_a_backup_resumes_the_guard(tmp_path, first):
    arrays = with_targets(data(30), [20, 21, 22], 1e30)

    def callbacks():
        both = [guard(snapshot_every_n_steps=5, probation_steps=5), keras.callbacks.BackupAndRestore(tmp_path / "b")]
        return both if first else both[::-1]

    begun = callbacks()
    with pytest.raises(KilledError):
        train(compiled(), arrays, *begun, KillAfter(1), epochs=2)
    cut = begun[0 if first else 1].summary["lr_scale"]
    resumed = callbacks()
    model = compiled()
    train(model, data(30, seed=1), *resumed, epochs=2)
    callback = resumed[0 if first else 1]

    assert cut == 0.5
    assert callback.summary["lr_scale"] == cut
    assert callback.summary["rollbacks"] == 1
    assert callback.summary["steps"] == 60
    assert not (tmp_path / "b").exists()
    assert finite(state(model))


def test_averaged_weights_that_are_swapped_in_stay_clean(tmp_path):
    model = compiled(optimizer=lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    history = train(model, with_fault(data(), [3, 9]), guard(), swap, epochs=3, validation_data=data(seed=1))

    assert finite(state(model))
    assert np.isfinite(history["loss"] + history["val_loss"]).all()


def test_terminate_on_nan_stays_silent_and_the_log_file_is_finite(tmp_path):
    model, callback = compiled(), guard()
    log = tmp_path / "log.csv"
    others = [keras.callbacks.TerminateOnNaN(), keras.callbacks.CSVLogger(log), keras.callbacks.EarlyStopping("loss")]
    history = train(model, with_fault(data(), [3]), callback, *others, epochs=3)

    assert callback.summary["skipped_steps"] == len(history["loss"])
    assert "nan" not in log.read_text().splitlines()[1].lower()


def test_events_are_written(tmp_path):
    from nan_callbacks.core.events import read_events

    path = tmp_path / "logs" / "events.jsonl"
    callback = guard(events_path=path, diagnose="first")
    train(compiled(), with_fault(data(), [3]), callback)

    assert [event["event"] for event in read_events(path)] == ["incident", "diagnosis", "summary"]
    assert [event["event"] for event in callback.events] == ["incident", "diagnosis", "summary"]


class KillAtBatch(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            raise KilledError


def killed_and_resumed(folder, **options):
    """Three bad batches in a row right after a resume: where does the rollback go?"""
    settings = {"snapshot_every_n_steps": 5, "probation_steps": 5, **options}
    arrays = data(20)
    with pytest.raises(KilledError):
        train(
            compiled(seed=7),
            arrays,
            guard(**settings),
            keras.callbacks.BackupAndRestore(folder, save_freq=14),
            KillAtBatch(14),
        )
    files = sorted(file.name for file in folder.iterdir())
    model, callback = compiled(seed=7), guard(max_rollbacks=0, **settings)
    train(model, with_targets(arrays, [0, 1, 2], 1e30), callback, keras.callbacks.BackupAndRestore(folder))
    return files, model, callback


def test_a_rollback_shortly_after_a_resume_goes_to_a_state_from_before_it(tmp_path):
    files, model, callback = killed_and_resumed(tmp_path / "b")
    reference = compiled(seed=7)
    train(reference, tuple(each[: 5 * 8] for each in data(20)), guard())

    assert "nan_callbacks_snapshots.npz" in files
    assert callback.events[-2]["restored_step"] == 5
    # Five steps had been made when it was taken; the metrics are of another epoch.
    assert same(model.get_weights(), reference.get_weights())
    assert not (tmp_path / "b").exists()


def test_without_travelling_snapshots_a_resumed_run_begins_its_own(tmp_path):
    files, _, callback = killed_and_resumed(tmp_path / "b", checkpoint_snapshots="never")

    assert "nan_callbacks_snapshots.npz" not in files
    assert callback.events[-2]["restored_step"] == 14
