"""Known numerical bugs of library versions, and which of them concern a run."""

from __future__ import annotations

import functools
import re
import sys
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from importlib import metadata, resources
from typing import Any

from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase


@dataclass(frozen=True, kw_only=True)
class KnownIssue:
    """One bug; the file beside this module explains the fields."""

    id: str
    library: str
    affected: str
    fixed_in: str
    device: str
    precision: str
    component: str
    symptom: str
    condition: str
    workaround: str
    url: str
    confidence: str
    verified: str
    uses: tuple[str, ...]
    backends: tuple[str, ...] = ()
    nonfinite: bool = False
    phase: str = ""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a run runs on."""

    versions: dict[str, str] = field(default_factory=dict)
    """Of the installed distributions that matter, by name."""
    devices: tuple[str, ...] = ("cpu",)
    """``cpu``, ``cuda``, ``mps``, ``tpu``."""
    precision: str = "float32"
    """The narrowest floating dtype that the model computes in."""
    components: frozenset[str] = frozenset()
    """What the model uses: names of layers, functions and optimizers, such as ``MultiheadAttention``, ``AdamW``,
    ``torch.compile``; of an argument that matters ``GRU:recurrent_dropout``."""
    backend: str = ""
    """Of Keras; empty elsewhere."""


@functools.cache
def known_issues() -> tuple[KnownIssue, ...]:
    """All of them."""
    text = resources.files(__name__).joinpath("known_issues.toml").read_text(encoding="utf-8")
    made = []
    for fields in tomllib.loads(text)["issue"]:
        told: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        made.append(KnownIssue(**told))
    return tuple(made)


@functools.cache
def installed_versions() -> dict[str, str]:
    """Versions of the distributions that the file speaks of."""
    found = {}
    for library in sorted({issue.library for issue in known_issues()} | {"lightning"}):
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    if "lightning" in found:  # the same code under another name
        found.setdefault("pytorch-lightning", found["lightning"])
    return found


def issues_of(environment: Environment) -> tuple[KnownIssue, ...]:
    """The issues that concern a run: version, device, precision, and something that the model uses."""
    return tuple(issue for issue in known_issues() if _fits(issue, environment))


def issues_of_versions(versions: dict[str, str], platform: str = sys.platform) -> tuple[KnownIssue, ...]:
    """The issues that installed versions have, whatever is done with them on the devices that there can be.

    Args:
        versions: Of the installed distributions, by name.
        platform: As ``sys.platform`` names it.
    """
    return tuple(
        issue
        for issue in known_issues()
        if _is_affected(issue, versions.get(issue.library))
        and _can_have(issue.device, platform, versions[issue.library])
    )


def _can_have(device: str, platform: str, version: str) -> bool:
    """Whether a build can compute on a device: MPS is a part of macOS, CUDA is not, and some builds leave it out."""
    if platform == "darwin":
        return device != "cuda"
    return device != "mps" and not (device == "cuda" and version.endswith("+cpu"))


def _fits(issue: KnownIssue, environment: Environment) -> bool:
    return (
        _is_affected(issue, environment.versions.get(issue.library))
        and _runs(issue.library, environment.backend)
        and (issue.device == "any" or issue.device in environment.devices)
        and _computes_in(issue.precision, environment.precision)
        and (not issue.backends or environment.backend in issue.backends)
        and _is_used(issue.uses, environment.components)
    )


def _runs(library: str, backend: str) -> bool:
    """Whether a library takes part in a run at all: it may be installed for other work."""
    needed = {"keras": ("torch", "tensorflow", "jax"), "tensorflow": ("tensorflow",), "jax": ("jax",)}
    needed |= {"jaxlib": ("jax",), "torch": ("", "torch"), "pytorch-lightning": ("",), "torchmetrics": ("",)}
    return backend in needed.get(library, (backend,))


def issues_at(origin: Origin | None, environment: Environment) -> tuple[str, ...]:
    """Issues that explain why a failure began at an operation, each as a sentence without full stop.

    Args:
        origin: Where it began; None: unknown.
        environment: What the run runs on; its components are replaced by what is at work there.
    """
    if origin is None or origin.kind is not OriginKind.OPERATION:
        return ()
    line = origin.source.text if origin.source is not None else ""
    there = {origin.module_type, origin.native_operation.rpartition(".")[2], *re.findall(r"\w+", line)}
    there |= set(origin.native_operation.split("."))
    found = issues_of(replace(environment, components=frozenset(there)))
    # JAX computes what a derivative will need together with the forward pass: there a failure of either may begin.
    phases = {"", origin.phase.value} | ({Phase.BACKWARD.value} if environment.backend == "jax" else set())
    return tuple(
        f"{issue.library} {environment.versions[issue.library]} has a known issue there ({issue.id}): "
        f"{issue.symptom.rstrip('.')}; {issue.workaround.rstrip('.')}, see {issue.url}"
        for issue in found
        if issue.nonfinite and issue.phase in phases
    )


def _computes_in(concerned: str, precision: str) -> bool:
    half = concerned == "half" and precision in ("float16", "bfloat16")
    return half or concerned in ("any", precision)


def _is_used(uses: tuple[str, ...], components: Collection[str]) -> bool:
    return any(all(name in components for name in names.split("&")) for names in uses)


def _is_affected(issue: KnownIssue, version: str | None) -> bool:
    if version is None:
        return False
    try:
        from packaging.specifiers import SpecifierSet  # comes with Keras and with Lightning
        from packaging.version import InvalidVersion, Version
    except ImportError:  # torch alone: no specifiers, no issues
        return False
    try:
        return SpecifierSet(issue.affected).contains(Version(version.partition("+")[0]), prereleases=True)
    except InvalidVersion:
        return False
