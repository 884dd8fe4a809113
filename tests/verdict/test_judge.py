"""Verdicts, rules and remedies on hand-written records."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from gandiag.catalogue import load_entries
from gandiag.errors import ExitCode, VerdictError
from gandiag.interfaces import UNDECIDED, Assumption, BatchNormFit, MetricResult
from gandiag.pipeline.build_record import build_record
from gandiag.record import Measurement, Record, Score
from gandiag.report.assumptions import assumption_document
from gandiag.trainer.remedies.registry import REMEDIES
from gandiag.verdict.evidence_rules import find_missing_real_data
from gandiag.verdict.judge import apply_policy
from gandiag.verdict.policy import Policy, compute_score_verdict, verdict_exit_code
from gandiag.verdict.remedies import get_remedies, load_remedies
from gandiag.verdict.rules import RULES

LATENT = {"dim": 100, "prior": "normal", "scale": 1.0, "trained_scale": None}


def make_record(low: float | None, value: float | None, high: float | None, **more: Any) -> Record:
    basis = more.pop("basis", "referenced")
    facts: dict[str, Any] = {"subject": {"latent": LATENT}, "measurements": {}} | more
    return Record("inconclusive", (), Score(value, low, high, basis=basis, n_fake=2000, n_real=4000), **facts)


@pytest.mark.parametrize(
    ("low", "high", "referenced", "degeneracy"),
    [
        (0.0, 0.05, "healthy", "not_degenerate"),
        (0.15, 0.2, "collapsed", "collapsed"),
        (0.1, 0.15, "inconclusive", "inconclusive"),
        (0.1, 0.2, "inconclusive", "inconclusive"),
        (None, None, "inconclusive", "inconclusive"),
        (float("nan"), float("nan"), "inconclusive", "inconclusive"),
        (0.0, float("nan"), "inconclusive", "inconclusive"),
    ],
)
def test_verdict_of_an_interval(low: float, high: float, referenced: str, degeneracy: str) -> None:
    score = Score(low, low, high)
    assert compute_score_verdict(score, 0.15) == referenced
    assert compute_score_verdict(dataclasses.replace(score, basis="degeneracy"), 0.15) == degeneracy


def test_exit_codes_follow_verdicts() -> None:
    codes = {
        name: verdict_exit_code(dataclasses.replace(make_record(0, 0, 0), verdict=name))
        for name in ("healthy", "not_degenerate", "collapsed", "inconclusive")
    }
    assert codes == {
        "healthy": ExitCode.OK,
        "not_degenerate": ExitCode.OK,
        "collapsed": ExitCode.COLLAPSED,
        "inconclusive": ExitCode.INSUFFICIENT,
    }


def test_worst_of_several_codes() -> None:
    assert ExitCode.worst([ExitCode.OK, ExitCode.INSUFFICIENT]) == ExitCode.INSUFFICIENT
    assert ExitCode.worst([ExitCode.COLLAPSED, ExitCode.INSUFFICIENT]) == ExitCode.COLLAPSED
    assert ExitCode.worst([ExitCode.CANNOT_RUN, ExitCode.COLLAPSED]) == ExitCode.CANNOT_RUN
    assert ExitCode.worst([]) == ExitCode.OK


def test_a_loading_doubt_is_never_a_collapse_verdict() -> None:
    judged = apply_policy(make_record(0.9, 0.95, 1.0, measurements={"bn_mismatch": Measurement(1.7)}))
    assert judged.verdict == "inconclusive"
    assert judged.findings[0].rule == "GD401"


OLD_DOUBT = {  # as records before 0.2 hold it: text only
    "what": "hidden activation (--activation)",
    "value": "relu (undecided: batch-norm mismatch 0.100; leaky:0.2: 0.120)",
    "source": "undecided",
}
DOUBT = assumption_document(Assumption("activation", "relu", UNDECIDED, fit=BatchNormFit(0.1, "leaky:0.2", 0.12)))


@pytest.mark.parametrize("doubt", [OLD_DOUBT, DOUBT], ids=["text", "data"])
def test_an_undecided_setting_prevents_a_collapse_verdict_and_names_its_option(doubt: dict[str, Any]) -> None:
    bad, good = (
        dataclasses.replace(one, subject={**one.subject, "assumptions": [doubt]})
        for one in (make_record(0.85, 0.9, 0.95), make_record(0.0, 0.02, 0.05))
    )
    judged = apply_policy(bad)
    assert (apply_policy(make_record(0.85, 0.9, 0.95)).verdict, judged.verdict, apply_policy(good).verdict) == (
        "collapsed",
        "inconclusive",
        "healthy",
    )
    rule = next(finding for finding in judged.findings if finding.rule == "GD401")
    assert (
        rule.level == "error"
        and "Cannot tell a loading error from collapse" in rule.text
        and "hidden activation: relu" in rule.text
        and "--activation" in rule.text
    )


def test_doubts_set_the_verdict() -> None:
    judged = apply_policy(
        make_record(0.0, 0.01, 0.02, provenance={"doubts": ["only 3 of 1,000 samples are on the manifold"]})
    )
    assert judged.verdict == "inconclusive"
    assert "only 3 of 1,000" in judged.findings[0].text


def test_a_failed_score_is_inconclusive_and_others_are_not() -> None:
    good = (0.0, 0.01, 0.02)
    assert (
        apply_policy(make_record(*good, measurements={"score": Measurement.missing("bug", "error")})).verdict
        == "inconclusive"
    )
    judged = apply_policy(make_record(*good, measurements={"vendi_1": Measurement.missing("memory ran out", "error")}))
    assert judged.verdict == "healthy"
    assert [finding.rule for finding in judged.findings] == ["GD504"]


def share(value: float, reach: float = 0.04) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - reach), "high": min(1.0, value + reach)}


@pytest.mark.parametrize(
    ("entry", "rule", "kind"),
    [
        ("missing", "GD103", "mode_dropping"),
        ("narrowed", "GD104", "thin_modes"),
        ("duplicated", "GD105", "recycled"),
        ("skewed", "GD106", "skewed"),
    ],
)
def test_each_factor_names_its_kind(entry: str, rule: str, kind: str) -> None:
    judged = apply_policy(make_record(0.4, 0.5, 0.6, profile={entry: share(0.5)}))
    assert judged.kinds == ("partial", kind)
    assert [finding.rule for finding in judged.findings] == [rule]
    assert judged.findings[0].remedies


@pytest.mark.parametrize(
    ("modes", "kind"),
    [
        ({}, "thin_modes"),
        ({"covered": 7}, "mode_dropping"),
        ({"missed": [{"mode": 3}]}, "mode_dropping"),
        ({"stability": 0.6}, "mode_dropping"),
        ({"found": 1, "covered": 1}, "mode_dropping"),
        ({"covered": None}, "mode_dropping"),
    ],
)
def test_missing_regions_inside_covered_clusters_are_not_dropped_modes(modes: dict[str, object], kind: str) -> None:
    covered = {"found": 8, "covered": 8, "effective": 7.9, "stability": 0.99, "missed": []}
    judged = apply_policy(
        make_record(0.2, 0.3, 0.4, profile={"missing": share(0.21), "narrowed": share(0.02)}, modes=covered | modes)
    )
    assert judged.kinds == ("partial", kind)
    assert ("all 8 clusters are covered, but 21 %" in judged.findings[0].text) == (kind == "thin_modes")


def test_complete_collapse_is_one_finding_not_five() -> None:
    facts = {name: share(0.95) for name in ("missing", "narrowed", "duplicated")}
    judged = apply_policy(
        make_record(0.98, 1.0, 1.0, profile=facts, measurements={"pairwise_distance": Measurement(0.1, floor=10.0)})
    )
    assert judged.kinds == ("complete",)
    assert [finding.rule for finding in judged.findings] == ["GD101"]


def test_wrong_scale_is_an_error_but_no_collapse() -> None:
    latent = LATENT | {"trained_scale": {"value": 0.02, "low": 0.019, "high": 0.021, "source": "batch norm"}}
    judged = apply_policy(
        make_record(0.0, 0.01, 0.02, subject={"latent": latent}, measurements={"score@1": Measurement(0.9, 0.85, 0.95)})
    )
    assert judged.verdict == "healthy" and judged.kinds == ("wrong_scale",)
    assert judged.findings[0].rule == "GD201" and judged.findings[0].level == "error"
    assert "σ ≈ 0.02" in judged.findings[0].text and "0.90" in judged.findings[0].text
    assert verdict_exit_code(judged) == ExitCode.OK


def test_low_fidelity_is_not_collapse() -> None:
    judged = apply_policy(make_record(0.0, 0.01, 0.02, profile={"off_manifold": share(0.6)}))
    assert judged.verdict == "healthy" and judged.kinds == ("off_distribution",)


def test_a_policy_is_idempotent_and_a_stricter_limit_changes_the_verdict() -> None:
    judged = apply_policy(make_record(0.1, 0.12, 0.14, profile={"missing": share(0.12)}))
    assert apply_policy(judged) == judged and judged.verdict == "healthy"
    assert apply_policy(judged, Policy(limit=0.05)).verdict == "collapsed"


def test_raise_for_verdict() -> None:
    apply_policy(make_record(0.0, 0.01, 0.02)).raise_for_verdict()
    with pytest.raises(VerdictError, match="collapsed") as caught:
        apply_policy(make_record(0.9, 0.95, 1.0)).raise_for_verdict()
    assert caught.value.record.verdict == "collapsed"


def test_every_rule_is_in_the_catalogue_and_every_remedy_is_used() -> None:
    codes = {rule.code for rule in RULES}
    assert len(codes) == len(RULES) and all(rule.diagnose.__doc__ for rule in RULES)
    assert codes <= set(load_entries()), codes - set(load_entries())
    remedies, advice = load_remedies()["remedies"], load_remedies()["advice"]
    assert set(advice) <= codes
    assert {row["remedy"] for rows in advice.values() for row in rows} == set(remedies)
    for key, remedy in remedies.items():
        assert set(remedy) - {"commands"} == {"title", "how", "price", "source"}, key
        assert all(remedy.values()), key


def test_the_commands_in_the_remedies_can_be_pasted() -> None:
    """Every remedy of the bundled trainer is named in a command, and every command names one."""
    commands = [command for entry in load_remedies()["remedies"].values() for command in entry.get("commands", ())]
    names = [re.fullmatch(r"gandiag train ring8 --remedy (\S+) --out \1", command) for command in commands]
    assert {name[1] for name in names if name} == set(REMEDIES) - {"none"} and all(names)
    assert get_remedies("GD102")[1]["how"].endswith("Try it: gandiag train ring8 --remedy packing --out packing")


def test_the_price_of_minibatch_features_is_stated() -> None:
    assert (
        "counting" in load_remedies()["remedies"]["minibatch"]["price"]
        and "global structure" in load_remedies()["remedies"]["minibatch"]["price"]
    )


def test_memorization_comes_before_the_variety() -> None:
    """At least half of the samples are copies, beyond what real samples are of each other."""
    copied = {"copies": Measurement(0.9, 0.85, 0.95, 0.02, reason="900 real samples searched")}
    healthy = apply_policy(make_record(0.0, 0.0, 0.05, measurements=copied))
    assert healthy.verdict == "memorised" and healthy.kinds == ("memorised",)
    assert healthy.findings[0].level == "error" and "900 real samples searched" in healthy.findings[0].text
    collapsed = apply_policy(make_record(0.4, 0.5, 0.6, measurements=copied))
    assert collapsed.verdict == "collapsed" and collapsed.kinds[:2] == ("memorised", "partial")
    honest = {"copies": Measurement(0.95, 0.9, 0.97, 0.94)}  # discrete data repeat
    assert apply_policy(make_record(0.0, 0.0, 0.05, measurements=honest)).verdict == "healthy"
    some = apply_policy(make_record(0.0, 0.0, 0.05, measurements={"memorised": Measurement(0.2, 0.15, 0.25, 0.0)}))
    assert some.verdict == "healthy" and [(entry.rule, entry.level) for entry in some.findings] == [
        ("GD302", "warning")
    ]


def test_few_distinct_outputs_are_counted_and_not_called_one() -> None:
    def with_largest(value: float, low: float) -> Record:
        counts = {
            "degeneracy": Measurement(0.99, 0.98, 1.0),
            "largest_repeat": Measurement(value, low, min(1.0, value + 0.05), reason="equal outputs"),
        }
        return apply_policy(make_record(0.4, 0.46, 0.5, measurements=counts))

    assert with_largest(0.34, 0.3).kinds == ("partial",)
    assert with_largest(1.0, 0.99).kinds == ("complete",)


def test_a_structure_gap_is_a_finding_of_fidelity() -> None:
    gap = {
        "structure_gap": Measurement(0.6, 0.5, 0.7, 0.0),
        "unreal_wholes": Measurement(0.7, 0.6, 0.8, 0.0),
        "patch_distance": Measurement(0.1, 0.05, 0.15, 0.0),
    }
    judged = apply_policy(make_record(0.0, 0.0, 0.05, measurements=gap))
    assert judged.verdict == "healthy" and [entry.rule for entry in judged.findings] == ["GD303"]
    unclear = {"structure_gap": Measurement(0.3, 0.1, 0.5, 0.0)}
    assert not apply_policy(make_record(0.0, 0.0, 0.05, measurements=unclear)).findings


@pytest.mark.parametrize("has_real", [True, False])
def test_a_score_that_failed_does_not_deny_the_real_data(has_real: bool) -> None:
    """GD503 said "No real data" where --real was given and the score could not be computed."""
    record = build_record(MetricResult({}), {}, {}, limit=0.15, exhibits=False, has_real=has_real)
    assert (find_missing_real_data(record, Policy()) is None) is has_real
