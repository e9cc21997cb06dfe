"""Importing a neutral room loads no framework and nothing that draws; each probe is a fresh interpreter."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = SOURCE / "nan_callbacks"

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "lightning", "pytorch_lightning"}
EXTRAS = {"matplotlib", "rich", "jinja2", "sklearn"}

# The rooms that exist in order to use a framework; every other room on disk is held to the rule.
ADAPTERS = {"torch", "lightning", "keras"}

PROBE = """
import importlib, json, sys
modules, unwanted = json.loads(sys.argv[1])
for module in modules:
    importlib.import_module(module)
print(json.dumps(sorted(unwanted_name for unwanted_name in unwanted if unwanted_name in sys.modules)))
"""


def loaded_by(modules: Iterable[str], unwanted: Iterable[str], search_path: Path = SOURCE) -> list[str]:
    """Import `modules` in a fresh interpreter and name those of `unwanted` that came along."""
    finished = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([sorted(modules), sorted(unwanted)])],
        env={**os.environ, "PYTHONPATH": str(search_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def modules_by_room() -> dict[str, list[str]]:
    """Every neutral module in the source tree, grouped by room; single files are rooms of one module."""
    rooms: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(SOURCE).with_suffix("").parts
        room = parts[1] if len(parts) > 1 else ""
        if room not in ADAPTERS:
            rooms.setdefault(room, []).append(".".join(parts).removesuffix(".__init__"))
    return rooms


NEUTRAL_ROOMS = modules_by_room()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by(["nan_callbacks"], FRAMEWORKS | EXTRAS) == []


@pytest.mark.parametrize("room", NEUTRAL_ROOMS)
def test_no_module_of_a_neutral_room_loads_a_framework(room: str):
    # Inside the report room matplotlib, rich and jinja2 are at home.
    unwanted = FRAMEWORKS if room == "report" else FRAMEWORKS | EXTRAS

    assert loaded_by(NEUTRAL_ROOMS[room], unwanted) == []


def test_the_rooms_that_must_exist_are_among_those_probed():
    assert {"__init__", "core", "errors"} <= NEUTRAL_ROOMS.keys()
    assert "nan_callbacks.core" in NEUTRAL_ROOMS["core"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch", ["torch"]),
        ("from torch.nn import Module", ["torch"]),
        ("def later():\n    import torch", []),
    ],
    ids=["import", "from-import", "only inside a function"],
)
def test_the_probe_sees_exactly_what_an_import_loads(tmp_path: Path, source: str, expected: list[str]):
    stand_in = tmp_path / "torch" / "nn"
    stand_in.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").touch()
    (stand_in / "__init__.py").write_text("class Module: ...\n")
    (tmp_path / "offender.py").write_text(source + "\n")

    assert loaded_by(["offender"], FRAMEWORKS, search_path=tmp_path) == expected
