"""The brief report: one screen, with what matters first and where the rest is."""

from __future__ import annotations

import dataclasses
import re

import pytest
import records

from gandiag.record import Finding, Record
from gandiag.report import formatting
from gandiag.report.brief_text import MAX_LINES, render_brief, render_verdict_line

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")


def with_findings(*levels: str) -> Record:
    """A record with long findings of these levels, each with two remedies."""
    remedies = tuple(
        {"key": f"r{i}", "title": f"remedy {i} " + "with much text " * 20, "why": "it helps"} for i in (0, 1)
    )
    findings = tuple(
        Finding(f"GD{900 + i}", level, "a finding with much text " * 20, {}, remedies)  # type: ignore[arg-type]
        for i, level in enumerate(levels)
    )
    return dataclasses.replace(records.collapsed(), findings=findings)


@pytest.mark.parametrize("name", records.ALL)
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_fits_one_screen_and_has_no_control_characters(name: str, width: int) -> None:
    text = render_brief(records.ALL[name](), width=width, paths=("record a.json",))
    assert len(text.splitlines()) <= MAX_LINES <= 25 and max(map(len, text.splitlines())) <= width
    assert not CONTROL.search(text) and text.endswith("record a.json\n")


@pytest.mark.parametrize("name", records.ALL)
def test_color_adds_nothing_but_color(name: str) -> None:
    plain, colored = (render_brief(records.ALL[name](), color=color) for color in (False, True))
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert "\x1b" in colored and [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("name", records.ALL)
def test_the_verdict_and_the_score_with_its_interval_come_first(name: str) -> None:
    record = records.ALL[name]()
    report = render_brief(record).splitlines()
    assert report[0].startswith(formatting.VERDICT_LABELS[record.verdict])
    assert formatting.summarize_record(record).startswith(report[1])


@pytest.mark.parametrize("width", [40, 80])
def test_many_long_findings_are_cut_counted_and_in_order_of_weight(width: int) -> None:
    record = with_findings("note", "warning", "error", "error", "note")
    report = render_brief(record, width=width)
    shown = re.findall(r"(FAIL|WARN|note) (GD\d+)", report)
    assert len(report.splitlines()) <= MAX_LINES
    assert shown[:2] == [("FAIL", "GD902"), ("FAIL", "GD903")][: len(shown)]
    assert f"{5 - len(shown)} more findings" in report and " …" in report
    assert "try: Remedy 0" in report and "Remedy 1" not in report


def test_only_what_neither_file_nor_option_backs_is_listed_as_assumed() -> None:
    entries = [
        {"what": "x", "value": "1", "label": "latent size", "data": 32, "source": "shapes"},
        {"what": "x", "value": "1", "label": "output activation", "data": "tanh", "source": "default"},
        {"what": "x", "value": "1", "label": "hidden activation", "data": "relu", "source": "undecided"},
    ]
    record = records.collapsed()
    record = dataclasses.replace(record, subject={**record.subject, "assumptions": entries})
    assert "Assumed, not known: output activation tanh, hidden activation relu." in render_brief(record)
    settled = dataclasses.replace(record, subject={**record.subject, "assumptions": entries[:1]})
    assert "Assumed" not in render_brief(settled)


def test_a_loss_that_these_samples_cannot_show_is_not_left_out() -> None:
    """Under the limit, what the audit would have detected is a detail; above it, it is part of the verdict."""
    assert "with probability 0.95" not in render_brief(records.healthy())
    assert "a change of 0.19" in " ".join(render_brief(records.inconclusive()).split())
    record = records.healthy()
    injected = tuple({"kind": "missing", "loss": 0.5, "score": score} for score in (0.01, 0.02))
    blind = dataclasses.replace(record, score=dataclasses.replace(record.score, injected=injected))
    assert "missed:" in render_brief(blind)


def test_the_verdict_line_is_one_line_with_score_and_caveat() -> None:
    assert render_verdict_line(records.collapsed()) == "COLLAPSED  runs/042/generator.pt  score 0.48 [0.44, 0.52]\n"
    assert render_verdict_line(records.degeneracy()).rstrip().endswith(f"({formatting.NO_REAL_DATA})")
    for make in records.ALL.values():
        line = render_verdict_line(make())
        assert line.count("\n") == 1 and not CONTROL.search(line)


def test_a_record_has_the_brief_form_and_the_whole_one() -> None:
    record = records.collapsed()
    assert record.summary() == render_brief(record) and "print(record)" in record.summary()
    assert "Measurements" in str(record) and "Measurements" not in record.summary()
