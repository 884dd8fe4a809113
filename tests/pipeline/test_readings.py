"""A file that leaves settings open: every reading is judged, and a verdict stands only where all agree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gandiag
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.pipeline.output_reading import make_sigmoid_reading
from gandiag.verdict.judge import apply_policy
from gandiag.verdict.policy import Policy

N = 500


def save_mlp(path: Path, *, gain: float = 1.5) -> tuple[Path, nn.Module]:
    """A tanh network without any norm, which spreads its two outputs over a square."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    with torch.no_grad():
        for layer in (net[0], net[2], net[4]):
            layer.weight.mul_(gain * 2)
    torch.save(net.state_dict(), path)
    return path, net.eval()


def sample(net: nn.Module, n: int) -> Tensor:
    with torch.no_grad():
        samples: Tensor = net(torch.randn(n, 4, generator=torch.Generator().manual_seed(9)))
    return samples


@pytest.fixture(scope="module")
def open_mlp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    path, net = save_mlp(tmp_path_factory.mktemp("open") / "net.pt")
    return path, sample(net, 2 * N)


def find_loading(record: gandiag.Record) -> gandiag.record.Finding:
    return next(entry for entry in record.findings if entry.rule == "GD401")


def test_readings_that_disagree_leave_no_verdict(open_mlp: tuple[Path, Tensor], tmp_path: Path) -> None:
    path, real = open_mlp
    record = gandiag.audit(path, real, n=N, exhibits=False)
    assert record.verdict == "inconclusive"
    finding = find_loading(record)
    assert finding.level in ("error", "warning") and "leaves open prior and activation" in finding.text
    assert "--activation" in finding.text and "--prior" in finding.text
    record.write(tmp_path / "record.json")
    assert gandiag.gate(tmp_path / "record.json").code == gandiag.ExitCode.INSUFFICIENT


def test_the_true_settings_close_the_question(open_mlp: tuple[Path, Tensor]) -> None:
    path, real = open_mlp
    record = gandiag.audit(path, real, n=N, exhibits=False, activation="tanh", prior="normal", hidden_norm="none")
    assert record.verdict == "healthy" and "readings" not in record.subject


def test_a_loaded_generator_is_as_open_as_its_file(open_mlp: tuple[Path, Tensor]) -> None:
    path, real = open_mlp
    assert gandiag.audit(gandiag.load(path), real, n=N, exhibits=False).verdict == "inconclusive"


@pytest.fixture(scope="module")
def collapsed_record(tmp_path_factory: pytest.TempPathFactory) -> gandiag.Record:
    """One output, whatever the activation and the prior."""
    path, net = save_mlp(tmp_path_factory.mktemp("collapsed") / "net.pt")
    torch.save({**net.state_dict(), "4.weight": 1e-6 * net[4].weight}, path)
    return gandiag.audit(path, sample(net, 240), n=120, exhibits=False, hidden_norm="none", prior="normal")


def test_readings_that_agree_let_the_verdict_stand(collapsed_record: gandiag.Record) -> None:
    assert collapsed_record.verdict == "collapsed"
    finding = find_loading(collapsed_record)
    assert finding.level == "note" and "give collapsed too" in finding.text
    assert collapsed_record.subject["readings"]["left"] == 0


def test_a_reading_left_out_forbids_a_verdict(collapsed_record: gandiag.Record) -> None:
    readings = {**collapsed_record.subject["readings"], "left": 1}
    partial = dataclasses.replace(collapsed_record, subject={**collapsed_record.subject, "readings": readings})
    judged = apply_policy(partial, Policy(limit=partial.score.limit))
    assert judged.verdict == "inconclusive" and find_loading(judged).level == "error"


def test_a_norm_without_weights_is_a_reading(tmp_path: Path) -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 24), nn.Linear(24, 2)

        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = self.last(F.relu(F.layer_norm(self.first(z), (24,))))
            return out

    torch.manual_seed(0)
    net = Decoder().eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    z = torch.randn(6, 4)
    loaded = gandiag.load(tmp_path / "net.pt", hidden_norm="layer", prior="normal", activation="relu")
    with torch.no_grad():
        assert torch.allclose(loaded.generator.forward(z), net(z), atol=1e-5)
    open_readings = gandiag.load(tmp_path / "net.pt").generator.open_readings
    assert open_readings is not None and "hidden_norm" in open_readings.settings
    assert any(reading.settings["hidden_norm"] == "layer" for reading in open_readings.make())


@pytest.mark.parametrize("final", [nn.Tanh, nn.Sigmoid])
def test_the_real_values_tell_a_sigmoid_from_a_tanh(tmp_path: Path, final: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 784), final()).eval()
    with torch.no_grad():
        net[2].weight.mul_(6)
        real = net(torch.randn(64, 4))
    real = 2 * real - 1 if final is nn.Sigmoid else real
    torch.save(net.state_dict(), tmp_path / "net.pt")
    generator = gandiag.load(tmp_path / "net.pt", activation="relu", prior="normal", hidden_norm="none").generator
    assert isinstance(generator, LoadedGenerator)
    z = torch.randn(32, 4)
    reading = make_sigmoid_reading(generator, generator.forward(z).flatten(1), real)
    assert (reading is not None) == (final is nn.Sigmoid)
    if reading is not None:
        with torch.no_grad():
            assert torch.allclose(reading.generator.forward(z).flatten(1), net(z), atol=1e-5)


def test_groups_of_a_network_that_is_open_have_no_verdict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classes, dim = 3, 4
    net = nn.Sequential(nn.Linear(dim + classes, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    how = {"classes": classes, "condition": "concat", "class_place": "after", "per_class": 40, "exhibits": False}
    flags = {"activation": "tanh", "prior": "normal", "hidden_norm": "none"}
    reference = gandiag.load(tmp_path / "net.pt", **{name: how[name] for name in list(how)[:3]}, **flags)
    record = gandiag.audit(tmp_path / "net.pt", against=reference, **how, **flags)
    assert "readings" not in record.subject and record.verdict == "healthy"
    record = gandiag.audit(tmp_path / "net.pt", against=reference, **how)
    assert record.subject["readings"]["distinct"] and record.verdict == "inconclusive"
    collapsed = dataclasses.replace(record, groups={**record.groups, "collapsed": [{"group": "0", "ratio": 0.1}]})
    assert apply_policy(collapsed).verdict == "inconclusive"
    assert "--activation" in find_loading(record).text
