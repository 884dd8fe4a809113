"""Logs that hold more than one run or more than one pair of players: each is judged, and what was joined is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gandiag
from gandiag.training_logs.reader import read_log
from gandiag.training_logs.series import Log


def losses_of(seed: int, level: float = 1.0) -> Iterator[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    while True:
        yield level + 0.05 * rng.standard_normal(), level + 0.6 + 0.06 * rng.standard_normal()


def lines(steps: Sequence[int], seed: int = 0, level: float = 1.0, label: str = "") -> list[str]:
    return [
        f"{label}step {i}: d_loss: {d:.4f} g_loss: {g:.4f}"
        for i, (d, g) in zip(steps, losses_of(seed, level), strict=False)
    ]


def read(folder: Path, rows: Sequence[str], name: str = "log.txt") -> Log:
    (folder / name).write_text("\n".join(rows))
    return read_log([folder / name])


def judge(folder: Path, rows: Sequence[str]) -> Any:
    (folder / "log.txt").write_text("\n".join(rows))
    return gandiag.losses(folder / "log.txt").document


def test_a_resume_replaces_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    log = read(tmp_path, [*lines(range(200)), "Loading checkpoint 150", *lines(range(150, 400), 1)])
    assert len(log.curves["generator"]) == 400 and not log.runs and "1 resume resolved" in log.notes[0]


def test_two_resumes_in_json_lines(tmp_path: Path) -> None:
    rows = [
        f'{{"step": {i}, "d_loss": {d}, "g_loss": {g}}}'
        for first, last in ((0, 120), (100, 240), (200, 400))
        for i, (d, g) in zip(range(first, last), losses_of(first), strict=False)
    ]
    log = read(tmp_path, rows, "log.jsonl")
    assert len(log.curves["generator"]) == 400 and not log.runs and "2 resumes resolved" in log.notes[0]


def test_a_restart_is_judged_on_its_own(tmp_path: Path) -> None:
    bad = [f"step {i}: d_loss: {0.01 + 0.0001 * (i % 7):.4f} g_loss: 9.{i % 10}" for i in range(200)]
    document = judge(tmp_path, [*bad, *lines(range(300))])
    assert [run["verdict"] for run in document["runs"]] == ["discriminator_wins", document["verdict"]]
    assert document["verdict"] in ("settled", "no_instability_found")


def test_a_run_that_became_nan_and_one_that_did_not(tmp_path: Path) -> None:
    broken = [*lines(range(80)), *(f"step {i}: d_loss: nan g_loss: nan" for i in range(80, 120))]
    document = judge(tmp_path, [*broken, *lines(range(200), 1)])
    assert [run["verdict"] for run in document["runs"]] == ["failed", document["verdict"]]
    assert judge(tmp_path, [*lines(range(200), 1), *broken])["verdict"] == "failed"


def test_three_seeds_one_after_the_other(tmp_path: Path) -> None:
    rows = []
    for seed in (1, 2, 3):
        pairs = zip(range(1, 81), losses_of(seed, seed), strict=False)
        rows += [f"seed {seed}", *(f"Epoch {e}/80 D loss: {d:.4f} G loss: {g:.4f}" for e, (d, g) in pairs)]
    log = read(tmp_path, rows)
    assert len(log.runs) == 2 and log.step_unit == "epochs"
    assert abs(float(np.median(log.curves["generator"].value)) - 3.6) < 0.1


def test_phases_of_progressive_growing_are_runs(tmp_path: Path) -> None:
    rows = []
    for size in (8, 16, 32):
        pairs = zip(range(100), losses_of(size), strict=False)
        rows += [f"Size: {size}, iteration {i}, d_loss {d:.4f}, g_loss {g:.4f}" for i, (d, g) in pairs]
    log = read(tmp_path, rows)
    assert len(log.runs) == 2 and len(log.curves["generator"]) == 100


def test_processes_that_write_the_same_steps_are_averaged_and_it_is_said(tmp_path: Path) -> None:
    parts = [lines(range(100), rank, label=f"[rank{rank}] ") for rank in range(4)]
    log = read(tmp_path, [row for rows in zip(*parts, strict=True) for row in rows])
    assert len(log.curves["generator"]) == 100 and not log.runs
    assert any("300 rows have the step of another row" in note for note in log.notes)


def test_labeled_runs_in_turn_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    first, second = lines(range(0, 2000, 10), 1, 1.0, "[run_a] "), lines(range(0, 2000, 10), 2, 3.0, "[run_b] ")
    rng, rows = np.random.default_rng(0), []
    while first and second:
        rows.append((first if rng.random() < 0.5 else second).pop(0))
    log = read(tmp_path, [*rows, *first, *second])
    levels = sorted(float(np.median(run.curves["discriminator"].value)) for run in (log, *log.runs))
    assert log.interleaved and np.allclose(levels, [1.0, 3.0], atol=0.02)
    assert all(len(run.curves["generator"]) == 200 for run in (log, *log.runs))


def test_every_scale_of_a_discriminator_is_judged(tmp_path: Path) -> None:
    rows = []
    for i, (d, g) in zip(range(300), losses_of(0), strict=False):
        last = d if i < 100 else 0.004 + 0.001 * (i % 3)
        rows.append(f"iter {i} D_scale0: {d:.3f} D_scale1: {d - 0.1:.3f} D_scale2: {last:.4f} G: {g:.3f}")
    document = judge(tmp_path, rows)
    assert document["verdict"] == "discriminator_wins" and document["columns"]["discriminator"] == "D_scale2"
    assert document["summary"].startswith("D_scale2: discriminator wins; D_scale0: ")


def test_the_discriminators_of_a_vocoder_have_their_own_generators(tmp_path: Path) -> None:
    rows = [
        f"Steps : {i}, loss_disc_mpd: {d / 4:.4f}, loss_disc_msd: {d / 5:.4f}, loss_gen_mpd: {g / 5:.4f}, "
        f"loss_gen_msd: {g / 6:.4f}, loss_mel: 20.1"
        for i, (d, g) in zip(range(100), losses_of(0), strict=False)
    ]
    log = read(tmp_path, rows)
    names = [(pair.curves["discriminator"].name, pair.curves["generator"].name) for pair in (log, *log.pairs)]
    assert names == [("loss_disc_mpd", "loss_gen_mpd"), ("loss_disc_msd", "loss_gen_msd")]


def test_both_directions_of_a_dual_gan_are_judged(tmp_path: Path) -> None:
    rows = []
    for i, (d, g) in zip(range(300), losses_of(0), strict=False):
        b_d, b_g = (d, g) if i < 120 else (0.01 + 0.001 * (i % 5), 8.0)
        rows.append(
            f"Epoch: [{i // 100}] [{i % 100}/ 100] A_d_loss: {d:.5f}, A_g_loss: {g:.5f}, "
            f"B_d_loss: {b_d:.5f}, B_g_loss: {b_g:.5f}"
        )
    document = judge(tmp_path, rows)
    assert document["verdict"] == "discriminator_wins" and document["columns"]["generator"] == "B_g_loss"


def test_a_critic_that_is_logged_more_often_than_its_generator(tmp_path: Path) -> None:
    rows = []
    for i, (d, g) in zip(range(300), losses_of(0), strict=False):
        rows.append(f"iter {i} d_loss {-d:.4f}" + (f" g_loss {g:.4f}" if i % 5 == 0 else ""))
    log = read(tmp_path, rows)
    assert len(log.curves["discriminator"]) == 300 and len(log.curves["generator"]) == 60 and not log.runs


def test_batches_that_begin_at_their_first_multiple_make_even_steps(tmp_path: Path) -> None:
    """pix2pix prints "iters: 100 … 800", and again 100: the steps are 100, 200 … across epochs."""
    rows = [
        f"(epoch: {1 + i // 8}, iters: {100 * (i % 8 + 1)}, time: 0.1) G_GAN: 1.5{i % 10} D_real: 0.5 D_fake: 0.4"
        for i in range(64)
    ]
    log = read(tmp_path, rows)
    assert np.array_equal(log.curves["generator"].step, 100.0 * np.arange(1, 65)) and log.steps_per_epoch == 800
