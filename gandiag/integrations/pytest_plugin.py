"""pytest plug-in: a test that fails if a generator has collapsed, with the report attached.

    def test_generator(assert_not_collapsed):
        assert_not_collapsed(generator, real="photos/", max_score=0.2, latent_dim=128)

The fixture attaches the report to the failure and adds the score to the JUnit properties; with `--gandiag-reports DIR`
it writes an HTML report for each failure. The function of the same name works without the fixture. Nothing heavy is
imported until a test uses it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gandiag.record import Record
    from gandiag.verdict.gate import GateResult
    from gandiag.verdict.gate_policy import GatePolicy


class CollapsedError(AssertionError):
    """The generator does not pass the gate. `result`: the checks; `record`: the evidence."""

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
    """Audit a generator and return the Record; raise an AssertionError unless it passes.

    generator, real: as for `gandiag.audit`; a Record, or the path of one (.json), is judged without an audit. Without
    `real` only repeated outputs are detected. `max_score`: the collapse score must be below it. `policy`: a TOML file
    or a table (see `gandiag.gate`). `settings`: fields of AuditConfig. Insufficient evidence fails.
    Cost: that of an audit; budget="quick" takes 1,000 samples.
    """
    from gandiag.verdict.gate import gate

    __tracebackhide__ = True  # the frame to show is the test's
    gate_policy = _make_policy(policy, max_score, allow_degeneracy=real is None)
    result = gate(_get_record(generator, real, settings), gate_policy)
    if not result.passed or result.record is None:
        raise CollapsedError(result)
    return result.record


def _make_policy(
    policy: Mapping[str, Any] | str | None, max_score: float | None, *, allow_degeneracy: bool
) -> GatePolicy:
    from gandiag.verdict.gate_policy import GatePolicy, parse_policy, read_policy

    if policy is None:
        gate_policy = GatePolicy()
    else:
        gate_policy = parse_policy(policy) if isinstance(policy, Mapping) else read_policy(policy)
    allow = gate_policy.allow | ({"degeneracy"} if allow_degeneracy else set())
    max_score = gate_policy.max_score if max_score is None else max_score
    return dataclasses.replace(gate_policy, allow=allow, max_score=max_score)


def _get_record(generator: Any, real: Any, settings: dict[str, Any]) -> Record:
    """The given or stored Record, else that of an audit."""
    from gandiag.record import Record

    if isinstance(generator, Record):
        return generator
    if isinstance(generator, (str, os.PathLike)) and str(generator).endswith(".json"):
        return Record.read(generator)
    from gandiag.api import audit

    return audit(generator, real, **settings)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --gandiag-reports DIR."""
    parser.getgroup("gandiag").addoption(
        "--gandiag-reports", metavar="DIR", help="write an HTML report for each generator that fails its test"
    )


@pytest.fixture(name="assert_not_collapsed")
def _fixture(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Callable[..., Record]]:
    """`assert_not_collapsed(generator, real=…, max_score=…)`, with its report attached to the test."""

    def check(*arguments: Any, **settings: Any) -> Record:
        __tracebackhide__ = True
        try:
            record = assert_not_collapsed(*arguments, **settings)
        except CollapsedError as error:
            if error.record is not None:
                _attach_report(request, error.record)
                record_property("gandiag_score", error.record.score.value)
            raise
        record_property("gandiag_score", record.score.value)
        return record

    yield check


def _attach_report(request: pytest.FixtureRequest, record: Record) -> None:
    """Add the brief report to the test's output, and write the HTML report if a folder was given."""
    request.node.add_report_section("call", "gandiag", record.summary())
    folder = request.config.getoption("--gandiag-reports")
    if folder:
        from gandiag.report.html_page import render_html

        page = Path(folder) / (re.sub(r"[^\w.-]+", "_", request.node.nodeid) + ".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render_html(record), encoding="utf-8")
        request.node.add_report_section("call", "gandiag page", str(page))
