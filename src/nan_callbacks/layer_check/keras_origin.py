"""Where the first non-finite number of a Keras layer comes from: a training step of nothing but the layer, replayed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nan_callbacks.diagnosis.origin import Origin
from nan_callbacks.layer_check.bench import Run

if TYPE_CHECKING:
    from nan_callbacks.layer_check.keras_bench import KerasBench


def origin(bench: KerasBench, tensors: dict[str, Any], how: Run, phase: str) -> Origin | None:
    """Replay one step.

    Args:
        bench: The layer.
        tensors: Inputs by name.
        how: Mode and precision.
        phase: ``forward`` or ``backward``: where the number was seen.
    """
    from nan_callbacks.keras.replay import replay

    model = _model(bench, tensors, how, phase)
    found = replay(model, (list(tensors.values()),)).origin
    if found is None or found.module_type != type(model).__name__:
        return found
    return replace(found, module="", module_type="", module_is_custom=False)


def _model(bench: KerasBench, tensors: dict[str, Any], how: Run, phase: str) -> Any:
    import keras
    from keras import ops

    class Stand(keras.Model):  # type: ignore[misc, unused-ignore]
        """Holds the layer. To each input a variable of zeros is added, whose gradient is that of the input."""

        def __init__(self) -> None:
            super().__init__(name="stand", autocast=False)
            if bench.is_layer:
                self.inner = bench.layer
            self.offsets = {
                name: self.add_weight(
                    shape=tensors[name].shape, dtype=tensors[name].dtype, initializer="zeros", name=f"offset_{index}"
                )
                for index, name in enumerate(bench.differentiable(tensors))
            }
            self.built = True

        def call(self, inputs: Any) -> Any:
            named = dict(zip(tensors, inputs, strict=True))
            shifted = {n: t + self.offsets[n] if n in self.offsets else t for n, t in named.items()}
            return bench.output(shifted, how)

        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
            # Adding up finite outputs must not overflow, and every output must get a gradient of 1 all the same.
            if phase == "backward":
                return sum(ops.sum(output - ops.stop_gradient(output)) for output in y_pred)
            return sum(ops.sum(output * (1.0 / max(1, _size(output)))) for output in y_pred)

    model = Stand()
    model.compile(optimizer=keras.optimizers.SGD(0.0), jit_compile=False, run_eagerly=bench.backend == "tensorflow")
    model.optimizer.build(model.trainable_variables)
    return model


def _size(tensor: Any) -> int:
    size = 1
    for each in tensor.shape:
        size *= int(each)
    return size
