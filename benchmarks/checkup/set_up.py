"""What a set-up is: data, a net, a loss and a rate in neutral words, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

FRAMEWORKS = ("lightning", "tensorflow", "jax", "torch")
"""Lightning, and Keras on its backends."""


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net in words that every framework can build."""

    kind: str = "mlp"
    """``mlp``, ``residual``, ``cnn``, ``embedding`` (token ids, averaged), ``lstm``, ``transformer``."""
    outputs: int = 1
    hidden: tuple[int, ...] = (32, 32)
    """Widths; of a cnn its channels."""
    activation: str = "relu"
    normalised: bool = False
    """Whether a normalisation follows every hidden layer."""
    first: str = ""
    """What comes before the first weights: ``rescaling`` (by 1/255), ``batch_norm``, ``standardise`` (constants of the
    data); empty: nothing."""
    final: str = ""
    """Activation of the output: ``softmax``, ``log_softmax``, ``sigmoid``, ``tanh``, ``relu``; empty: none."""
    init: str = ""
    """``zeros``, ``equal``, ``tiny``, ``huge``, ``orthogonal``, ``zero_last``, ``negative_bias``; empty: the
    framework's own."""
    frozen: bool = False
    """Whether all layers but the last are frozen."""
    tokens: int = 0
    """Rows of the table of an ``embedding``, ``lstm`` or ``transformer`` on token ids; 0: it takes numbers."""
    operation: str = ""
    """An operation of its own before the output, such as ``log_softmax_by_hand``: see the builders."""


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """One set-up."""

    name: str
    x: np.ndarray
    y: np.ndarray
    net: Net
    loss: str = "cross_entropy"
    """``cross_entropy`` (of class indices), ``soft_cross_entropy`` (of one number per class), ``binary``, ``squared``,
    ``absolute``, ``poisson``."""
    takes: str = "logits"
    """What the classification losses take: ``logits``, ``probabilities``, ``logs``."""
    rate: float = 1e-3
    optimizer: str = "adam"
    precision: str = "float32"
    batch: int = 64
    frameworks: tuple[str, ...] = FRAMEWORKS
    expected: tuple[str, ...] = ()
    """Codes of which one must be found; empty: healthy."""
    looks_like: str = ""
    """Of a healthy set-up: the code that a hasty rule would cry."""


@dataclass
class Registry:
    """All set-ups, built when they are asked for."""

    makers: list[tuple[tuple[str, ...], str, Callable[[], list[SetUp]]]] = field(default_factory=list)

    def faulty(self, *codes: str) -> Callable[[Callable[[], list[SetUp]]], Callable[[], list[SetUp]]]:
        """Enter a function that makes set-ups in which one of these codes must be found."""
        return self._enter(codes, "")

    def healthy(self, code: str) -> Callable[[Callable[[], list[SetUp]]], Callable[[], list[SetUp]]]:
        """Enter a function that makes healthy set-ups that look as if this code were due."""
        return self._enter((), code)

    def all(self, framework: str) -> list[SetUp]:
        """The set-ups that a framework can build."""
        from dataclasses import replace

        made = []
        for codes, looks_like, make in self.makers:
            for number, each in enumerate(make(), start=1):
                name = f"{make.__name__} {number}: {each.name}"
                made.append(replace(each, name=name, expected=codes, looks_like=looks_like))
        return [each for each in made if framework in each.frameworks]

    def _enter(
        self, codes: tuple[str, ...], looks_like: str
    ) -> Callable[[Callable[[], list[SetUp]]], Callable[[], list[SetUp]]]:
        def enter(make: Callable[[], list[SetUp]]) -> Callable[[], list[SetUp]]:
            self.makers.append((codes, looks_like, make))
            return make

        return enter


REGISTRY = Registry()
KERAS_ONLY = ("tensorflow", "jax", "torch")
LIGHTNING_ONLY = ("lightning",)
