"""Upsampling between convolutions, pixel shuffles, and the reshape before them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, normal, save

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.inference.layer_specs import DepthToSpace
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError


class PixelShuffleNet(nn.Module):
    """Convolutions that output four channels for every one that the next layer takes.

    `shuffle`: the order of the pixels in them.
    """

    def __init__(self, shuffle: nn.Module) -> None:
        super().__init__()
        self.first, self.norm0 = nn.Linear(12, 16 * 16), nn.BatchNorm2d(16)
        self.conv1, self.norm1 = nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 48, 3, padding=1), nn.BatchNorm2d(48)  # a BatchNorm before the shuffle
        self.last = nn.Conv2d(12, 3, 3, padding=1)
        self.shuffle = shuffle

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm0(self.first(z).reshape(-1, 16, 4, 4)).relu()
        x = self.norm1(self.shuffle(self.conv1(x))).relu()
        return self.last(self.shuffle(self.norm2(self.conv2(x)).relu())).tanh()


class FinalShuffleNet(nn.Module):
    """Two pixel shuffles, the second one after the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm0 = nn.Linear(12, 16 * 16), nn.BatchNorm2d(16)
        self.conv1, self.norm1 = nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(16)
        self.last = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm0(self.first(z).reshape(-1, 16, 4, 4)).relu()
        x = self.norm1(nn.functional.pixel_shuffle(self.conv1(x), 2)).relu()
        return nn.functional.pixel_shuffle(self.last(x), 2).tanh()


class ReshapingNet(nn.Module):
    """A network that reshapes in its `forward`."""

    def __init__(self, flat: nn.Module, spatial: nn.Module, size: int = 4) -> None:
        super().__init__()
        self.flat, self.spatial, self.size = flat, spatial, size

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.spatial(self.flat(z).reshape(len(z), -1, self.size, self.size))
        return out


def assert_same_outputs(network: LoadedGenerator, net: nn.Module, *, atol: float = 1e-6) -> None:
    z = torch.randn(4, *network.latent.shape)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=atol)


@pytest.mark.parametrize("shuffle", [nn.PixelShuffle(2), DepthToSpace()])
def test_statistics_show_the_pixel_shuffle_order(tmp_path: Path, shuffle: nn.Module) -> None:
    net = calibrated(PixelShuffleNet(shuffle), normal(12))
    network = load_generator(save(net.state_dict(), tmp_path))
    order = find_assumption(network, "pixel_shuffle_order")
    expected = "pixel-shuffle" if isinstance(shuffle, nn.PixelShuffle) else "depth-to-space"
    assert (order.value, order.source) == (expected, "batch-norm")
    assert order.note == "before norm1, last; from 4 to 16 pixels"
    assert_same_outputs(network, net)


def test_depth_to_space_takes_blocks_of_channels() -> None:
    """Block 2 i + j of C channels is the pixel (i, j) of every 2x2 square."""
    x = torch.arange(2 * 12 * 2 * 3).reshape(2, 12, 2, 3).float()
    out = DepthToSpace()(x)
    for i, j in itertools.product(range(2), repeat=2):
        block = 3 * (2 * i + j)
        assert torch.equal(out[:, :, i::2, j::2], x[:, block : block + 3])


@pytest.mark.parametrize("kernel, bias", [(3, True), (3, False), (4, True), (4, False)])
def test_transposed_kernels_that_quarter_the_channels_are_not_pixel_shuffles(
    tmp_path: Path, kernel: int, bias: bool
) -> None:
    """ConvTranspose2d(4 c, c) has the shape of a Conv2d with 4 c output channels."""
    padding = (1, 1) if kernel == 3 else (1, 0)
    net = nn.Sequential(
        nn.Linear(12, 64 * 16),
        nn.BatchNorm1d(64 * 16),
        nn.ReLU(),
        nn.Unflatten(1, (64, 4, 4)),
        nn.ConvTranspose2d(64, 16, kernel, 2, *padding, bias=bias),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 4, kernel, 2, *padding, bias=bias),
        nn.Tanh(),
    )
    network = load_generator(save(calibrated(net, normal(12)).state_dict(), tmp_path))
    assert network.output.shape == (4, 16, 16)
    assert not any(entry.setting == "pixel_shuffle_order" for entry in network.assumptions)
    assert_same_outputs(network, net)


def test_upsampling_flag_and_spec_settle_the_pixel_shuffle_order(tmp_path: Path) -> None:
    net = calibrated(PixelShuffleNet(DepthToSpace()), normal(12))
    file, spec = save(net.state_dict(), tmp_path), str(tmp_path / "spec.json")
    load_generator(file, AuditConfig(spec=spec))
    for config in (AuditConfig(upsampling="depth-to-space"), AuditConfig(spec=spec)):
        network = load_generator(file, config)
        assert find_assumption(network, "pixel_shuffle_order").value == "depth-to-space"
        assert_same_outputs(network, net)
    with pytest.raises(LoadError, match="--upsampling nearest contradicts the weights, which use pixel shuffle"):
        load_generator(file, AuditConfig(upsampling="nearest"))


def test_twelve_output_channels_are_three_after_a_pixel_shuffle(tmp_path: Path) -> None:
    net = calibrated(FinalShuffleNet(), normal(12))
    network = load_generator(save(net.state_dict(), tmp_path))
    assert network.output.shape == (3, 16, 16)
    assert_same_outputs(network, net)


@pytest.mark.parametrize("in_sequential", [True, False])
def test_a_numbered_reshape_is_not_an_activation(tmp_path: Path, in_sequential: bool) -> None:
    """Linear, Unflatten, BatchNorm has one module in between, as has Linear, activation, BatchNorm."""
    layers = [
        nn.Linear(12, 32 * 16),
        nn.Unflatten(1, (32, 4, 4)),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    ]
    net: nn.Module = nn.Sequential(*layers)
    if not in_sequential:
        net = ReshapingNet(nn.Sequential(layers[0], nn.ReLU()), nn.Sequential(*layers[2:]))
    network = load_generator(save(calibrated(net, normal(12)).state_dict(), tmp_path))
    assert_same_outputs(network, net)


def test_pytorch_gan_dcgan_has_its_leaky_slope_and_its_eps(tmp_path: Path) -> None:
    """At its original width: eps is 0.8 except in the first BatchNorm; the third is the first after an activation."""
    spatial = nn.Sequential(
        nn.BatchNorm2d(128),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.BatchNorm2d(128, 0.8),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.BatchNorm2d(64, 0.8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 1, 3, padding=1),
        nn.Tanh(),
    )
    net = ReshapingNet(nn.Sequential(nn.Linear(100, 128 * 64)), spatial, size=8)
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0, 0.02)  # as there: variances are small, and an eps of 0.8 is not
    with torch.no_grad():
        for _ in range(40):
            net.train()(torch.randn(32, 100))
    network = load_generator(save(net.eval().state_dict(), tmp_path))
    activation, eps = find_assumption(network, "activation"), find_assumption(network, "bn_eps")
    assert (activation.value, eps.value) == ("leaky:0.2", 0.8)
    assert activation.source == eps.source == "batch-norm"
    assert_same_outputs(network, net, atol=1e-5)


def test_residual_blocks_are_not_sequential(tmp_path: Path) -> None:
    """Their layers fit together by shape: eight convolutions in sequence would output an image of 512 pixels."""
    state = {"first.weight": torch.randn(16 * 16, 12), "first.bias": torch.zeros(16 * 16)}
    for block in range(3):
        for name, kernel in (("conv1", 3), ("conv2", 3), ("sc", 1)):
            state |= {
                f"r{block}.{name}.weight": torch.randn(16, 16, kernel, kernel),
                f"r{block}.{name}.bias": torch.zeros(16),
            }
    state |= {"last.weight": torch.randn(3, 16, 3, 3), "last.bias": torch.zeros(3)}
    with pytest.raises(LoadError, match=r"\(r0\.sc is a shortcut branch, so the network is not sequential"):
        load_generator(save(state, tmp_path))
    renamed = {name.replace(".sc.", ".third."): entry for name, entry in state.items()}
    with pytest.raises(LoadError, match="do not show where the image is upsampled"):
        load_generator(save(renamed, tmp_path))


def test_ema_pytorch_files_hold_the_average_and_the_raw_weights(tmp_path: Path) -> None:
    raw, average = (calibrated(DCGAN(), normal(12), seed=seed) for seed in (0, 1))
    state = {
        f"{head}.{name}": entry
        for head, net in (("online_model", raw), ("ema_model", average))
        for name, entry in net.state_dict().items()
    }
    file = save({**state, "initted": torch.tensor(True), "step": torch.tensor(7)}, tmp_path)
    assert_same_outputs(load_generator(file), average)
    assert_same_outputs(load_generator(file, AuditConfig(weights="raw")), raw)
