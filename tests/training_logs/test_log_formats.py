"""Every log format of GAN training: the same run gives the same curves without an option."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gandiag.errors import ConfigError, SourceError
from gandiag.training_logs.column_names import choose_columns
from gandiag.training_logs.formats.jsonl import TRAINER_STATE
from gandiag.training_logs.reader import read_log
from gandiag.training_logs.reader_names import ColumnNames

LOGS = Path(__file__).resolve().parents[2] / "fixtures" / "logs"
FILES = sorted(entry.name for entry in LOGS.iterdir() if entry.suffix != ".py" and not entry.name.startswith("_"))


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    values = runpy.run_path(str(LOGS / "make.py"), run_name="truth")
    return np.array(values["G"]), np.array(values["D"])


@pytest.mark.parametrize("name", FILES)
def test_the_right_columns_without_a_flag(name: str, truth: tuple[np.ndarray, np.ndarray]) -> None:
    log = read_log([LOGS / name])
    sign = -1 if name == "improved_wgan.txt" else 1
    for role, values in (("generator", truth[0]), ("discriminator", sign * truth[1])):
        curve = log.curves[role]
        assert len(curve) == len(values) and (np.diff(curve.step) > 0).all()
        assert np.abs(curve.value - values).max() < 0.011, (
            role
        )  # the coarsest format prints two decimals, and D in two halves
    assert not log.problems and log.step_unit in ("steps", "iterations", "kimg", "lines")


def test_epochs_and_iterations_are_distinguished() -> None:
    log = read_log([LOGS / "pytorch_gan.txt"])
    assert log.step_unit == "iterations" and log.steps_per_epoch == 120
    assert log.curves["generator"].step[[0, -1]].tolist() == [0, 479]


def test_pieces_of_one_run_are_joined_and_a_resume_is_resolved(tmp_path: Path) -> None:
    rows = [f"{step},{step / 1000},{1 - step / 1000}\n" for step in range(300)]
    (tmp_path / "a.csv").write_text("step,d_loss,g_loss\n" + "".join(rows[:200]))
    (tmp_path / "b.csv").write_text("step,d_loss,g_loss\n" + "".join(row.replace(",", ",1", 1) for row in rows[150:]))
    log = read_log([tmp_path / "a.csv", tmp_path / "b.csv"])
    curve = log.curves["discriminator"]
    assert curve.step.tolist() == list(range(300))
    assert curve.value[149] == 0.149 and curve.value[150] == pytest.approx(10.15)  # from 150 on, the later file counts
    assert any("resume" in note for note in log.notes)


def test_a_restart_is_another_run(tmp_path: Path) -> None:
    rows = "".join(f"{step},0.5,{step % 7}\n" for step in range(100))
    (tmp_path / "a.csv").write_text("step,d_loss,g_loss\n" + rows + rows)
    log = read_log([tmp_path / "a.csv"])
    assert "2 runs" in log.notes[0] and not log.problems
    assert [len(run.curves["generator"]) for run in (*log.runs, log)] == [100, 100]
    (tmp_path / "a.csv").write_text("step,d_loss,g_loss\n" + rows[:70] + "\n" + rows)
    log = read_log([tmp_path / "a.csv"])
    assert not log.problems and "false start" in " ".join(log.notes)


def test_nan_is_kept_and_a_gap_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "step,d_loss,g_loss\n" + "".join(f"{i},{'nan' if i > 50 else 0.5},{'' if i % 2 else 1.0}\n" for i in range(100))
    )
    log = read_log([tmp_path / "a.csv"])
    assert len(log.curves["discriminator"]) == 100 and not np.isfinite(log.curves["discriminator"].value[51:]).any()
    assert len(log.curves["generator"]) == 50


def test_columns_can_be_named_and_misnamed() -> None:
    log = read_log([LOGS / "cyclegan_loss_log.txt"], ColumnNames(generator="G_B", discriminator="D_B"))
    assert log.curves["generator"].value[0] == 0.412
    with pytest.raises(ConfigError, match="G_X"):
        read_log([LOGS / "table.tsv"], ColumnNames(generator="G_X"))


@pytest.mark.parametrize(
    ("columns", "generator", "discriminator"),
    [
        (["errD", "errG"], ("errG",), ("errD",)),
        (["d_loss_real", "d_loss_fake", "d_loss", "g_loss"], ("g_loss",), ("d_loss",)),
        (["val_g_loss", "g_loss", "d_loss", "d_loss_gp"], ("g_loss",), ("d_loss",)),
        (
            ["gen_loss_step", "gen_loss_epoch", "disc_loss_step", "disc_loss_epoch"],
            ("gen_loss_step",),
            ("disc_loss_step",),
        ),
        (["critic_loss", "generator_loss", "lr"], ("generator_loss",), ("critic_loss",)),
        (["train/loss_G", "train/loss_D", "train/grad_norm_G"], ("train/loss_G",), ("train/loss_D",)),
        (["Generator Loss", "Discriminator Loss"], ("Generator Loss",), ("Discriminator Loss",)),
        (["lossG", "lossD"], ("lossG",), ("lossD",)),
        (["loss_g", "loss_d"], ("loss_g",), ("loss_d",)),
        (["G_loss", "D_loss", "D_loss_real", "D_acc"], ("G_loss",), ("D_loss",)),
        (["gan_loss", "d_loss"], ("gan_loss",), ("d_loss",)),
    ],
)
def test_column_names_give_the_player(
    columns: list[str], generator: tuple[str, ...], discriminator: tuple[str, ...]
) -> None:
    found = choose_columns(columns)
    assert found["generator"] == generator and found["discriminator"] == discriminator


def test_a_truncated_event_file_gives_what_it_holds(tmp_path: Path) -> None:
    whole = (LOGS / "events.out.tfevents.fixture").read_bytes()
    (tmp_path / "events.out.tfevents.1").write_bytes(whole[: len(whole) // 2 + 5])
    log = read_log([tmp_path / "events.out.tfevents.1"])
    assert 200 < len(log.curves["generator"]) < 260
    assert any("ends within a record" in note for note in log.notes)


@pytest.mark.parametrize("cut", range(0, 400, 37))
def test_any_prefix_of_an_event_file_is_a_log_or_an_error(tmp_path: Path, cut: int) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes((LOGS / "events.out.tfevents.fixture").read_bytes()[:cut])
    try:
        read_log([tmp_path / "events.out.tfevents.1"])
    except SourceError as problem:
        assert problem.message and problem.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.csv", b""),
        ("words.txt", b"hello world\nthis is no log\n" * 30),
        ("other.csv", b"step,accuracy,lr\n1,0.5,0.1\n2,0.6,0.1\n"),
        ("one.csv", b"0.5\n0.6\n0.7\n" * 20),
        ("junk.bin", bytes(range(256)) * 40),
        ("junk.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40),
        ("broken.ipynb", b'{"cells": [{"cell_type": "code", "outp'),
        ("broken.json", b'{"log_history": [{"loss_g": 1'),
        ("list.json", b"[1, 2, 3]"),
        ("events.out.tfevents.9", b"\x18\0\0\0\0\0\0\0garbage and more garbage"),
    ],
)
def test_other_files_give_a_message_and_a_hint(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as problem:
        read_log([tmp_path / name])
    assert name.split(".")[0] in problem.value.message and problem.value.hint


def test_a_missing_file_raises() -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_log(["nowhere.csv"])


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("x", "log_history is 'x', where a list is due"),
        (None, "log_history is null, where a list is due"),
        ([[1], [2]], "log_history[0] is a list, where a table is due"),
        (
            [{"step": 1, "loss": 0.5}, {"step": "two", "loss": 0.5}],
            "log_history[1].step is 'two', where a number is due",
        ),
        ([{"step": 1, "loss": [0.5]}], "log_history[0].loss is a list, where a number is due"),
        ([{"step": 1, "loss": 0.5, "epoch": {}}], "log_history[0].epoch is a table, where a number is due"),
    ],
)
def test_a_wrong_field_of_a_trainer_state_is_named(history: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history}))
    with pytest.raises(SourceError) as caught:
        list(TRAINER_STATE.blocks(path, lambda name: True))
    assert message in caught.value.message


def test_a_broken_loss_in_a_trainer_state_is_evidence(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(
        '{"log_history": [{"step": 1, "loss": NaN}, {"step": 2, "loss": "inf"}, {"step": 3, "loss": null}]}'
    )
    (block,) = TRAINER_STATE.blocks(path, lambda name: True)
    loss = block.columns["loss"].tolist()
    assert loss[:2] == [math.inf, math.inf] and math.isnan(loss[2])
