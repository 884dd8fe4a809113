"""Structures that a state dict does not show: the right one is found by its BatchNorm statistics, or declared open."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from assumption_lookup import find_assumption
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from toy_generators import calibrated, normal, save

from gandiag.checkpoints.confidence import assess_confidence
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

LATENT = 8


def difference(network: LoadedGenerator, net: nn.Module) -> float:
    """The largest difference on the same latents; infinite for samples of another shape."""
    z = torch.randn(4, *network.latent.shape)
    labels = None if network.classes is None else torch.arange(4) % network.classes
    with torch.no_grad():
        expected, actual = net(z), network.forward(z, labels)
    if expected.numel() != actual.numel():
        return float("inf")
    return float((expected - actual.reshape(expected.shape)).abs().max())


def declares_open(network: LoadedGenerator) -> bool:
    return assess_confidence(network).word == "open"


def settle(net: nn.Module, batches: int = 80) -> nn.Module:
    return calibrated(net, normal(LATENT), batches=batches)


class NormsLast(nn.Module):
    """Layers first, norms after them; or in the order of execution."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(LATENT, 24 * 16)
        if not last:
            self.bn0 = nn.BatchNorm2d(24)
        self.deconv1 = nn.ConvTranspose2d(24, 12, 4, 2, 1)
        if not last:
            self.bn1 = nn.BatchNorm2d(12)
        self.deconv2 = nn.ConvTranspose2d(12, 3, 4, 2, 1)
        if last:
            self.bn0, self.bn1 = nn.BatchNorm2d(24), nn.BatchNorm2d(12)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.fc(z.flatten(1)).view(-1, 24, 4, 4)))
        return torch.tanh(self.deconv2(F.relu(self.bn1(self.deconv1(x)))))


def test_norms_declared_after_the_layers_are_paired_with_them(tmp_path: Path) -> None:
    net = settle(NormsLast(last=True))
    network = load_generator(save(net.state_dict(), tmp_path))
    assert difference(network, net) < 1e-5
    assert find_assumption(network, "structure").source == "batch-norm"


def test_names_sorted_by_safetensors_are_put_in_order(tmp_path: Path) -> None:
    net = settle(NormsLast(last=False))
    save_file(net.state_dict(), tmp_path / "g.safetensors")
    assert difference(load_generator(tmp_path / "g.safetensors"), net) < 1e-5


def test_square_odd_deconvolutions_with_output_padding_are_found(tmp_path: Path) -> None:
    def up(into: int, out: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(into, out, 3, 2, 1, 1), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]

    net = settle(
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(LATENT, 96),
            nn.Unflatten(1, (24, 2, 2)),
            *up(24, 16),
            *up(16, 16),
            nn.Conv2d(16, 3, 3, padding=1),
            nn.Tanh(),
        )
    )
    network = load_generator(save(net.state_dict(), tmp_path))
    assert difference(network, net) < 1e-5
    assert find_assumption(network, "structure").value == "square kernels are transposed"


class LeadingUpsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(LATENT, 16 * 16)
        self.conv = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 12, 3, padding=1),
            nn.BatchNorm2d(12, 0.8),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(12, 8, 3, padding=1),
            nn.BatchNorm2d(8, 0.8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 1, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.conv(self.l1(z.flatten(1)).view(-1, 16, 4, 4))
        return out


@pytest.mark.slow
def test_upsampling_before_the_first_convolution_is_found(tmp_path: Path) -> None:
    net = settle(LeadingUpsample())
    network = load_generator(save(net.state_dict(), tmp_path))
    assert difference(network, net) < 1e-5 or declares_open(network)


class UnusedTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.label_emb = nn.Embedding(10, LATENT)
        self.net = nn.Sequential(nn.Linear(LATENT, 48), nn.BatchNorm1d(48), nn.LeakyReLU(0.2), nn.Linear(48, 40))
        self.more = nn.Sequential(nn.BatchNorm1d(40), nn.LeakyReLU(0.2), nn.Linear(40, 2))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.more(self.net(z.flatten(1)))
        return out


def test_a_label_table_that_is_never_used_is_a_reading(tmp_path: Path) -> None:
    net = settle(UnusedTable())
    network = load_generator(save(net.state_dict(), tmp_path))
    assert difference(network, net) < 1e-5 or declares_open(network)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(LATENT, 24), nn.BatchNorm1d(24), nn.ReLU())
        self.mean, self.scale = nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, z: Tensor) -> Tensor:
        x = self.net(z.flatten(1))
        return torch.cat([self.mean(x), self.scale(x)], 1)


def test_two_heads_side_by_side_are_declared_open(tmp_path: Path) -> None:
    network = load_generator(save(settle(Heads()).state_dict(), tmp_path))
    assert find_assumption(network, "structure").undecided and declares_open(network)
    assert network.open_readings is not None
    shapes = {reading.generator.output.shape for reading in network.open_readings.make()}
    assert (48,) in shapes


@pytest.mark.parametrize(
    ("name", "make"), [("leaky:0.3", lambda: nn.LeakyReLU(0.3)), ("mish", nn.Mish), ("selu", nn.SELU)]
)
def test_uncommon_activations_are_found(tmp_path: Path, name: str, make: Callable[[], nn.Module]) -> None:
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(LATENT, 64),
        nn.BatchNorm1d(64),
        make(),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
        make(),
        nn.Linear(64, 2),
    )
    network = load_generator(save(settle(net, 250).state_dict(), tmp_path))
    assert find_assumption(network, "activation").value == name or declares_open(network)


def test_a_last_stride_that_nothing_shows_is_declared_open(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(LATENT, 96),
        nn.BatchNorm1d(96),
        nn.ReLU(),
        nn.Unflatten(1, (24, 2, 2)),
        nn.ConvTranspose2d(24, 12, 3, 2, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 1, 3, 2, 1),
    )
    network = load_generator(save(settle(net).state_dict(), tmp_path))
    assert difference(network, net) < 1e-5 or declares_open(network)


def test_gan_one_level_deeper_is_split_and_key_suffixes_are_taken(tmp_path: Path) -> None:
    net = settle(nn.Sequential(nn.Flatten(), nn.Linear(LATENT, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 2)))
    critic = nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(0.2), nn.Linear(24, 1))
    parts = {"gan.generator": net, "gan.discriminator": critic}
    state = {f"{head}.{name}": entry for head, part in parts.items() for name, entry in part.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "gan.ckpt")
    for key in (None, "gan.generator", "generator", "state_dict.gan.generator"):
        network = load_generator(tmp_path / "gan.ckpt", AuditConfig(key=key))
        assert difference(network, net) < 1e-5


def test_numpy_state_dicts_are_weights(tmp_path: Path) -> None:
    net = settle(nn.Sequential(nn.Flatten(), nn.Linear(LATENT, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 2)))
    arrays = {name: entry.numpy() for name, entry in net.state_dict().items()}
    with (tmp_path / "g.pkl").open("wb") as file:
        pickle.dump(arrays, file)
    np.savez(tmp_path / "g.npz", **arrays)
    for name in ("g.pkl", "g.npz"):
        assert difference(load_generator(tmp_path / name), net) < 1e-5


@pytest.mark.parametrize(("layer", "text"), [(nn.LSTM, "an LSTM"), (nn.GRU, "a GRU")])
def test_recurrent_networks_are_named(tmp_path: Path, layer: type[nn.Module], text: str) -> None:
    net = nn.ModuleDict({"rnn": layer(5, 12), "linear": nn.Linear(12, 1)})
    with pytest.raises(LoadError, match=f"holds {text}: a recurrent network"):
        load_generator(save(net.state_dict(), tmp_path))
