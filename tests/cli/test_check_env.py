import platform
import subprocess
import sys
from importlib import metadata

import pytest

import nan_callbacks
from nan_callbacks.cli import main


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"nan-callbacks {nan_callbacks.__version__}\n"


def versions_of(text: str) -> dict[str, str]:
    """The table up to the empty line behind it."""
    return dict(line.split(maxsplit=1) for line in text.partition("\n\n")[0].splitlines())


def test_check_env_lists_known_issues_of_the_installed_versions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nan_callbacks.cli.installed_versions", lambda: {"torch": "2.4.0"})

    assert main(["check-env"]) == 0
    listed = capsys.readouterr().out.partition("\n\n")[2]
    assert "scaled_dot_product_attention" in listed
    assert "https://github.com/pytorch/pytorch/pull/133882" in listed
    assert "keras" not in listed.replace("keras-team", "")


def test_check_env_names_every_version(capsys: pytest.CaptureFixture[str]):
    assert main(["check-env"]) == 0

    rows = versions_of(capsys.readouterr().out)
    assert rows["python"] == platform.python_version()
    assert rows["numpy"] == metadata.version("numpy")
    assert rows["nan-callbacks"] == nan_callbacks.__version__
    assert {"torch", "pytorch-lightning", "lightning", "keras", "tensorflow", "jax"} <= rows.keys()


def test_check_env_says_what_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)

    assert main(["check-env"]) == 0
    rows = versions_of(capsys.readouterr().out)
    assert rows["keras"] == "not installed"


def test_check_env_imports_no_framework():
    probe = "import sys; from nan_callbacks.cli import main; main(['check-env']); print(sorted({'torch', 'keras', 'jax', 'tensorflow', 'pytorch_lightning', 'sklearn'} & sys.modules.keys()))"  # noqa: E501
    finished = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert finished.stdout.splitlines()[-1] == "[]"


def test_no_command_at_all_is_answered_with_the_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main([])

    assert caught.value.code == 2
    assert "usage: nan-callbacks" in capsys.readouterr().err
