"""What the guard explains, to whom, and that explaining changes nothing."""

import keras
import numpy as np
import pytest

import nan_callbacks
from nan_callbacks.cli import main
from nan_callbacks.diagnosis.origin import OriginKind
from nan_callbacks.errors import NaNCallbacksError
from nan_callbacks.keras import NaNGuard
from nan_callbacks.keras.examiner import Examination
from nan_callbacks.keras.recent import RecentBatches
from tests.keras_adapter.runs import (
    BACKEND,
    BATCH,
    compiled,
    data,
    guard,
    same,
    state,
    train,
    with_fault,
    with_targets,
    without,
)


def explaining(**options):
    """The guard with its default, on every backend."""
    return guard(diagnose="on_incident", **options)


def factory():
    """What `nan-callbacks replay --model` is given."""
    return compiled()


MODES = {"auto": {"jit_compile": "auto"}, "no jit": {"jit_compile": False}, "eagerly": {"run_eagerly": True}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [lambda: with_fault(data(), [3, 6]), lambda: with_targets(data(), [7], 1e4)])
def test_explaining_changes_nothing(mode, fault):
    silent, explained = compiled(**MODES[mode]), compiled(**MODES[mode])
    mute, voice = guard(diagnose="never"), explaining()
    expected = train(silent, fault(), mute)
    history = train(explained, fault(), voice)

    assert same(state(explained), state(silent))
    assert history == expected
    assert voice.summary == mute.summary
    assert all(incident.diagnosis is None for incident in mute.incidents)
    assert voice.incidents[0].diagnosis.cause is not None


def test_an_explained_batch_was_never_drawn():
    faulty = with_fault(data(), [3])
    model, reference = compiled(), compiled()
    train(model, faulty, explaining())
    train(reference, without(faulty, [3]), explaining())
    assert same(state(model), state(reference))


def test_a_rollback_after_an_explanation_is_the_same():
    settings = {"snapshot_every_n_steps": 3, "probation_steps": 2}
    silent, explained = compiled(), compiled()
    mute, voice = guard(diagnose="never", **settings), explaining(**settings)
    train(silent, with_targets(data(), [6, 7, 8], 1e30), mute)
    train(explained, with_targets(data(), [6, 7, 8], 1e30), voice)
    assert voice.summary["rollbacks"] == 1
    assert same(state(explained), state(silent))


def test_incidents_are_records_with_their_diagnosis():
    told = []
    callback = explaining(on_incident=told.append)
    train(compiled(), with_fault(data(), [3, 6]), callback)
    assert [incident.step for incident in callback.incidents] == [3, 6]
    assert tuple(told) == callback.incidents
    first = callback.incidents[0]
    assert (first.code, first.action, first.diagnosis.guilty_rows) == ("NAN101", "skip_step", (1,))
    assert first.diagnosis.origin.kind is OriginKind.BATCH
    train(compiled(), data(), callback)
    assert callback.incidents == ()


class Asks(keras.callbacks.Callback):
    def __init__(self, guard):
        super().__init__()
        self.guard, self.answer = guard, None

    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            self.answer = self.guard.diagnose()


def test_asking_during_the_fit_changes_nothing():
    plain, asked, callback = compiled(), compiled(), explaining()
    train(plain, data(), explaining())
    asks = Asks(callback)
    train(asked, data(), callback, asks)
    assert same(state(asked), state(plain))
    assert asks.answer.steps_spent > 0
    assert [event["event"] for event in callback.events] == ["diagnosis", "summary"]


def test_asking_after_the_fit_looks_at_the_last_batch():
    model, callback = compiled(), explaining()
    train(model, data(), callback)
    before = state(model)
    assert callback.diagnose().steps_spent > 0
    assert same(state(model), before)


def test_without_a_fit_there_is_nothing_to_ask_about():
    with pytest.raises(NaNCallbacksError, match="expected a fit with this guard"):
        NaNGuard().diagnose()


def test_an_error_of_the_diagnosis_leaves_the_guard_on_its_post(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("our own mistake")

    monkeypatch.setattr(Examination, "replay", broken)
    silent, guarded, callback = compiled(), compiled(), NaNGuard(verbose=False)
    train(silent, with_fault(data(), [3, 6]), guard(diagnose="never"))
    train(guarded, with_fault(data(), [3, 6]), callback)
    assert not callback.is_aside
    assert callback.summary["skipped_steps"] == 2
    assert same(state(guarded), state(silent))
    assert sum("our own mistake" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(RuntimeError, match="our own mistake"):
        train(compiled(), with_fault(data(), [3]), explaining())


def test_a_step_can_be_examined_on_its_own():
    model = compiled()
    x, y = data(1)
    x[5, 0] = np.inf
    diagnosis = nan_callbacks.diagnose_step(model, (x, y))
    before = state(model)
    again = nan_callbacks.diagnose_step(model, (x, y), recent=[data(1, seed=1)])
    assert (diagnosis.cause.code, diagnosis.guilty_rows) == ("DATA501", (5,))
    assert again.cause.code == "DATA501"
    assert same(state(model), before)
    with pytest.raises(NaNCallbacksError, match="a compiled Keras model"):
        nan_callbacks.diagnose_step(keras.Sequential([keras.layers.Dense(1)]), (x, y))


def classifier():
    layers = keras.layers
    return compiled(
        lambda: keras.Sequential([layers.Input((4,)), layers.Dense(3, "softmax")]),
        loss="sparse_categorical_crossentropy",
        metrics=[],
        jit_compile=False,
    )


def with_a_fourth_class(batches, wrong):
    y = np.arange(batches * BATCH) % 3
    y[wrong] = 7
    return data(batches)[0], y.astype("int32")


if BACKEND != "jax":  # which answers an index out of range with zeros, so that nothing fails

    def test_a_label_out_of_range_is_found():
        diagnosis = nan_callbacks.diagnose_step(classifier(), with_a_fourth_class(1, 4))
        assert diagnosis.cause.code == "DATA505"

    def test_an_error_of_the_training_step_is_explained_and_still_raised():
        callback = explaining()
        with pytest.raises(Exception, match=r"7|range|bounds"):
            train(classifier(), with_a_fourth_class(6, 3 * BATCH + 5), callback)
        (incident,) = callback.incidents
        assert (incident.code, incident.step) == ("ENV703", 3)
        assert (incident.diagnosis.cause.code, incident.diagnosis.guilty_rows) == ("DATA505", (5,))


if BACKEND == "torch":  # whose cross-entropy raises at a probability that is NaN

    def test_a_nan_that_makes_the_step_raise_is_named_as_the_cause():
        model = compiled(binary_classifier, loss="binary_crossentropy", metrics=[])
        x, y = with_fault(data(6), [3])
        callback = explaining()
        with pytest.raises(RuntimeError, match="between 0 and 1"):
            train(model, (x, (y > 0).astype("float32")), callback)
        (incident,) = callback.incidents
        assert (incident.code, incident.step) == ("ENV703", 3)
        assert (incident.diagnosis.cause.code, incident.diagnosis.guilty_rows) == ("DATA501", (1,))

    def test_a_model_that_is_frozen_as_a_whole_is_not_called_a_strange_step():
        with pytest.warns(UserWarning, match="no weight of this model is trained"):
            train(compiled(frozen), data(2), explaining())


def test_a_teacher_that_was_broken_from_the_start_is_named_at_once():
    model = compiled(with_a_broken_teacher, metrics=[])
    callback = explaining(max_rollbacks=0)
    train(model, data(4), callback)
    diagnosis = callback.incidents[0].diagnosis
    assert (diagnosis.cause.code, diagnosis.origin.operation) == ("NAN103", "teacher/kernel")
    assert "_torch_params" not in diagnosis.describe()
    assert diagnosis.trials == ()


def with_a_broken_teacher():
    layers = keras.layers
    inputs, teacher = layers.Input((4,)), layers.Dense(1, name="teacher", trainable=False)
    model = keras.Model(inputs, layers.Add()([layers.Dense(1)(inputs), teacher(inputs)]))
    kernel, bias = teacher.get_weights()
    kernel[1] = np.nan
    teacher.set_weights([kernel, bias])
    return model


def binary_classifier():
    layers = keras.layers
    return keras.Sequential([layers.Input((4,)), layers.Dense(1, "sigmoid")])


def frozen():
    model = binary_classifier()
    model.trainable = False
    return model


def test_a_saved_step_is_examined_again(tmp_path, capsys):
    train(compiled(), with_fault(data(), [3]), explaining(save_batch=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["step_000003"]
    assert main(["replay", str(tmp_path / "step_000003"), "--model", f"{__name__}:factory"]) == 0
    printed = capsys.readouterr().out
    assert "step 3 · NAN101" in printed
    assert "non-finite data (DATA501, confirmed)" in printed
    assert "sample 1" in printed
    assert main(["replay", str(tmp_path / "step_000003"), "--model", f"{__name__}:other"]) == 2
    assert "expected" in capsys.readouterr().err


def other():
    layers = keras.layers
    return compiled(lambda: keras.Sequential([layers.Input((4,)), layers.Dense(1)]))


def test_recent_batches_are_bounded():
    recent = RecentBatches()
    for size in (10,) * 12:
        recent.add((np.zeros(size, "float32"),))
    assert len(recent.batches) == 8
    recent = RecentBatches()
    recent.add((np.lib.stride_tricks.as_strided(np.zeros(1, "float32"), (2**25,), (0,)),))
    recent.add((np.zeros(3),))
    assert len(recent.batches) == 2
