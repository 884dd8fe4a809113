"""Which checkpoint to keep, from records alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gandiag.record import Measurement, Record, Score
from gandiag.verdict.judge import apply_policy
from gandiag.verdict.series_advice import advise_checkpoint


def make_record(value: float, half: float = 0.02, **measurements: float) -> Record:
    score = Score(value, max(0.0, value - half), min(1.0, value + half), n_fake=1000, n_real=2000)
    measured = {"width": 1 - value, **measurements}
    return apply_policy(
        Record("inconclusive", (), score, {}, {key: Measurement(entry) for key, entry in measured.items()})
    )


def make_log(steps: Sequence[int], values: Sequence[float]) -> dict[str, object]:
    return {"curves": {"generator": {"name": "g", "step": [float(step) for step in steps], "value": list(values)}}}


def test_the_latest_healthy_one_that_is_as_good_as_the_best() -> None:
    points = [(100.0, make_record(0.05)), (200.0, make_record(0.04)), (300.0, make_record(0.4))]
    advice = advise_checkpoint(points, None)
    assert (advice["latest_healthy"], advice["best"], advice["tied"]) == (200.0, 200.0, [100.0])
    assert advice["text"][0].startswith("Keep 200, the latest healthy one") and not advice["no_difference"]


def test_the_best_one_where_the_latest_healthy_one_is_worse() -> None:
    points = [(100.0, make_record(0.01, 0.01)), (200.0, make_record(0.12, 0.02)), (300.0, make_record(0.5))]
    advice = advise_checkpoint(points, None)
    assert advice["latest_healthy"] == 200.0 and advice["text"][0].startswith("Keep 100, the best score")


def test_no_difference_is_said_where_the_intervals_say_so() -> None:
    points = [(step, make_record(0.05 + 0.001 * step, 0.05)) for step in (1.0, 2.0, 3.0)]
    advice = advise_checkpoint(points, None)
    assert advice["no_difference"] and "no difference" in advice["text"][0] and "Keep 3" in advice["text"][0]


def test_no_healthy_one_and_no_score() -> None:
    assert "No checkpoint is shown to be healthy" in advise_checkpoint([(1.0, make_record(0.6))], None)["text"][0]
    bare = Record("inconclusive", (), Score(None, None, None, basis="groups"), {}, {})
    assert "no checkpoint has a score" in advise_checkpoint([(1.0, bare), (2.0, bare)], None)["text"][0]


def test_identical_and_indistinguishable_outputs() -> None:
    points = [(step, make_record(value)) for step, value in ((1.0, 0.05), (2.0, 0.05), (3.0, 0.050001), (4.0, 0.07))]
    found = advise_checkpoint(points, None)["identical"]
    assert found == [{"from": 1.0, "to": 2.0, "exact": True}, {"from": 2.0, "to": 3.0, "exact": False}]
    text = "\n".join(advise_checkpoint(points, None)["text"])
    assert "bit-identical" in text and "training does not reach these weights" in text


def test_degenerate_checkpoints_are_never_the_best() -> None:
    points = [(1.0, make_record(0.2)), (2.0, make_record(0.0, constant_samples=1.0))]
    advice = advise_checkpoint(points, None, [("step-3.npz", "step-3.npz: sample 0 contains NaN or infinity")])
    assert advice["best"] == 1.0 and advice["degenerate"] == [2.0]
    assert "black or constant" in advice["text"][1] and "NaN" in advice["text"][2]


def test_whether_the_loss_agrees() -> None:
    steps = [100.0 * index for index in range(1, 9)]
    scores = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
    points = [(step, make_record(score)) for step, score in zip(steps, scores, strict=True)]
    logged = list(range(0, 900, 10))
    falling = advise_checkpoint(points, make_log(logged, [1 - step / 1000 for step in logged]))["loss"]
    assert falling["value"] == -1 and falling["high"] < 0 and falling["n"] == 8
    rising = advise_checkpoint(points, make_log(logged, [step / 1000 for step in logged]))
    assert rising["loss"]["low"] > 0 and "agrees" in rising["text"][-1]
    wave = advise_checkpoint(points, make_log(logged, [math.sin(step / 55) for step in logged]))
    assert wave["loss"]["low"] < 0 < wave["loss"]["high"] and "no guide" in wave["text"][-1]
    assert advise_checkpoint(points[:4], make_log(logged, [1.0 * step for step in logged]))["loss"] is None
