"""A fit that breaks off leaves the model as it was found, wherever the error comes from."""

import keras
import numpy as np
import pytest

from tests.keras_adapter.runs import (
    BACKEND,
    BATCH,
    compiled,
    data,
    finite,
    guard,
    same,
    state,
    train,
    with_fault,
    without,
)

ERRORS = [KeyError("boom"), KeyboardInterrupt("boom")]
HOOKS = [
    "on_train_begin",
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_batch_end",
    "on_epoch_end",
]


class Boom(keras.callbacks.Callback):
    def __init__(self, hook, error):
        super().__init__()
        setattr(self, hook, self.fail)
        self.error = error
        self.calls = 0

    def fail(self, *args, logs=None):
        self.calls += 1
        if not args or self.calls > 3 or isinstance(args[0], dict | None):
            raise self.error

    def on_train_batch_end(self, batch, logs=None):
        """Overridden, so that no callback is called from another thread."""


def objects_of(model):
    """Everything that a guard could leave behind, by name."""
    tracker = model._loss_tracker
    found = {"train_function": model.train_function, "train_step": model.train_step.__func__}
    for name, owner in {"model": model, "optimizer": model.optimizer, "tracker": tracker}.items():
        found.update({f"{name}.{key}": None for key in vars(owner) if key not in ("_eval_epoch_iterator", "history")})
    return found


def left_as_found(model, before):
    now = objects_of(model)
    return now.keys() == before.keys() and now["train_function"] is before["train_function"]


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
@pytest.mark.parametrize("hook", HOOKS)
def test_by_another_callback(hook, first):
    model, callback = compiled(), guard()
    train(model, data(), validation_data=data(seed=1))
    before = objects_of(model)
    error = ERRORS[HOOKS.index(hook) % 2]
    both = [callback, Boom(hook, error)][:: 1 if first else -1]
    with pytest.raises(type(error), match="boom"):
        train(model, data(), *both, epochs=5, validation_data=data(seed=1))

    assert left_as_found(model, before)
    assert callback._session is None


def broken_after(batches, error):
    x, y = data()

    def generate():
        yield from zip(np.split(x, 10)[:batches], np.split(y, 10)[:batches], strict=True)
        raise error

    return generate()


@pytest.mark.parametrize("kind", ["training", "validation"])
def test_by_the_data(kind):
    model, callback = compiled(), guard()
    train(model, data(), validation_data=data(seed=1))
    before = objects_of(model)
    broken = broken_after(3, KeyError("boom"))
    options = {"steps_per_epoch": 10, "verbose": 0, "callbacks": [callback]}
    arguments = [broken] if kind == "training" else data()
    if kind == "validation":
        options.update(validation_data=broken, validation_steps=10, batch_size=BATCH)
    with pytest.raises(Exception, match="boom"):
        model.fit(*arguments, **options)

    assert left_as_found(model, before)
    assert callback._session is None
    assert finite(state(model))


def test_weights_and_moments_go_on_from_where_they_were():
    """Three batches, an error, the rest without a guard: the run without any of that."""
    model, reference = compiled(), compiled()
    with pytest.raises(KeyError):
        train(model, data(), guard(), Boom("on_train_batch_begin", KeyError("boom")))
    train(model, tuple(each[3 * BATCH :] for each in data()), guard())
    train(reference, tuple(each[: 3 * BATCH] for each in data()), guard())
    train(reference, tuple(each[3 * BATCH :] for each in data()), guard())

    assert same(state(model), state(reference))


def test_a_later_fit_is_guarded_anew():
    model, callback = compiled(), guard()
    with pytest.raises(KeyError):
        train(model, data(), callback, Boom("on_train_batch_begin", KeyError("boom")))
    train(model, with_fault(data(), [3]), callback)

    assert callback.summary["skipped_steps"] == 1
    assert callback.summary["steps"] == 10
    train(model, with_fault(data(), [3]))
    assert not finite(state(model))


def test_validation_within_a_users_own_try_goes_on_under_guard():
    class Curious(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            try:
                self.model.evaluate(broken_after(1, KeyError("boom")), steps=3, verbose=0)
            except Exception:
                self.seen = True

    model, callback, curious = compiled(), guard(), Curious()
    train(model, with_fault(data(), [3]), callback, curious)

    assert curious.seen
    assert callback.summary["skipped_steps"] == 1


def test_a_list_of_callbacks_of_the_users_own_serves_several_fits():
    model, callback = compiled(), guard()
    mine = keras.callbacks.CallbackList([callback], model=model, add_history=True, epochs=1, steps=10, verbose=0)
    for _ in range(2):
        model.fit(*with_fault(data(), [3]), batch_size=BATCH, shuffle=False, verbose=0, callbacks=mine)
        assert callback.summary["skipped_steps"] == 1
    reference = compiled()
    for _ in range(2):
        train(reference, without(data(), [3]), guard())

    if BACKEND != "torch":  # unseeded noise draws from the global stream, which the batches' order shares there
        assert same(state(model), state(reference))
