"""The page and the notebook fragment: self-contained, escaped, complete, bounded in size.

test_html_in_browser.py opens it in a browser.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest
import records

from gandiag.record import Exhibit
from gandiag.report.charts import Chart, ChartError, draw_chart
from gandiag.report.exhibit_view import build_image
from gandiag.report.html_page import render_fragment, render_html
from gandiag.report.series_html import render_run_page

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use", "rect", "line"}


class Page(HTMLParser):
    """Tags with attributes, text of the body, contents of scripts, and the elements that are still open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text, self.open = "", [""]
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open[-1] != "style":
            self.text += data

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@cache
def html(name: str) -> str:
    return render_html(records.ALL[name]())


@pytest.mark.parametrize("name", records.ALL)
def test_every_element_is_closed(name: str) -> None:
    assert Page(html(name)).open == [""]
    assert Page(render_fragment(records.ALL[name]())).open == [""]


@pytest.mark.parametrize("name", records.ALL)
def test_nothing_is_loaded_from_anywhere(name: str) -> None:
    for text in (html(name), render_fragment(records.ALL[name]())):
        page = Page(text)
        for tag, attributes in page.tags:
            for key in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                address = attributes.get(key)
                assert address is None or address.startswith(("data:", "#")), (tag, key, address)
            assert not any(key.startswith("on") for key in attributes), (tag, attributes)
        assert not re.search(r"@import|url\((?!#)", text.replace(json.dumps(records.ATTACK), ""))
        assert "http://" not in text and "https://" not in text


@pytest.mark.parametrize("name", records.ALL)
def test_the_record_comes_out_of_the_page_as_it_went_in(name: str) -> None:
    record = records.ALL[name]()
    page = Page(html(name))
    data, code = page.scripts
    assert "<" not in data and ">" not in data and "&" not in data
    assert json.loads(data) == json.loads(record.to_json())
    assert "createObjectURL" in code


@pytest.mark.parametrize("name", records.ALL)
def test_the_size_is_bounded_by_the_record(name: str) -> None:
    record = records.ALL[name]()
    assert len(html(name)) < 2 * len(record.to_json(indent=None)) + 150_000
    assert len(render_fragment(record)) < len(record.to_json(indent=None)) + 60_000


def test_attacks_end_up_as_text() -> None:
    for text in (html("hostile"), render_fragment(records.hostile())):
        page = Page(text)
        assert not any(attributes.get("src") == "x" for _, attributes in page.tags)
        assert "\x1b" not in text and "\u202e" not in text
        assert "<img src=x onerror=alert(1)>" in page.text
        assert "{{7*7}}" in page.text
    assert len(Page(html("hostile")).scripts) == 2
    assert "This image cannot be shown" in html("hostile")


def test_the_page_holds_everything() -> None:
    page = Page(html("collapsed"))
    expected = [
        "Collapsed",
        "About half of the real variety is missing.",
        "0.48",
        "[0.44, 0.52]",
        "limit 0.15",
        "Mode dropping",
        "GD101",
        "Minibatch standard deviation",
        "Cost:",
        "Where variety is lost",
        "Color",
        "× 0.25",
        "The most similar pairs",
        "generated",
        "in the real data",
        "12.0 %",
        "Clusters and their shares",
        "Real samples without a generated counterpart",
        "Response to the latent scale",
        "plus_dark",
        "Oscillating",
        "Real against real",
        "↑ higher",
        "duality_gap",
        "Latent prior",
        "imagenet@128",
    ]
    assert [part for part in expected if part not in page.text] == []
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5 and all(attributes["alt"] for attributes in images)
    assert page.text.index("GD101") < page.text.index("GD201") < page.text.index("GD304")


def test_headings_do_not_skip_a_level() -> None:
    levels = [int(tag[1]) for tag, _ in Page(html("collapsed")).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_without_real_data_the_banner_names_the_limitation() -> None:
    assert "Missing modes cannot be detected without --real" in Page(html("degeneracy")).text
    assert "Missing modes" not in Page(html("healthy")).text


def test_the_sweep_is_drawn_from_its_points_where_no_exhibit_is_kept() -> None:
    assert not any(exhibit.id == "response" for exhibit in records.degeneracy().exhibits)
    assert html("degeneracy").count("<svg") == 1


def test_a_fragment_needs_no_matplotlib_and_keeps_its_style_to_itself() -> None:
    script = "import sys, records; records.healthy()._repr_html_(); print({'matplotlib', 'torch'} & set(sys.modules))"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ)
    assert process.stdout.strip() == "set()"
    style = re.search(r"<style>(.*?)</style>", render_fragment(records.healthy()), re.DOTALL)
    assert style is not None
    # Every top-level rule is for .gandiag, or a media query around one.
    depth, rules, start = 0, [], 0
    for index, char in enumerate(style.group(1)):
        if char == "{":
            rules += [style.group(1)[start:index].strip()] if depth == 0 else []
            depth += 1
        elif char == "}":
            depth -= 1
            start = index + 1
    assert depth == 0 and {rule.split("(")[0].strip() for rule in rules} == {".gandiag", "@media", "@media print"}


def series(**data: object) -> Exhibit:
    return Exhibit("loss", "series", "caption", data)


def test_a_chart_is_painted_by_the_page_and_the_same_every_time() -> None:
    exhibit = series(x=[1, 2, 3], lines={"$x_": [1, 1, 1], "fake": [3, None, 1], "real": [1, 2, 3]})
    chart: Chart = draw_chart(exhibit)
    assert draw_chart(exhibit) == chart
    assert chart.legend == (("real", "var(--real)"), ("generated", "var(--fake)"), ("$x ", "var(--line-2)"))
    assert "var(--real)" in chart.svg and "#0102" not in chart.svg
    assert chart.svg.startswith("<svg") and "xmlns" not in chart.svg and "metadata" not in chart.svg


def test_charts_on_one_page_do_not_share_ids() -> None:
    ids = [attributes["id"] for _, attributes in Page(html("collapsed")).tags if "id" in attributes]
    assert len(ids) > 15
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"x": [1], "lines": {"a": [1, 2]}},
        {"x": ["a"], "lines": {"a": ["b"]}},
        {"lines": 3},
        {"lines": {"a": {"x": [1]}}},
    ],
)
def test_data_that_does_not_match_its_kind_is_reported(data: dict[str, object]) -> None:
    with pytest.raises(ChartError):
        draw_chart(series(**data))
    assert "This chart cannot be drawn" in render_html(replace(records.bare(), exhibits=(series(**data),)))


@pytest.mark.parametrize(
    ("caption", "labels"),
    [
        ("The same 8 latents at every scale; rows: 0.02, 0.1", ["0.02", "0.1"]),
        ("Real samples of modes that the generator misses; one row each: 3, 7", ["3", "7"]),
        (
            "Clusters by share of the real data: 61%, 30% (the largest 2 of 10); one row each, "
            "real on the left, generated on the right",
            ["61%", "30%"],
        ),
        ("64 generated samples, latents 0 to 63", []),
    ],
)
def test_rows_are_labeled_from_the_caption(caption: str, labels: list[str]) -> None:
    exhibit = Exhibit("any", "image", caption, {"png": "", "columns": 2, "rows": 2, "tile": 8})
    assert list(build_image(exhibit).labels) == labels


def test_a_page_of_a_run_shows_samples_of_every_checkpoint() -> None:
    points = [(100.0, records.healthy()), (200.0, records.collapsed())]
    page = render_run_page("runs/a", points, None, [], advice=("Keep 100.",))
    assert page.index("Keep 100.") < page.index("Samples of each checkpoint") < page.index("Checkpoints and losses")
    assert page.count('alt="samples at step') == 2
