"""The section of groups in every report, with hostile and damaged content."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from records import ALL, ATTACK

from gandiag.record import Record, Score
from gandiag.report.formatting import describe_score, format_percent_interval
from gandiag.report.group_view import build_group_facts, build_group_rows
from gandiag.report.html_page import render_fragment, render_html
from gandiag.report.markdown import render_markdown
from gandiag.report.terminal import render_text


def make_groups(name: str = "a cat", **change: Any) -> dict[str, Any]:
    row = {"group": name, "n": 4, "n_reference": 8, "ratio": 0.02, "low": 0.01, "high": 0.04, "q": 0.001}
    return {
        "within": {"value": 0.41, "low": 0.37, "high": 0.45},
        "between": {"value": 0.98, "low": 0.9, "high": 1.1},
        "basis": "reference",
        "count": 50,
        "left_out": 3,
        "left_out_reasons": {"one sample": 1, "not in the reference": 2},
        "collapsed": [row],
        "rows": [row | {"distances": [0, 0.1, 0.2, 0.3, 0.4], "reference_distances": [0.5, 0.8, 1, 1.2, 2.5]}],
        "low_quantile": {"value": 0.1, "low": 0.05, "high": 0.2, "floor": 0.8},
        **change,
    }


def make_record(groups: dict[str, Any]) -> Record:
    score = Score(0.59, 0.55, 0.63, basis="groups", power=0.06, n_fake=200, n_real=400)
    return replace(ALL["healthy"](), verdict="collapsed", score=score, groups=groups, exhibits=())


def test_the_headline_says_what_is_kept() -> None:
    record = make_record(make_groups())
    assert describe_score(record).startswith("within a group, samples keep 41 % [37, 45] of the reference's variety")
    text = render_text(record)
    assert "50 groups, 200 samples against 400" in text and "a cat" in text and "collapsed" in text
    facts = dict(build_group_facts(record))
    assert facts["left out"] == "1 one sample, 2 not in the reference"
    assert build_group_rows(record)[0].strips[1] == ("reference", (25.0, 40.0, 50.0, 60.0, 100.0))
    assert "a cat" in render_markdown(record)


def test_percentages() -> None:
    assert format_percent_interval({"value": 0.021, "low": 0.02, "high": 0.0222}) == "2.1 % [2.0, 2.2]"
    assert format_percent_interval({"value": None}) == "–"


@pytest.mark.parametrize(
    "groups",
    [
        make_groups(ATTACK),
        make_groups(rows=[{"group": [ATTACK], "ratio": ATTACK, "distances": [ATTACK] * 5}], collapsed=[ATTACK]),
        make_groups(within=ATTACK, left_out_reasons=ATTACK, low_quantile=ATTACK, real={"within": ATTACK}),
        {"rows": [{}], "basis": ATTACK},
    ],
)
def test_hostile_groups_are_escaped_or_left_out(groups: dict[str, Any]) -> None:
    record = make_record(groups)
    page = render_html(record)
    assert "<img src=x" not in page.partition('id="record"')[0] and "<img src=x" not in render_fragment(record)
    text = render_text(record)
    assert "\x1b" not in text and "\u202e" not in text
    assert render_markdown(record)
