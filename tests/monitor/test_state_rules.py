"""States and the warm-up, from judgments; and that a judgment is that of an audit."""

from __future__ import annotations

import pytest
import torch

import gandiag
from gandiag.interfaces import Estimate
from gandiag.monitor.judgment import Judge, Judgment
from gandiag.monitor.real_statistics import QuickCheck
from gandiag.monitor.state_rules import infer_state, is_confirmed
from gandiag.monitor.status import Evaluation, MonitorState, evaluation_from_dict, evaluation_to_dict
from gandiag.record import Verdict
from gandiag.testing.toy_mixtures import make_mixture


def check(lost: float = 0.0) -> QuickCheck:
    return QuickCheck(lost, 1.0, 8, round(8 * lost))


def judged(value: float, verdict: Verdict = "healthy", *, is_realistic: bool = True, width: float = 0.04) -> Judgment:
    return Judgment(Estimate(value, max(0.0, value - width), value + width), verdict, is_realistic)


def look(judgment: Judgment | None, state: MonitorState = "fine", lost: float = 0.0) -> Evaluation:
    return Evaluation(1, 256, state, check(lost), judgment)


GOOD, BLURRED = look(judged(0.03)), look(judged(0.03, "unrealistic", is_realistic=False))
LOST = judged(0.4, "collapsed")


def test_states() -> None:
    assert infer_state(check(), judged(0.05), []) == "fine"
    assert infer_state(check(), judged(0.12, "inconclusive"), []) == "unclear"
    assert infer_state(check(), judged(0.12, "unrealistic"), []) == "unclear"
    assert infer_state(check(), judged(0.13, "inconclusive"), [GOOD]) == "losing"
    assert infer_state(check(0.13), None, [GOOD]) == "losing"
    assert infer_state(check(), None, [GOOD]) == "fine"
    assert infer_state(check(), None, []) == infer_state(check(), None, [BLURRED]) == "unclear"  # never judged healthy
    assert infer_state(check(0.13), None, [BLURRED]) == "unclear"  # a beginner throws modes about
    assert infer_state(check(0.5), None, [BLURRED]) == "losing"
    assert infer_state(check(0.9), None, [GOOD]) == "losing"  # a quick check alone shows no collapse
    assert infer_state(check(0.9), judged(0.05), []) == "fine"
    assert infer_state(check(), LOST, [GOOD]) == "collapsed"
    assert infer_state(check(), LOST, [GOOD], is_early=True) == "learning"
    assert infer_state(check(0.13), None, [GOOD], is_early=True) == "unclear"


def test_collapse_is_reported_once_the_data_were_learned() -> None:
    assert infer_state(check(), LOST, []) == "learning"
    assert infer_state(check(), LOST, [BLURRED]) == "learning"
    assert infer_state(check(), LOST, [look(judged(0.4, "collapsed"))]) == "collapsed"  # passes for real, and stays
    growing, full = look(judged(0.6, "collapsed")), look(judged(0.1, "inconclusive"))
    assert infer_state(check(), LOST, [growing]) == "learning"
    assert infer_state(check(), LOST, [full, growing]) == "collapsed"  # it has had more than this


def test_collapse_is_reported_where_gained_variety_is_lost_although_the_samples_never_passed_for_real() -> None:
    start = look(judged(0.95, "collapsed", is_realistic=False))
    gained = look(judged(0.1, "unrealistic", is_realistic=False))
    assert infer_state(check(), LOST, [start, gained]) == "collapsed"
    assert infer_state(check(), LOST, [gained, gained]) == "learning"
    assert infer_state(check(), LOST, [gained, gained, gained]) == "collapsed"
    assert infer_state(check(), LOST, [gained, start]) == "learning"  # lost before it was gained; still growing
    slight = look(judged(0.35, "collapsed", is_realistic=False))
    assert infer_state(check(), LOST, [start, slight]) == "learning"


def test_a_stop_needs_two_judged_evaluations_in_a_row() -> None:
    shown, quick = look(LOST, "collapsed"), look(None, "losing", 0.9)
    assert not is_confirmed([GOOD, shown], 2)
    assert is_confirmed([GOOD, shown, shown], 2) and is_confirmed([shown, quick, shown], 2)
    assert not is_confirmed([shown, GOOD, shown], 2) and not is_confirmed([shown, quick, quick], 2)


def test_evaluations_survive_a_state_dict() -> None:
    doubtful = Evaluation(3, 256, "unclear", check(), Judgment(Estimate(0.1, 0.0, 0.3), "inconclusive", False, ("x",)))
    for evaluation in (doubtful, look(None)):
        assert evaluation_from_dict(evaluation_to_dict(evaluation)) == evaluation
    assert "too unlike the data" in str(doubtful)


def test_single_modes_are_not_mentioned() -> None:
    assert "mode" not in str(Evaluation(3, 256, "fine", QuickCheck(0.0, 1.0, 1, 0)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["healthy", "collapsed", "unrealistic", "narrow"])
def test_the_verdict_is_that_of_an_audit(kind: str) -> None:
    mixture = make_mixture(dim=2, n_modes=8)
    real, fake = mixture.sample(600, seed=1), mixture.sample(300, seed=2)
    if kind == "collapsed":
        fake = fake[fake[:, 0] > 0].repeat(3, 1)[:300] + 1e-3 * torch.randn(
            300, 2, generator=torch.Generator().manual_seed(0)
        )
    elif kind == "unrealistic":
        fake = fake + 6 * mixture.std * torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    elif kind == "narrow":
        real, fake = torch.randn(600, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(300, 16)
    record = gandiag.audit(fake.numpy(), real.numpy(), n=300)
    views = {"identity": real}, {"identity": fake}
    judgment = Judge(seed=0, limit=record.score.limit, has_aspects=False).rehearse(views[0]).judge(*views)
    assert judgment.verdict == record.verdict
    assert judgment.score.value == pytest.approx(record.score.value, abs=0.02)
