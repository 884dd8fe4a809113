"""Gate formats for CI: JUnit against Jenkins' schema, GitHub's commands, Markdown; all with hostile strings."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import records
from gandiag.cli.main import run_command_line

from gandiag.errors import LoadError
from gandiag.record import Measurement, Record
from gandiag.report.formats import GATE_FORMATS
from gandiag.report.markdown import code_span, escape_markdown, render_markdown
from gandiag.verdict.gate import GateResult, gate, make_error_result
from gandiag.verdict.limits import Check

SCHEMA = Path(__file__).parent / "schemas" / "junit-10.xsd"
MARKUP = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "![x](http://evil/x.png)",
    "[click](javascript:alert(1))",
    "`code` **bold** _em_ | c |",
    "``` fence",
    "&lt;b&gt; &#60;",
    "http://evil.example www.evil.example @somebody #12",
    "::error::gotcha",
    "a\n::error::gotcha",
    "##[error]gotcha",
    "]]>",
    "%0A::error::x",
    "\x00\x08\x1b[31m",
    "\ud800",
    "\\",
    "\\|",
    "`",
    "``",
    "$x$",
    "\u202e",
]


@cache
def make_record(name: str) -> Record:
    """Cached, because drawing the exhibits takes longer than all the rest."""
    return records.ALL[name]()


def make_results() -> list[GateResult]:
    """A subject with each exit code; together they have every state of a check."""
    limits = {"recall": {"min": 0.6}, "fid": {"max": 30}, "profile.missing": {"max": 0.1}}
    allowed_states: dict[str, list[str]] = {
        "healthy": [],
        "collapsed": [],
        "inconclusive": [],
        "degeneracy": ["unmeasured", "degeneracy"],
    }
    return [
        *(
            gate(make_record(name), {"limits": limits, "max-score": 0.2, "allow": allow})
            for name, allow in allowed_states.items()
        ),
        gate(make_record("collapsed"), baseline=make_record("healthy")),
        make_error_result("x.pt", LoadError("x.pt is a text file", "give a checkpoint")),
    ]


def make_hostile_results(attack: str) -> list[GateResult]:
    """Results in which every string is the attack."""
    record = replace(
        make_record("hostile"),
        measurements={attack: Measurement(0.5, 0.4, 0.6, unit=attack), "x" + attack: Measurement.missing(attack)},
        verdict="inconclusive",
        subject={**make_record("hostile").subject, "path": attack},
        provenance={**make_record("hostile").provenance, "doubts": [attack]},
    )
    result = gate(record, {"limits": {attack: {"max": 0.1}, "x" + attack: {"max": 1}}})
    constructed = GateResult(attack, (Check(attack, attack, "violated", where=attack),))
    return [
        replace(result, subject=attack, remarks=(attack,)),
        make_error_result(attack, LoadError(attack, attack)),
        constructed,
    ]


@cache
def schema() -> Any:
    return pytest.importorskip("xmlschema").XMLSchema(str(SCHEMA))


def as_xml(results: list[GateResult]) -> Any:
    text = GATE_FORMATS.get("junit")(results)
    schema().validate(text)
    return ET.fromstring(text.encode())


def test_junit_matches_jenkins_schema_and_counts() -> None:
    root = as_xml(make_results())
    suites = root.findall("testsuite")
    assert len(suites) == 6
    for suite in suites:
        cases = suite.findall("testcase")
        counts = {
            "tests": len(cases),
            **{f"{name}s": len(suite.findall(f"testcase/{name}")) for name in ("failure", "error")},
        }
        assert {name: int(suite.get(name)) for name in counts} == counts and int(suite.get("skipped")) == len(
            suite.findall("testcase/skipped")
        )
        assert all(
            len([child for child in case if child.tag in ("failure", "error", "skipped")]) <= 1 for case in cases
        )  # Jenkins keeps one
    assert {name: int(root.get(name)) for name in ("tests", "failures", "errors")} == {
        name: sum(int(suite.get(name)) for suite in suites) for name in ("tests", "failures", "errors")
    }
    worst = suites[1].find("testcase/failure")
    assert "score is 0.48 [0.44, 0.52] and must be below 0.2" in worst.get("message") and "GD103" in worst.text
    assert [bool(suite.findall("testcase/failure") or suite.findall("testcase/error")) for suite in suites] == [
        True,
        True,
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("attack", MARKUP, ids=repr)
def test_junit_survives_attacks(attack: str) -> None:
    root = as_xml(make_hostile_results(attack))
    tags = {element.tag for element in root.iter()}
    assert tags <= {
        "testsuites",
        "testsuite",
        "properties",
        "property",
        "testcase",
        "failure",
        "error",
        "skipped",
        "system-out",
    }


@pytest.mark.parametrize("attack", MARKUP, ids=repr)
def test_github_sees_only_our_commands(attack: str) -> None:
    text = GATE_FORMATS.get("github")(make_hostile_results(attack))
    commands = [line for line in text.splitlines() if line.lstrip().startswith("::")]
    assert all(re.match(r"::(error|warning|notice) (file=[^,:]*,line=\d+,)?title=[^,:]*::", line) for line in commands)
    assert not [line for line in text.splitlines() if line.startswith("::error::") or "##[" in line]
    assert len([line for line in commands if line.startswith("::error ")]) == sum(
        max(1, len(result.failures())) for result in make_hostile_results(attack)
    )


def test_github_points_at_the_line_of_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_record("collapsed").write("audit.json")
    Path("gandiag.toml").write_text("[gate.limits]\nrecall = { min = 0.6 }\n")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run_command_line(["gate", "audit.json", "-f", "github"]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "file=" in line)
    assert line.startswith(
        "::error file=gandiag.toml,line=2,title=audit.json%3A recall::"
        "recall is 0.31 [0.28, 0.34] and must be at least 0.6."
    )
    page = summary.read_text()
    assert page.startswith("before\n## gandiag gate: 1 of 1 failed") and "GD103" in page and "gandiag.toml:2" in page
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "such.md"))
    assert (
        run_command_line(["gate", "audit.json", "-f", "github"]) == 1 and "cannot be written" in capsys.readouterr().err
    )


def parse_markdown(text: str) -> Any:
    """The tokens of the text as GitHub would parse it: tables, links and raw HTML."""
    markdown = (
        pytest.importorskip("markdown_it")
        .MarkdownIt("commonmark", {"html": True, "linkify": False})
        .enable(["table", "strikethrough"])
    )
    tokens = markdown.parse(text)
    return [child for token in tokens for child in (token, *(token.children or ()))]


@pytest.mark.parametrize("attack", MARKUP, ids=repr)
def test_markdown_shows_attacks_as_text(attack: str) -> None:
    for text in (
        GATE_FORMATS.get("markdown")(make_hostile_results(attack)),
        render_markdown(replace(make_record("hostile"), verdict=attack)),
        render_markdown(make_record("hostile")),
    ):
        kinds = {token.type for token in parse_markdown(text)}
        assert not kinds & {"html_block", "html_inline", "image", "link_open", "fence", "code_block"}, kinds
        clean = text.replace("`", "")
        assert not re.search(r"(?<!`)(https?://|www\.)\S", re.sub(r"(`+).*?\1", "", text)), "a link by itself"
        assert clean.isprintable() or set(c for c in clean if not c.isprintable()) <= {"\n", "\u200b"}


@pytest.mark.parametrize("attack", MARKUP, ids=repr)
def test_a_code_span_holds_exactly_what_it_is_given(attack: str) -> None:
    (span,) = [
        token for token in parse_markdown(f"| a |\n| --- |\n| {code_span(attack)} |\n") if token.type == "code_inline"
    ]
    shown = "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape", "backslashreplace").decode() for mark in attack
    )
    assert (
        span.content.strip() == shown.strip() or "\\|" in attack
    )  # a backslash before a pipe cannot be told from its escape
    words = [
        token
        for token in parse_markdown(f"x {escape_markdown(attack)}")
        if token.type not in ("inline", "paragraph_open", "paragraph_close")
    ]
    assert {token.type for token in words} <= {"text", "text_special"}


def test_every_format_shows_every_failure() -> None:
    for form in GATE_FORMATS:
        text = GATE_FORMATS.get(form)(make_results())
        assert "0.48" in text and "x.pt" in text, form
    document = json.loads(GATE_FORMATS.get("json")(make_results()))
    assert (
        document["schema"] == "gandiag.gate/1"
        and document["code"] == 2
        and [entry["code"] for entry in document["subjects"]] == [3, 1, 3, 0, 1, 2]
    )


def test_a_record_is_shown_as_markdown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_record("collapsed").write(tmp_path / "audit.json")
    assert run_command_line(["report", str(tmp_path / "audit.json"), "-f", "markdown"]) == 0
    text = capsys.readouterr().out
    assert (
        text.startswith("## COLLAPSED `runs/042/generator.pt`")
        and "| `missing` | `0.41" in text
        and "about half of the real variety is missing" in text
    )
