"""Finds every detector class of the core, so that none can be forgotten."""

import importlib
import inspect
import pkgutil

from nan_callbacks.core import GuardConfig, detectors
from nan_callbacks.core.detectors.base import Detector
from nan_callbacks.core.stream import build_detectors


def detector_classes() -> dict[str, type]:
    """Concrete detectors by name: they have the protocol's methods, and nothing inherits from them."""
    methods = [name for name, member in vars(Detector).items() if inspect.isfunction(member) and name[0] != "_"]
    found = [
        member
        for info in pkgutil.walk_packages(detectors.__path__, f"{detectors.__name__}.")
        for module in [importlib.import_module(info.name)]
        for member in vars(module).values()
        if inspect.isclass(member) and member.__module__ == module.__name__ and member is not Detector
        if all(hasattr(member, method) for method in methods)
    ]
    bases = {base for member in found for base in member.__mro__[1:]}
    return {member.__name__: member for member in found if member not in bases}


def fresh(name: str, **settings: object) -> Detector:
    """A new detector as a guard builds it."""
    built = [each for each in build_detectors(GuardConfig(**settings)).values() if type(each).__name__ == name]
    assert len(built) == 1, f"build_detectors() makes {len(built)} of {name}"
    return built[0]
