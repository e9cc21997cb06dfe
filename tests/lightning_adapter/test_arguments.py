"""The arguments of NaNGuard: the same as the core's, and refused when they cannot work."""

import inspect
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from nan_callbacks.core import GuardConfig
from nan_callbacks.diagnosis.desk import DeskSettings
from nan_callbacks.errors import ConfigurationError, NaNCallbacksError
from nan_callbacks.lightning import NaNGuard

PARAMETERS = inspect.signature(NaNGuard).parameters
OF_DIAGNOSES = {field.name for field in fields(DeskSettings)}
OF_EVERY_ADAPTER = {
    "events_path", "log_every_n_steps", "checkpoint_snapshots", "verbose", "strict", *OF_DIAGNOSES,
    "checkup", "health_every_n_steps", "ignore",
}  # fmt: skip
DIFFERENT: dict[str, Any] = {
    "on_non_finite": "stop",
    "on_spike": "observe",
    "on_divergence": "stop",
    "window_size": 64,
    "warmup_steps": 33,
    "z_threshold": 5.5,
    "min_ratio": 3.0,
    "max_consecutive_skips": 7,
    "max_skip_fraction": 0.2,
    "max_rollbacks": 1,
    "lr_factor": 0.3,
    "lr_recovery_steps": 77,
    "snapshot_every_n_steps": 11,
    "probation_steps": 12,
    "snapshot_memory": "host",
    "on_give_up": "raise",
}


def test_the_signature_has_every_setting_of_the_core_with_its_default_and_type():
    hints = typing.get_type_hints(NaNGuard.__init__)
    core_hints = typing.get_type_hints(GuardConfig)

    assert set(PARAMETERS) == {*GuardConfig.names(), *OF_EVERY_ADAPTER}
    for field in fields(GuardConfig):
        assert PARAMETERS[field.name].default == field.default, field.name
        assert hints[field.name] == core_hints[field.name], field.name


def test_the_signature_has_every_setting_of_the_desk_with_its_default():
    settings = DeskSettings(diagnose="first", diagnose_budget_s=5.0, on_incident=print, save_batch="folder")
    for field in fields(DeskSettings):
        assert PARAMETERS[field.name].default == field.default, field.name
    assert NaNGuard(**vars(settings)).diagnoses == settings


def test_every_argument_is_keyword_only_and_documented():
    documented = inspect.getdoc(NaNGuard)

    for name, parameter in PARAMETERS.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name
        assert f"    {name}: " in documented, name


def test_every_setting_reaches_the_core():
    assert set(DIFFERENT) == set(GuardConfig.names())
    assert NaNGuard(**DIFFERENT).config == GuardConfig(**DIFFERENT)


def test_arguments_are_kept_under_their_own_names(tmp_path: Path):
    guard = NaNGuard(
        events_path=tmp_path / "events.jsonl",
        log_every_n_steps=5,
        checkpoint_snapshots="never",
        verbose=False,
        strict=True,
    )

    assert guard.events_path == tmp_path / "events.jsonl"
    assert (guard.log_every_n_steps, guard.checkpoint_snapshots) == (5, "never")
    assert (guard.verbose, guard.strict) == (False, True)


WRONG = [
    *[(name, value) for name in ("on_non_finite", "on_spike", "on_divergence", "on_give_up")
      for value in ("no", None, 1)],
    ("on_spike", "rollback"),
    ("on_divergence", "skip_step"),
    *[(name, value) for name in ("window_size", "warmup_steps", "snapshot_every_n_steps", "probation_steps")
      for value in (0, -5, 1.5, "50", None, True)],
    ("max_consecutive_skips", 0),
    ("max_rollbacks", -1),
    ("warmup_steps", 1000),
    *[("z_threshold", value) for value in (0, -3.0, float("nan"), float("inf"), "8", None)],
    *[("min_ratio", value) for value in (1.0, 0.5, float("nan"))],
    *[("max_skip_fraction", value) for value in (0.0, 1.1, None)],
    *[("lr_factor", value) for value in (0.0, 1.0, 2.0, -0.5, "half")],
    *[("lr_recovery_steps", value) for value in (0, -1, 1.5)],
    *[("events_path", value) for value in (3, True, ["events.jsonl"])],
    *[("log_every_n_steps", value) for value in (0, -1, 2.5, True, "50")],
    *[("checkpoint_snapshots", value) for value in ("sometimes", None, True)],
    *[("diagnose", value) for value in ("always", None, True)],
    *[("diagnose_budget_s", value) for value in (0, -1.0, float("nan"), float("inf"), "60", None, True)],
    *[("on_incident", value) for value in ("print", 3)],
    *[("save_batch", value) for value in (3, True, __file__.encode())],
    *[("verbose", value) for value in ("yes", None, 2)],
    *[("strict", value) for value in ("no", None)],
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda item: repr(item))
def test_a_value_that_cannot_work_is_refused_with_its_name_and_value(name: str, value: Any):
    with pytest.raises(ConfigurationError) as raised:
        NaNGuard(**{name: value})

    message = str(raised.value)
    assert message.startswith(f"`{name}` must be ")
    assert f", received {value!r}. " in message
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, NaNCallbacksError)


def test_a_folder_is_no_events_file(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"`events_path` must be the path of a file or None, received "):
        NaNGuard(events_path=tmp_path)


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="snapshots_every"):
        NaNGuard(snapshots_every=5)


def test_before_its_first_fit_a_guard_has_an_empty_record():
    guard = NaNGuard()

    assert guard.events == []
    assert not guard.is_aside
    assert guard.summary == {
        "steps": 0, "incidents": 0, "skipped_steps": 0, "rollbacks": 0, "lr_cuts": 0, "levels_accepted": 0, "codes": {},
        "lr_scale": 1.0, "stopped": False, "stop_reason": None,
    }  # fmt: skip
