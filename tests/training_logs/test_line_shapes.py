"""Every kind of line in fixtures/logs/_line_shapes.txt gives both losses, row by row, without an option."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gandiag.training_logs.reader import read_log

SHAPES = Path(__file__).resolve().parents[2] / "fixtures" / "logs" / "_line_shapes.txt"
LINES = [line.split("\t", 1) for line in SHAPES.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
ROWS = 40


def expand(template: str) -> tuple[str, list[float], list[float]]:
    """The text of ROWS rows, and the losses in it."""
    rows, d_losses, g_losses = [], [], []
    for i in range(ROWS):
        real, fake = round(0.45 + 0.1 * math.sin(1.3 * i), 2), round(0.4 + 0.1 * math.cos(1.7 * i), 2)
        d, g = round(real + fake, 2), round(1.5 + 0.3 * math.sin(2.1 * i), 2)
        values = {"d": d, "g": g, "r": real, "f": fake, "i": i, "n": i + 1, "s": 100 * i, "S": f"{100 * i:,}"}
        values |= {"e": i // 10, "b": i % 10, "E": i // 10 + 1, "B": i % 10 + 1}
        rows.append(template.format(**values).replace("\\n", "\n").replace("\\t", "\t"))
        d_losses.append(d)
        g_losses.append(g)
    return "\n".join(rows) + "\n", d_losses, g_losses


def test_there_are_many_shapes() -> None:
    assert len(LINES) >= 120 and len({name for name, _ in LINES}) == len(LINES)


@pytest.mark.parametrize(("name", "template"), LINES, ids=[name for name, _ in LINES])
def test_a_line_shape_is_read(tmp_path: Path, name: str, template: str) -> None:
    text, d_losses, g_losses = expand(template)
    path = tmp_path / "log.txt"
    path.write_text(text, encoding="utf-8")
    log = read_log([path])
    for role, values in (("discriminator", d_losses), ("generator", g_losses)):
        curve = log.curves[role]
        assert len(curve) == ROWS, (role, curve.name)
        assert np.abs(curve.value - np.array(values)).max() < 0.011, (role, curve.name)
        assert (np.diff(curve.step) > 0).all()
    assert not log.problems and not log.runs
    assert (log.step_unit == "lines") == name.endswith("!")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32", "gb18030"])
def test_any_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    text, d_losses, _ = expand("第{n}轮 判别器损失: {d:.4f} 生成器损失: {g:.4f}")
    (tmp_path / "log.txt").write_bytes(text.encode(encoding))
    if encoding in ("utf-16-le", "utf-16-be"):  # without a mark, only ASCII can be told
        text, d_losses, _ = expand("Epoch {n} D_loss: {d:.4f} G_loss: {g:.4f}")
        (tmp_path / "log.txt").write_bytes(text.encode(encoding))
    log = read_log([tmp_path / "log.txt"])
    assert np.allclose(log.curves["discriminator"].value, d_losses)


TABLES = {
    "comma": "step,d_loss,g_loss\n{rows:{s},{d},{g}}",
    "semicolons and decimal commas": "step;d_loss;g_loss\n{rows:{s};{dc};{gc}}",
    "quoted decimal commas": 'step,d_loss,g_loss\n{rows:{s},"{dc}","{gc}"}',
    "tabs": "step\td_loss\tg_loss\n{rows:{s}\t{d}\t{g}}",
    "blanks": "epoch       iteration   gen/loss    dis/loss  \n{rows:0            {s}         {g}     {d}     }",
    "Markdown": "| step | D loss | G loss |\n|---|---:|---:|\n{rows:| {s} | {d} | {g} |}",
    "tensors": ",D_loss,G_loss\n{rows:{i},\"tensor({d}, device='cuda:0')\",\"tensor({g}, device='cuda:0')\"}",
    "lists of one": "step,D_loss,G_loss\n{rows:{s},[{d}],[{g}]}",
    "thousands": 'step,d_loss,g_loss\n{rows:"{S}",{d},{g}}',
    "Chinese header": "步数,判别器损失,生成器损失\n{rows:{s},{d},{g}}",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read(tmp_path: Path, name: str) -> None:
    head, _, row = TABLES[name].partition("{rows:")
    row = row.removesuffix("}").replace("{dc}", "{d:.2f}§").replace("{gc}", "{g:.2f}§")
    lines = []
    for line in expand(row)[0].splitlines():
        cells = [part.replace(".", ",") if "§" in line and "." in part else part for part in line.split("§")]
        lines.append("".join(cells))
    _, d_losses, g_losses = expand("")
    (tmp_path / "log.csv").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    log = read_log([tmp_path / "log.csv"])
    assert np.allclose(log.curves["discriminator"].value, d_losses)
    assert np.allclose(log.curves["generator"].value, g_losses)


def test_a_table_of_a_page_is_read(tmp_path: Path) -> None:
    text, d_losses, g_losses = expand("<tr><td>{s}</td><td>{d}</td><td>{g}</td></tr>")
    page = f"<html><body><table><tr><th>step</th><th>d_loss</th><th>g_loss</th></tr>{text}</table></body></html>"
    (tmp_path / "log.html").write_text(page)
    log = read_log([tmp_path / "log.html"])
    assert np.allclose(log.curves["discriminator"].value, d_losses) and log.curves["generator"].step[-1] == 3900
    assert np.allclose(log.curves["generator"].value, g_losses)


def test_a_folder_of_mlflow_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns" / "0" / "abc" / "metrics"
    folder.mkdir(parents=True)
    for name, field in (("d_loss", "{d}"), ("g_loss", "{g}"), ("lr", "0.1")):
        (folder / name).write_text(expand(f"1700000000000 {field} {{s}}")[0])
    log = read_log([tmp_path / "mlruns"])
    _, d_losses, g_losses = expand("")
    assert np.allclose(log.curves["discriminator"].value, d_losses) and log.curves["generator"].step[-1] == 3900
    assert np.allclose(log.curves["generator"].value, g_losses)


def test_an_export_of_several_runs_has_several(tmp_path: Path) -> None:
    head = "Step,run-1 - g_loss,run-1 - d_loss,run-2 - g_loss,run-2 - d_loss\n"
    (tmp_path / "log.csv").write_text(head + expand("{s},1.0,2.0,{g},{d}")[0])
    log = read_log([tmp_path / "log.csv"])
    assert log.name == "run-2" and [run.name for run in log.runs] == ["run-1"] and log.interleaved
    assert log.runs[0].curves["generator"].value.tolist() == [1.0] * ROWS
