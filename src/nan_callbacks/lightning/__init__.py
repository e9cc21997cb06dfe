"""The guard for the PyTorch Lightning ``Trainer``, in ``lightning.pytorch`` and ``pytorch_lightning``."""

from nan_callbacks.lightning.guard import NaNGuard as NaNGuard

__all__ = ["NaNGuard"]
