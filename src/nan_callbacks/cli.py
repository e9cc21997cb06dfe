"""The command line: ``nan-callbacks demo | events | explain | replay | check-env``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nan_callbacks import __version__
from nan_callbacks.core.events import describe, read_events, to_json_line
from nan_callbacks.demo.arm import Recipe
from nan_callbacks.demo.faults import FAULTS
from nan_callbacks.demo.frameworks import FRAMEWORKS, KERAS, choose
from nan_callbacks.demo.run import run_demo
from nan_callbacks.diagnosis.catalogue import catalogue
from nan_callbacks.diagnosis.catalogue.explanation import explanation, overview
from nan_callbacks.diagnosis.known_issues import installed_versions, issues_of_versions
from nan_callbacks.errors import NaNCallbacksError

FAILURE = 2
"""Exit code when a command cannot be carried out; argparse's own for a wrong command line."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells count."""

REPORTED_DISTRIBUTIONS = (
    "numpy", "torch", "pytorch-lightning", "lightning", "keras", "tensorflow", "jax", "scikit-learn",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``nan-callbacks``; those of the process if None.

    Returns:
        The exit code: 0, or 2 after one line on stderr that says what is wrong and what to do.
    """
    _survive_narrow_encodings()
    options = _parser().parse_args(arguments)
    try:
        exit_code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_has_left()
    except (NaNCallbacksError, OSError) as error:
        print(f"nan-callbacks: {error}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("\nnan-callbacks: interrupted", file=sys.stderr)
        return INTERRUPTED
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nan-callbacks", description="Guard, recover and diagnose neural-network training."
    )
    parser.add_argument("--version", action="version", version=f"nan-callbacks {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_events(commands)
    _add_replay(commands)
    _add_explain(commands)
    environment = commands.add_parser("check-env", help="list versions and their known numerical issues")
    environment.set_defaults(run=_check_env)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="train with and without the guard, and print what happened",
        description="Train a small net on real digits while three faults happen, one after the other: "
        "each one without the guard, with it, and never disturbed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    recipe = Recipe()
    demo.add_argument(
        "--framework", choices=FRAMEWORKS, default=argparse.SUPPRESS, help="what to train with (default: both)"
    )
    demo.add_argument(
        "--backend",
        choices=KERAS,
        default=argparse.SUPPRESS,
        help=f"what Keras runs on (default: what the variable KERAS_BACKEND says, else {next(iter(KERAS))})",
    )
    demo.add_argument(
        "--faults",
        type=_fault_names,
        default=",".join(FAULTS),
        metavar="NAME,NAME",
        help="which faults, in which order",
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("nan_callbacks_demo"),
        metavar="DIR",
        help="folder of the events files",
    )
    demo.add_argument("--seed", type=_natural, default=recipe.seed, help="seed of data, weights and faults")
    demo.add_argument("--epochs", type=_positive, default=recipe.epochs, help="epochs of each training run")
    demo.set_defaults(run=_demo)


def _add_events(commands: Any) -> None:
    events = commands.add_parser("events", help="print an events file, one sentence per event")
    events.add_argument("file", type=Path, help="a file written by NaNGuard(events_path=...)")
    events.add_argument("--json", action="store_true", help="print the records, one JSON object a line")
    events.add_argument("--code", help="only events with this code, for example NAN101")
    events.set_defaults(run=_events)


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser("explain", help="say what a code means and what to do about it; list all codes")
    explain.add_argument("code", nargs="?", help="for example NAN111 (default: a list of all codes)")
    explain.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    if options.code is None:
        print(overview())
        return 0
    known = catalogue().get(options.code.upper())
    if known is None:
        raise NaNCallbacksError(f"there is no code {options.code!r}; the codes are {', '.join(catalogue())}.")
    print(explanation(known))
    return 0


def _add_replay(commands: Any) -> None:
    replay = commands.add_parser(
        "replay",
        help="examine a saved step again",
        description="Run a step that NaNGuard(save_batch=...) or diagnose_step(save_batch=...) wrote down once more, "
        "and say why it failed.",
    )
    replay.add_argument("folder", type=Path, help="the folder of the saved step")
    replay.add_argument(
        "--model",
        required=True,
        metavar="PKG:FACTORY",
        help="a function or class that makes the model",
    )
    replay.add_argument(
        "--loss", metavar="PKG:FUNCTION", help="the loss of a plain torch module, called with the module and the batch"
    )
    replay.add_argument("--json", action="store_true", help="print the diagnosis as a JSON object")
    replay.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    from nan_callbacks.step_diagnosis import replay_saved

    extra = {} if options.loss is None else {"loss": _named_object(options.loss)}
    step, diagnosis = replay_saved(options.folder, _named_object(options.model)(), **extra)
    if options.json:
        print(to_json_line(diagnosis.to_dict()))
        return 0
    if step.facts.get("message"):
        print(step.facts["message"])
    for part in step.left_out:
        print(f"left out when the step was saved: {part}")
    print(diagnosis.describe())
    return 0


def _named_object(text: str) -> Any:
    """What ``package.module:name`` names; the present folder is searched as well."""
    module_name, colon, name = text.partition(":")
    if not (colon and module_name and name):
        raise NaNCallbacksError(f"expected PACKAGE.MODULE:NAME, received {text!r}; such as my_project.model:build.")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise NaNCallbacksError(f"{text} cannot be imported: {error}") from error
    if not callable(found):
        raise NaNCallbacksError(f"expected a function or class at {text}, received {type(found).__name__}.")
    return found


def _demo(options: argparse.Namespace) -> int:
    recipe = Recipe(seed=options.seed, epochs=options.epochs)
    # What is not given is absent: argparse would print a default of None in the help.
    chosen, left_out = choose(getattr(options, "framework", None), getattr(options, "backend", None))
    for each in left_out:
        print(f"{each.title} is left out: {each.missing()} is not installed. To add it: pip install {each.install}\n")
    run_demo(chosen, options.faults, options.output, recipe, sys.stdout)
    return 0


def _events(options: argparse.Namespace) -> int:
    try:
        events = read_events(options.file)
    except FileNotFoundError:
        raise NaNCallbacksError(f"there is no events file {options.file}.") from None
    except ValueError as error:
        raise NaNCallbacksError(f"this is no events file: {error}") from None
    if options.code is not None:
        events = [event for event in events if event.get("code") == options.code.upper()]
    for event in events:
        print(to_json_line(event) if options.json else describe(event))
    if not options.json:
        kinds = Counter(str(event.get("event", "?")) for event in events)
        counts = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        print(f"{len(events)} event{'' if len(events) == 1 else 's'}{': ' if counts else ''}{counts}")
    return 0


def _check_env(options: argparse.Namespace) -> int:
    found = {"nan-callbacks": __version__, "python": platform.python_version()}
    for name in REPORTED_DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    width = max(map(len, found))
    for name, version in found.items():
        print(f"{name.ljust(width)}  {version}")
    issues = issues_of_versions(installed_versions())
    if issues:
        print("\nKnown numerical issues of these versions; a run is told of those that concern what it uses:")
    for issue in issues:
        where = "" if issue.device == "any" else f" on {issue.device}"
        print(f"  {issue.library} {issue.affected}, {issue.component}{where}: {issue.symptom}\n    {issue.url}")
    return 0


def _fault_names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown fault {unknown[0]!r}; choose from {', '.join(FAULTS)}")
    return names


def _natural(text: str) -> int:
    return _whole_number(text, 0)


def _positive(text: str) -> int:
    return _whole_number(text, 1)


def _whole_number(text: str, smallest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = smallest - 1
    if number < smallest:
        raise argparse.ArgumentTypeError(f"must be a whole number >= {smallest}, received {text!r}")
    return number


def _survive_narrow_encodings() -> None:
    # The sentences hold characters such as σ; where a terminal lacks them, a question mark beats a crash.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _reader_has_left() -> int:
    # `nan-callbacks events FILE | head`: the rest is not wanted; nothing may be flushed to the closed pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
