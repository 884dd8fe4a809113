"""Grouped audits from the command line and from Python: verdicts, exit codes, gate, compare, generators, functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gandiag.cli.main import run_command_line
from PIL import Image
from torch import Tensor, nn

import gandiag
from gandiag.errors import ConfigError, ExitCode, OutputError, SourceError
from gandiag.record import Record

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
G, N, D = 30, 4, 6
GROUPS = np.repeat([f"p{group:02d}" for group in range(G)], N)
CENTERS = np.random.default_rng(5).standard_normal((G, 1, D)) * 4


def draw(width: float, seed: int, dead: tuple[int, ...] = ()) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((G, N, D)) * width
    noise[list(dead)] *= 0.01
    return (CENTERS + noise).reshape(-1, D).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """base.npz, and turbo.npz with two fifths of its variety and two dead groups; the groups in the array `group`."""
    monkeypatch.chdir(tmp_path)
    np.savez("base.npz", points=draw(1.0, 0), group=GROUPS)
    np.savez("turbo.npz", points=draw(0.4, 1, dead=(3, 7)), group=GROUPS)
    np.savez("again.npz", points=draw(1.0, 2), group=GROUPS)
    return tmp_path


def run(*arguments: str) -> ExitCode:
    return run_command_line(["audit", *arguments])


def test_a_turbo_model_against_its_base(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("turbo.npz", "--group-by", "group", "--against", "base.npz", "-o", "t.json") == ExitCode.COLLAPSED
    shown = capsys.readouterr().out
    assert "samples keep 3" in shown and "have collapsed" in shown and "p03" in shown
    record = Record.read("t.json")
    assert record.score.basis == "groups" and "conditional" in record.kinds
    assert {"p03", "p07"} <= {row["group"] for row in record.groups["collapsed"]}
    assert set(record.groups) >= {"within", "between", "count", "left_out", "collapsed", "rows"}
    row = record.groups["rows"][0]
    assert set(row) >= {"group", "n", "n_reference", "ratio", "low", "high"} and row["n"] == N
    assert record.groups["count"] == G and record.groups["left_out"] == 0


def test_equal_models_are_healthy_and_no_reference_is_a_fact(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("again.npz", "--group-by", "group", "--against", "base.npz") == ExitCode.OK
    capsys.readouterr()
    assert run("again.npz", "--group-by", "group", "--json") == ExitCode.INSUFFICIENT
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "inconclusive" and document["score"]["value"] is None
    assert document["groups"]["within"]["value"] < document["groups"]["floor"]["low"]
    assert [finding["rule"] for finding in document["findings"]] == ["GD113"]


def test_a_condition_without_effect_and_a_deterministic_pair_are_findings() -> None:
    settings: dict[str, Any] = {"groups": GROUPS, "against": draw(1.0, 0), "against_groups": GROUPS}
    noise = np.random.default_rng(1).standard_normal((G * N, D)).astype(np.float32)
    ignored = gandiag.audit(noise, **settings)
    assert "GD112" in {finding.rule for finding in ignored.findings} and ignored.verdict == "healthy"
    still = gandiag.audit(draw(0.0, 0), **{**settings, "against": draw(0.0, 1)})
    assert still.verdict == "healthy" and [finding.rule for finding in still.findings] == ["GD114"]


def test_the_gate_holds_the_worst_group(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("turbo.npz", "--group-by", "group", "--against", "base.npz", "-o", "t.json")
    run("base.npz", "--group-by", "group", "--against", "base.npz", "-o", "b.json")
    policy = {"max-score": 0.9, "limits": {"group_worst": {"max": 0.9}}}
    failed = gandiag.gate("t.json", policy)
    assert failed.code == ExitCode.COLLAPSED and [check.key for check in failed.failures()] == ["group_worst"]
    assert gandiag.gate("b.json", policy).passed
    assert gandiag.gate("t.json", {"max-score": 0.9}).passed  # a policy of its own limits the score alone
    assert gandiag.gate("t.json").code == ExitCode.COLLAPSED


def test_records_are_compared_group_by_group(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = {
        name: gandiag.audit(draw(width, seed), groups=GROUPS, against=draw(1.0, 0), against_groups=GROUPS)
        for name, width, seed in (("old", 0.8, 3), ("new", 0.7, 4))
    }
    change = gandiag.compare(records["old"], records["new"]).change("group_within")
    assert change is not None and change.paired and change.direction == "worse"
    old, new = (records[name].groups["within"] for name in ("old", "new"))
    assert change.delta == pytest.approx(new["value"] - old["value"], abs=1e-6)
    # The reference's noise is in both records, so the difference is known better than from the two intervals.
    assert change.high - change.low < np.hypot(old["high"] - old["low"], new["high"] - new["low"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": np.arange(G * N)}, "cannot be measured"),
        ({"groups": GROUPS[:-1]}, "119 entries for 120 samples"),
        ({"groups": [f"q{name}" for name in GROUPS]}, "no group of"),
        ({"against": np.zeros((G * N, D + 1), np.float32)}, "shape"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"groups": GROUPS, "against": draw(1.0, 0), "against_groups": GROUPS, **change}
    with pytest.raises(SourceError, match=message) as caught:
        gandiag.audit(draw(1.0, 1), **settings)
    assert caught.value.hint


def test_files_that_are_missing_and_subjects_without_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("base.npz", "--group-by", "grp") == ExitCode.CANNOT_RUN
    assert "group" in capsys.readouterr().err
    assert run("base.npz", "--group-by", "group", "--against", "none.npz") == ExitCode.CANNOT_RUN
    assert "check the path of --against" in capsys.readouterr().err
    assert run("base.npz", "--npz-key", "points", "--against", "base.npz") == ExitCode.CANNOT_RUN
    assert "--group-by" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no classes"):
        gandiag.audit(nn.Linear(4, 2), latent_dim=4, per_class=8)


def save_images(place: Path, images: dict[str, list[np.ndarray]]) -> None:
    for name, group in images.items():
        (place / name).mkdir(parents=True)
        for index, image in enumerate(group):
            Image.fromarray(image).save(place / name / f"seed_{index}.png")


def test_the_page_shows_each_group_beside_its_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for name, spread in (("base", 90), ("turbo", 0)):
        groups = {
            f"prompt <{group}>": [
                np.uint8(np.full((12 + 4 * (group == 2), 12, 3), 30 * group) + generator.integers(0, spread + 1, 3))
                for _ in range(3)
            ]
            for group in range(4)
        }  # of two sizes
        save_images(tmp_path / name, groups)
    arguments = [str(tmp_path / "turbo"), "--group-by", "folder", "--against", str(tmp_path / "base")]
    assert run(*arguments, "--html", str(tmp_path / "page.html"), "-o", str(tmp_path / "r.json")) == ExitCode.COLLAPSED
    page = (tmp_path / "page.html").read_text()
    assert "Groups, worst first" in page and "prompt &lt;1&gt;" in page and "prompt <1>" not in page
    record = Record.read(tmp_path / "r.json")
    assert {f"group:prompt <{group}>" for group in range(4)} <= {exhibit.id for exhibit in record.exhibits}
    assert record.measurements["constant_samples"].value == 1.0
    assert any("sizes" in note for note in record.provenance["remarks"])
    assert "GD110" in {finding.rule for finding in record.findings}
    assert str(record) and record._repr_html_()


class ClassGenerator(nn.Module):
    """z and a class to a point; a class in `dead` ignores z."""

    def __init__(self, dead: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.centers = nn.Parameter(4 * torch.randn(10, 4, generator=torch.Generator().manual_seed(0)))
        width = torch.ones(10, 1)
        width[list(dead)] = 0.0
        self.register_buffer("width", width)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.centers[labels] + self.width[labels] * z
        return out


@pytest.mark.parametrize("dead", [(), (6,)])
def test_classes_of_a_generator_against_its_teacher(dead: tuple[int, ...]) -> None:
    settings: dict[str, Any] = {"latent_dim": 4, "classes": 10, "condition": "index"}
    teacher = gandiag.audit(ClassGenerator(), per_class=8, against=ClassGenerator(dead), **settings)
    assert teacher.verdict == "healthy" and not teacher.groups["collapsed"]
    record = gandiag.audit(ClassGenerator(dead), per_class=8, against=ClassGenerator(), **settings)
    assert [row["group"] for row in record.groups["collapsed"]] == [str(label) for label in dead]
    assert record.verdict == ("collapsed" if dead else "healthy")
    assert all(row["n"] == 8 for row in record.groups["rows"])


@pytest.mark.parametrize(("name", "named"), [("classes_healthy", []), ("classes_one_dead", ["6"])])
def test_the_shipped_conditional_generators(
    name: str, named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--classes", "10", "--condition", "onehot", "--latent-dim", "4", "--per-class", "8"]
    how += ["--activation", "relu", "--prior", "normal"]  # without a norm the file leaves them open
    reference = str(FIXTURES / "classes_healthy.pt")
    code = run(str(FIXTURES / f"{name}.pt"), *how, "--against", reference, "-o", str(tmp_path / "r.json"))
    record = Record.read(tmp_path / "r.json")
    assert [row["group"] for row in record.groups["collapsed"]] == named
    assert code == (ExitCode.COLLAPSED if named else ExitCode.OK)


@pytest.mark.parametrize("dead", [None, 4])
def test_classes_of_real_data(dead: int | None) -> None:
    """Eight real images of each of ten classes, one of them with one image only: against the other real images."""
    data = np.load(FIXTURES / "real.npz")
    images, labels = data["images"], data["labels"]
    rows = np.concatenate([np.flatnonzero(labels == label)[:8] for label in range(10)])
    subject = images[rows].copy()
    if dead is not None:
        subject[labels[rows] == dead] = subject[labels[rows] == dead][:1]
    rest = np.concatenate([np.flatnonzero(labels == label)[8:40] for label in range(10)])
    record = gandiag.audit(
        subject, groups=labels[rows], against=images[rest], against_groups=labels[rest], features="pixels"
    )
    assert [row["group"] for row in record.groups["collapsed"]] == ([] if dead is None else [str(dead)])


def test_real_data_and_a_teacher_are_both_references() -> None:
    record = gandiag.audit(
        draw(0.5, 1), gandiag_real(), groups=GROUPS, against=draw(0.5, 2), against_groups=GROUPS, exhibits=False
    )
    assert record.verdict != "collapsed" and record.groups["reference"] == "against"
    real = record.groups["real"]
    assert real["within"]["high"] < 0.7 and real["reference_within"]["high"] < 0.7


def gandiag_real() -> torch.utils.data.TensorDataset:
    """Real data with the groups' numbers as labels, which do not match the names: so named by class."""

    class Named(torch.utils.data.TensorDataset):
        classes = sorted(set(GROUPS.tolist()))

    return Named(torch.from_numpy(draw(1.0, 9)), torch.arange(G).repeat_interleave(N))


def test_a_function_of_a_condition() -> None:
    def sample(condition: str, seeds: list[int]) -> list[Image.Image]:
        base = 20 * ord(condition[0]) % 120
        return [Image.new("RGB", (8, 8), (base, (37 * seed) % 100, (base + 61 * seed) % 130)) for seed in seeds]

    prompts = list("abcdefghijklmnopqrst")
    record = gandiag.audit(sample, groups=prompts, per_group=5, against=sample, features="pixels")
    assert record.verdict == "healthy" and record.groups["within"]["value"] == 1.0
    frozen = gandiag.audit(
        lambda prompt, seeds: sample(prompt, [0] * len(seeds)), groups=prompts, against=sample, features="pixels"
    )
    assert frozen.verdict == "collapsed" and frozen.groups["within"]["value"] == 0.0
    assert len(frozen.groups["rows"]) == 20 and frozen.groups["rows"][0]["n"] == 8


def test_functions_that_fail_are_named() -> None:
    with pytest.raises(OutputError, match="returned 1 samples of 'a' for 8 seeds"):
        gandiag.audit(lambda prompt, seeds: torch.zeros(1, 3, 8, 8), groups=["a"])
    with pytest.raises(OutputError, match="ZeroDivisionError"):
        gandiag.audit(lambda prompt, seeds: 1 / 0, groups=["a"])
    with pytest.raises(ConfigError, match="needs conditions"):
        gandiag.audit(lambda prompt, seeds: 1, against=draw(1, 0))
    with pytest.raises(ConfigError, match="listed twice"):
        gandiag.audit(lambda prompt, seeds: 1, groups=["a", "a"])
