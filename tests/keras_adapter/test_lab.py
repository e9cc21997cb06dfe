"""The laboratory of a Keras model: every variation does what it says, and leaves nothing behind."""

import math
import random

import keras
import numpy as np
import pytest

from nan_callbacks.diagnosis.lab import Half, Start, Variation
from nan_callbacks.diagnosis.origin import OriginKind
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_batch import Changes
from tests.keras_adapter.runs import BACKEND, BATCH, compiled, data, network, same, state, train

VARIATIONS = {
    "same": Variation(),
    "without-rows": Variation(without_rows=(2,)),
    "only-rows": Variation(only_rows=(1, 3, 5)),
    "other-batch": Variation(other_batch=True),
    "standardise": Variation(standardise=True),
    "input-scale": Variation(input_scale=0.5),
    "target-scale": Variation(target_scale=2.0),
    "clip-targets": Variation(clip_targets=True),
    "float64": Variation(dtype="float64"),
    "fresh": Variation(start=Start.FRESH),
    "steps": Variation(steps=4, other_batch=True),
    "steps-lr": Variation(steps=4, other_batch=True, lr_factor=0.1),
    "steps-clipped": Variation(steps=4, other_batch=True, clip_norm=0.01),
    "steps-float64": Variation(steps=3, other_batch=True, dtype="float64"),
    "steps-fresh": Variation(steps=3, other_batch=True, start=Start.FRESH),
}


def batches():
    x, y = data()
    whole = keras.ops.convert_to_tensor
    return [(whole(x[at : at + BATCH]), whole(y[at : at + BATCH])) for at in range(0, len(x), BATCH)]


def bad_batch():
    x, y = data()
    x[2, 1] = np.nan
    return keras.ops.convert_to_tensor(x[:BATCH]), keras.ops.convert_to_tensor(y[:BATCH])


class Counting(keras.Model):
    """Changes Python attributes in its step, as custom steps do."""

    def __init__(self):
        super().__init__()
        self.inner = network()
        self.count, self.seen = 0, []

    def call(self, x, training=False):
        self.count += 1
        self.seen.append(self.count)
        return self.inner(x, training=training)


class CustomStep(Counting):
    """Keras' step, called from the user's own."""

    def train_step(self, *args):
        self.count += 10
        return super().train_step(*args)


def streams():
    kept = [random.getstate(), tuple(np.random.get_state()[1])]  # noqa: NPY002
    if BACKEND == "torch":
        import torch

        kept.append(tuple(torch.get_rng_state().tolist()))
    return kept


def metric_values(model):
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in model.metrics_variables]


@pytest.mark.parametrize("make", [network, Counting, CustomStep])
def test_no_variation_leaves_anything_behind(make):
    model = compiled(make, lambda: keras.optimizers.Adam(0.01, global_clipnorm=1.0))
    train(model, data(4))
    before, metrics, function, drawn = state(model), metric_values(model), model.train_function, streams()
    attributes = {name: list(value) if isinstance(value, list) else value for name, value in vars(model).items()}
    lab = KerasLab(model, bad_batch(), batches()[:6])

    trials = {name: lab.run(variation) for name, variation in VARIATIONS.items()}
    replay, layers = lab.replay(), lab.layers()

    assert same(state(model), before)
    assert same(metric_values(model), metrics)
    assert model.train_function is function
    assert streams() == drawn
    assert {
        name: list(value) if isinstance(value, list) else value for name, value in vars(model).items()
    } == attributes
    assert {name: trial.note or trial.raised for name, trial in trials.items() if trial.note or trial.raised} == {}
    assert all(len(trial.losses) == max(trial.variation.steps, 1) for trial in trials.values())
    assert all(len(trial.grad_norms) == len(trial.losses) for trial in trials.values())
    assert math.isnan(trials["same"].grad_norms[0])
    assert math.isnan(trials["float64"].losses[0])
    assert math.isfinite(trials["without-rows"].grad_norms[0])
    assert math.isfinite(trials["only-rows"].losses[0])
    assert replay.origin.kind is OriginKind.BATCH
    assert [layer.name.rpartition("/")[2].partition("_")[0] for layer in layers] == [
        "dense", "batch", "dropout", "gaussian", "dense",
    ]  # fmt: skip
    assert lab.rows == BATCH
    assert lab.step_seconds > 0


def test_the_run_goes_on_as_if_no_laboratory_had_been_there():
    class InLab(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                lab = KerasLab(self.model, bad_batch(), batches()[:6])
                self.trials = [lab.run(variation) for variation in VARIATIONS.values()]

    plain, held, callback = compiled(), compiled(), InLab()
    expected = train(plain, data())
    history = train(held, data(), callback)

    assert all(trial.supported for trial in callback.trials)
    assert same(state(held), state(plain))
    assert history == expected


def linear(optimizer=lambda: keras.optimizers.SGD(0.1)):
    layers = keras.layers
    return compiled(lambda: keras.Sequential([layers.Input((4,)), layers.Dense(1, use_bias=False)]), optimizer)


def by_hand(x, y, weights):
    """Loss and gradient of a linear model."""
    error = x @ weights - y
    return float(np.mean(error**2)), 2 * x.T @ error / len(x)


def host(batch):
    return [np.array(keras.ops.convert_to_numpy(part), "float64") for part in batch]


def test_each_change_is_the_one_that_its_name_says():
    model, recent, failed = linear(), batches()[:3], batches()[5]
    lab = KerasLab(model, failed, recent)
    weights = state(model)[0].astype("float64")
    x, y = host(failed)

    def expect(variation, x, y):
        trial = lab.run(variation)
        loss, gradient = by_hand(x, y, weights)
        assert trial.losses[0] == pytest.approx(loss, rel=1e-4), variation.describe()
        assert trial.grad_norms[0] == pytest.approx(np.linalg.norm(gradient), rel=1e-4), variation.describe()

    past = np.concatenate([host(batch)[0] for batch in recent])
    usual = np.concatenate([host(batch)[1] for batch in recent])
    expect(Variation(), x, y)
    expect(Variation(without_rows=(0, 3)), np.delete(x, [0, 3], 0), np.delete(y, [0, 3], 0))
    expect(Variation(only_rows=(6, 1)), x[[6, 1]], y[[6, 1]])
    expect(Variation(other_batch=True), *host(recent[-1]))
    expect(Variation(input_scale=0.25), 0.25 * x, y)
    expect(Variation(target_scale=3.0), x, 3.0 * y)
    expect(Variation(clip_targets=True), x, y.clip(usual.min(), usual.max()))
    expect(Variation(standardise=True), (x - past.mean(0)) / past.std(0), y)


def test_steps_are_taken_over_recent_batches_and_the_failed_one_last():
    recent, failed = batches()[:2], batches()[5]
    model = linear()
    weights = state(model)[0].astype("float64")

    def losses(factor=1.0, limit=math.inf):
        moved, found = weights.copy(), []
        for batch in (recent[0], recent[1], recent[0], failed):
            loss, gradient = by_hand(*host(batch), moved)
            found.append(loss)
            moved -= 0.1 * factor * gradient * min(1.0, limit / np.linalg.norm(gradient))
        return found

    lab = KerasLab(model, failed, recent)
    assert lab.run(Variation(steps=4)).losses == pytest.approx(losses(), rel=1e-4)
    assert lab.run(Variation(steps=4, lr_factor=0.1)).losses == pytest.approx(losses(0.1), rel=1e-4)
    assert lab.run(Variation(steps=4, clip_norm=0.5)).losses == pytest.approx(losses(1.0, 0.5), rel=1e-4)
    cut = KerasLab(model, failed, recent, lr_scale=0.25)
    assert cut.run(Variation(steps=4)).losses == pytest.approx(losses(0.25), rel=1e-4)


def test_a_half_that_is_held_out_is_measured_after_steps_over_the_other():
    batched = batches()[:3]
    recent, failed = batched[:2], batched[2]
    model = linear()
    weights = state(model)[0].astype("float64")
    for half, used, held in ((Half.NEWER, batched[:1], batched[1:]), (Half.OLDER, batched[1:], batched[:1])):
        moved = weights.copy()
        for step in range(3):
            moved -= 0.1 * by_hand(*host(used[step % len(used)]), moved)[1]
        for steps, there in ((3, moved), (0, weights)):
            trial = KerasLab(model, failed, recent).run(Variation(steps=steps, held_out=half))
            assert trial.held_out == pytest.approx([by_hand(*host(batch), there)[0] for batch in held], rel=1e-4)


def test_a_trial_can_begin_with_a_snapshot_and_with_fresh_weights():
    model = linear()
    kernel = model.trainable_variables[0]
    saved = {id(kernel): keras.ops.zeros((4, 1))}
    lab = KerasLab(model, batches()[0], trusted=lambda: saved)
    _, y = host(batches()[0])
    assert lab.run(Variation(start=Start.SNAPSHOT)).losses[0] == pytest.approx(float(np.mean(y**2)), rel=1e-5)
    kernel.assign(kernel * 1e7)
    lab = KerasLab(model, batches()[0])
    assert lab.run(Variation()).losses[0] > 1e12
    assert lab.run(Variation(start=Start.FRESH)).losses[0] < 1e3
    assert lab.run(Variation(start=Start.SNAPSHOT)).losses == lab.run(Variation()).losses


def test_what_cannot_be_done_is_said():
    model = linear()
    lab = KerasLab(model, batches()[0])
    for variation, note in [
        (Variation(other_batch=True), "no recent batch was kept"),
        (Variation(only_rows=()), "no row of the batch would be left"),
        (Variation(clip_targets=True), "no recent batch was kept"),
        (Variation(dtype="float8"), "float8 is not one of"),
        (Variation(nudge=1e-3), "operands cannot be changed"),
    ]:
        trial = lab.run(variation)
        assert not trial.supported
        assert note in trial.note


def test_an_error_of_the_model_is_a_result():
    class Fails(keras.layers.Layer):
        def call(self, x):
            if x.shape[0] == BATCH:
                raise KeyError("mine")
            return x

    model = compiled(lambda: keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)]))
    train(model, data(1))
    failing = Fails()
    model.call_fails = failing
    original = model.call
    object.__setattr__(model, "call", lambda x, *args, **kwargs: original(failing(x), *args, **kwargs))
    lab = KerasLab(model, batches()[0])
    assert lab.run(Variation()).raised.startswith("KeyError")
    assert lab.run(Variation(without_rows=(0,))).raised == ""


def test_half_precision_can_be_taken_away():
    with_half = {"dtype": "mixed_float16"}
    model = compiled(
        lambda: keras.Sequential(
            [keras.layers.Input((4,)), keras.layers.Dense(1, **with_half), keras.layers.Rescaling(1e6, **with_half)]
        ),
        lambda: keras.optimizers.SGD(1e-20),
    )
    before = state(model)
    lab = KerasLab(model, batches()[0])
    assert not math.isfinite(lab.run(Variation()).losses[0])
    assert math.isfinite(lab.run(Variation(dtype="float32")).losses[0])
    assert math.isfinite(lab.run(Variation(dtype="float64", steps=2)).losses[-1])
    assert same(state(model), before)
    assert model.layers[-1].compute_dtype == "float16"
    assert keras.config.floatx() == "float32"


def test_nested_batches_and_sample_weights():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = compiled(lambda: keras.Model({"a": a, "b": b}, keras.layers.Dense(1)(keras.layers.Add()([a, b]))))
    x, y = (np.array(part, "float32") for part in host(batches()[0]))
    spoiled = x.copy()
    spoiled[5] = np.inf
    batch = ({"a": x, "b": spoiled}, y, np.ones(len(x), "float32"))
    lab = KerasLab(model, keras.tree.map_structure(keras.ops.convert_to_tensor, batch))
    assert not math.isfinite(lab.run(Variation()).grad_norms[0])
    assert math.isfinite(lab.run(Variation(without_rows=(5,))).grad_norms[0])


@pytest.mark.parametrize(("steps", "is_time"), [(16, True), (15, False)])
def test_sequences_are_reversed_and_targets_are_not(steps, is_time):
    values = np.arange(4 * steps).reshape(4, steps)
    batch = (keras.ops.convert_to_tensor(values, "int32"), keras.ops.convert_to_tensor(values, "int32"))
    x, y = Changes([batch], batch).reverse_time(batch)
    assert np.array_equal(keras.ops.convert_to_numpy(x), values[:, ::-1]) is is_time
    assert np.array_equal(keras.ops.convert_to_numpy(y), values)
