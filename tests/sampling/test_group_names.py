"""Which group a sample belongs to: folders, file names, mapping files, arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gandiag.errors import ConfigError, SourceError
from gandiag.sampling.group_names import (
    choose_sample_array,
    names_from_folders,
    names_from_sequence,
    names_from_stems,
    read_group_names,
)
from gandiag.sampling.sources import SampleSet, open_samples

FILES = ("p1/seed_0.png", "p1/seed_1.png", "p2/seed_0.png", "p2/seed_1.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(tmp_path / "s" / name)
    return tmp_path / "s"


def read(how: str, path: Path) -> list[str | None]:
    samples: SampleSet = open_samples(path, npz_key=choose_sample_array(how, path, None))
    return read_group_names(how, samples, path)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (FILES, ["p1", "p1", "p2", "p2"]),
        (("out/p1/a.png", "out/p2/a.png", "out/p2/b.png"), ["p1", "p2", "p2"]),
        (("p1/s1/x.png", "p1/s2/x.png", "p2/s1/x.png"), ["p1", "p1", "p2"]),
        (("a/p1/x.png", "a/p1/y.png", "b/p1/x.png", "b/p1/y.png"), ["a/p1", "a/p1", "b/p1", "b/p1"]),
        (("only/a.png", "only/b.png"), ["only", "only"]),
    ],
)
def test_folders(files: tuple[str, ...], names: list[str]) -> None:
    assert names_from_folders(files) == names


def test_stems_lose_the_number_of_the_sample() -> None:
    files = ("017_3.png", "017-04.png", "017_seed12.png", "017_seed_12.png", "a cat (2).png", "a cat 3.png", "dog.png")
    assert names_from_stems(files) == ["017", "017", "017", "017", "a cat", "a cat", "dog"]
    assert names_from_stems(("x/1_0.png", "y/1_0.png")) == ["x/1", "y/1"]


def test_a_flat_folder_has_no_folders(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no subfolders"):
        names_from_folders(("a.png", "b.png"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_maps_files_to_groups(folder: Path, tmp_path: Path, separator: str) -> None:
    table = tmp_path / "groups.csv"
    rows = [("file", "prompt", "style"), *((name, f"prompt {index % 2}", "x") for index, name in enumerate(FILES))]
    table.write_text("\n".join(separator.join(row) for row in rows))
    assert read(str(table), folder) == ["prompt 0", "prompt 1", "prompt 0", "prompt 1"]
    assert set(read(f"{table}:style", folder)) == {"x"}
    with pytest.raises(ConfigError) as caught:
        read(f"{table}:promt", folder)
    assert "'promt'" in caught.value.message and "prompt" in caught.value.hint and "style" in caught.value.hint


def test_json_lines_and_files_that_are_not_listed(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "groups.jsonl"
    table.write_text("".join(f'{{"file": "{name}", "group": {index}}}\n' for index, name in enumerate(FILES[:3])))
    assert read(str(table), folder) == ["0", "1", "2", None]
    table.write_text('{"file": "other.png", "group": 1}\n')
    with pytest.raises(SourceError, match="none of the files"):
        read(str(table), folder)
    table.write_text("{broken\n")
    with pytest.raises(SourceError, match="line 1 is not JSON"):
        read(str(table), folder)


def test_an_array_of_the_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, points=np.zeros((4, 2)), group=np.array(["a", "a", "b", "b"]))
    assert read("group", path) == ["a", "a", "b", "b"]
    with pytest.raises(ConfigError) as caught:
        read_group_names("grp", open_samples(path, npz_key="points"), path)
    assert "'grp'" in caught.value.message and "group" in caught.value.hint and "points" in caught.value.hint
    np.savez(path, points=np.zeros((4, 2)), group=np.zeros(3))
    with pytest.raises(SourceError, match="3 entries for 4 samples"):
        read("group", path)


def test_rows_of_a_table_for_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    (tmp_path / "g.csv").write_text("group\na\na\nb\n")
    assert read(str(tmp_path / "g.csv"), tmp_path / "x.npy") == ["a", "a", "b"]
    (tmp_path / "g.csv").write_text("group\na\n")
    with pytest.raises(SourceError, match="1 rows for 3 samples"):
        read(str(tmp_path / "g.csv"), tmp_path / "x.npy")


def test_other_ways_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--group-by is 'folders'"):
        read("folders", folder)
    with pytest.raises(SourceError, match="cannot be read"):
        read("missing.csv", folder)
    with pytest.raises(SourceError, match="2 entries for 3 samples"):
        names_from_sequence([1, 2], 3)
