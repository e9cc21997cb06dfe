"""Between numpy and the tensors of Keras' backend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_tensor(array: NDArray[Any], precision: str) -> Any:
    """A new tensor; floats in another precision if one is named."""
    from keras import ops

    if precision and array.dtype.kind == "f":
        array = array.astype(precision)
    return ops.convert_to_tensor(np.array(array), dtype=str(array.dtype))


def as_array(tensor: Any) -> NDArray[Any]:
    """A copy of a tensor's numbers; bfloat16, which numpy lacks, as float32."""
    import keras
    from keras import ops

    if keras.backend.standardize_dtype(tensor.dtype) not in ("float16", "float32", "float64"):
        tensor = ops.cast(tensor, "float32")
    return np.array(ops.convert_to_numpy(tensor))


def is_float(tensor: Any) -> bool:
    """Whether a tensor or variable holds floats."""
    import keras

    return bool(keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)))


def float_tensors(output: Any) -> list[Any]:
    """Floating-point tensors of an output, whatever holds them."""
    import keras

    return [tensor for tensor in keras.tree.flatten(output) if hasattr(tensor, "dtype") and is_float(tensor)]
