"""What other callbacks see of the guard."""

import keras
import numpy as np
import pytest

from nan_callbacks.keras import NaNGuard
from tests.keras_adapter.runs import compiled, data, guard, train, with_fault

KEYS = {f"nan_callbacks/{name}" for name in ("incidents", "skipped_steps", "rollbacks", "lr_scale", "grad_norm")}


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def ours(logs):
    return {name for name in logs if name.startswith("nan_callbacks/")}


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
def test_batches_show_values_every_n_steps(first):
    recorder, callback = Recorder(), guard(log_every_n_steps=4)
    history = train(
        compiled(), with_fault(data(), [2]), *[callback, recorder][:: 1 if first else -1], epochs=2
    )  # 10 batches an epoch

    shown = [index for index, logs in enumerate(recorder.batches) if ours(logs)]
    assert shown == [3, 7, 11, 15, 19]
    assert all(ours(recorder.batches[index]) == KEYS for index in shown)
    assert [recorder.batches[index]["nan_callbacks/skipped_steps"] for index in shown] == [1, 1, 1, 2, 2]
    assert all(ours(logs) == KEYS for logs in recorder.epochs)
    assert history["nan_callbacks/skipped_steps"] == [1, 2]
    assert set(history) == KEYS | {"loss", "mae"}


def test_the_history_of_a_fit_with_incidents_is_the_same_whether_or_not_values_were_asked_for():
    plain = train(compiled(), with_fault(data(), [2]), guard(), epochs=2)
    shown = train(compiled(), with_fault(data(), [2]), guard(log_every_n_steps=1), epochs=2)

    assert ours(plain) == KEYS
    assert shown == plain


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
def test_nothing_is_shown_that_nobody_asked_for(first):
    recorder = Recorder()
    history = train(compiled(), data(), *[guard(), recorder][:: 1 if first else -1], epochs=2)

    assert not any(ours(logs) for logs in [*recorder.batches, *recorder.epochs])
    assert set(history) == {"loss", "mae"}


def columns(path, *callbacks):
    log = keras.callbacks.CSVLogger(path)
    train(compiled(), with_fault(data(), [2]), *[log if each is None else each for each in callbacks], epochs=2)
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return {name: [row[index] for row in rows] for index, name in enumerate(header)}


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
def test_a_log_file_has_a_column_for_each_value_if_they_are_asked_for(tmp_path, first):
    silent = columns(tmp_path / "silent.csv", *[guard(), None][:: 1 if first else -1])
    asked = columns(tmp_path / "asked.csv", *[guard(log_every_n_steps=5), None][:: 1 if first else -1])

    assert not ours(silent)
    assert set(asked) >= KEYS
    assert [float(value) for value in asked["nan_callbacks/incidents"]] == [1, 2]


def test_early_stopping_can_monitor_a_value():
    stop = keras.callbacks.EarlyStopping("nan_callbacks/skipped_steps", mode="min", patience=1)
    history = train(compiled(), with_fault(data(), [2]), guard(log_every_n_steps=5), stop, epochs=6)

    assert len(history["loss"]) == 2


def test_the_progress_bar_is_as_short_as_without_us(capsys):
    train(compiled(), data(), NaNGuard(log_every_n_steps=1), verbose=1)
    out = capsys.readouterr().out

    assert "loss:" in out
    assert "nan_callbacks" not in out


def test_the_history_has_one_value_per_epoch_whatever_happens():
    history = train(compiled(), with_fault(data(), [9]), guard(), epochs=3)

    assert {len(values) for values in history.values()} == {3}
    assert np.isfinite(history["loss"]).all()
