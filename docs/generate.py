"""Writes docs/reference.md from the code and docs/baselines.md from the bank: `python docs/generate.py`. A test says
when they are stale.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from gandiag.cli.main import COMMANDS  # noqa: E402

from gandiag.catalogue import load_entries  # noqa: E402
from gandiag.config import AuditConfig, option_name  # noqa: E402
from gandiag.errors import ExitCode  # noqa: E402
from gandiag.trainer.benchmark.tables import render_markdown  # noqa: E402
from gandiag.training_logs.analysis import Losses  # noqa: E402
from gandiag.training_logs.verdict import VERDICT_ORDER  # noqa: E402
from gandiag.verdict.nearest_baseline import load_baselines  # noqa: E402
from gandiag.verdict.remedies import get_remedies  # noqa: E402
from gandiag.verdict.training_rules import EVENT_RULES  # noqa: E402

MEANINGS = {
    "OK": "audited, no collapse seen; policy kept",
    "COLLAPSED": "audited, collapse; policy violated",
    "CANNOT_RUN": "could not run: usage, file, dependency, bug",
    "INSUFFICIENT": "the evidence is insufficient",
    "INTERRUPTED": "interrupted",
}


def cell(text: object) -> str:
    """Text in a table: no pipe ends it, no mark means anything."""
    safe = str(text).replace("\n", " ")
    for mark in "\\|<>*_`[]":
        safe = safe.replace(mark, f"\\{mark}")
    return safe


def table(head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(str(part) for part in row)} |" for row in rows),
        "",
    ]


LOSS_VERDICTS = {
    "inconclusive": "too short for a cycle test, one loss only, no finite loss, or mixed rows of several runs",
    "no_instability_found": "nothing unstable, but no plateau was shown: the log is short, or its noise slow",
    "settled": "a plateau is shown for both losses: the interval of the trend over the last half rules out a change "
    "that matters, a random walk is ruled out, and there is no cycle, step or spike",
}


def list_loss_verdicts() -> Iterator[tuple[object, ...]]:
    """A row for each verdict on a log: an instability fails, a verdict between is not evidence enough to pass."""
    for kind in VERDICT_ORDER:
        code = EVENT_RULES[kind][0] if kind in EVENT_RULES else None
        meaning = f"`{code}`: {load_entries()[code].summary}" if code else LOSS_VERDICTS[kind]
        yield f"`{kind}`", int(Losses({"verdict": kind}, ()).exit_code), cell(meaning) if not code else meaning


def reference() -> str:
    lines = ["# Reference", "", "Written by `python docs/generate.py`; do not edit.", "", "## Commands", ""]
    lines += table(("command", ""), ((f"`gandiag {name}`", cell(text)) for name, (_, text) in COMMANDS.items()))
    lines += ["`gandiag COMMAND --help` has the options.", "", "## Exit codes", ""]
    lines += table(("code", "meaning"), ((int(code), MEANINGS[code.name]) for code in ExitCode))
    lines += ["## Verdicts on a training log", "", "What `gandiag losses` says, from the worst to the best.", ""]
    lines += table(("verdict", "exit code", "meaning"), list_loss_verdicts())
    lines += [
        "## Settings",
        "",
        "Option > environment > `[audit]` in `gandiag.toml` (`[tool.gandiag.audit]` in `pyproject.toml`) > the same "
        "table in your own `~/.config/gandiag/gandiag.toml` > default. What runs code or reads elsewhere may not stand "
        "in a project's file: [SECURITY](../SECURITY.md).",
        "",
    ]
    lines += table(
        ("option", "environment", "default", "what it sets"),
        (_setting(entry) for entry in dataclasses.fields(AuditConfig)),
    )
    lines += ["## Findings", ""]
    rules = {key: entry for key, entry in sorted(load_entries().items()) if key.startswith("GD")}
    advice = {key: "; ".join(str(remedy["title"]) for remedy in get_remedies(key)) for key in rules}
    lines += table(
        ("code", "finding", "what usually helps"),
        ((f"`{key}`", cell(entry.title), cell(advice[key])) for key, entry in rules.items()),
    )
    lines += ["## Measurements", "", "`gandiag explain NAME` has the formula, when it misleads, and the source.", ""]
    numbers = ((key, entry) for key, entry in sorted(load_entries().items()) if not key.startswith("GD"))
    lines += table(
        ("name", "what it is", "better"), ((f"`{key}`", cell(entry.title), entry.better) for key, entry in numbers)
    )
    return "\n".join(lines)


def baselines() -> str:
    """The tables of the bundled bank."""
    bank = load_baselines()
    made = ", ".join(f"{name} {version}" for name, version in bank["versions"].items())
    head, _, rest = render_markdown(bank).partition("\n")
    about = f"""
What the reference trainer does with the recipes in `gandiag/data/recipes.toml`, without a remedy and with one, from the
seeds in `gandiag/data/bank.toml`. `gandiag bank --out DIR` repeats all runs (here: {made}, CPU);
`gandiag train DATASET --recipe RECIPE --remedy R --seed S` repeats one. An audit with `--real` names the run that it is
closest to. Written by `python docs/generate.py` from `gandiag/data/bank.json`; do not edit.
"""
    return head + "\n" + about + rest


def _setting(entry: dataclasses.Field[object]) -> tuple[str, ...]:
    default = (
        ""
        if entry.default is None
        else ",".join(map(str, entry.default))
        if isinstance(entry.default, tuple)
        else str(entry.default)
    )
    return (
        f"`{option_name(entry.name)}`",
        "none" if entry.name == "trust" else f"`GANDIAG_{entry.name.strip('_').upper()}`",
        cell(default),
        cell(entry.metadata["help"]),
    )


if __name__ == "__main__":
    for page in (reference, baselines):
        (HERE / f"{page.__name__}.md").write_text(page(), encoding="utf-8")
