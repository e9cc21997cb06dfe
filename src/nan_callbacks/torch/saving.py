"""Torch tensors on their way into a saved step, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nan_callbacks.diagnosis.saved_step import SavedStep, StoredArray, map_leaves, write_step
from nan_callbacks.torch.lab_batch import map_tensors
from nan_callbacks.torch.lab_bench import Fed, Window
from nan_callbacks.torch.rng import RngState

MOST_RECENT_SAVED = 4
"""Recent batches in a saved step: enough for a usual range, without making the folder much larger."""

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of the same width, for dtypes that numpy lacks."""


def save_incident(
    folder: Path,
    *,
    module: nn.Module,
    failed: Window,
    recent: Sequence[Window] = (),
    random_streams: RngState | None = None,
    about: Mapping[str, Any],
) -> None:
    """Write a failed step of a torch module down.

    Args:
        folder: Where to.
        module: With the weights that it had before the step.
        failed: Its batches.
        recent: Windows of accepted steps, oldest first.
        random_streams: Where the streams were when the step began.
        about: Facts, plain JSON.
    """
    earlier = [fed.batch for window in recent for fed in window][-MOST_RECENT_SAVED:]
    streams = {} if random_streams is None else random_streams.state_dict()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    write_step(
        folder,
        SavedStep(
            batches=[stored(fed.batch) for fed in failed],
            recent=[stored(batch) for batch in earlier],
            batch_indices=[fed.index for fed in failed],
            weights={name: stored_tensor(tensor) for name, tensor in tensors.items()},
            random_streams=stored(streams),
            facts={**about, "backend": "torch", "model": type(module).__qualname__, "torch": str(torch.__version__)},
        ),
    )


def load_weights(module: nn.Module, step: SavedStep) -> None:
    """Give a module the weights of a saved step.

    Args:
        module: Of the same structure as the saved one.
        step: The saved step.

    Raises:
        ValueError: If names or shapes differ: which ones.
    """
    live = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    unknown = sorted(step.weights.keys() ^ live.keys())
    if unknown:
        raise ValueError(
            "expected a model with the parameters and buffers of the saved one, received one that differs in "
            f"{', '.join(unknown[:5])}; build it with the same arguments."
        )
    with torch.no_grad():
        for name, tensor in live.items():
            kept = tensor_of(step.weights[name])
            if kept.shape != tensor.shape:
                raise ValueError(
                    f"expected {name} of shape {list(kept.shape)} as saved, received {list(tensor.shape)}; "
                    "build the model with the same arguments."
                )
            tensor.data = kept.to(tensor.device)


def window_of(step: SavedStep) -> tuple[Window, list[Window]]:
    """The failed window and the recent ones, as tensors."""
    failed = tuple(
        Fed(map_leaves(batch, tensor_of), index) for batch, index in zip(step.batches, step.batch_indices, strict=True)
    )
    return failed, [(Fed(map_leaves(batch, tensor_of)),) for batch in step.recent]


def streams_of(step: SavedStep) -> RngState | None:
    """Where the random streams were; None if it was not saved, or on a machine with other devices."""
    state = map_leaves(step.random_streams, tensor_of)
    if not state:
        return None
    if state.get("cuda") is not None and len(state["cuda"]) != torch.cuda.device_count():
        state["cuda"] = None
    return RngState.from_state_dict(state)


def stored(batch: Any) -> Any:
    """A batch with its tensors ready to be written."""
    return map_tensors(batch, lambda name, tensor: stored_tensor(tensor))


def stored_tensor(tensor: Tensor) -> StoredArray:
    """One tensor ready to be written: dense, on the host."""
    host = tensor.detach().cpu()
    host = (host.to_dense() if host.layout is not torch.strided else host).contiguous()
    name = str(host.dtype).removeprefix("torch.")
    try:
        return StoredArray(host.numpy().copy(), name)
    except TypeError:
        return StoredArray(host.view(BITS[host.element_size()]).numpy().copy(), name)


def tensor_of(array: StoredArray) -> Tensor:
    """The tensor again."""
    dtype = getattr(torch, array.dtype)
    made = torch.from_numpy(np.ascontiguousarray(array.values).reshape(array.values.shape))
    return made if made.dtype == dtype else made.view(dtype)
