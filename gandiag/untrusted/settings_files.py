"""Reads settings from TOML files: the user's own, and those of a project, which may be a stranger's. Torch-free.

A project's file may not set what runs code, reaches the network or reads other paths: whoever looks at a checkpoint in
a cloned repository must not run what lies beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gandiag.errors import ConfigError, close_match_hint
from gandiag.untrusted.files import MAX_TOML_BYTES, is_plain_file, parse_toml, read_text

# Files that may hold settings, the first one first, with the table in each.
PROJECT_FILES = (("gandiag.toml", ("audit",)), ("pyproject.toml", ("tool", "gandiag", "audit")))
USER_FILE = Path("gandiag") / "gandiag.toml"  # below $XDG_CONFIG_HOME, else ~/.config

# Settings that a project's file may not set, and what they do.
_OWN_ONLY = {
    "trust": "runs code in files",
    "model": "imports code",
    "init": "passes arguments to code",
    "download": "reaches the network",
    "spec": "reads and writes other files",
    "inception_weights": "reads other files",
}
_NAMES_OF_CODE = ("features", "metrics")  # harmless by name; "module:attr" imports code
_PATHS = ("real", "holdout", "log", "against", "group_by")  # must stay within the project
_ALIASES = {"class": "class_"}
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

Fields = Mapping[str, "dataclasses.Field[Any]"]
Row = tuple[str, Any, str]  # (setting, value, source)


def read_project_settings(folder: Path, known: Fields) -> list[Row]:
    """[audit] of gandiag.toml, else [tool.gandiag.audit] of pyproject.toml. ConfigError names file, line and key."""
    for name, keys in PROJECT_FILES:
        file = folder / name
        if not is_plain_file(file):
            continue
        rows, lines = _read_rows(file, name, keys, known)
        for setting, value, _ in rows:
            _require_harmless(setting, value, folder, f"{name}:{lines.get(setting, 1)}")
        if rows:
            return rows
    return []


def project_files() -> tuple[str, ...]:
    """The sources that `read_project_settings` names."""
    return tuple(name for name, _ in PROJECT_FILES)


def read_user_settings(environ: Mapping[str, str], known: Fields) -> list[Row]:
    """[audit] of the user's own file. Only `trust` may not stand there: it is given for one file at a time."""
    parent = environ.get("XDG_CONFIG_HOME") or (environ.get("HOME") and Path(environ["HOME"]) / ".config")
    file = Path(parent) / USER_FILE if parent else None
    if file is None or not file.is_absolute() or not is_plain_file(file):
        return []
    rows, lines = _read_rows(file, str(file), ("audit",), known)
    if any(setting == "trust" for setting, _, _ in rows):
        raise ConfigError(f"{file}:{lines['trust']} sets trust for every file", "pass --trust for the one you trust")
    return rows


def _read_rows(file: Path, name: str, keys: tuple[str, ...], known: Fields) -> tuple[list[Row], dict[str, int]]:
    """The settings of a table, and the line of each."""
    document, text = read_toml_file(file, name)
    table = get_table(document, keys)
    if table is None:
        return [], {}
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: {'.'.join(keys)} is {str(table)[:40]!r}", f"write a table: [{'.'.join(keys)}]")
    lines = find_toml_lines(text, keys)
    rows = [_parse_row(key, value, known, name, lines.get(key, 1)) for key, value in table.items()]
    return rows, {_setting_name(key): line for key, line in lines.items()}


def read_toml_file(file: Path, name: str) -> tuple[dict[str, Any], str]:
    """A TOML file as document and text. ConfigError where it cannot be read."""
    try:
        text = read_text(file, MAX_TOML_BYTES)
        return parse_toml(text), text
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}", "give a TOML file") from None
    except ValueError as error:
        raise ConfigError(f"{name} is not valid TOML: {str(error)[:200]}", "correct the file") from None


def _setting_name(key: str) -> str:
    return _ALIASES.get(key, key.replace("-", "_"))


def _parse_row(key: str, value: Any, known: Fields, file: str, line: int) -> Row:
    name = _setting_name(key)
    if name not in known:
        raise ConfigError(
            f"{file}:{line} sets {key[:60]!r}, which is not a setting", close_match_hint(key, list(known))
        )
    parsed = tuple(value) if isinstance(value, list) else parse_setting(known[name], value, f"{file}:{line}: {key}")
    require_type(known[name], parsed, f"{file}:{line}: {key}")
    return name, parsed, file


def _require_harmless(setting: str, value: Any, folder: Path, where: str) -> None:
    """ConfigError for a setting of a project's file that only the user may choose."""
    option = "--" + setting.replace("_", "-")
    danger = describe_danger(setting, value)
    if setting in _PATHS and not danger:
        danger = _describe_dangerous_path(folder, str(value))
    if danger:
        raise ConfigError(
            f"{where} sets {setting.replace('_', '-')}, which {danger}: a project's file may not",
            f"remove that line; if you want it, pass {option}",
        )


def describe_danger(setting: str, value: Any) -> str:
    """Why only the user may choose this value, such as "imports code"; empty for a harmless one."""
    if setting in _NAMES_OF_CODE and any(":" in str(name) for name in (value if isinstance(value, tuple) else [value])):
        return "imports code"
    return _OWN_ONLY.get(setting, "")


def _describe_dangerous_path(folder: Path, path: str) -> str:
    if path == "-":
        return "waits for standard input"
    if path.startswith("hf:"):
        return "reaches the network"
    return "" if is_within_folder(folder, path) else "reads files outside this folder"


def is_within_folder(folder: Path, path: str) -> bool:
    """Whether a path, links followed, stays in a folder; False for one that cannot be followed."""
    try:
        return (folder / path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


# values


def parse_setting(entry: dataclasses.Field[Any], text: Any, origin: str) -> Any:
    """A string converted to the type of a setting; other values unchanged. ConfigError where it does not fit."""
    if not isinstance(text, str):
        return text
    annotation = str(entry.type)
    try:
        if annotation.startswith("bool"):
            return _FLAGS[text.lower()]
        if annotation.startswith("int"):
            return int(text)
        if annotation.startswith("float"):
            return float(text)
        if annotation.startswith("tuple[float"):
            return parse_floats(text)
        if annotation.startswith("tuple[str"):
            return tuple(part.strip() for part in text.split(",") if part.strip())
    except (ValueError, KeyError):
        raise ConfigError(f"{origin} is {text[:60]!r}", f"pass a value of type {annotation.split(' ')[0]}") from None
    return text


def parse_floats(text: str) -> tuple[float, ...]:
    """ "0.5, 1,2" -> (0.5, 1.0, 2.0). ValueError for anything else."""
    return tuple(float(part) for part in text.split(",") if part.strip())


def require_type(entry: dataclasses.Field[Any], value: Any, origin: str) -> None:
    """ConfigError unless a value has the type of its setting."""
    annotation = str(entry.type)
    if value is None and annotation.endswith("None"):
        return
    if annotation.startswith("tuple"):
        valid = isinstance(value, (tuple, list))
        parts, kind = (value if valid else ()), annotation.removeprefix("tuple[").split(",")[0]
    else:
        valid, parts, kind = True, (value,), annotation.split(" ")[0]
    if not valid or not all(_has_type(part, kind) for part in parts):
        due = f"a list of {_NOUNS[kind]}s" if annotation.startswith("tuple") else f"a {_NOUNS[kind]}"
        raise ConfigError(f"{origin} is {ascii(value)[:60]}", f"give {due}")


_NOUNS = {"bool": "true or false", "int": "whole number", "float": "number", "str": "text"}


def _has_type(value: Any, kind: str) -> bool:
    is_bool = isinstance(value, bool) or type(value).__name__ == "bool_"
    if kind == "bool":
        return is_bool
    if kind == "str":
        return isinstance(value, str)
    if is_bool or isinstance(value, (str, bytes)):
        return False
    return hasattr(value, "__index__") or (kind == "float" and hasattr(value, "__float__"))


# tables and lines


def get_table(document: Any, keys: tuple[str, ...]) -> Any:
    """What stands at these keys; None where there is nothing."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def find_toml_lines(text: str, parents: tuple[str, ...]) -> dict[str, int]:
    """Dotted key below the table `parents` -> number of the line that sets it. tomllib does not keep them."""
    lines: dict[str, int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            table = _parse_key_path(line.strip()) or table
        key = (*table, *_parse_assigned_key(line))
        if key[: len(parents)] == parents and len(key) > len(parents):
            lines.setdefault(".".join(key[len(parents) :]), number)
    return lines


def _parse_assigned_key(line: str) -> tuple[str, ...]:
    """The key that a line sets: the text before one of its first `=` that makes it valid TOML."""
    position = -1 if line.lstrip().startswith("#") else line.find("=")
    for _ in range(4):
        if position < 0:
            break
        if path := _parse_key_path(line[:position] + "= 0"):
            return path
        position = line.find("=", position + 1)
    return ()


def _parse_key_path(line: str) -> tuple[str, ...]:
    """The key path in one line of TOML; () if the line is not valid TOML."""
    try:
        table: Any = parse_toml(line) if len(line) < 1000 else {}
    except ValueError:
        return ()
    path = []
    while isinstance(table, Mapping) and table:
        key, table = next(iter(table.items()))
        path.append(key)
    return tuple(path)
