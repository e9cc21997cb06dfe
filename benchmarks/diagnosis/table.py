"""The scores as tables, for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

Record = dict[str, Any]


def share(records: Iterable[Record], pick: Callable[[Record], bool | None]) -> str:
    """Such as ``41/43  95 %``; records for which `pick` says None do not count."""
    told = [value for record in records if (value := pick(record)) is not None]
    return f"{sum(told)}/{len(told)} {100 * sum(told) / len(told):4.0f} %" if told else "–"


def mean(records: Iterable[Record], key: str) -> str:
    told = [record[key] for record in records if record[key] is not None]
    return f"{100 * statistics.fmean(told):.0f} % of {len(told)}" if told else "–"


def steps(records: Iterable[Record], key: str) -> str:
    """Median and largest of a time, in steps of its own run."""
    told = [record[key] / record["step_seconds"] for record in records if record[key] and record["step_seconds"]]
    return f"{statistics.median(told):.0f}, at most {max(told):.0f}" if told else "–"


def rows_of(records: list[Record]) -> list[tuple[str, str]]:
    """Lines of the table for one framework and half of the corpus."""
    faulty = [record for record in records if not record["healthy"]]
    fine = [record for record in records if record["healthy"]]
    spoken = [record for record in faulty if record["tool"]]
    return [
        ("programs, faulty + healthy", f"{len(faulty)} + {len(fine)}"),
        ("incident noticed or asked for", share(faulty, lambda r: r["found"] != "no diagnosis")),
        ("origin: operation", share(faulty, lambda r: r["operation"])),
        ("origin: module", share(faulty, lambda r: r["module"])),
        ("source line", share(faulty, lambda r: r["line"])),
        ("cause (top-1)", share(faulty, lambda r: r["cause"])),
        ("cause right and confirmed", share(faulty, lambda r: r["confirmed"])),
        ("guilty samples: precision", mean(faulty, "precision")),
        ("guilty samples: recall", mean(faulty, "recall")),
        ("false confirmed, faulty", str(sum(record["false_confirmed"] for record in faulty))),
        ("false confirmed, healthy", str(sum(record["false_confirmed"] for record in fine))),
        ("healthy with an incident", str(sum(record["incidents"] > 0 for record in fine))),
        ("diagnosis, in steps spent", _spent(faulty)),
        ("diagnosis, in steps' time", steps(faulty, "seconds")),
        ("its replay, in steps' time", steps(faulty, "replay_seconds")),
        ("own tool: spoke", share(spoken, lambda r: r["tool"]["fired"])),
        ("own tool: operation", share(spoken, lambda r: r["tool"]["operation"])),
        ("own tool: source line", share(spoken, lambda r: r["tool"]["line"])),
        ("the same programs, ours: operation", share(spoken, lambda r: r["operation"])),
        ("the same programs, ours: source line", share(spoken, lambda r: r["line"])),
    ]


def print_table(records: list[Record]) -> None:
    """One column per framework, backend and half of the corpus."""
    columns: dict[str, list[Record]] = {}
    for record in records:
        name = f"{record['framework']} {record['backend']}".strip()
        columns.setdefault(f"{name}, {record['part']}", []).append(record)
    if not columns:
        return
    made = {name: rows_of(column) for name, column in columns.items()}
    labels = [label for label, _ in next(iter(made.values()))]
    widths = [max(len(name), *(len(value) for _, value in rows)) for name, rows in made.items()]
    print(" " * 38 + "  ".join(name.ljust(width) for name, width in zip(made, widths, strict=True)))
    for number, label in enumerate(labels):
        values = [rows[number][1] for rows in made.values()]
        print(label.ljust(38) + "  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)))
    print(
        "Own tools: detect_anomaly (torch), enable_check_numerics (TensorFlow), jax_debug_nans (JAX); non-finite only."
    )


def mistakes(record: Record) -> list[str]:
    """What is wrong in a record, in words."""
    wrong = [aspect for aspect in ("operation", "module", "line", "cause") if record[aspect] is False]
    wrong += ["false confirmed"] if record["false_confirmed"] else []
    wrong += [
        f"{key} {record[key]:.2f}" for key in ("precision", "recall") if record[key] is not None and record[key] < 1
    ]
    return wrong


def print_mistakes(records: list[Record], *, everything: bool) -> None:
    """A paragraph for each program that was not explained rightly; for all of them if `everything`."""
    for record in records:
        wrong = mistakes(record)
        if not (wrong or record["error"] or everything):
            continue
        where = f"{record['framework']} {record['backend']} {record['part']}"
        print(f"{record['program']} ({' '.join(where.split())}): {', '.join(wrong) or 'right'}")
        if everything:
            print(f"    expected {record['expected']}\n    found    {record['found']}  after {record['codes'][:3]}")
            if record["error"]:
                print(f"    error    {record['error'].splitlines()[-1]}")


def _spent(records: list[Record]) -> str:
    told = [record["steps_spent"] for record in records if record["steps_spent"]]
    return f"{statistics.median(told):.0f}, at most {max(told)}" if told else "–"
