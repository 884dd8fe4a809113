"""Exports and local folders of trackers, half-written logs, and losses that are no numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gandiag
from gandiag.errors import SourceError
from gandiag.training_logs.reader import read_log

ROWS = 40
D = [round(1 + 0.1 * np.sin(1.3 * i), 3) for i in range(ROWS)]
G = [round(2 + 0.2 * np.cos(2.1 * i), 3) for i in range(ROWS)]
STEPS = [100 * i for i in range(ROWS)]


def check(path: Path, last_step: int = STEPS[-1]) -> None:
    log = read_log([path])
    assert np.allclose(log.curves["discriminator"].value, D) and np.allclose(log.curves["generator"].value, G)
    assert log.curves["generator"].step[-1] == last_step and not log.runs


def message(number: int, body: bytes) -> bytes:
    assert len(body) < 1 << 14
    size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    key = number << 3 | 2
    return (bytes([key]) if key < 128 else bytes([key & 0x7F | 0x80, key >> 7])) + size + body


def history(step: int, items: dict[str, object]) -> bytes:
    rows = b"".join(
        message(1, message(1, name.encode()) + message(16, json.dumps(value).encode())) for name, value in items.items()
    )
    return message(2, rows + message(2, b"\x08" + bytes([step])))


def frame(records: list[bytes]) -> bytes:
    """LevelDB's log format behind the mark of W&B."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        position, is_first = 0, True
        while is_first or position < len(record):
            rest = 32768 - len(out) % 32768
            if rest < 7:
                out += bytes(rest)
                continue
            piece = record[position : position + rest - 7]
            position += len(piece)
            is_last = position == len(record)
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[(is_first, is_last)]
            out += struct.pack("<IHB", 0, len(piece), kind) + piece
            is_first = False
    return bytes(out)


def wandb_records() -> Iterator[bytes]:
    yield message(17, b"\x0a\x03run")  # another kind of record
    for i in range(ROWS):
        yield history(i, {"d_loss": D[i], "loss/g": G[i], "note": "x" * 1500})


def test_the_record_of_a_wandb_run_is_read(tmp_path: Path) -> None:
    data = frame(list(wandb_records()))
    assert len(data) > 32768  # pieces of a record in two blocks
    folder = tmp_path / "wandb" / "offline-run-1"
    folder.mkdir(parents=True)
    (folder / "run-1.wandb").write_bytes(data)
    check(folder / "run-1.wandb", ROWS - 1)
    check(tmp_path / "wandb", ROWS - 1)


def test_a_wandb_run_that_is_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    (tmp_path / "run-1.wandb").write_bytes(frame(list(wandb_records()))[:-700])
    log = read_log([tmp_path / "run-1.wandb"])
    assert np.allclose(log.curves["discriminator"].value, D[:-1]) and any("ends within" in note for note in log.notes)


@pytest.mark.parametrize("damage", [b":W&B", b":W&B\xe1\xbe\x00" + b"\xff" * 999, b":W&B\xe1\xbe\x00" + bytes(99)])
def test_a_damaged_wandb_run_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "run-1.wandb").write_bytes(damage)
    with pytest.raises(SourceError, match="no losses were found"):
        read_log([tmp_path / "run-1.wandb"])


def test_scalars_of_clearml_are_read(tmp_path: Path) -> None:
    series = {name: {"name": name, "x": STEPS, "y": values} for name, values in (("D", D), ("G", G))}
    (tmp_path / "scalars.json").write_text(json.dumps({"Loss": series}))
    check(tmp_path / "scalars.json")


AIM = "run.hash,metric.name,metric.context.subset,step,value,epoch"


@pytest.mark.parametrize(
    ("head", "row", "names"),
    [
        (AIM, "{run},{name},train,{step},{value},0", ("d_loss", "g_loss")),
        ("step,tag,value", "{step},{name},{value}", ("Loss/D", "Loss/G")),
        ("key\tvalue\ttimestamp\tstep", "{name}\t{value}\t1700000000000\t{step}", ("loss_d", "loss_g")),
    ],
    ids=["Aim", "tbparse", "MLflow"],
)
def test_a_long_table_is_read(tmp_path: Path, head: str, row: str, names: tuple[str, str]) -> None:
    lines = [
        row.format(run="ab12", name=name, step=step, value=value)
        for name, values in zip(names, (D, G), strict=True)
        for step, value in zip(STEPS, values, strict=True)
    ]
    (tmp_path / "export.csv").write_text("\n".join([head, *lines]))
    check(tmp_path / "export.csv")


def test_a_long_table_of_several_runs_has_several(tmp_path: Path) -> None:
    lines = [
        f"{run},{name},train,{step},{value + offset},0"
        for run, offset in (("one", 0), ("two", 1))
        for name, values in (("d_loss", D), ("g_loss", G))
        for step, value in zip(STEPS, values, strict=True)
    ]
    (tmp_path / "export.csv").write_text("\n".join([AIM, *lines]))
    log = read_log([tmp_path / "export.csv"])
    assert log.name == "two" and [run.name for run in log.runs] == ["one"]
    assert np.allclose(log.runs[0].curves["generator"].value, G)


@pytest.mark.parametrize("value", ["oops", "{'a': 1}"])
def test_a_loss_that_is_no_number_is_said(tmp_path: Path, value: str) -> None:
    rows = [
        json.dumps({"step": s, "d_loss": value if s % 300 else d, "g_loss": g})
        for s, d, g in zip(STEPS, D, G, strict=True)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(rows))
    (tmp_path / "log.csv").write_text(
        "step,d_loss,g_loss\n"
        + "\n".join(f'{s},"{value if s % 300 else d}",{g}' for s, d, g in zip(STEPS, D, G, strict=True))
    )
    for name in ("log.jsonl", "log.csv"):
        log = read_log([tmp_path / name])
        assert any("d_loss are no numbers" in note for note in log.notes), log.notes
        assert len(log.curves["discriminator"]) == 14 and len(log.curves["generator"]) == ROWS


def test_usual_words_for_a_gap_are_not_said(tmp_path: Path) -> None:
    rows = [f"{s},{d if s % 300 else 'N/A'},{g}" for s, d, g in zip(STEPS, D, G, strict=True)]
    (tmp_path / "log.csv").write_text("\n".join(["step,d_loss,g_loss", *rows]))
    assert not read_log([tmp_path / "log.csv"]).notes


def test_a_log_may_end_within_a_line_or_a_character(tmp_path: Path) -> None:
    """As when it is being written while it is read."""
    text = "".join(f"第{s}步 判别器损失: {d} 生成器损失: {g}\n" for s, d, g in zip(STEPS, D, G, strict=True))
    (tmp_path / "log.txt").write_bytes((text + "第").encode()[:-1])
    check(tmp_path / "log.txt")
    table = "step,d_loss,g_loss\n" + "".join(f"{s},{d},{g}\n" for s, d, g in zip(STEPS, D, G, strict=True))
    (tmp_path / "log.csv").write_text(table + "4000,1.0")
    check(tmp_path / "log.csv")
    rows = "".join(
        json.dumps({"step": s, "d_loss": d, "g_loss": g}) + "\n" for s, d, g in zip(STEPS, D, G, strict=True)
    )
    (tmp_path / "log.jsonl").write_text(rows + '{"step": 4000, "d_lo')
    check(tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    "head",
    ["epoch,train_loss,train_acc,val_loss,val_acc", "epoch,loss,recon_loss,kl_loss,beta", "step,loss,lr,ppl,mse"],
)
def test_the_log_of_another_model_is_refused_as_such(tmp_path: Path, head: str) -> None:
    (tmp_path / "log.csv").write_text("\n".join([head, *(f"{i},0.5,0.4,0.3,0.2" for i in range(60))]))
    with pytest.raises(SourceError, match="classifier or an autoencoder"):
        gandiag.losses(tmp_path / "log.csv")
