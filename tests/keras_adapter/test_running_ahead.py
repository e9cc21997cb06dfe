"""Where nobody looks at the end of a batch, a step may be judged later; nothing else may differ for that."""

import threading

import keras
import numpy as np
import pytest

from nan_callbacks.errors import TrainingStoppedError
from tests.keras_adapter.runs import (
    BACKEND,
    BATCH,
    compiled,
    data,
    finite,
    guard,
    kinds,
    same,
    state,
    train,
    with_fault,
    with_targets,
)


class Onlooker(keras.callbacks.Callback):
    """Has something to do at the end of each batch, so that Keras waits for the numbers of each step."""

    def on_train_batch_end(self, batch, logs=None):
        pass


QUICK = {"snapshot_every_n_steps": 5, "probation_steps": 5}
FAULTS = {
    "healthy": (data(30), {}),
    "one bad batch": (with_fault(data(30), [7]), {}),
    "the first": (with_fault(data(30), [0]), {}),
    "the last of an epoch": (with_fault(data(30), [29]), {}),
    "a rollback": (with_targets(data(30), [20, 21, 22], 1e30), QUICK),
    "a rollback at the end of an epoch": (with_targets(data(30), [27, 28, 29], 1e4), QUICK),
    "a stop": (with_fault(data(30), [7]), {"on_non_finite": "stop"}),
    "a stop at the end of an epoch": (with_fault(data(30), [29]), {"on_non_finite": "stop"}),
    "a budget that is spent": (with_targets(data(30), [20, 21, 22], 1e30), {**QUICK, "max_rollbacks": 0}),
}


CASES = [*((fault, 1) for fault in FAULTS), ("a rollback", 4), ("a stop", 4), ("one bad batch", 4)]


@pytest.mark.parametrize(("fault", "steps"), CASES if BACKEND == "jax" else CASES[1:2])  # others never run ahead
def test_nothing_differs_but_when_a_step_is_judged(fault, steps):
    arrays, settings = FAULTS[fault]
    watched, seen = compiled(steps_per_execution=steps), guard(**settings)
    expected = train(watched, arrays, seen, Onlooker(), epochs=2)
    model, callback = compiled(steps_per_execution=steps), guard(**settings)
    history = train(model, arrays, callback, epochs=2)

    assert kinds(callback) == kinds(seen)
    assert [event.get("step") for event in callback.events] == [event.get("step") for event in seen.events]
    assert callback.summary == seen.summary
    assert same(state(model), state(watched))
    np.testing.assert_equal(history, expected)  # NaN is the gradient norm of a bad batch


def test_the_verdict_waits_for_the_next_batch_where_the_device_runs_ahead():
    x, y = with_fault(data(30), [7])

    def order(*others):
        told = []

        class Told(keras.utils.PyDataset):
            def __len__(self):
                return 30

            def __getitem__(self, index):
                told.append(index)
                return x[index * BATCH : (index + 1) * BATCH], y[index * BATCH : (index + 1) * BATCH]

        model = compiled()
        told.clear()
        model.fit(Told(), callbacks=[guard(on_incident=lambda incident: told.append("verdict")), *others], verbose=0)
        return told.index("verdict")

    assert order() - order(Onlooker()) == (1 if BACKEND == "jax" else 0)


class Curious(keras.callbacks.Callback):
    """Asks before each batch, where Keras waits for nobody."""

    def __init__(self, callback, question):
        super().__init__()
        self.callback = callback
        self.question = question
        self.answers = []

    def on_train_batch_begin(self, batch, logs=None):
        self.answers.append(self.question(self.callback))


@pytest.mark.parametrize(
    "question",
    [
        lambda each: each.summary["skipped_steps"],
        lambda each: sum(event.get("event") == "incident" for event in each.events),
        lambda each: len(each.incidents),
    ],
    ids=["summary", "events", "incidents"],
)
def test_whoever_asks_is_told_of_every_step_so_far(question):
    callback = guard()
    curious = Curious(callback, question)
    train(compiled(), with_fault(data(10), [4]), callback, curious)

    assert curious.answers == [0] * 5 + [1] * 5


def test_weights_that_somebody_looks_at_are_judged_first():
    # The sixth to eighth batch lead to a rollback to the beginning, which the ninth must see done.
    arrays = with_targets(data(30), [20, 21, 22], 1e30)
    seen = {}

    class Looker(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 23:
                seen["weights"] = [np.array(weight) for weight in self.model.get_weights()]

    model, callback = compiled(), guard(max_rollbacks=3)
    before = [np.array(weight) for weight in model.get_weights()]
    train(model, arrays, callback, Looker())

    assert callback.summary["rollbacks"] == 1
    trained = {id(weight) for weight in model.trainable_weights}
    for weight, now, then in zip(model.weights, seen["weights"], before, strict=True):
        assert id(weight) not in trained or np.array_equal(now, then)


def test_giving_up_raises_out_of_fit_and_leaves_the_model_as_found():
    model, callback = compiled(), guard(on_non_finite="stop", on_give_up="raise")
    with pytest.raises(TrainingStoppedError):
        train(model, with_fault(data(10), [9]), callback)

    assert not {"jax_state_sync", "evaluate", "save"} & set(vars(model))
    assert finite(state(model))
    history = train(model, data(10))
    assert np.isfinite(history["loss"]).all()


def test_callbacks_in_threads_of_their_own_do_not_judge():
    judged_by = set()

    class Threaded(keras.callbacks.Callback):
        async_safe = True

        def __init__(self, callback):
            super().__init__()
            self.callback = callback

        def on_train_batch_end(self, batch, logs=None):
            assert self.callback.summary["steps"] >= batch

    callback = guard(on_incident=lambda incident: judged_by.add(threading.get_ident()))
    train(compiled(), with_fault(data(20), [3, 9]), callback, Threaded(callback))

    assert callback.summary["skipped_steps"] == 2
    assert judged_by == {threading.get_ident()}


def test_the_logs_of_a_dropped_batch_are_those_of_what_was_kept():
    class Reader(keras.callbacks.Callback):
        def __init__(self, *, async_safe):
            super().__init__()
            self.async_safe = async_safe
            self.read = {}

        def on_train_batch_end(self, batch, logs=None):
            self.read[batch] = {name: float(value) for name, value in (logs or {}).items()}

    ahead, waiting = Reader(async_safe=True), Reader(async_safe=False)
    train(compiled(), with_fault(data(10), [4]), guard(), ahead)
    train(compiled(), with_fault(data(10), [4]), guard(), waiting)

    assert ahead.read == waiting.read
    assert ahead.read[4] == ahead.read[3]


def test_what_a_late_verdict_has_put_back_stays_if_an_error_ends_the_fit():
    settings = {"max_rollbacks": 0, "on_give_up": "raise", "on_spike": "observe"}

    def ends(*others):
        model = compiled(plain_network, lambda: keras.optimizers.SGD(30.0))
        before = state(model)[:4]
        with pytest.raises(TrainingStoppedError):
            train(model, data(30), guard(**settings), *others)
        return before, state(model)[:4]

    for before, after in (ends(Onlooker()), ends()):
        assert same(before, after)


def plain_network():
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)])
