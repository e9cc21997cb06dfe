"""What the tree and the distribution promise: short files, shipped data, a hint when an extra is missing."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nan_callbacks

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "nan_callbacks"
LONGEST_FILE = 400

# Runs before the import under test and makes the named distributions look uninstalled.
BLOCK_IMPORTS = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""

REPORT_THE_ERROR = """
from nan_callbacks.errors import MissingExtraError
try:
    import {module}
except MissingExtraError as error:
    print(error)
else:
    print("imported")
"""


def project_table() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def import_without(module: str, *blocked: str) -> str:
    """What a fresh interpreter prints when it imports `module` and cannot find the `blocked` packages."""
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            BLOCK_IMPORTS.format(blocked=blocked) + REPORT_THE_ERROR.format(module=module),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_source_file_is_longer_than_a_reader_can_hold(file: Path):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_every_data_file_of_the_package_is_shipped():
    patterns = project_table()["tool"]["setuptools"]["package-data"]["nan_callbacks"]
    shipped = {file for pattern in patterns for file in PACKAGE.glob(pattern)}
    data_files = {
        file
        for file in PACKAGE.rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    }

    assert PACKAGE / "py.typed" in shipped
    assert data_files - shipped == set()


def test_the_base_installation_needs_numpy_alone():
    requirements = project_table()["project"]["dependencies"]

    assert [requirement.partition(">=")[0] for requirement in requirements] == ["numpy"]


def test_the_version_has_three_numbers():
    numbers = nan_callbacks.__version__.split(".")

    assert len(numbers) == 3
    assert all(number.isdecimal() for number in numbers)


def test_the_lightning_room_names_the_extra_when_lightning_is_missing():
    message = import_without("nan_callbacks.lightning", "pytorch_lightning", "lightning")

    assert 'pip install "nan-callbacks[lightning]"' in message


@pytest.mark.parametrize("missing", ["pytorch_lightning", "lightning"])
def test_either_import_name_of_lightning_is_enough(missing: str):
    assert import_without("nan_callbacks.lightning", missing) == "imported"


def test_the_keras_room_names_the_extra_when_keras_is_missing():
    message = import_without("nan_callbacks.keras", "keras")

    assert message == (
        'nan_callbacks.keras needs keras, which is not installed. Run: pip install "nan-callbacks[keras]"'
    )
    assert "keras" in project_table()["project"]["optional-dependencies"]


def test_a_blocked_package_cannot_be_imported():
    with pytest.raises(AssertionError, match="No module named 'numpy'"):
        import_without("numpy", "numpy")
