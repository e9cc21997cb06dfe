"""A net that a learning rate too high ruins in its first steps, for every framework: the same data, the same weights.

Units of all-positive inputs that are cut off at 6 saturate or die within a few long steps, for good. A table of which
one row is used keeps the norm of all weights calm, as the tables of language models do.
"""

import numpy as np

STEPS, ROWS, FEATURES, WIDTH, CLASSES = 300, 32, 6, 32, 4
TABLE = (400, 16)

RUINOUS, RIGHT = 0.4, 0.02
"""Learning rates of Adam."""


def data(*, noise: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Samples and classes; with noise, the classes of others."""
    draw = np.random.default_rng(4)
    labels = draw.integers(0, CLASSES, STEPS * ROWS)
    x = 1.0 + 0.15 * draw.normal(size=(STEPS * ROWS, FEATURES)) + 0.8 * np.eye(CLASSES, FEATURES)[labels]
    if noise:
        draw.shuffle(labels)
    return x.astype("float32"), labels.astype("int32")


def weights() -> list[np.ndarray]:
    """The table, and a matrix and a bias of each of three layers."""
    draw = np.random.default_rng(2)
    made = [draw.normal(0.0, 10.0, TABLE)]
    made[0][0] = 0.0
    for fan_in, fan_out in ((FEATURES, WIDTH), (WIDTH, WIDTH), (WIDTH, CLASSES)):
        made += [draw.normal(0.0, (2.0 / (fan_in + fan_out)) ** 0.5, (fan_in, fan_out)), np.zeros(fan_out)]
    return [each.astype("float32") for each in made]
