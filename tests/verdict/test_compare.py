"""`gandiag compare`: intervals of differences, records that cannot be compared, and the command."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import records
from gandiag.cli.main import run_command_line

import gandiag
from gandiag.errors import RecordError
from gandiag.record import Record, Score
from gandiag.verdict.compare import check_regression, compare, estimate_correlation
from gandiag.verdict.limits import Limit


@cache
def load_record(name: str) -> Record:
    """Cached, because drawing the exhibits takes longest."""
    return records.ALL[name]()


def make_scored(value: float, half: float, replicates: tuple[float, ...] = (), **change: object) -> Record:
    score = Score(
        value, max(0.0, value - half), min(1.0, value + half), n_fake=1000, n_real=2000, replicates=replicates
    )
    return replace(load_record("healthy"), score=replace(score, **change))


def add_noise(value: float, common: list[float], own: float, seed: int) -> tuple[float, ...]:
    draw = random.Random(seed)
    return tuple(value + shared + draw.gauss(0, own) for shared in common)


@pytest.mark.parametrize("name", sorted({*records.ALL} - {"bare"}))
def test_nothing_changes_between_a_record_and_itself(name: str) -> None:
    record = load_record(name)
    for change in compare(record, record).changes:
        assert change.delta == 0 and change.direction == "same" and change.low <= 0 <= change.high
    score = compare(record, record).change("score")
    assert score is not None and (not record.score.replicates or (score.paired and score.low == score.high == 0))


def test_differences_are_antisymmetric() -> None:
    there, back = (
        compare(load_record("healthy"), load_record("collapsed")),
        compare(load_record("collapsed"), load_record("healthy")),
    )
    assert there.changes[0].key == "score"
    for change in there.changes:
        other = back.change(change.key)
        assert other is not None and other.delta == -change.delta
        assert (other.low, other.high) == pytest.approx((-change.high, -change.low))
        assert {change.direction, other.direction} in ({"worse", "better"}, {"moved"}, {"same"})


def test_an_unpaired_interval_is_that_of_independent_errors() -> None:
    change = compare(make_scored(0.3, 0.03), make_scored(0.5, 0.04)).change("score")
    assert change is not None and not change.paired
    assert (change.low, change.high) == pytest.approx((0.2 - 0.05, 0.2 + 0.05))  # 3, 4, 5


def test_correlated_replicates_narrow_the_interval_and_others_do_not() -> None:
    draw = random.Random(0)
    common = [draw.gauss(0, 0.02) for _ in range(20)]
    together = compare(
        make_scored(0.3, 0.04, add_noise(0.3, common, 0.003, 1)),
        make_scored(0.33, 0.04, add_noise(0.33, common, 0.003, 2)),
    ).change("score")
    apart = compare(
        make_scored(0.3, 0.04, add_noise(0.3, common, 0.003, 1)),
        make_scored(0.33, 0.04, add_noise(0.33, common[::-1], 0.003, 2)),
    ).change("score")
    loose = compare(make_scored(0.3, 0.04), make_scored(0.33, 0.04)).change("score")
    assert together is not None and apart is not None and loose is not None
    assert (
        together.paired
        and together.direction == "worse"
        and together.high - together.low < 0.5 * (loose.high - loose.low)
    )
    assert loose.direction == "same" and apart.high - apart.low > 0.8 * (loose.high - loose.low)


def test_correlation_is_never_overstated() -> None:
    draw = random.Random(1)
    one = [draw.gauss(0, 1) for _ in range(20)]
    assert estimate_correlation(one, one) == 1.0
    assert estimate_correlation(one, [-x for x in one]) == pytest.approx(-1.0)
    assert (
        estimate_correlation(one, [2.0] * 20) == 0.0
        and estimate_correlation(one, one[:-1]) == 0.0
        and estimate_correlation((), ()) == 1.0
    )
    chance = [estimate_correlation(one, [draw.gauss(0, 1) for _ in range(20)]) for _ in range(400)]
    # The lower 95 % bound of no correlation is positive in one case of twenty; 5 % of 400 is 20, with a std of 4.4.
    assert sum(found > 0 for found in chance) < 20 + 4 * 4.4


@pytest.mark.parametrize(
    ("old", "new", "state"),
    [
        ((0.1, 0.01), (0.3, 0.01), "violated"),
        ((0.1, 0.01), (0.12, 0.01), "passed"),
        ((0.1, 0.05), (0.12, 0.05), "inconclusive"),
    ],
)
def test_a_regression_is_judged_by_its_interval(old: tuple[float, float], new: tuple[float, float], state: str) -> None:
    found = compare(make_scored(*old), make_scored(*new))
    assert check_regression(Limit("score"), found.change("score"), 0.05).state == state
    assert check_regression(Limit("recall"), None, 0.05).state == "unmeasured"


def test_the_direction_of_a_change() -> None:
    found = compare(load_record("healthy"), load_record("collapsed"))
    recall, duplicates, parameters = (found.change(key) for key in ("recall", "near_duplicates", "parameters"))
    assert (
        recall is not None and recall.delta < 0 and recall.direction == "worse" and recall.regression_interval()[0] > 0
    )
    assert (
        duplicates is not None
        and duplicates.delta > 0
        and duplicates.direction == "worse"
        and duplicates.regression_interval()[0] > 0
    )
    assert parameters is not None and parameters.direction == "same"


def test_incomparable_records_are_refused() -> None:
    base = load_record("healthy")
    with pytest.raises(RecordError, match="features"):
        gandiag.compare(base, replace(base, provenance={**base.provenance, "features": {"pixels": "pixels:1"}}))
    with pytest.raises(RecordError, match="against real data"):
        gandiag.compare(base, load_record("degeneracy"))
    with pytest.raises(RecordError, match="outputs"):
        gandiag.compare(
            base, replace(base, subject={**base.subject, "output": {"kind": "image", "shape": [3, 64, 64]}})
        )
    degraded = {**base.provenance, "features": {**base.provenance["features"], "imagenet@128+1": "x"}}
    assert gandiag.compare(base, replace(base, provenance=degraded)).changes


def test_the_command_writes_text_json_and_markdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_record("healthy").write("old.json")
    load_record("collapsed").write("new.json")
    assert run_command_line(["compare", "old.json", "new.json"]) == 1
    text = capsys.readouterr().out
    assert (
        text.startswith("REGRESSED  old.json → new.json")
        and "recall" in text
        and "worse" in text
        and max(map(len, text.splitlines())) <= 130
    )
    assert run_command_line(["compare", "new.json", "old.json"]) == 0 and capsys.readouterr().out.startswith(
        "NO REGRESSION"
    )
    assert run_command_line(["compare", "old.json", "new.json", "--max-regress", "0.47"]) == 3
    assert (
        run_command_line(["compare", "old.json", "new.json", "--max-regress", "0.47", "--allow", "inconclusive"]) == 0
    )
    capsys.readouterr()
    assert run_command_line(["compare", "old.json", "new.json", "-f", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "gandiag.compare/1" and document["changes"]["recall"]["direction"] == "worse"
    assert run_command_line(["compare", "old.json", "new.json", "-f", "markdown", "-o", "out.md"]) == 1 and Path(
        "out.md"
    ).read_text().startswith("## REGRESSED")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("old.json absent.json", "absent.json cannot be read"),
        ("old.json old.json -f xml", "choose from"),
        ("old.json", "NEW"),
        ("old.json broken.json", "damaged"),
        ("old.json old.json --max-regress nan", "max-regress"),
    ],
)
def test_bad_input_exits_2(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_record("healthy").write("old.json")
    document = json.loads(load_record("healthy").to_json())
    Path("broken.json").write_text(json.dumps({**document, "provenance": {**document["provenance"], "config": 4}}))
    assert run_command_line(["compare", *line.split()]) == 2
    caught = capsys.readouterr()
    assert message in caught.err and caught.out == "" and "Traceback" not in caught.err
