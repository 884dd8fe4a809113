"""Each fault of a run has its own verdict, and each name of a column its own meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gandiag
from gandiag.errors import ConfigError, ExitCode, SourceError
from gandiag.training_logs.change_points import find_level_steps
from gandiag.training_logs.column_names import choose_columns, choose_pairs
from gandiag.training_logs.level_trend import fit_level_trend
from gandiag.training_logs.random_walk import find_wandering_losses, returns_to_level
from gandiag.training_logs.reader import read_log
from gandiag.training_logs.sinusoid import remove_quadratic_trend
from gandiag.training_logs.step_alignment import select_runs

Array = np.ndarray[Any, Any]


def noise(seed: int, n: int, phi: float = 0.3) -> Array:
    series = np.random.default_rng(seed).standard_normal(n)
    for i in range(1, n):
        series[i] = phi * series[i - 1] + np.sqrt(1 - phi**2) * series[i]
    return series


def judge(generator: Array, discriminator: Array) -> Any:
    return gandiag.losses({"generator": generator, "discriminator": discriminator})


def kinds(result: Any) -> set[str]:
    return {event["kind"] for event in result.document["events"]}


def test_a_pair_that_drifts_apart_is_drifting() -> None:
    at = np.linspace(0, 1, 300)
    result = judge(1.3 + 5.7 * at + 0.3 * noise(1, 300), 1.3 - 1.2 * at + 0.05 * noise(2, 300))
    assert result.verdict == "drifting" and result.exit_code == ExitCode.INSUFFICIENT
    trend = result.document["levels"]["generator"]["trend"]
    assert trend["low"] < 5.7 / 2 < trend["high"] and trend["shown"]
    assert "weaken D" in result.document["summary"] and "chance is 1.39" in result.document["summary"]


def test_a_step_is_a_step_and_no_cycle() -> None:
    after = np.arange(1000) >= 750
    result = judge(1.2 + 1.5 * after + 0.1 * noise(3, 1000), 1.1 - 0.7 * after + 0.1 * noise(4, 1000))
    assert result.verdict == "stepped" and "oscillating" not in kinds(result)
    steps = result.document["levels"]["generator"]["steps"]
    assert len(steps) == 1 and steps[0]["step"] == pytest.approx(750, abs=5)
    assert steps[0]["before"] == pytest.approx(1.2, abs=0.05) and steps[0]["after"] == pytest.approx(2.7, abs=0.05)


@pytest.mark.parametrize("where", [0.3, 0.7, 0.92])
def test_the_row_of_a_step_is_found(where: float) -> None:
    n = 2000
    value = 1.0 * (np.arange(n) >= where * n) + 0.2 * noise(5, n, 0.6)
    found = find_level_steps(np.arange(n, dtype=np.float64), value)
    assert len(found) == 1 and abs(found[0].row - where * n) <= 0.01 * n


def test_a_ramp_has_no_step() -> None:
    value = np.linspace(0, 5, 400) + 0.2 * noise(6, 400)
    assert not find_level_steps(np.arange(400.0), value)


def test_single_rows_that_spike_in_both_losses() -> None:
    generator, discriminator = 1 + 0.1 * noise(7, 900), 1 + 0.1 * noise(8, 900)
    rows = np.arange(20, 900, 37)
    generator[rows] += 5
    discriminator[rows] += 3
    result = judge(generator, discriminator)
    assert result.verdict == "mode_hopping" and result.document["levels"]["generator"]["spikes"]["count"] == len(rows)
    alone = judge(generator, 1 + 0.1 * noise(8, 900))
    assert alone.verdict == "spiking" and alone.exit_code == ExitCode.INSUFFICIENT


def test_heavy_tails_are_no_spikes() -> None:
    rng = np.random.default_rng(9)
    result = judge(1 + 0.1 * rng.standard_t(3, 2000), 1 + 0.1 * rng.standard_t(3, 2000))
    assert result.exit_code != ExitCode.COLLAPSED


def test_a_random_walk_has_no_level() -> None:
    rng = np.random.default_rng(10)
    walk = 0.05 * np.cumsum(rng.standard_normal((2, 1000)), axis=1)
    pair = [noise(1, 2000, 0.98), noise(2, 2000, 0.98)]
    assert all(find_wandering_losses([*walk], [*walk])) and not any(find_wandering_losses(pair, pair))
    assert judge(3 + walk[0], 2 + walk[1]).verdict == "drifting"


def test_a_loss_of_one_row_has_no_trend() -> None:
    """One of the losses had a single value: the fit did not converge."""
    for count in (1, 2, 3):
        steps = np.arange(count, dtype=np.float64)
        assert np.allclose(remove_quadratic_trend(steps, steps**2 + 5), 0)


def test_a_level_that_changes_in_its_last_bin_alone_is_no_walk() -> None:
    """Losses of 1e300 divided zero by zero, and so did a constant with another last value."""
    level = np.ones(2000)
    level[-1] = 1.5
    for value in (level, np.full(900, 1e300), 1e300 * (1 + 0.1 * noise(1, 900))):
        assert find_wandering_losses([value], [value]) == [False] and returns_to_level(value)
    walk = 1e300 * (50 + np.cumsum(np.random.default_rng(2).standard_normal(4000))) / 100
    assert find_wandering_losses([walk], [walk]) == [True] and not returns_to_level(walk)


@pytest.mark.parametrize("n", [60, 120, 300])
def test_a_short_random_walk_is_never_settled(n: int) -> None:
    """A test cannot tell it from slow noise: what it cannot tell is said."""
    for seed in range(3):
        walk = 0.05 * np.cumsum(np.random.default_rng((seed, n)).standard_normal((2, n)), axis=1)
        result = judge(3 + walk[0], 2 + walk[1])
        assert result.verdict != "settled"
        assert result.verdict != "no_instability_found" or "too few to tell whether" in result.document["summary"]


def test_noise_comes_back_to_its_level_and_a_walk_does_not() -> None:
    assert returns_to_level(noise(1, 60, 0.3)) and returns_to_level(noise(2, 400, 0.9))
    walks = np.cumsum(np.random.default_rng(4).standard_normal((40, 200)), axis=1)
    assert sum(map(returns_to_level, walks)) <= 5  # 5 % of 40: six or more have a probability of 1 %
    assert returns_to_level(np.ones(50)) and not returns_to_level(noise(3, 15))


def test_a_warm_up_that_decays_does_not_wander() -> None:
    decay = 4 * np.exp(-np.arange(1000) / 60)
    for seed in range(3):
        result = judge(1.5 + decay + 0.1 * noise(seed, 1000, 0.8), 1.1 + decay / 2 + 0.1 * noise(seed + 9, 1000, 0.8))
        assert "drifting" not in kinds(result)


def test_a_slow_cycle_does_not_wander() -> None:
    angle = np.arange(2000) * 2 * np.pi / 330
    result = judge(1.5 + 0.3 * np.sin(angle) + 0.1 * noise(5, 2000), 1.1 + 0.2 * np.cos(angle) + 0.1 * noise(6, 2000))
    assert result.verdict == "oscillating" and "drifting" not in kinds(result)


def test_a_jump_of_heavy_tailed_noise_is_no_step() -> None:
    found = 0
    for seed in range(20):
        draws = np.random.default_rng((seed, 8)).standard_t(3, 600)
        for i in range(1, 600):
            draws[i] += 0.9 * draws[i - 1]
        found += bool(find_level_steps(np.arange(600.0), draws))
    assert found <= 2


def test_sentences_have_no_exponents_and_keep_the_names_of_columns() -> None:
    steps = 5000.0 * np.arange(400)
    step = np.arange(400) >= 280
    result = gandiag.losses(
        {"step": steps, "generator": 4e3 + 3e3 * step + 90 * noise(1, 400), "discriminator": 9e3 + 90 * noise(2, 400)}
    )
    text = " ".join([result.document["summary"], *result.document["notes"]])
    assert "generator 3,986 → 6,999" in text and "at 1,400,000" in text and "e+0" not in text
    assert "Discriminator" not in str(result) and "Generator" not in str(result)


def test_one_loss_alone_gets_a_sentence() -> None:
    result = gandiag.losses({"discriminator": 0.9 + 0.1 * noise(3, 96)})
    assert result.verdict == "inconclusive"
    assert result.document["summary"].startswith("No loss of the generator was found; pass its log too")
    assert "discriminator is level at 0.8" in result.document["summary"]


def test_the_trend_of_noise_is_not_shown() -> None:
    """A pooled rate of 2 % of 120: seven or more have a probability below 1 %."""
    shown = 0
    for seed in range(40):
        for n, phi in ((60, 0.9), (200, 0.9), (600, 0.98)):
            trend = fit_level_trend(np.arange(n, dtype=np.float64), noise(100 + seed, n, phi))
            shown += trend is not None and trend.is_shown
    assert shown <= 6


def test_a_discriminator_at_chance_learns_nothing() -> None:
    result = judge(0.693 + 0.002 * noise(11, 400), 1.386 + 0.002 * noise(12, 400))
    assert result.verdict == "discriminator_at_chance" and result.document["loss"]["chance"] == pytest.approx(
        1.386, abs=1e-3
    )


def test_a_critic_at_zero_has_not_won() -> None:
    decay = 0.004 * np.exp(-np.arange(60) / 2)
    result = judge(-0.0092 + 0.0001 * noise(13, 60), decay + 0.00001 * noise(14, 60))
    assert result.verdict == "discriminator_at_chance" and "discriminator_wins" not in kinds(result)


def test_a_discriminator_at_four_percent_has_won() -> None:
    decay = np.exp(-np.arange(400) / 40)
    result = judge(7 - 5 * decay + 0.4 * noise(15, 400), np.abs(0.045 + 1.2 * decay + 0.01 * noise(16, 400)))
    assert result.verdict == "discriminator_wins" and "98 % sure" in result.document["summary"]


def test_a_generator_that_fools_d_has_won() -> None:
    result = judge(0.1 + 0.01 * noise(17, 300), 1.9 + 0.05 * noise(18, 300))
    assert result.verdict == "generator_wins"


def test_a_weak_cycle_is_a_note() -> None:
    """One of a hundred noise runs has p <= .01; between .01 and .05 a cycle needs coherent players."""
    for seed in range(12):
        result = judge(1.5 + 0.1 * noise(300 + seed, 200), 1.1 + 0.1 * noise(400 + seed, 200))
        oscillation = result.document["oscillation"]
        if oscillation["p_value"] > 0.01 and not oscillation["coherent"]:
            assert "oscillating" not in kinds(result)


def test_unshuffled_data_are_no_game() -> None:
    saw = np.arange(1000) % 40 / 40
    result = judge(1.5 + 0.5 * saw + 0.1 * noise(19, 1000), 1.1 - 0.3 * saw + 0.05 * noise(20, 1000))
    assert "oscillating" not in kinds(result) and result.exit_code == ExitCode.OK
    assert result.document["oscillation"]["epoch"] == pytest.approx(40, rel=0.01)
    assert "data order" in " ".join(result.document["notes"])


def test_thinning_draws_no_change_of_noise() -> None:
    """600 rows in groups of two: the noise of both halves stays the same."""
    result = judge(1 + 0.1 * noise(21, 600, 0), 1 + 0.1 * noise(22, 600, 0))
    drawn = np.array(result.document["curves"]["generator"]["value"])
    assert len(drawn) == 300 and 0.75 < drawn[:150].std() / drawn[150:].std() < 1.33


def test_a_short_log_says_what_it_shows() -> None:
    result = judge(np.linspace(1, 3, 20), np.linspace(1.2, 0.3, 20))
    assert result.verdict == "inconclusive" and result.document["summary"].startswith("Too short for a cycle test (20")
    assert str(result).startswith("TOO SHORT FOR A CYCLE TEST")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_dead_second_discriminator_speaks(tmp_path: Path) -> None:
    rng = np.random.default_rng(23)
    lines = []
    for i in range(300):
        d_a, g_a = 0.22 + 0.03 * rng.standard_normal(2)
        d_b, g_b = (0.2, 0.3) if i < 150 else (0.001, 1.0)
        lines.append(
            f"(epoch: {i // 10 + 1}, iters: {i % 10 * 100 + 100}, time: 0.3, data: 0.0) D_A: {d_a:.3f} G_A: {g_a:.3f} "
            f"cycle_A: 1.0 D_B: {d_b:.3f} G_B: {g_b:.3f} cycle_B: 0.9 "
        )
    result = gandiag.losses(write(tmp_path / "loss_log.txt", "\n".join(lines)))
    assert result.verdict == "discriminator_wins" and result.document["columns"]["discriminator"] == "D_B"
    assert {entry["name"]: entry["verdict"] for entry in result.document["pairs"]}["D_A"] in (
        "settled",
        "no_instability_found",
    )
    assert result.document["summary"].startswith("D_B: discriminator wins; D_A: ")


def test_a_nan_in_the_last_run_has_failed(tmp_path: Path) -> None:
    rng = np.random.default_rng(24)
    rows = [f"{i},{1 + 0.1 * rng.standard_normal():.3f},{1 + 0.1 * rng.standard_normal():.3f}" for i in range(50)]
    broken = [*rows[:44], *(f"{i},nan,nan" for i in range(44, 50))]
    text = "step,d_loss,g_loss\n" + "\n".join([*rows, *broken]) + "\n"
    result = gandiag.losses(write(tmp_path / "log.csv", text))
    assert result.verdict == "failed" and len(result.document["runs"]) == 2
    assert result.document["runs"][0]["verdict"] != "failed"


def test_runs_written_at_the_same_time_are_told_apart() -> None:
    first, second = np.arange(20.0), np.arange(8.0, 28.0)
    runs = select_runs(np.stack([first, second], axis=1).reshape(-1))
    assert len(runs) == 2 and all(run.is_interleaved for run in runs)
    steps = np.stack([first, second], axis=1).reshape(-1)
    assert sorted(steps[run.rows].tolist() for run in runs) == [first.tolist(), second.tolist()]


def test_columns_of_a_table_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "".join(f"{i},{1 + i / 100:.3f},{2 - i / 100:.3f}\n" for i in range(60)))
    result = gandiag.losses(path, columns="step,d,g")
    assert result.document["curves"]["discriminator"]["value"][0] == 1.0
    assert result.document["columns"]["generator"] == "g"
    with pytest.raises(SourceError, match="3 columns"):
        gandiag.losses(path, columns="step,d")
    with pytest.raises(ConfigError):
        gandiag.losses(path, columns=",")
    with pytest.raises(SourceError, match="no losses were found"):
        gandiag.losses(path)


def test_a_tensorboard_download_is_named_by_its_file(tmp_path: Path) -> None:
    for name, level in (("Loss_D", 1.0), ("Loss_G", 2.0)):
        rows = "".join(f"1700000000.{i},{10 * i},{level + 0.01 * (i % 7)}\n" for i in range(60))
        write(tmp_path / f"run-x-tag-{name}.csv", "Wall time,Step,Value\n" + rows)
    log = read_log([tmp_path / "run-x-tag-Loss_D.csv", tmp_path / "run-x-tag-Loss_G.csv"])
    assert log.curves["discriminator"].name == "Loss_D" and log.curves["generator"].value[0] == 2.0


def test_steps_nested_in_json(tmp_path: Path) -> None:
    rows = [{"step": 100 * i, "g_loss": 1.5 + i / 100, "d_loss": 1.0} for i in range(50)]
    path = write(tmp_path / "log.json", json.dumps({"seed": 1, "metrics": rows}))
    curve = read_log([path]).curves["generator"]
    assert curve.step[-1] == 4900 and curve.name == "g_loss"


def test_ticks_of_stylegan_have_no_losses(tmp_path: Path) -> None:
    line = "tick {i}     kimg {i}.0      time 0m 12s       sec/tick 60.1    maintenance 0.1    cpumem 4.21"
    path = write(tmp_path / "log.txt", "\n".join(line.format(i=i) for i in range(50)))
    with pytest.raises(SourceError) as problem:
        read_log([path])
    assert "stats.jsonl" in problem.value.hint


def test_a_classifier_is_no_gan(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv", "epoch,loss,accuracy,val_loss\n" + "".join(f"{i},0.5,0.9,0.6\n" for i in range(50))
    )
    with pytest.raises(SourceError, match="classifier"):
        read_log([path])


@pytest.mark.parametrize(
    ("names", "generator", "discriminator"),
    [
        (["d1", "d2", "g"], ("g",), ("d1", "d2")),
        (["gen_total_loss", "gen_gan_loss", "gen_l1_loss", "disc_loss"], ("gen_gan_loss",), ("disc_loss",)),
        (["INFO:mi-test:loss_disc", "loss_gen", "loss_fm"], ("loss_gen",), ("INFO:mi-test:loss_disc",)),
        (["l_g_pix", "l_g_gan", "l_d_real", "l_d_fake"], ("l_g_gan",), ("l_d_real", "l_d_fake")),
        (["G_GAN", "G_L1", "D_real+fake"], ("G_GAN",), ("D_real+fake",)),
        (["GAN", "GAN_Feat", "VGG", "D_Fake", "D_real"], ("GAN",), ("D_real", "D_Fake")),
        (["Gen.", "Discrim."], ("Gen.",), ("Discrim.",)),
        (["生成器损失", "判别器损失"], ("生成器损失",), ("判别器损失",)),
    ],
)
def test_names_of_practice(names: list[str], generator: tuple[str, ...], discriminator: tuple[str, ...]) -> None:
    found = choose_columns(names, names)
    assert found["generator"] == generator and found["discriminator"] == discriminator


def test_pairs_by_domain_and_scale() -> None:
    names = ["D_A", "G_A", "D_B", "G_B", "cycle_A"]
    assert choose_pairs(names, choose_columns(names)) == [{"discriminator": ("D_B",), "generator": ("G_B",)}]
    names = ["g_loss", "d_loss_0", "d_loss_1", "d_loss_gp"]
    assert choose_pairs(names, choose_columns(names)) == [{"discriminator": ("d_loss_1",), "generator": ("g_loss",)}]


def test_what_was_logged_beside_the_losses(tmp_path: Path) -> None:
    rng = np.random.default_rng(25)
    rows = "".join(
        f"{i},{1 + 0.1 * rng.standard_normal():.4f},{1.5 + 0.1 * rng.standard_normal():.4f},{0.6:.2f},"
        f"{'' if i % 50 else 40 - i / 20},{2e-4 if i < 300 else 2e-5}\n"
        for i in range(400)
    )
    path = write(tmp_path / "log.csv", "step,d_loss,g_loss,d_acc,fid,lr\n" + rows)
    document = gandiag.losses(path).document
    beside = {entry["role"]: entry for entry in document["beside"]}
    assert beside["accuracy"]["last"] == 0.6 and beside["fid"]["best_step"] == 350
    assert document["rate_drops"] == [300.0]


def test_an_accuracy_of_one_is_a_win(tmp_path: Path) -> None:
    d, g = 0.4 + 0.02 * noise(26, 200), 3 + 0.2 * noise(27, 200)
    rows = [f"{i} [D loss: {d[i]:.4f}, acc.: 100.00%] [G loss: {g[i]:.4f}]" for i in range(200)]
    result = gandiag.losses(write(tmp_path / "log.txt", "\n".join(rows)))
    assert result.verdict == "discriminator_wins"


def test_a_few_finite_losses_between_infinite_ones_are_no_bug() -> None:
    """The running median had no finite value left, and its quantile raised an IndexError."""
    for level in ([0.5, np.inf], [np.inf, np.inf, 0.5, np.inf, np.inf], [0.5, np.inf, 0.4] * 20):
        result = judge(np.ones(len(level)), np.array(level))
        assert result.verdict in ("inconclusive", "failed")
