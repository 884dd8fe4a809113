"""Logs made to hang or to fill memory: each is read or refused with a sentence, in one pass over its bytes."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from gandiag.errors import SourceError
from gandiag.training_logs.reader import read_log

RANDOM = random.Random(0)
DIGITS = "1" * 3000
LOGS = {
    "numbers.txt": "\n".join(
        " ".join(str(RANDOM.randint(0, 99)) for _ in range(600)) + f" g_loss: 1 {DIGITS}x" for _ in range(3)
    ),
    "digits.txt": f"g_loss: 0.5 {' '.join(['1'] * 1500)}\ng_loss: 0.5 {DIGITS} {' '.join(['1'] * 300)}y\n",
    "columns.jsonl": "\n".join(json.dumps({f"g_loss_{i}x": 0.1 * i, "step": i}) for i in range(5000)),
    "columns.txt": "\n".join(f"step {i} g_loss_v{i}a: {i}.5" for i in range(5000)),
    "wide.csv": ",".join(f"g_loss{i}" for i in range(30_000)) + "\n" + ",".join("1" * 30_000) + "\n",
    "wide.jsonl": json.dumps({f"d_loss_{i}": 1.0 for i in range(30_000)}) + "\n",
    "deep.json": '{"a":' * 5000 + "1" + "}" * 5000,
    "deep.jsonl": ('{"a":' * 900 + '{"g_loss":1}' + "}" * 900 + "\n") * 5,
    "integer.jsonl": '{"g_loss": ' + "9" * 5000 + ', "d_loss": 1}\n',
    "line.txt": "w g_loss: 1.0 d_loss: 2.0 " * 2000,
    "cell.csv": 'step,g_loss,d_loss\n1,"' + "x" * 200_000,
}
READABLE = {
    "bars.txt": ("|" * 3900 + " g_loss: 1 d_loss: 2\n") * 3,
    "brackets.txt": ("[" * 3900 + " g_loss: 1\n") * 3,
    "signs.txt": ("+-" * 1900 + " g_loss: 1\n") * 3,
    "escapes.txt": ("\x1b[" * 1900 + " g_loss: 1\n") * 3,
    "dated.txt": "\n".join(
        f"2024-01-{i % 28 + 1:02d} 10:{i % 60:02d}:00,{i:03d} - worker{i} - INFO - {i} took {i} s g_loss w{i}: 0.{i}"
        for i in range(200)
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_hostile_log_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LOGS[name])
    with pytest.raises(SourceError) as problem:
        read_log([tmp_path / name])
    assert problem.value.message and problem.value.hint


@pytest.mark.parametrize("name", READABLE)
def test_a_strange_log_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(READABLE[name])
    assert "generator" in read_log([tmp_path / name]).curves


def test_a_log_that_ends_within_a_character(tmp_path: Path) -> None:
    text = "第1轮 判别器损失: 1.0 生成器损失: 1.5\n".encode() * 60
    (tmp_path / "log.txt").write_bytes(text + "第".encode()[:2])
    assert "discriminator" in read_log([tmp_path / "log.txt"]).curves


def test_a_pipe_and_a_device_are_no_logs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    for path in (tmp_path / "pipe.log", Path("/dev/zero")):
        with pytest.raises(SourceError, match="no regular file"):
            read_log([path])
