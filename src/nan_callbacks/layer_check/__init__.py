"""A test bench for layers, losses and functions of one's own: finite values, right gradients, no surprises.

Works on ``torch.nn.Module``, Keras 3 layers and losses, torch losses, and plain functions of torch or Keras tensors.
Importing this package loads neither framework; the one that the layer belongs to is loaded with the first check.
"""

from nan_callbacks.layer_check.check import assert_numerically_safe, check_layer
from nan_callbacks.layer_check.result import Failure, LayerCheckResult
from nan_callbacks.layer_check.spec import InputSpec

__all__ = ["Failure", "InputSpec", "LayerCheckResult", "assert_numerically_safe", "check_layer"]
