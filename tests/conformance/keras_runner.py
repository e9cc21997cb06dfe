"""Runs a scenario on Keras, on whatever backend the process has."""

from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from nan_callbacks.errors import TrainingStoppedError
from nan_callbacks.keras import NaNGuard
from tests.conformance.record import Record, watching_the_core
from tests.conformance.scenarios import Optimizer, Scenario
from tests.conformance.tasks import BATCH_SIZE, TASKS, Array, Batch

NORM_MOMENTUM, NORM_EPSILON = 0.9, 1e-5

Shapes = dict[str, tuple[int, ...]]


def dense(name: str, shapes: Shapes, **options: Any) -> Any:
    return layers.Dense(shapes[f"{name}.kernel"][-1], use_bias=f"{name}.bias" in shapes, name=name, **options)


def line(shapes: Shapes) -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, dense("out", shapes)(x))


def regression(shapes: Shapes) -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, dense("out", shapes)(dense("hidden", shapes, activation="tanh")(x)))


def images(shapes: Shapes) -> keras.Model:
    height, width, _, features = shapes["conv.kernel"]
    x = keras.Input((6, 6, 1))
    found = layers.Conv2D(features, (height, width), use_bias=False, name="conv")(x)
    found = layers.BatchNormalization(momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON, name="norm")(found)
    return keras.Model(x, dense("out", shapes)(ops.mean(ops.relu(found), (1, 2))))


def sequences(shapes: Shapes) -> keras.Model:
    x = keras.Input((5, 3))
    last = layers.SimpleRNN(shapes["rnn.kernel"][-1], use_bias=False, name="rnn")(x)
    return keras.Model(x, dense("out", shapes)(last))


def tokens(shapes: Shapes) -> keras.Model:
    words, mask = keras.Input((6,), dtype="int64"), keras.Input((6,))
    each = layers.Embedding(*shapes["embedding.table"], name="embedding")(words)
    query, key, value = (dense(name, shapes)(each) for name in ("query", "key", "value"))
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / each.shape[-1] ** 0.5 + ops.expand_dims(mask, 1)
    mixed = each + ops.matmul(ops.softmax(scores), value)
    return keras.Model([words, mask], dense("out", shapes)(mixed[:, 0]))


def distances(shapes: Shapes) -> keras.Model:
    x = keras.Input((4,))
    return keras.Model(x, ops.sqrt(ops.sum(ops.square(dense("projection", shapes)(x)), 1, keepdims=True)))


NETWORKS = {
    "linear": line,
    "regression": regression,
    "images": images,
    "sequences": sequences,
    "tokens": tokens,
    "distances": distances,
    "distributions": line,
}

ATTRIBUTES = {
    "rnn.kernel": "cell.kernel",
    "rnn.recurrent": "cell.recurrent_kernel",
    "norm.scale": "gamma",
    "norm.bias": "beta",
    "embedding.table": "embeddings",
}
"""Parameters that Keras does not call what the task calls them."""


class LayerwiseSGD(keras.optimizers.SGD):
    """Divides each gradient by its norm."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        norm = ops.sqrt(ops.sum(ops.square(gradient)))
        super().update_step(gradient / norm, variable, learning_rate)


OPTIMIZERS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate),
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "adam": lambda rate: keras.optimizers.Adam(rate, epsilon=1e-7),
    "adam_without_epsilon": lambda rate: keras.optimizers.Adam(rate, epsilon=0.0),
    "layerwise": lambda rate: LayerwiseSGD(rate),
}


def kl(p: Any, logits: Any) -> Any:
    return ops.mean(ops.sum(p * ops.log(p) - p * ops.log_softmax(logits), 1))


LOSSES = {
    "mse": "mse",
    "crossentropy": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "kl": lambda: kl,
}


def rate_of(optimizer: Optimizer) -> Any:
    if len(optimizer.rates) == 1:
        return optimizer.rates[0][1]
    # Keras takes a boundary as the last update of the rate before it.
    boundaries = [start - 1 for start, _ in optimizer.rates[1:]]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [rate for _, rate in optimizer.rates])


class Trainee:
    """A compiled model and its guard, for any number of runs from the same start: compiling takes most of the time."""

    def __init__(self, task: str, optimizer: Optimizer, settings: dict[str, Any]) -> None:
        self.task = TASKS[task]
        self.guard = NaNGuard(strict=True, verbose=False, checkup=False, **settings)
        self.model = NETWORKS[task](self.task.shapes)
        loss = LOSSES[self.task.loss]
        graph = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}  # compiled in no time
        made = loss if isinstance(loss, str) else loss()
        self.model.compile(OPTIMIZERS[optimizer.kind](rate_of(optimizer)), made, **graph)
        for name, value in self.task.weights().items():
            self.parameter(name).assign(value)
        self.model.optimizer.build(self.model.trainable_variables)
        self._first = self.state()

    @property
    def variables(self) -> list[Any]:
        """All that training changes; the learning rate is a setting."""
        optimizer = self.model.optimizer
        rate = None if callable(optimizer._learning_rate) else optimizer.learning_rate
        return [*self.model.variables, *(each for each in optimizer.variables if each is not rate)]

    def parameter(self, name: str) -> Any:
        layer, attribute = name.split(".")
        found = self.model.get_layer(layer)
        for part in ATTRIBUTES.get(name, attribute).split("."):
            found = getattr(found, part)
        return found

    def state(self) -> list[Array]:
        return [np.array(ops.convert_to_numpy(variable.value)) for variable in self.variables]

    def run(self, batches: list[Batch]) -> Record:
        for variable, value in zip(self.variables, self._first, strict=True):
            variable.assign(value)
        inputs = [np.concatenate(parts) for parts in zip(*(batch.inputs for batch in batches), strict=True)]
        targets = np.concatenate([batch.target for batch in batches])
        raised = False
        with watching_the_core() as seen:
            try:
                self.model.fit(
                    inputs if len(inputs) > 1 else inputs[0],
                    targets,
                    batch_size=BATCH_SIZE,
                    shuffle=False,
                    verbose=0,
                    callbacks=[self.guard],
                )
            except TrainingStoppedError:
                raised = True
                if keras.backend.backend() == "jax":
                    self.model.jax_state_sync()
        return Record(
            events=self.guard.events,
            summary=self.guard.summary,
            observations=seen.observations,
            limits=seen.limits,
            weights={name: np.array(ops.convert_to_numpy(self.parameter(name).value)) for name in self.task.shapes},
            state=self.state(),
            raised=raised,
        )


@cache
def _trainee(task: str, optimizer: Optimizer, settings: tuple[tuple[str, Any], ...]) -> Trainee:
    return Trainee(task, optimizer, dict(settings))


def run(scenario: Scenario, batches: list[Batch] | None = None) -> Record:
    """Train under guard.

    Args:
        scenario: What to run.
        batches: Other data than the scenario's own.
    """
    trainee = _trainee(
        scenario.task, scenario.optimizer, tuple(sorted({"diagnose": scenario.diagnose, **scenario.settings}.items()))
    )
    return trainee.run(scenario.batches() if batches is None else batches)
