"""The fixture generators get the verdicts they were built for, with the default features."""

from __future__ import annotations

from pathlib import Path

import pytest

import gandiag

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def audit_fixture(name: str, n: int = 500) -> gandiag.Record:
    """With 300, whether the healthy one is shown to be so depends on the halves of the 1,000 real samples.

    With one n the real features are embedded only once.
    """
    return gandiag.audit(FIXTURES / name, str(FIXTURES / "real.npz"), n=n, exhibits=False)


def error_rules(record: gandiag.Record) -> set[str]:
    return {finding.rule for finding in record.findings if finding.level == "error"}


def test_healthy() -> None:
    record = audit_fixture("healthy.pt")
    assert record.verdict == "healthy" and not error_rules(record)
    assert record.subject["latent"]["trained_scale"]["value"] == pytest.approx(1.0, rel=0.03)
    assert set(record.aspects) == {"color", "texture", "layout", "semantics"}


def test_mode_dropping() -> None:
    record = audit_fixture("mode_dropping.pt")
    assert record.verdict == "collapsed" and record.score.value == pytest.approx(0.5, abs=0.08)
    assert {"partial", "mode_dropping"} <= set(record.kinds) and "complete" not in record.kinds
    assert len(record.modes["missed"]) >= 3


def test_complete_collapse() -> None:
    record = audit_fixture("collapsed.pt", n=100)
    assert record.verdict == "collapsed" and "complete" in record.kinds and record.score.value > 0.9
    assert error_rules(record) == {"GD101"}


def test_wrong_scale_is_not_collapse() -> None:
    record = audit_fixture("scale_mismatched.pt")
    assert record.verdict == "healthy" and "wrong_scale" in record.kinds and error_rules(record) == {"GD201"}
    assert record.subject["latent"]["trained_scale"]["value"] == pytest.approx(0.02, rel=0.03)
    assert record.measurements["score@1"].low > 0.9


def test_image_audit_has_all_exhibits() -> None:
    record = gandiag.audit(FIXTURES / "training_state.pt", str(FIXTURES / "real_by_class"), n=128)
    assert {exhibit.id for exhibit in record.exhibits} >= {"samples", "scales", "pairs", "response"}
    assert "netG_ema" in record.subject["weights"] and len(record.to_json()) < 3_000_000
    assert record.verdict == "inconclusive"  # forty real images are too few
