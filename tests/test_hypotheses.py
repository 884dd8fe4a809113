"""What batch norm's statistics settle on small generators: activation, eps, dropout; and what they leave open, said with both numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from loading import DCGAN, calibrated, mlp, normal, save
from torch import nn

from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.load.generator import load_network
from gandiag.load.moments import dropping
from gandiag.probes.batchnorm import statistics_mismatch

ACTS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "leaky:0.2": lambda: nn.LeakyReLU(0.2)}


class Dropped(DCGAN):
    """Dropout behind every activation, as in the networks that copy pix2pix."""

    def __init__(self, p: float) -> None:
        super().__init__(ngf=12)
        parts: list[nn.Module] = []
        for part in self.main:
            parts += [part, nn.Dropout(p)] if isinstance(part, nn.ReLU) else [part]
        self.main = nn.Sequential(*parts)


def test_the_true_hypothesis_wins_on_nine_of_ten(tmp_path: Path) -> None:
    right = 0
    for seed in range(10):
        act, eps = ("relu", "leaky:0.2")[seed % 2], (1e-5, 0.8)[seed // 2 % 2]
        net = (calibrated(DCGAN(act=ACTS[act], ngf=8 + seed), normal(12), seed=seed) if seed < 5 else
               calibrated(mlp((12, 48, 48, 48, 3072), norm=True, act=ACTS[act], final=nn.Tanh(), eps=eps), normal(12), seed=seed))  # fmt: skip
        told = {entry.what.split(" (")[0]: entry.value.split(" ")[0] for entry in load_network(save(net.state_dict(), tmp_path)).assumptions}
        right += told["hidden activation"] == act and float(told["batch-norm eps"]) == (1e-5 if seed < 5 else eps)
    assert right >= 9


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_in_training_is_recognised(tmp_path: Path, p: float) -> None:
    net = calibrated(Dropped(p), normal(12), batches=200)
    network = load_network(save(net.state_dict(), tmp_path))
    entry = next(entry for entry in network.assumptions if entry.what.startswith("dropout"))
    assert float(entry.value.split(" ")[0]) == p, entry
    z = torch.randn(4, 12, 1, 1)
    with torch.no_grad():
        assert torch.equal(network.forward(z), net.eval()(z))  # none in use
    assert (statistics_mismatch(network) or 9) < 0.15


def test_dropping_puts_everything_back() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    before = torch.random.get_rng_state()
    with dropping(net):
        assert net[1].training and not net.training
    assert not net[1].training and torch.equal(before, torch.random.get_rng_state())


def test_below_a_margin_of_two_strict_asks(tmp_path: Path) -> None:
    file = save(calibrated(mlp((8, 32, 2), norm=True), normal(8)).state_dict(), tmp_path)
    with pytest.raises(LoadError) as caught:
        load_network(file, AuditConfig(strict=True))
    assert "--activation" in caught.value.hint


def test_strides_that_nobody_told_are_found_behind_every_norm(tmp_path: Path) -> None:
    """1 -> 3 -> 6 -> 13 -> 28, a much-taught generator for digits, where custom would say 3 -> 6 -> 12 -> 24."""
    layers: list[nn.Module] = []
    for into, out, kernel, stride in ((12, 32, 3, 1), (32, 24, 4, 1), (24, 16, 3, 2)):
        layers += [nn.ConvTranspose2d(into, out, kernel, stride), nn.BatchNorm2d(out), nn.ReLU()]
    net = nn.Sequential(*layers, nn.ConvTranspose2d(16, 1, 4, 2), nn.Tanh())
    draw = normal(12)
    network = load_network(save(calibrated(net, lambda rng: draw(rng)[:, :, None, None]).state_dict(), tmp_path))
    told = [entry.value.split(" ")[0] for entry in network.assumptions if entry.what.startswith("stride and padding of")]
    assert told == ["k4s1p0", "k3s2p0"] and network.output.shape == (1, 28, 28)
