"""Small models with gradients written out, for the simulated laboratory."""

from __future__ import annotations

import itertools

import numpy as np

from tests.diagnosis.simulated_lab import Batch, Initialise, Model, Parameters


def weights(*sizes: int, scale: float = 1.0, bias: float = 0.0) -> Initialise:
    """LeCun weights of a net with these layer sizes, times a scale."""

    def draw(rng: np.random.Generator) -> Parameters:
        drawn = {}
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            drawn[f"w{index}"] = scale * rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)
            drawn[f"b{index}"] = np.full(fan_out, bias if index + 2 < len(sizes) else 0.0)
        return drawn

    return draw


def recurrent_weights(radius: float, states: int = 8) -> Initialise:
    """Orthogonal recurrent weights times a factor."""

    def draw(rng: np.random.Generator) -> Parameters:
        return {
            "w": radius * np.linalg.qr(rng.standard_normal((states, states)))[0],
            "u": rng.standard_normal((2, states)) / 2,
            "v": rng.standard_normal((states, 1)) / states,
        }

    return draw


def net(head: str, activation: str = "tanh") -> Model:
    """A multilayer perceptron with one of the heads below."""

    def model(parameters: Parameters, batch: Batch) -> tuple[float, Parameters]:
        with np.errstate(all="ignore"):
            return _step(parameters, batch, HEADS[head], activation)

    return model


def recurrent(parameters: Parameters, batch: Batch) -> tuple[float, Parameters]:
    """A linear recurrence over the time axis, read out at its end; mean squared error."""
    with np.errstate(all="ignore"):
        inputs, targets = batch
        states = [np.zeros((len(inputs), len(parameters["w"])), inputs.dtype)]
        for time in range(inputs.shape[1]):
            states.append(states[-1] @ parameters["w"] + inputs[:, time] @ parameters["u"])
        error = states[-1] @ parameters["v"] - targets
        slope = (2 * error / error.size).astype(inputs.dtype)
        gradients = {
            "v": states[-1].T @ slope,
            "w": np.zeros_like(parameters["w"]),
            "u": np.zeros_like(parameters["u"]),
        }
        back = slope @ parameters["v"].T
        for time in reversed(range(inputs.shape[1])):
            gradients["w"] = gradients["w"] + states[time].T @ back
            gradients["u"] = gradients["u"] + inputs[:, time].T @ back
            back = back @ parameters["w"].T
        return float(np.mean(error**2)), gradients


def _step(parameters: Parameters, batch: Batch, head, activation: str) -> tuple[float, Parameters]:
    inputs, targets = batch
    layers = len(parameters) // 2
    outputs = [inputs]
    for index in range(layers):
        before = outputs[-1] @ parameters[f"w{index}"] + parameters[f"b{index}"]
        last = index == layers - 1
        outputs.append(before if last else (np.tanh(before) if activation == "tanh" else np.maximum(before, 0)))
    loss, back = head(outputs[-1], targets)
    gradients = {}
    for index in reversed(range(layers)):
        gradients[f"w{index}"] = outputs[index].T @ back
        gradients[f"b{index}"] = back.sum(axis=0)
        back = back @ parameters[f"w{index}"].T
        if index:
            back = back * (1 - outputs[index] ** 2 if activation == "tanh" else outputs[index] > 0)
    return float(loss), gradients


def squared(outputs: np.ndarray, targets: np.ndarray):
    error = outputs - targets
    return np.mean(error**2), (2 * error / error.size).astype(outputs.dtype)


def softmax(outputs: np.ndarray, targets: np.ndarray):
    """Cross-entropy as frameworks compute it: finite for every finite logit."""
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(targets)), targets].mean(), _softmax_slope(np.exp(log_p), targets)


def log_of_softmax(outputs: np.ndarray, targets: np.ndarray):
    """The formula of the textbook: log(softmax(x)), and its derivative through the probability."""
    exps = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p = exps / exps.sum(axis=1, keepdims=True)
    right = p[np.arange(len(targets)), targets]
    loss = -np.log(right).mean()
    return loss, (_softmax_slope(p, targets) * (right / right)[:, None]).astype(outputs.dtype)


def poisson(outputs: np.ndarray, targets: np.ndarray):
    """Counts with a log-rate: exp(x) − y · x."""
    rate = np.exp(outputs)
    return np.mean(rate - targets * outputs), ((rate - targets) / outputs.size).astype(outputs.dtype)


def log_of_targets(outputs: np.ndarray, targets: np.ndarray):
    """Squared error of logarithms, without an epsilon."""
    error = outputs - np.log(targets)
    return np.mean(error**2), (2 * error / error.size).astype(outputs.dtype)


def _softmax_slope(p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    slope = p.copy()
    slope[np.arange(len(targets)), targets] -= 1
    return slope / p.dtype.type(len(targets))


HEADS = {
    "squared": squared,
    "softmax": softmax,
    "log_of_softmax": log_of_softmax,
    "poisson": poisson,
    "log_of_targets": log_of_targets,
}
