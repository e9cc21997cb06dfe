"""Every exception that the package raises on purpose, under one base class."""

from __future__ import annotations

from typing import Self


class NaNCallbacksError(Exception):
    """Base of all errors of this package: `except NaNCallbacksError` catches every one of them."""


class ConfigurationError(NaNCallbacksError, ValueError):
    """An argument has a value that cannot work."""

    @classmethod
    def of(cls, name: str, expected: str, received: object, remedy: str) -> Self:
        """Say which argument is wrong, what it should be, what it was, and what to do about it.

        Args:
            name: The argument, as the user writes it.
            expected: The allowed values with their unit; continues the sentence "`name` must be ...".
            received: The value that was passed.
            remedy: One sentence that tells the user what to do.

        Returns:
            The error, ready to be raised.

        Example:
            >>> str(ConfigurationError.of("z_threshold", "> 0 (robust standard deviations)", -3.0, "Try 6."))
            '`z_threshold` must be > 0 (robust standard deviations), received -3.0. Try 6.'
        """
        return cls(f"`{name}` must be {expected}, received {received!r}. {remedy}")


class TrainingStoppedError(NaNCallbacksError, RuntimeError):
    """The guard gave up and was asked to raise: `on_give_up="raise"`."""


class MissingExtraError(NaNCallbacksError, ImportError):
    """A part of the package needs a library that the base installation leaves out."""

    @classmethod
    def of(cls, feature: str, library: str, extra: str) -> Self:
        """Say what is missing and how to install it.

        Args:
            feature: What the user asked for, for example `"nan_callbacks.lightning"`.
            library: The distribution that could not be imported, for example `"pytorch-lightning"`.
            extra: The pip extra of this package which brings it.

        Returns:
            The error, ready to be raised (`from` the original `ImportError`).

        Example:
            >>> str(MissingExtraError.of("nan_callbacks.keras", "keras", "keras"))
            'nan_callbacks.keras needs keras, which is not installed. Run: pip install "nan-callbacks[keras]"'
        """
        return cls(f'{feature} needs {library}, which is not installed. Run: pip install "nan-callbacks[{extra}]"')
