"""Tables: files and frames as columns, their types, and rows as features."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gandiag
from gandiag.errors import ConfigError, SourceError
from gandiag.sampling.saved_tensors import read_saved_tensor
from gandiag.sampling.sources import contains_samples, open_samples
from gandiag.sampling.tables.columns import RawTable, column_from_cells, column_from_objects, make_table
from gandiag.sampling.tables.encoder import fit_encoder
from gandiag.sampling.tables.files import is_table_file, read_table
from gandiag.sampling.tables.types import parse_column_types, plan_columns

N = 300


def table(**columns: list[object]) -> RawTable:
    return make_table("t", [column_from_objects(name, values) for name, values in columns.items()])


def kinds(real: RawTable, fake: RawTable | None = None, given: dict[str, str] | None = None) -> dict[str, str | None]:
    return {plan.name: plan.kind for plan in plan_columns(real, fake, given or {})}


def mixed(n: int = N, seed: int = 0) -> dict[str, list[object]]:
    draw = np.random.default_rng(seed)
    return {
        "age": draw.integers(17, 90, n).tolist(),
        "stars": draw.integers(1, 6, n).tolist(),
        "cut": draw.choice(["Fair", "Good", "Ideal"], n).tolist(),
        "price": np.exp(draw.normal(size=n)).tolist(),
        "sold": [f"2024-0{month}-17" for month in draw.integers(1, 10, n)],
        "id": list(range(n)),
        "ref": [f"A-{number:06d}" for number in draw.permutation(n)],
    }


def test_types_are_inferred() -> None:
    assert kinds(table(**mixed())) == {
        "age": "number",
        "stars": "category",
        "cut": "category",
        "price": "number",
        "sold": "date",
        "id": None,
        "ref": None,
    }


def test_codes_are_numbers_where_the_generated_ones_are_not_whole() -> None:
    real, fake = table(stars=[1, 2, 3] * 50), table(stars=[1.2, 2.3, 3.1] * 50)
    assert kinds(real, fake) == {"stars": "number"}


def test_given_types_win() -> None:
    real = table(**mixed())
    assert kinds(real, None, {"age": "category", "cut": "skip"})["age"] == "category"
    assert kinds(real, None, {"cut": "skip"})["cut"] is None


@pytest.mark.parametrize(
    ("real", "fake", "match"),
    [
        ({"a": [1.0, 2.0] * 50}, {"a": ["x", "y"] * 50}, "'a' holds numbers such as 1 .* words such as 'x'"),
        ({"a": ["x", "y"] * 50}, {"a": [7.0, 8.5] * 50}, "'a' holds words such as 'x'"),
        ({"a": [1.0] * 9, "b": [2.0] * 9}, {"a": [1.0] * 9}, "no column 'b'"),
        ({"a": [1.0] * 9}, {"b": [1.0] * 9}, "share no column"),
        ({"a": [1.0, float("inf")]}, {"a": [1.0, 2.0]}, "'a' has 1 infinite values, the first in row 2"),
        ({"a": [1.0, 3.0]}, {"a": [1.0, float("-inf")]}, "infinite"),
        ({"a": [f"some words of row {i}" for i in range(99)]}, {"a": ["some words here too"] * 99}, "'a' is text"),
    ],
)
def test_columns_that_do_not_compare_are_refused_by_name(
    real: dict[str, list[object]], fake: dict[str, list[object]], match: str
) -> None:
    with pytest.raises(SourceError, match=match):
        plan_columns(table(**real), table(**fake), {})


def test_infinite_values_do_not_matter_in_a_column_that_is_skipped() -> None:
    real = table(a=[1.0, float("inf")], b=[1.0, 2.5])
    assert kinds(real, real, {"a": "skip"}) == {"a": None, "b": "number"}


def test_unreadable_column_types_are_refused() -> None:
    for entry in ("age", "age=text", "=number"):
        with pytest.raises(ConfigError):
            parse_column_types((entry,))
    with pytest.raises(ConfigError, match="not a column"):
        plan_columns(table(a=[1.0, 2.0]), None, {"aa": "number"})


def test_cells_become_numbers_dates_or_words() -> None:
    assert column_from_cells("a", ["1", " 2.5", "", "NA"]).values.tolist()[:2] == [1.0, 2.5]
    assert column_from_cells("a", ["1", "", "NA"]).is_missing.tolist() == [False, True, True]
    assert column_from_cells("a", ["2024-01-01", "2024-01-02"]).values.tolist() == [1704067200.0, 1704153600.0]
    assert column_from_cells("a", ["12/31/2023", "01/02/2024"]).is_date
    assert not column_from_cells("a", ["01234", "98765"]).is_numeric  # postal codes
    assert not column_from_cells("a", ["1", "x"]).is_numeric


def encoder_of(real: RawTable, fake: RawTable | None = None):  # type: ignore[no-untyped-def]
    return fit_encoder(real, fake, plan_columns(real, fake, {}))


def test_scores_depend_on_ranks_only_and_keep_ties() -> None:
    values = (2 * np.random.default_rng(0).normal(size=N)).round() / 2
    plain = encoder_of(table(a=values.tolist())).encode(table(a=values.tolist()))
    bent = encoder_of(table(a=np.exp(9 * values).tolist())).encode(table(a=np.exp(9 * values).tolist()))
    assert torch.allclose(plain, bent)
    assert len(plain[:, 0].unique()) == len(np.unique(values))
    assert abs(float(plain[:, 0].mean())) < 0.05 and abs(float(plain[:, 0].std()) - 1) < 0.05


def test_values_beyond_the_real_ones_stay_near_and_distinct() -> None:
    real = table(a=np.linspace(0, 1, N).tolist())
    features = encoder_of(real).encode(table(a=[1.0, 2.0, 50.0, 1e300, -1e300]))[:, 0]
    assert features[0] < features[1] < features[2] <= features[3] <= features[0] + 1
    assert features[4] >= -features[0] - 1


def test_missing_and_unseen_values_have_features_of_their_own() -> None:
    real = table(a=[1.0, 2.5, None] * 40, b=["x", "y", None] * 40)
    encoder = encoder_of(real)
    rows = encoder.encode(table(a=[None, 2.5], b=["z", None]))
    assert rows[0, :2].tolist() == [0.0, 1.0] and rows[1, 1] == 0
    assert rows[:, 2:].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]
    number, category = encoder.columns
    parts = encoder.split(rows)
    assert number.describe_codes(*[int(number.find_codes(parts[0])[0])] * 2) == "(missing)"
    assert category.describe_codes(*[int(category.find_codes(parts[1])[0])] * 2) == "(not in the real data)"


def test_ranges_have_names() -> None:
    (column,) = encoder_of(table(a=list(range(20, 90)) * 4)).columns
    last = len(column.edges)
    assert column.describe_codes(0, 3).startswith("below ")
    assert column.describe_codes(last, last).startswith("above ")
    assert " to " in column.describe_codes(2, 3)


def test_constant_columns_are_left_out_and_a_table_of_constants_is_refused() -> None:
    real = table(a=[1.5, 2.5] * 50, b=["x"] * 100)
    assert [plan.reason for plan in encoder_of(real, real).left_out] == ["constant in both tables"]
    constant = table(b=["x"] * 100)
    with pytest.raises(SourceError, match="no column is left to compare: b"):
        encoder_of(constant, constant)
    assert encoder_of(constant).width > 0  # alone, every row is the same: a verdict, not an error


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_delimited_text_is_read_without_pandas(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "rows"
    path.write_text("\n".join(separator.join(row) for row in (["age", "cut"], ["31", "Fair"], ["", '"a b"'])))
    result = read_table(path)
    assert result.column_names == ("age", "cut")
    assert result.column("cut").values.tolist() == ["Fair", "a b"]
    assert contains_samples(path)
    assert "pandas" not in type(result.column("age").values).__module__


def test_numbers_without_a_header_get_column_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("1,2\n3,4\n5,6\n")
    assert (read_table(path).n, read_table(path).column_names) == (3, ("column 1", "column 2"))


@pytest.mark.parametrize(
    ("text", "match"),
    [("a,b\n" + "1,2\n" * 60 + "3\n", "row 61 has 1 fields"), ("a,a\n1,2\n3,4\n", "two columns called 'a'")],
)
def test_broken_tables_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=match):
        read_table(path)


@pytest.mark.parametrize("content", [b'{"a": 1,\n "b": 2}\n', b"import os\nprint(1)\n", b"\x80\x02}q\x00.", b"", b"a"])
def test_other_files_are_no_tables(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not is_table_file(path)


def test_frames_and_files_give_the_same_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    columns = mixed(60) | {"gap": [None, 1.5, 2.5] * 20, "flag": [True, False, True] * 20}
    frame = pandas.DataFrame(columns)
    frame["sold"] = pandas.to_datetime(frame["sold"])
    frame["cut"] = frame["cut"].astype("category")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    expected = read_table(tmp_path / "rows.csv").fingerprint()
    assert open_samples(frame).reader.table.fingerprint() == expected
    if "polars" in sys.modules or _has("polars"):
        import polars

        assert open_samples(polars.from_pandas(frame)).reader.table.fingerprint() == expected
    if _has("pyarrow"):
        frame.to_parquet(tmp_path / "rows.parquet")
        assert open_samples(tmp_path / "rows.parquet").reader.table.fingerprint() == expected


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 nothing here PAR1")
    with pytest.raises(SourceError, match="cannot be read"):
        open_samples(path)


def test_saved_tensors_are_samples_and_weights_are_not(tmp_path: Path) -> None:
    samples, labels = torch.randn(10, 3), torch.arange(10)
    torch.save(samples, tmp_path / "s.pt")
    torch.save({"samples": samples, "labels": labels}, tmp_path / "d.pt")
    torch.save({"fc.weight": samples}, tmp_path / "w.pt")
    torch.save(torch.randn(5), tmp_path / "flat.pt")
    found = [contains_samples(tmp_path / f"{name}.pt") for name in ("s", "d", "w", "flat")]
    assert found == [True, True, False, False]
    assert torch.equal(read_saved_tensor(tmp_path / "s.pt")[0], samples)
    loaded, classes = read_saved_tensor(tmp_path / "d.pt")
    assert torch.equal(loaded, samples) and classes is not None and torch.equal(classes, labels)
    with pytest.raises(SourceError, match="not a set of samples"):
        read_saved_tensor(tmp_path / "w.pt")


def test_a_table_of_numbers_serves_a_generator_of_vectors(tmp_path: Path) -> None:
    path = tmp_path / "real.csv"
    np.savetxt(path, np.random.default_rng(0).normal(size=(40, 3)), delimiter=",", header="a,b,c", comments="")
    record = gandiag.audit(np.zeros((40, 3), "float32"), real=path, exhibits=False)
    assert record.score.n_fake == 20 and record.verdict == "inconclusive"  # too few samples, and said
