"""Click options: those of AuditConfig's settings, generated from its fields, and those that several commands share.

Name, type, default, bounds and help of a setting are in AuditConfig alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import click

from gandiag.config import AuditConfig, option_name
from gandiag.untrusted.settings_files import describe_danger, parse_floats

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}
# Settings whose option is not `--<name>`.
_OPTION_NAMES: dict[str, tuple[str, ...]] = {"n": ("-n", "--n"), "class_": ("--class", "class_")}
# The field's usual spelling, accepted beside the documented one.
_HIDDEN_ALIASES: dict[str, tuple[str, ...]] = {
    "n": ("--num-samples",),
    "scales": ("--latent-scales",),
    "exhibits": ("--images",),
    "init": ("--model-arg",),
    "strict": ("--no-assumptions",),
    "spec": ("--loading-spec",),
    "scale": ("--latent-scale",),
    "psi": ("--truncation-psi",),
    "noise": ("--noise-mode",),
    "class_place": ("--label-position",),
    "bn": ("--batchnorm",),
    "bn_eps": ("--batchnorm-eps",),
}
_LOADING_GROUPS = ("load", "latent", "output")
# Settings of those groups that run code, or change what is sampled, not how a file is read.
_NOT_FOR_READING = ("trust", "model", "init", "npz_key", "scale", "class_", "bn")
# Help for commands that write nothing.
_READING_HELP = {"spec": "loading spec written by `gandiag audit --spec`; replayed"}
_GROUP_TITLES = {
    "audit": "What to measure",
    "run": "How to run",
    "load": "How to read the file",
    "latent": "Latent and labels",
    "output": "Network and output",
    "": "Output",
}
_METAVARS = {"tuple[float": "X,Y…", "tuple[str": "A,B…", "int": "N", "float": "X"}


class AliasedOption(click.Option):
    """An option that also accepts spellings that are not shown in the help."""

    def __init__(self, *args: Any, aliases: Sequence[str] = (), secondary_aliases: Sequence[str] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.aliases, self.secondary_aliases = list(aliases), list(secondary_aliases)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        shown, shown_secondary = self.opts, self.secondary_opts
        try:
            self.opts = [*shown, *self.aliases]
            self.secondary_opts = [*shown_secondary, *self.secondary_aliases]
            super().add_to_parser(parser, ctx)
        finally:
            self.opts, self.secondary_opts = shown, shown_secondary


class GroupedCommand(click.Command):
    """A command whose help lists its options by group of settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {entry.name: entry.metadata["group"] for entry in dataclasses.fields(AuditConfig)}
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in _GROUP_TITLES}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                rows[groups.get(parameter.name or "", "")].append(row)
        for group, title in _GROUP_TITLES.items():
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
    """Add every setting as an option; those not given are None, so that environment and TOML apply."""
    for entry in reversed(dataclasses.fields(AuditConfig)):
        command = _make_option(entry)(command)
    return command


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the settings that say how a checkpoint is read; none of them runs code in it."""
    for entry in reversed(dataclasses.fields(AuditConfig)):
        if entry.metadata["group"] in _LOADING_GROUPS and entry.name not in _NOT_FOR_READING:
            command = _make_option(entry, _READING_HELP.get(entry.name))(command)
    return command


def own_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the settings that no file may decide: they run code, reach the network or read other files."""
    for entry in reversed(dataclasses.fields(AuditConfig)):
        if describe_danger(entry.name, "module:name"):
            command = _make_option(entry)(command)
    return command


def json_option(help: str) -> Decorator:
    """--json, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def output_option(help: str, metavar: str = "FILE") -> Decorator:
    """-o/--output, as the parameter `output`."""
    return click.option("-o", "--output", metavar=metavar, help=help)


def html_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--html, as the parameter `html_path`."""
    return click.option("--html", "html_path", metavar="FILE", help="write one self-contained HTML page here")(command)


def exit_zero_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--exit-zero."""
    return click.option("--exit-zero", is_flag=True, help="exit 0 whatever the verdict")(command)


def quiet_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """-q/--quiet, counted."""
    return click.option("-q", "--quiet", count=True, help="hide progress and notes (-q), print nothing (-qq)")(command)


def brief_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """-q and -v of a command whose result is a verdict."""
    command = verbose_option("show the whole report (-v), with all measurements and remedies (-vv)")(command)
    return click.option("-q", "--quiet", count=True, help="print the verdict line only (-q), nothing (-qq)")(command)


def verbose_option(help: str) -> Decorator:
    """-v/--verbose, counted."""
    return click.option("-v", "--verbose", count=True, help=help)


def debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--debug."""
    return click.option("--debug", is_flag=True, help="show tracebacks")(command)


def _make_option(entry: dataclasses.Field[Any], help: str | None = None) -> Decorator:
    """The option of a setting. `help`: instead of the setting's own."""
    rules, annotation = entry.metadata, str(entry.type)
    aliases = _HIDDEN_ALIASES.get(entry.name, ())
    shared: dict[str, Any] = {
        "cls": AliasedOption,
        "aliases": aliases,
        "default": None,
        "help": (help or rules["help"]) + _format_default(entry),
    }
    if entry.name == "exhibits":
        secondary = [alias.replace("--", "--no-", 1) for alias in aliases]
        return click.option("--exhibits/--no-exhibits", secondary_aliases=secondary, **shared)
    if annotation.startswith("bool"):
        return click.option(option_name(entry.name), entry.name, is_flag=True, **shared)
    if entry.name == "init":
        shared["callback"] = lambda ctx, param, value: value or None
        return click.option("--init", multiple=True, metavar="K=V", **shared)
    names = _OPTION_NAMES.get(entry.name, (option_name(entry.name), entry.name))
    return click.option(*names, type=_get_type(annotation, rules), metavar=_get_metavar(entry, annotation), **shared)


def _get_type(annotation: str, rules: Any) -> Any:
    if rules["choices"]:
        return click.Choice(rules["choices"])
    types = {"tuple[float": NumberList(), "tuple[str": NameList(), "int": int, "float": float}
    return next((kind for start, kind in types.items() if annotation.startswith(start)), str)


def _get_metavar(entry: dataclasses.Field[Any], annotation: str) -> str | None:
    if entry.metadata["choices"]:
        return None
    metavars = {"real": "DATA", "holdout": "DATA", "against": "SAMPLES|CKPT", "group_by": "HOW"}
    default = metavars.get(entry.name, "TEXT")
    return next((metavar for start, metavar in _METAVARS.items() if annotation.startswith(start)), default)


def _format_default(entry: dataclasses.Field[Any]) -> str:
    if entry.default is None or entry.default == () or isinstance(entry.default, bool):
        return ""
    default = ",".join(f"{part:g}" for part in entry.default) if isinstance(entry.default, tuple) else entry.default
    return f"  [default: {default}]"


def format_config(values: dict[str, Any], sources: dict[str, str]) -> str:
    """The resolved settings, one per line: value, source, and the default where that is another value."""
    width = max(len(name) for name in values)
    entries = {entry.name: entry for entry in dataclasses.fields(AuditConfig)}
    rows = []
    for name, value in values.items():
        unset = entries[name].metadata["unset"]
        default = "" if sources[name] == "default" else f"default: {_format_setting(entries[name].default, unset)}"
        rows.append(
            f"{option_name(name)[2:]:<{width}}  {_format_setting(value, unset):<28}  {sources[name]:<8}  {default}"
        )
    return "\n".join(row.rstrip() for row in rows)


def _format_setting(value: Any, unset: str = "not set") -> str:
    if value is None:
        return f"({unset})"
    return ",".join(str(part) for part in value) or "(none)" if isinstance(value, tuple) else str(value)
