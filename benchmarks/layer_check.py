"""Put the common built-in layers of torch and Keras on the test bench and print what it finds.

Usage: [KERAS_BACKEND=jax] python -m benchmarks.layer_check [--only torch|keras] [--half] [--verbose]

Nearly all of them are safe, so a failure is either a property that is documented (attention with a row that is masked
entirely) or one worth knowing. Infos are plain overflow of the number format and errors at degenerate inputs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from nan_callbacks.layer_check import InputSpec, LayerCheckResult, check_layer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAT, SERIES, IMAGE, CHANNELS_LAST = (4, 6), (4, 5, 6), (4, 4, 8, 8), (4, 8, 8, 4)
SHARES = InputSpec(FLAT, kind="probabilities")
FLAGS = InputSpec(FLAT, kind="mask")
LABELS = InputSpec((4,), kind="indices", high=6)
SIGNS = InputSpec((4,), kind="mask")
TOKENS = InputSpec((4, 5), kind="indices", high=10)

TORCH_ACTIVATIONS = (
    "ReLU", "GELU", "SiLU", "ELU", "SELU", "CELU", "Mish", "Tanh", "Sigmoid", "LogSigmoid", "Softplus",
    "Softsign", "Softshrink", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Tanhshrink", "LeakyReLU",
    "PReLU", "RReLU", "ReLU6", "Identity", "Dropout", "AlphaDropout",
)  # fmt: skip
KERAS_SIMPLE = (
    "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "UnitNormalization", "LayerNormalization",
    "RMSNormalization", "BatchNormalization", "Flatten",
)  # fmt: skip
KERAS_ACTIVATIONS = (
    "gelu", "silu", "selu", "mish", "tanh", "sigmoid", "softplus", "softsign", "log_softmax", "hard_silu",
    "squareplus",
)  # fmt: skip

Entry = tuple[str, Callable[[], Any], Any, dict[str, Any]]


def torch_layers() -> Iterator[Entry]:
    from torch import nn

    for name in TORCH_ACTIVATIONS:
        yield name, getattr(nn, name), FLAT, {}
    for name, arguments in (("Softmax", (-1,)), ("LogSoftmax", (-1,)), ("Softmin", (-1,)), ("GLU", (-1,))):
        yield name, lambda name=name, arguments=arguments: getattr(nn, name)(*arguments), FLAT, {}
    yield "Linear", lambda: nn.Linear(6, 3), FLAT, {}
    yield "Bilinear", lambda: nn.Bilinear(6, 6, 3), [FLAT, FLAT], {}
    yield "LayerNorm", lambda: nn.LayerNorm(6), FLAT, {}
    yield "RMSNorm", lambda: nn.RMSNorm(6), FLAT, {}
    yield "BatchNorm1d", lambda: nn.BatchNorm1d(6), FLAT, {}
    yield "BatchNorm2d", lambda: nn.BatchNorm2d(4), IMAGE, {}
    yield "GroupNorm", lambda: nn.GroupNorm(2, 4), IMAGE, {}
    yield "InstanceNorm2d", lambda: nn.InstanceNorm2d(4), IMAGE, {}
    yield "LocalResponseNorm", lambda: nn.LocalResponseNorm(2), IMAGE, {}
    yield "Conv1d", lambda: nn.Conv1d(5, 3, 3), SERIES, {}
    yield "Conv2d", lambda: nn.Conv2d(4, 3, 3), IMAGE, {}
    yield "ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 3, 3), IMAGE, {}
    for name in ("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "PixelUnshuffle"):
        yield name, lambda name=name: getattr(nn, name)(2), IMAGE, {}
    yield "LPPool2d", lambda: nn.LPPool2d(2, 2), IMAGE, {}
    yield "Upsample", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE, {}
    for name in ("RNN", "LSTM", "GRU"):
        yield name, lambda name=name: getattr(nn, name)(6, 4, batch_first=True), SERIES, {}
    yield "Embedding", lambda: nn.Embedding(10, 4), TOKENS, {}
    yield "EmbeddingBag", lambda: nn.EmbeddingBag(10, 4), TOKENS, {}
    attention = lambda: nn.MultiheadAttention(6, 2, batch_first=True)  # noqa: E731
    yield "MultiheadAttention", attention, [SERIES] * 3, {}
    query = {name: InputSpec(SERIES) for name in ("query", "key", "value")}
    padded = {**query, "key_padding_mask": InputSpec((4, 5), kind="mask", dtype="bool")}
    yield "MultiheadAttention, padded", attention, padded, {}
    yield (
        "TransformerEncoderLayer",
        lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.0),
        SERIES,
        {},
    )
    yield "CosineSimilarity", lambda: nn.CosineSimilarity(), [FLAT, FLAT], {}
    yield "PairwiseDistance", lambda: nn.PairwiseDistance(), [FLAT, FLAT], {}
    for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"):
        yield name, getattr(nn, name), FLAT, {"target_spec": FLAT}
    yield "CrossEntropyLoss", nn.CrossEntropyLoss, FLAT, {"target_spec": LABELS}
    yield "MultiMarginLoss", nn.MultiMarginLoss, FLAT, {"target_spec": LABELS}
    yield "BCEWithLogitsLoss", nn.BCEWithLogitsLoss, FLAT, {"target_spec": FLAGS}
    yield "BCELoss", nn.BCELoss, InputSpec((4, 1), kind="probabilities"), {"target_spec": InputSpec((4, 1), "mask")}
    yield "KLDivLoss", lambda: nn.KLDivLoss(reduction="batchmean"), FLAT, {"target_spec": SHARES}
    yield "PoissonNLLLoss", nn.PoissonNLLLoss, FLAT, {"target_spec": InputSpec(FLAT, kind="positive")}
    yield "GaussianNLLLoss", nn.GaussianNLLLoss, [InputSpec(FLAT), InputSpec(FLAT), InputSpec(FLAT, "positive")], {}
    yield "TripletMarginLoss", nn.TripletMarginLoss, [FLAT, FLAT, FLAT], {}
    yield "SoftMarginLoss", nn.SoftMarginLoss, FLAT, {"target_spec": FLAT}


def keras_layers() -> Iterator[Entry]:
    import keras
    from keras import layers, losses

    for name in KERAS_SIMPLE:
        yield name, getattr(layers, name), FLAT, {}
    for name in KERAS_ACTIVATIONS:
        yield f"Activation({name})", lambda name=name: layers.Activation(name), FLAT, {}
    yield "Dense", lambda: layers.Dense(3), FLAT, {}
    yield "EinsumDense", lambda: layers.EinsumDense("abc,cd->abd", (None, 3)), SERIES, {}
    for name in ("Dropout", "GaussianNoise", "GaussianDropout"):
        yield name, lambda name=name: getattr(layers, name)(0.5), FLAT, {}
    yield "GroupNormalization", lambda: layers.GroupNormalization(2), CHANNELS_LAST, {}
    yield "SpectralNormalization", lambda: layers.SpectralNormalization(layers.Dense(3)), FLAT, {}
    yield "Conv1D", lambda: layers.Conv1D(3, 3), SERIES, {}
    for name in ("Conv2D", "Conv2DTranspose", "SeparableConv2D"):
        yield name, lambda name=name: getattr(layers, name)(3, 3), CHANNELS_LAST, {}
    yield "DepthwiseConv2D", lambda: layers.DepthwiseConv2D(3), CHANNELS_LAST, {}
    for name in ("MaxPooling2D", "AveragePooling2D", "UpSampling2D"):
        yield name, lambda name=name: getattr(layers, name)(2), CHANNELS_LAST, {}
    for name in ("GlobalAveragePooling2D", "GlobalMaxPooling2D"):
        yield name, getattr(layers, name), CHANNELS_LAST, {}
    for name in ("SimpleRNN", "LSTM", "GRU"):
        yield name, lambda name=name: getattr(layers, name)(3), SERIES, {}
    yield "Bidirectional", lambda: layers.Bidirectional(layers.GRU(3)), SERIES, {}
    yield "Embedding", lambda: layers.Embedding(10, 4), TOKENS, {}
    for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Concatenate"):
        yield name, getattr(layers, name), [FLAT, FLAT], {}
    yield "Dot, normalised", lambda: layers.Dot(axes=1, normalize=True), [FLAT, FLAT], {}
    yield "Attention", layers.Attention, [SERIES, SERIES], {}
    yield "AdditiveAttention", layers.AdditiveAttention, [SERIES, SERIES], {}
    yield "MultiHeadAttention", lambda: layers.MultiHeadAttention(2, 3), [SERIES, SERIES], {}
    masked = {
        "query": InputSpec(SERIES),
        "value": InputSpec(SERIES),
        "attention_mask": InputSpec((4, 5, 5), kind="mask", dtype="bool"),
    }
    yield "MultiHeadAttention, masked", lambda: layers.MultiHeadAttention(2, 3), masked, {}
    for name in ("MeanSquaredError", "MeanAbsoluteError", "Huber", "LogCosh", "CosineSimilarity"):
        yield name, getattr(losses, name), FLAT, {"target_spec": FLAT}
    for name in ("CategoricalCrossentropy", "KLDivergence", "CategoricalFocalCrossentropy"):
        yield name, getattr(losses, name), SHARES, {"target_spec": SHARES}
    yield "SparseCategoricalCrossentropy", losses.SparseCategoricalCrossentropy, SHARES, {"target_spec": LABELS}
    logits = lambda: losses.CategoricalCrossentropy(from_logits=True)  # noqa: E731
    yield "CategoricalCrossentropy, logits", logits, FLAT, {"target_spec": SHARES}
    yield "BinaryCrossentropy", losses.BinaryCrossentropy, SHARES, {"target_spec": FLAGS}
    binary = lambda: losses.BinaryCrossentropy(from_logits=True)  # noqa: E731
    yield "BinaryCrossentropy, logits", binary, FLAT, {"target_spec": FLAGS}
    yield "Poisson", losses.Poisson, InputSpec(FLAT, "positive"), {"target_spec": InputSpec(FLAT, "positive")}
    for name in ("MeanSquaredLogarithmicError", "MeanAbsolutePercentageError"):
        yield name, getattr(losses, name), FLAT, {"target_spec": FLAT}
    yield "Hinge", losses.Hinge, FLAT, {"target_spec": FLAGS}
    keras.utils.clear_session()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("torch", "keras"), help="one of the frameworks")
    parser.add_argument("--half", action="store_true", help="float16 as well")
    parser.add_argument("--verbose", action="store_true", help="the whole report of every layer that fails")
    given = parser.parse_args()
    tables = {"torch": torch_layers, "keras": keras_layers}
    for framework in [given.only] if given.only else list(tables):
        run(framework, tables[framework](), half=given.half, verbose=given.verbose)


def run(framework: str, entries: Iterator[Entry], *, half: bool, verbose: bool) -> None:
    began, layers, safe = time.perf_counter(), 0, 0
    print(f"{framework}\n{'layer':34} {'checks':>6} {'fails':>5} {'infos':>5} {'s':>6}  failures")
    for name, make, spec, options in entries:
        start = time.perf_counter()
        result = check_layer(make(), spec, half_precision=half, **options)
        layers, safe = layers + 1, safe + result.passed
        counts = f"{len(result.checked):6} {len(result.failures):5} {len(result.infos):5}"
        print(f"{name:34} {counts} {time.perf_counter() - start:6.2f}  {told(result)}", flush=True)
        if verbose and not result.passed:
            print(result.describe())
    print(f"{framework}: {safe} of {layers} layers without failure, {time.perf_counter() - began:.0f} s\n")


def told(result: LayerCheckResult) -> str:
    return "; ".join(
        f"{failure.check} {failure.phase} · {failure.operation or '?'} · {failure.case}" for failure in result.failures
    )


if __name__ == "__main__":
    main()
