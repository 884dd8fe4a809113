"""Records as CSV, LaTeX and SVG: every number is there, and no string of a checkpoint means anything."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET

import pytest
import records

from gandiag.report.formats import FORMATS, guess_format
from gandiag.report.number_tables import escape_latex, render_csv, render_latex, render_svg


@pytest.mark.parametrize("name", records.ALL)
def test_csv_holds_every_number(name: str) -> None:
    record = records.ALL[name]()
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(render_csv(record)))}
    assert len(rows) >= 1 + len(record.profile) + len(record.aspects) + len(set(record.measurements) - {"score"})
    value = rows["score"]["value"]
    assert (float(value) if value else None) == record.score.value and rows["score"]["reason"] == record.verdict
    for row in rows.values():
        assert not row["key"].startswith(("=", "+", "-", "@")) and not row["reason"].startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("name", records.ALL)
def test_latex_has_one_line_per_number_and_no_command_of_a_checkpoint(name: str) -> None:
    lines = render_latex(records.ALL[name]()).splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert body and all(line.endswith(r" \\") and line.count(" & ") == 3 for line in body)
    assert escape_latex(r"\input{x} 50 % a_b") == r"\textbackslash{}input\{x\} 50 \% a\_b"


@pytest.mark.parametrize("name", ["collapsed", "hostile", "bare"])
def test_svg_is_a_figure_that_runs_nothing(name: str) -> None:
    root = ET.fromstring(render_svg(records.ALL[name]()))
    assert root.tag.endswith("svg") and not [element for element in root.iter() if element.tag.endswith("script")]


def test_suffixes_choose_these_formats() -> None:
    for suffix in ("csv", "tex", "svg"):
        assert guess_format(f"x.{suffix}") == suffix and FORMATS.get(suffix)
