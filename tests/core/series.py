"""Series of losses as healthy runs show them. Every one is the same on every machine."""

import math

import numpy as np

STEPS = 1500


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def log_normal(steps: int = STEPS, *, sigma: float = 0.5, seed: int = 0) -> list[float]:
    return generator(seed).lognormal(0.0, sigma, steps).tolist()


def negative() -> list[float]:
    """A negative log-likelihood that sinks from -1 to -200."""
    progress = np.linspace(0.0, 1.0, STEPS)
    return (-1.0 - 199.0 * progress + generator().normal(0.0, 1.0, STEPS)).tolist()


def through_zero() -> list[float]:
    """A log-likelihood that starts positive and ends negative."""
    return (np.linspace(5.0, -5.0, STEPS) + generator().normal(0.0, 0.3, STEPS)).tolist()


def around_zero() -> list[float]:
    """A policy loss: no trend, either sign."""
    return generator().normal(0.0, 0.01, STEPS).tolist()


def falling_by_eight_orders() -> list[float]:
    noise = generator().lognormal(0.0, 0.3, STEPS)
    return (10.0 ** np.linspace(2.0, -6.0, STEPS) * noise).tolist()


def falling_at_once() -> list[float]:
    """Four orders of magnitude within the first 50 steps, flat afterwards."""
    noise = generator().lognormal(0.0, 0.3, STEPS)
    return (10.0 ** np.maximum(4.0 - 4.0 * np.arange(STEPS) / 50.0, 0.0) * noise).tolist()


def periodic() -> list[float]:
    """Hard and easy batches take turns: a factor of 20 between them."""
    phase = 2.0 * math.pi * np.arange(STEPS) / 60.0
    return (20.0 ** (0.5 * np.sin(phase)) * generator().lognormal(0.0, 0.1, STEPS)).tolist()


def curriculum_switch() -> list[float]:
    """A fall to a tenth, then a jump to five times that, for good."""
    level = np.where(np.arange(STEPS) < STEPS // 2, 10.0 ** -np.linspace(0.0, 2.0, STEPS), 0.5)
    return (level * generator().lognormal(0.0, 0.2, STEPS)).tolist()


def often_zero() -> list[float]:
    """A hinge loss: satisfied on two batches of three, from the first one on."""
    values = generator().lognormal(0.0, 0.5, STEPS)
    values[np.arange(STEPS) % 3 != 2] = 0.0
    return values.tolist()


def constant() -> list[float]:
    return [0.6931471805599453] * STEPS


HEALTHY = {
    make.__name__: make
    for make in (
        log_normal,
        negative,
        through_zero,
        around_zero,
        falling_by_eight_orders,
        falling_at_once,
        periodic,
        curriculum_switch,
        often_zero,
        constant,
    )
}
