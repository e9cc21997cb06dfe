"""The frameworks that the demo can train in. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass, field

from nan_callbacks.demo.arm import TrainArm
from nan_callbacks.demo.muted import muted_stderr
from nan_callbacks.errors import ConfigurationError, MissingExtraError, NaNCallbacksError

BACKEND_VARIABLE = "KERAS_BACKEND"
"""Where Keras reads which backend to run on, once, when it is imported."""

KERAS_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # So small a net leaves several threads waiting for each other, on a busy machine for minutes.
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # On the CPU, as in Lightning's arm.
    "CUDA_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",
}
"""Read when a backend is imported; what the user has set stands."""


@dataclass(frozen=True, kw_only=True)
class DemoFramework:
    """Where a framework's arm of the demo lives and what it needs."""

    name: str
    """The word in the names of the events files."""
    title: str
    """The framework's name for people."""
    module: str
    """Module with a function ``train_arm`` of the type :data:`.arm.TrainArm`."""
    libraries: dict[str, str]
    """The distributions that are needed, and what each is called when it is imported."""
    install: str
    """What ``pip install`` must be told to get all of them."""
    backend: str | None = None
    """What Keras runs on."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables to set before the import, unless the user has set them."""

    def missing(self) -> str | None:
        """The first of the needed distributions that is not installed, None if all are."""
        for distribution, import_name in self.libraries.items():
            if importlib.util.find_spec(import_name) is None:
                return distribution
        return None

    def require(self) -> None:
        """Make sure that everything is installed.

        Raises:
            MissingExtraError: If not; the message holds the one command that installs everything.
        """
        missing = self.missing()
        if missing is not None:
            raise MissingExtraError(
                f"nan-callbacks demo in {self.title} needs {missing}, which is not installed. "
                f"Run: pip install {self.install}"
            )

    def prepare(self) -> None:
        """Set the environment in which the framework is to be imported.

        Call it for every framework before the first is imported: some import parts of others.

        Raises:
            NaNCallbacksError: If this process has already imported Keras on another backend.
        """
        if self.backend is not None:
            _take_backend(self.backend)
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)


def _take_backend(backend: str) -> None:
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != backend:
        raise NaNCallbacksError(
            f"Keras picks its backend once per process, and in this one it runs on {keras.backend.backend()}. "
            f"Start a new process for {backend}."
        )
    os.environ[BACKEND_VARIABLE] = backend


def _keras_on(backend: str, title: str, install: str) -> DemoFramework:
    return DemoFramework(
        name=f"keras_{backend}",
        title=f"Keras on {title}",
        module="nan_callbacks.keras.demo",
        libraries={"scikit-learn": "sklearn", "keras": "keras", backend: backend},
        install=install,
        backend=backend,
        environment=KERAS_ENVIRONMENT,
    )


LIGHTNING = DemoFramework(
    name="lightning",
    title="Lightning",
    module="nan_callbacks.lightning.demo",
    libraries={"scikit-learn": "sklearn", "pytorch-lightning": "pytorch_lightning"},
    install='"nan-callbacks[lightning,demo]"',
)

KERAS = {
    "tensorflow": _keras_on("tensorflow", "TensorFlow", '"nan-callbacks[keras,demo]"'),
    "jax": _keras_on("jax", "JAX", '"nan-callbacks[keras,demo]" jax'),
    "torch": _keras_on("torch", "PyTorch", '"nan-callbacks[keras,demo]" torch'),
}
"""Keras by backend, the usual one first."""

FRAMEWORKS = ("lightning", "keras")
"""The words of the command line, in the order in which they are shown."""


def choose(framework: str | None, backend: str | None) -> tuple[list[DemoFramework], list[DemoFramework]]:
    """The frameworks that were asked for.

    Args:
        framework: One of :data:`FRAMEWORKS`; None for whatever is installed.
        backend: What Keras shall run on; None for what ``KERAS_BACKEND`` says, without it TensorFlow.

    Returns:
        Those to train in, at least one, and those that are left out because they are not installed.

    Raises:
        ConfigurationError: If there is no such backend, or nothing that could run on it was asked for.
        MissingExtraError: If the framework that was asked for is not installed, or if none is.
    """
    if framework == "lightning" and backend is not None:
        remedy = "It says what Keras runs on: use --framework keras."
        raise ConfigurationError.of("--backend", "left out with --framework lightning", backend, remedy)
    asked_for = [_resolve(name, backend) for name in FRAMEWORKS if framework in (name, None)]
    installed = [each for each in asked_for if each.missing() is None]
    if not installed:
        asked_for[0].require()
    return installed, [each for each in asked_for if each not in installed]


def load_train_arm(framework: DemoFramework) -> TrainArm:
    """Import a framework's arm of the demo.

    Args:
        framework: Which one. It is installed and prepared.
    """
    with muted_stderr():
        train_arm: TrainArm = importlib.import_module(framework.module).train_arm
    return train_arm


def _resolve(framework: str, backend: str | None) -> DemoFramework:
    if framework == "lightning":
        return LIGHTNING
    name, source = (backend, "--backend") if backend else (os.environ.get(BACKEND_VARIABLE), BACKEND_VARIABLE)
    if not name:
        name = next(iter(KERAS))
    if name not in KERAS:
        raise ConfigurationError.of(source, f"one of {', '.join(KERAS)}", name, "The guard works on these alone.")
    return KERAS[name]
