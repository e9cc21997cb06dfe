"""Building and training the programs for Keras, on the backend of this process."""

from __future__ import annotations

import math
import statistics
import time
import traceback
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from benchmarks.diagnosis.guarded import Guarded
from benchmarks.diagnosis.program import KerasRun, Program

SEED = 0


def build(program: Program) -> KerasRun:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(SEED)
    run: KerasRun = program.build()
    return run


def fit(run: KerasRun, callbacks: Sequence[Any] = ()) -> None:
    arguments = dict(run.fit)
    own = arguments.pop("callbacks", [])
    run.model.fit(run.x, run.y, verbose=0, callbacks=[*own, *callbacks], **arguments)


class Recorder(keras.callbacks.Callback):
    """Loss of each batch, from the running mean that Keras shows; gradient norms where a backend leaves them."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self._total = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._total = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        total = float(logs["loss"]) * (batch + 1)
        self.losses.append(total - self._total)
        self._total = total if math.isfinite(total) else self._total
        if keras.backend.backend() == "torch":
            import torch

            gradients = [v.value.grad for v in self.model.trainable_variables if v.value.grad is not None]
            self.grad_norms.append(float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0)


def train_and_record(program: Program) -> tuple[tuple[float, ...], tuple[float, ...], bool, str]:
    """Losses, gradient norms (torch only), whether the weights ended finite, and what was raised."""
    recorder, raised = Recorder(), ""
    run = build(program)
    try:
        fit(run, [recorder])
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
    weights_finite = all(bool(np.isfinite(weights).all()) for weights in run.model.get_weights())
    return tuple(recorder.losses), tuple(recorder.grad_norms), weights_finite, raised


class Clock(keras.callbacks.Callback):
    """Seconds of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def train_guarded(program: Program, ask: bool) -> Guarded:
    """Train with a guard, and ask for a diagnosis at the end where nothing else would call for one."""
    from nan_callbacks.keras import NaNGuard

    clock = Clock()
    run = build(program)
    guard: Any = NaNGuard(verbose=False, strict=True, **program.guard)
    raised = ""
    try:
        fit(run, [guard, clock])
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
    asked = [guard.diagnose()] if ask else []
    return Guarded(tuple(guard.incidents), asked, statistics.median(clock.seconds or [0.0]), raised)


def own_tool(program: Program) -> str:
    """What the backend's own tool prints and raises; empty if it stays silent."""
    backend = keras.backend.backend()
    tools = {"tensorflow": _check_numerics, "jax": _debug_nans, "torch": _detect_anomaly}
    return tools[backend](program)


def _check_numerics(program: Program) -> str:
    import tensorflow as tf

    tf.debugging.enable_check_numerics()
    try:
        run = build(program)
        run.model.jit_compile = False  # a compiled step has no operations left that could be checked
        fit(run)
    except Exception as error:
        return str(error) if "Inf" in str(error) or "NaN" in str(error) else ""
    finally:
        tf.debugging.disable_check_numerics()
    return ""


def _debug_nans(program: Program) -> str:
    import jax

    jax.clear_caches()  # functions compiled before the switch is set go unchecked
    jax.config.update("jax_debug_nans", True)
    try:
        fit(build(program))
    except FloatingPointError as error:
        return "".join(traceback.format_exception(error))
    except Exception:
        return ""
    finally:
        jax.config.update("jax_debug_nans", False)
    return ""


def _detect_anomaly(program: Program) -> str:
    import warnings

    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.autograd.set_detect_anomaly(True):
                fit(build(program))
        except Exception as error:
            if "returned nan" not in str(error):
                return ""
            traces = [str(warning.message) for warning in caught if "Error detected in" in str(warning.message)]
            return "\n".join([*traces, str(error)])
    return ""
