"""The guard for ``model.fit`` in Keras 3, on the TensorFlow, JAX and torch backends."""

from nan_callbacks.errors import MissingExtraError

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    raise MissingExtraError.of("nan_callbacks.keras", "keras", "keras") from error

from nan_callbacks.keras.guard import NaNGuard as NaNGuard

__all__ = ["NaNGuard"]
