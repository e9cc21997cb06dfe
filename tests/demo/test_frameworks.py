import importlib.util
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from nan_callbacks.demo.frameworks import KERAS, LIGHTNING, choose, load_train_arm
from nan_callbacks.errors import ConfigurationError, MissingExtraError, NaNCallbacksError

Hide = Callable[..., None]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Hide:
    """Makes libraries look uninstalled."""
    find_spec = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find_spec(name))

    return hide


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of the process's environment without any wish for a backend."""
    variables = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    monkeypatch.setattr(os, "environ", variables)
    return variables


@pytest.mark.parametrize(
    ("framework", "backend", "import_name", "library", "install"),
    [
        ("lightning", None, "sklearn", "scikit-learn", '"nan-callbacks[lightning,demo]"'),
        ("lightning", None, "pytorch_lightning", "pytorch-lightning", '"nan-callbacks[lightning,demo]"'),
        ("keras", None, "keras", "keras", '"nan-callbacks[keras,demo]"'),
        ("keras", None, "tensorflow", "tensorflow", '"nan-callbacks[keras,demo]"'),
        ("keras", "jax", "jax", "jax", '"nan-callbacks[keras,demo]" jax'),
        ("keras", "torch", "torch", "torch", '"nan-callbacks[keras,demo]" torch'),
    ],
)
def test_a_missing_library_is_answered_with_the_command_that_installs_everything(
    hide: Hide, framework: str, backend: str | None, import_name: str, library: str, install: str
):
    hide(import_name)

    with pytest.raises(MissingExtraError) as caught:
        choose(framework, backend)
    assert str(caught.value).endswith(f"needs {library}, which is not installed. Run: pip install {install}")


def test_without_a_wish_every_framework_is_shown():
    assert choose(None, None) == ([LIGHTNING, KERAS["tensorflow"]], [])


def test_without_a_wish_a_framework_that_is_not_installed_is_left_out(hide: Hide):
    hide("keras")
    assert choose(None, None) == ([LIGHTNING], [KERAS["tensorflow"]])

    hide("pytorch_lightning")
    assert choose(None, None) == ([KERAS["tensorflow"]], [LIGHTNING])


def test_with_nothing_installed_the_first_framework_is_proposed(hide: Hide):
    hide("sklearn")

    with pytest.raises(MissingExtraError, match=r"nan-callbacks\[lightning,demo\]"):
        choose(None, None)


@pytest.mark.parametrize("framework", ["keras", None])
def test_a_backend_is_what_keras_runs_on(framework: str | None):
    assert KERAS["jax"] in choose(framework, "jax")[0]


def test_the_backend_comes_from_the_variable_of_keras_unless_it_is_given(environment: dict[str, str]):
    environment["KERAS_BACKEND"] = "torch"

    assert choose("keras", None)[0] == [KERAS["torch"]]
    assert choose("keras", "jax")[0] == [KERAS["jax"]]


def test_a_backend_that_the_guard_does_not_know_is_refused(environment: dict[str, str]):
    environment["KERAS_BACKEND"] = "openvino"

    with pytest.raises(ConfigurationError, match="`KERAS_BACKEND` must be one of tensorflow, jax, torch, received 'op"):
        choose("keras", None)


def test_a_backend_for_lightning_is_refused():
    with pytest.raises(ConfigurationError, match=r"`--backend` must be left out .* received 'jax'.*--framework keras"):
        choose("lightning", "jax")


def test_the_environment_names_the_backend_and_leaves_what_the_user_has_set(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    environment |= {"OMP_NUM_THREADS": "7", "KERAS_BACKEND": "torch"}
    environment.pop("TF_NUM_INTRAOP_THREADS", None)
    KERAS["jax"].prepare()

    wanted = {"KERAS_BACKEND": "jax", "OMP_NUM_THREADS": "7", "TF_NUM_INTRAOP_THREADS": "1"}
    assert {name: environment[name] for name in wanted} == wanted


def test_a_process_that_runs_keras_on_another_backend_is_told_apart(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    loaded = SimpleNamespace(backend=SimpleNamespace(backend=lambda: "torch"))
    monkeypatch.setitem(sys.modules, "keras", loaded)

    with pytest.raises(NaNCallbacksError, match=r"runs on torch\. Start a new process for jax"):
        KERAS["jax"].prepare()
    assert "KERAS_BACKEND" not in environment
    KERAS["torch"].prepare()
    assert environment["KERAS_BACKEND"] == "torch"


def test_lightning_can_train_an_arm():
    assert callable(load_train_arm(LIGHTNING))
