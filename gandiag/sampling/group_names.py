"""Which group each sample belongs to: by folder, by file name, by a mapping file, or by an array of an .npz file.

folder          prompt_017/seed_3.png -> prompt_017
stem            017_3.png, 017_seed3.png -> 017
FILE[:COLUMN]   a CSV or JSON lines with a column of files and one of groups
NAME            the array of this name in the .npz file of the samples
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gandiag.errors import ConfigError, SourceError, close_match_hint
from gandiag.sampling.arrays import LABEL_KEYS, read_named_array
from gandiag.sampling.sources import SampleSet
from gandiag.untrusted.files import open_regular, parse_json, read_text

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")
FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "sample", "name")
GROUP_COLUMNS = ("group", "prompt", "class", "label", "condition", "caption")
MAX_TABLE_BYTES = 1 << 28
MAX_COLUMNS = 1_000
MAX_CELLS = 10_000_000  # rows times columns of a mapping file
# The end of a file name that numbers the samples of a group: _3, -03, _seed3, _seed_3, (3)
SAMPLE_NUMBER = re.compile(r"(?:[_\-. ]+(?:seed|sample|s|img|n)?[_\-. ]*\d+|[_\-. ]*\(\d+\))$", re.IGNORECASE)
HOW_HINT = "pass folder, stem, a CSV of files and groups, or the name of an array in the .npz"

Names = list[str | None]  # one per sample; None: in no group


@dataclass(frozen=True, slots=True)
class _Table:
    """A mapping file: its path, columns and rows."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]


def read_group_names(how: str, samples: SampleSet, path: Path | None) -> Names:
    """The group of every sample of a set, by `how` (the value of --group-by). `path`: where the samples come from.

    ConfigError or SourceError where the groups cannot be found; both list what there is instead.
    """
    if path is not None and _is_npz(path):
        array, names = read_named_array(path, how)
        if array is not None:
            return _names_from_array(array, samples.n, f"{path}: {how}")
        if not _is_table_name(how):
            raise ConfigError(f"{path} has no array called {how!r}", close_match_hint(how, names))
    if _is_table_name(how):
        return _names_from_table(how, samples)
    if how not in ("folder", "stem"):
        raise ConfigError(f"--group-by is {how!r}", HOW_HINT)
    files = get_file_names(samples)
    if files is None:
        raise ConfigError(f"--group-by is {how!r}, but {samples.name} has no file names", HOW_HINT)
    return names_from_folders(files) if how == "folder" else names_from_stems(files)


def choose_sample_array(how: str | None, path: Path, npz_key: str | None) -> str | None:
    """The array of an .npz file that holds the samples, where the array of groups makes two; else `npz_key`."""
    if npz_key is not None or how is None or not _is_npz(path):
        return npz_key
    array, names = read_named_array(path, how)
    others = [name for name in names if name != how and name not in LABEL_KEYS]
    return others[0] if array is not None and len(others) == 1 else None


def names_from_sequence(groups: Any, n: int, title: str = "groups") -> Names:
    """One name per sample from any sequence, array or tensor. SourceError unless there are n of them."""
    values = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(values) != n:
        raise SourceError(f"{title} has {len(values):,} entries for {n:,} samples", "give one group per sample")
    return [None if value is None else str(value) for value in values]


def names_from_folders(files: Sequence[str]) -> Names:
    """The folder of each file, without what all folders share; the first differing level where that leaves singles.

    prompt_1/3.png, prompt_2/3.png -> prompt_1, prompt_2; prompt_1/seed_3/x.png, prompt_1/seed_4/x.png, … -> prompt_1.
    """
    parts = [PurePosixPath(name).parent.parts for name in files]
    if not any(parts):
        raise SourceError(
            f"there are no subfolders: {files[0]} lies in the folder itself",
            "put each group into its own folder, or pass --group-by stem",
        )
    shared = 0
    while all(len(part) > shared + 1 for part in parts) and len({part[shared] for part in parts}) == 1:
        shared += 1
    names: Names = ["/".join(part[shared:]) or None for part in parts]
    if len(set(names)) == len(names) and len(names) > 1:
        names = [part[shared] if len(part) > shared else None for part in parts]
    return names


def get_file_names(samples: SampleSet) -> tuple[str, ...] | None:
    """The relative file names of an image folder or zip; None for arrays and Datasets."""
    files = getattr(samples.reader, "files", None)
    return None if files is None else tuple(files.names)


def names_from_stems(files: Sequence[str]) -> Names:
    """The name of each file without the number at its end, behind its folder where there are several."""
    paths = [PurePosixPath(name) for name in files]
    stems = [SAMPLE_NUMBER.sub("", path.stem) or path.stem for path in paths]
    if len({path.parent for path in paths}) == 1:
        return list(stems)
    return [str(path.parent / stem) for path, stem in zip(paths, stems, strict=True)]


def _is_npz(path: Path) -> bool:
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return file.read(2) == b"PK" and path.suffix.lower() == ".npz"


def _names_from_array(array: Any, n: int, title: str) -> Names:
    if array.ndim != 1:
        raise SourceError(f"{title} has shape {array.shape}", "store one group per sample, shape (N,)")
    return names_from_sequence(array, n, title)


def _split_column(how: str) -> tuple[Path, str | None]:
    """ "groups.csv:prompt" -> its path and column."""
    if Path(how).is_file():
        return Path(how), None
    path, separator, column = how.rpartition(":")
    return (Path(path), column) if separator and Path(path).suffix.lower() in TABLE_SUFFIXES else (Path(how), None)


def _is_table_name(how: str) -> bool:
    return _split_column(how)[0].suffix.lower() in TABLE_SUFFIXES


def _names_from_table(how: str, samples: SampleSet) -> Names:
    path, column = _split_column(how)
    table = _read_table(path)
    column = _choose_group_column(table, column)
    files = get_file_names(samples)
    if files is None:
        if len(table.rows) != samples.n:
            raise SourceError(
                f"{path} has {len(table.rows):,} rows for {samples.n:,} samples", "give one row per sample, in order"
            )
        return [row[column] or None for row in table.rows]
    file_column = next((name for name in FILE_COLUMNS if name in table.columns and name != column), None)
    file_column = file_column or next((name for name in table.columns if name != column), None)
    if file_column is None:
        raise SourceError(f"{path} has no column of files", f"add one called {FILE_COLUMNS[0]}")
    return _match_files(files, {row[file_column]: row[column] for row in table.rows}, path)


def _choose_group_column(table: _Table, column: str | None) -> str:
    if column is not None:
        if column not in table.columns:
            raise ConfigError(f"{table.path} has no column {column!r}", close_match_hint(column, table.columns))
        return column
    named = next((name for name in GROUP_COLUMNS if name in table.columns), None)
    others = [name for name in table.columns if name not in FILE_COLUMNS]
    if named is None and len(others) != 1:
        raise ConfigError(
            f"{table.path} has the columns {', '.join(table.columns)}", f"choose one: --group-by {table.path}:COLUMN"
        )
    return named or others[0]


def _match_files(files: Sequence[str], groups: Mapping[str, str], path: Path) -> Names:
    """The group of each file, by its relative path or the end of a longer one that the table lists.

    Where the names of the files are unique without their folders, also by these, with or without suffix.
    """
    keys = {key.removeprefix("./"): value for key, value in groups.items()}
    paths = [PurePosixPath(file) for file in files]
    by_end = {
        depth: _unique_keys(keys, partial(_take_end, depth=depth)) for depth in {len(file.parts) for file in paths}
    }
    names: Names = [keys.get(str(file)) or by_end[len(file.parts)].get(str(file)) or None for file in paths]
    for part in ("name", "stem"):
        short_names = [str(getattr(file, part)) for file in paths]
        if len(set(short_names)) == len(paths):
            table = _unique_keys(keys, partial(_get_part, part=part))
            names = [name or table.get(short) for name, short in zip(names, short_names, strict=True)]
    if not any(names):
        raise SourceError(
            f"none of the files is listed in {path}: {files[0]} is not, for one",
            f"it lists {next(iter(keys), 'nothing')}: write names relative to the folder of the samples",
        )
    return names


def _take_end(key: str, depth: int) -> str:
    return "/".join(PurePosixPath(key).parts[-depth:])


def _get_part(key: str, part: str) -> str:
    return str(getattr(PurePosixPath(key), part))


def _unique_keys(keys: Mapping[str, str], shorten: Callable[[str], str]) -> dict[str, str]:
    """Shortened key -> group, without those that several keys of different groups share."""
    found: dict[str, set[str]] = {}
    for key, value in keys.items():
        found.setdefault(shorten(key), set()).add(value)
    return {key: next(iter(values)) for key, values in found.items() if len(values) == 1}


def _read_table(path: Path) -> _Table:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise SourceError(f"{path} is larger than {MAX_TABLE_BYTES:,} bytes", "list files and groups only")
        text = read_text(path, MAX_TABLE_BYTES)
    except OSError as problem:
        raise SourceError(f"{path} cannot be read: {problem.strerror}", "check the path of --group-by") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not text", "write it as CSV or JSON lines in UTF-8") from None
    rows = _parse_json_lines(text, path) if text.lstrip()[:1] == "{" else _parse_csv(text, path)
    if not rows:
        raise SourceError(f"{path} lists no files", "give one row per sample below a line of column names")
    return _Table(path, tuple(rows[0]), tuple(rows))


def _parse_json_lines(text: str, path: Path) -> list[dict[str, str]]:
    rows = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line, allow_nan=True)
        except ValueError:
            raise SourceError(f"{path}, line {number} is not JSON", "write one object per line") from None
        if not isinstance(entry, dict):
            raise SourceError(f"{path}, line {number} is no object", 'write {"file": …, "group": …}')
        rows.append({key: "" if value is None else str(value) for key, value in entry.items()})
        columns |= dict.fromkeys(entry)
        _require_size(path, len(columns), len(rows))
    return [{key: row.get(key, "") for key in columns} for row in rows]


def _parse_csv(text: str, path: Path) -> list[dict[str, str]]:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    _require_size(path, 1, text.count(delimiter) + text.count("\n"))
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    except csv.Error as problem:
        raise SourceError(f"{path} is not a readable CSV: {problem}", "write it again") from None
    columns = [name.strip() for name in lines[0]] if lines else []
    _require_size(path, len(columns), len(lines))
    return [
        {name: (line[index].strip() if index < len(line) else "") for index, name in enumerate(columns)}
        for line in lines[1:]
    ]


def _require_size(path: Path, n_columns: int, n_rows: int) -> None:
    """SourceError for a file with too many columns or cells to be a mapping."""
    if n_columns > MAX_COLUMNS or n_columns * n_rows > MAX_CELLS:
        raise SourceError(
            f"{path} has more than {MAX_COLUMNS:,} columns or {MAX_CELLS:,} cells", "list files and groups only"
        )
