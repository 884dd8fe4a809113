"""Click options from the knobs of AuditConfig: one place for name, type, default, bounds and help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from gandiag.config import AuditConfig, option_name, parse_floats

# Spelt as a plain switch, or with another name, on the command line.
_ALIASES: dict[str, tuple[str, ...]] = {"n": ("-n", "--n"), "class_": ("--class", "class_")}


_LOOKED_AT = {
    "spec": "the whole reading that an audit with --spec wrote: replayed"
}  # the help of commands that write nothing
_TITLES = {
    "audit": "What to measure",
    "run": "How to run",
    "load": "How to read the file",
    "latent": "What the file cannot say: the latent",
    "output": "What the file cannot say: the network",
    "": "Output",
}


class GroupedCommand(click.Command):
    """A command whose help lists its options under the headings of their knobs."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {entry.name: entry.metadata["group"] for entry in dataclasses.fields(AuditConfig)}
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in _TITLES}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                rows[groups.get(parameter.name or "", "")].append(row)
        for group, title in _TITLES.items():
            if rows[group]:
                with formatter.section(title):
                    formatter.write_dl(rows[group], col_max=26)


class NumberList(click.ParamType[Any]):
    """Comma-separated numbers."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse_floats(value)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,1,2", param, ctx)


class NameList(click.ParamType[Any]):
    """Comma-separated names."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def audit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every knob as an option; unset options are None, so that environment and TOML can speak."""
    for entry in reversed(dataclasses.fields(AuditConfig)):
        command = _option(entry)(command)
    return command


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The knobs that say how a checkpoint is read; none that would run code in it."""
    for entry in reversed(dataclasses.fields(AuditConfig)):
        if entry.metadata["group"] in ("load", "latent", "output") and entry.name not in (
            "trust",
            "npz_key",
            "scale",
            "class_",
            "bn",
        ):
            command = _option(entry, _LOOKED_AT.get(entry.name))(command)
    return command


def _option(
    entry: dataclasses.Field[Any], instead: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`instead`: of the knob's own help."""
    rules, annotation = entry.metadata, str(entry.type)
    text = (instead or rules["help"]) + _default(entry)
    if entry.name == "exhibits":
        return click.option("--exhibits/--no-exhibits", default=None, help=text)
    if annotation.startswith("bool"):
        return click.option(option_name(entry.name), entry.name, is_flag=True, default=None, help=text)
    if entry.name == "init":
        return click.option(
            "--init", multiple=True, metavar="K=V", help=text, callback=lambda ctx, param, value: value or None
        )
    names = _ALIASES.get(entry.name, (option_name(entry.name), entry.name))
    return click.option(
        *names, type=_type(annotation, rules), default=None, help=text, metavar=_metavar(entry, annotation)
    )


def _type(annotation: str, rules: Any) -> Any:
    if rules["choices"]:
        return click.Choice(rules["choices"])
    if annotation.startswith("tuple[float"):
        return NumberList()
    if annotation.startswith("tuple[str"):
        return NameList()
    return int if annotation.startswith("int") else float if annotation.startswith("float") else str


def _metavar(entry: dataclasses.Field[Any], annotation: str) -> str | None:
    if entry.metadata["choices"]:
        return None
    kind = {"tuple[float": "X,Y…", "tuple[str": "A,B…", "int": "N", "float": "X"}
    return next(
        (shown for start, shown in kind.items() if annotation.startswith(start)),
        "DATA" if entry.name == "real" else "TEXT",
    )


def _default(entry: dataclasses.Field[Any]) -> str:
    if entry.default is None or entry.default == () or isinstance(entry.default, bool):
        return ""
    shown = ",".join(f"{part:g}" for part in entry.default) if isinstance(entry.default, tuple) else entry.default
    return f"  [default: {shown}]"


def format_config(values: dict[str, Any], sources: dict[str, str]) -> str:
    """The resolved settings, one a line, each with its source."""
    width = max(len(name) for name in values)
    return "\n".join(
        f"{option_name(name)[2:]:<{width}}  {_shown(value):<28}  {sources[name]}" for name, value in values.items()
    )


def _shown(value: Any) -> str:
    if value is None:
        return "(inferred)"
    return ",".join(str(part) for part in value) or "(none)" if isinstance(value, tuple) else str(value)
