"""The frameworks that the demo can train in. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from nan_callbacks.demo.arm import TrainArm
from nan_callbacks.errors import MissingExtraError


@dataclass(frozen=True, kw_only=True)
class DemoFramework:
    """Where a framework's arm of the demo lives and what it needs."""

    title: str
    """The framework's name for people."""
    module: str
    """Module with a function ``train_arm`` of the type :data:`.arm.TrainArm`."""
    extra: str
    """The pip extra that brings the framework."""
    library: str
    """The distribution to name if it is missing."""
    import_name: str
    """What the distribution is called when it is imported."""


FRAMEWORKS: dict[str, DemoFramework] = {
    "lightning": DemoFramework(
        title="Lightning",
        module="nan_callbacks.lightning.demo",
        extra="lightning",
        library="pytorch-lightning",
        import_name="pytorch_lightning",
    ),
}


def load_train_arm(name: str) -> TrainArm:
    """Import a framework's arm of the demo.

    Args:
        name: A key of :data:`FRAMEWORKS`.

    Raises:
        MissingExtraError: If scikit-learn or the framework is not installed; the message holds the one
            command that installs both.
    """
    framework = FRAMEWORKS[name]
    for library, import_name in (("scikit-learn", "sklearn"), (framework.library, framework.import_name)):
        if importlib.util.find_spec(import_name) is None:
            raise MissingExtraError.of("nan-callbacks demo", library, f"{framework.extra},demo")
    train_arm: TrainArm = importlib.import_module(framework.module).train_arm
    return train_arm
