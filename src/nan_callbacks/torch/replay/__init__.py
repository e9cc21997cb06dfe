"""One failed step once more, under a tracer: which operation, module and source line made the first NaN or Inf."""

from nan_callbacks.torch.replay.batch_parts import batch_size, select_rows
from nan_callbacks.torch.replay.run import replay

__all__ = ["batch_size", "replay", "select_rows"]
