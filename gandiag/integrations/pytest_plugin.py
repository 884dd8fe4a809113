"""pytest: a test that fails when a generator has collapsed, with the report attached.

    def test_generator(assert_not_collapsed):
        assert_not_collapsed(generator, real="photos/", max_score=0.2, latent_dim=128)

The fixture adds the report to the failure, the score to JUnit's properties, and with `--gandiag-reports DIR` a page for each
failure. The function of the same name does the same without a fixture. Nothing heavy is imported before a test asks for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gandiag.record import Record
    from gandiag.verdict.gate import GateResult


class CollapsedError(AssertionError):
    """The generator does not pass. `record`: the evidence; `gated`: what it was held against."""

    def __init__(self, result: GateResult) -> None:
        from gandiag.report.gate_text import render_gate_text

        super().__init__("\n" + render_gate_text([result]))
        self.result = result
        self.record = result.record


def assert_not_collapsed(
    generator: Any,
    real: Any = None,
    *,
    max_score: float | None = None,
    policy: Mapping[str, Any] | str | None = None,
    **settings: Any,
) -> Record:
    """Audit, and raise an AssertionError unless the result passes. Returns the Record.

    generator, real: as `gandiag.audit` takes them; a Record, or the path of one (.json), is judged as it is. `max_score`: the collapse
    score must be below it. `policy`: TOML file or table (see `gandiag.gate`). Without `real` only repeats are looked for. Thin
    evidence fails. `settings`: fields of AuditConfig. Cost: that of an audit; budget="quick" takes 1,000 samples.
    """
    from gandiag.verdict.gate import gate

    book = _book(policy, max_score, blind=real is None)
    gated = gate(_record(generator, real, settings), book)
    if not gated.passed or gated.record is None:
        raise CollapsedError(gated)
    return gated.record


def _book(policy: Any, max_score: float | None, *, blind: bool) -> Any:
    import dataclasses

    from gandiag.verdict.gate_policy import GatePolicy, parse_policy, read_policy

    book = (
        GatePolicy() if policy is None else parse_policy(policy) if isinstance(policy, Mapping) else read_policy(policy)
    )
    allow = book.allow | ({"degeneracy"} if blind else set())
    return dataclasses.replace(book, allow=allow, max_score=book.max_score if max_score is None else max_score)


def _record(generator: Any, real: Any, settings: dict[str, Any]) -> Record:
    from gandiag.record import Record

    if isinstance(generator, Record):
        return generator
    if isinstance(generator, (str, os.PathLike)) and str(generator).endswith(".json"):
        return Record.read(generator)
    from gandiag.api import audit

    return audit(generator, real, **settings)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--gandiag-reports DIR."""
    parser.getgroup("gandiag").addoption(
        "--gandiag-reports", metavar="DIR", help="write a page for each generator that fails its test"
    )


@pytest.fixture(name="assert_not_collapsed")
def _fixture(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Callable[..., Record]]:
    """`assert_not_collapsed(generator, real=…, max_score=…)`, its report attached to the test."""

    def check(*arguments: Any, **settings: Any) -> Record:
        try:
            record = assert_not_collapsed(*arguments, **settings)
        except CollapsedError as failed:
            if failed.record is not None:
                _attach(request, failed.record)
                record_property("gandiag_score", failed.record.score.value)
            raise
        record_property("gandiag_score", record.score.value)
        return record

    yield check


def _attach(request: pytest.FixtureRequest, record: Record) -> None:
    request.node.add_report_section("call", "gandiag", str(record))
    folder = request.config.getoption("--gandiag-reports")
    if folder:
        from gandiag.report.html_page import render_html

        page = Path(folder) / (re.sub(r"[^\w.-]+", "_", request.node.nodeid) + ".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render_html(record), encoding="utf-8")
        request.node.add_report_section("call", "gandiag page", str(page))
