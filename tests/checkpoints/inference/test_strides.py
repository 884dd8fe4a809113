"""Strides and paddings of transposed convolutions: by BatchNorm statistics, the image size, or --strides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import calibrated, mlp, normal, save

from gandiag.checkpoints.batchnorm.sequential import forward_layer
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.inference import activation_cache
from gandiag.checkpoints.inference.conv_geometry import COMMON_STRIDES, enumerate_strides, transposed_conv_size
from gandiag.checkpoints.inference.sequential import format_module_strides
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption


def normal_1x1(dim: int = 12):  # type: ignore[no-untyped-def]
    """Draws latents (B, dim, 1, 1)."""
    draw = normal(dim)
    return lambda rng: draw(rng)[:, :, None, None]


def save_calibrated(net: nn.Module, tmp_path: Path, *, dim: int = 12, batches: int = 60) -> str:
    """A file of the network's state dict, with BatchNorm statistics."""
    return save(calibrated(net, normal_1x1(dim), batches=batches).state_dict(), tmp_path)


def find_strides(network: LoadedGenerator) -> list[Assumption]:
    return [entry for entry in network.assumptions if entry.setting == "strides"]


def assert_same_outputs(network: LoadedGenerator, net: nn.Module) -> None:
    z = torch.randn(4, *network.latent.shape)
    with torch.no_grad():
        assert torch.allclose(network.forward(z), net(z), atol=1e-6)


def transposed_stack(kernels: list[tuple[int, int, int, int]], *, start_size: int = 1) -> nn.Sequential:
    """Transposed convolutions with BatchNorm and ReLU; after a Linear unless `start_size` is 1.

    `kernels`: (kernel size, stride, padding, output padding).
    """
    layers: list[nn.Module] = []
    in_channels = 12
    if start_size > 1:
        width = 32 * start_size**2
        layers = [
            nn.Linear(12, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Unflatten(1, (32, start_size, start_size)),
        ]
        in_channels = 32
    for index, (kernel, stride, padding, output_padding) in enumerate(kernels):
        is_last = index == len(kernels) - 1
        out_channels = 3 if is_last else 24 - 4 * index
        layers.append(nn.ConvTranspose2d(in_channels, out_channels, kernel, stride, padding, output_padding))
        layers += [nn.Tanh()] if is_last else [nn.BatchNorm2d(out_channels), nn.ReLU()]
        in_channels = out_channels
    return nn.Sequential(*layers)


def test_uncommon_strides_are_found_before_every_batchnorm(tmp_path: Path) -> None:
    """1 -> 3 -> 6 -> 13 -> 28, a digit generator of many tutorials; the default strides give 3 -> 6 -> 12 -> 24."""
    layers: list[nn.Module] = []
    for in_channels, out_channels, kernel, stride in ((12, 32, 3, 1), (32, 24, 4, 1), (24, 16, 3, 2)):
        layers.append(nn.ConvTranspose2d(in_channels, out_channels, kernel, stride))
        layers += [nn.BatchNorm2d(out_channels), nn.ReLU()]
    net = nn.Sequential(*layers, nn.ConvTranspose2d(16, 1, 4, 2), nn.Tanh())
    network = load_generator(save_calibrated(net, tmp_path))
    found = find_strides(network)
    assert [(entry.value, entry.note, entry.layers) for entry in found[:2]] == [
        ("1/0", "4x4 kernel", ("3",)),
        ("2/0", "3x3 kernel", ("6",)),
    ]
    assert network.output.shape == (1, 28, 28)


def test_strides_that_lead_to_a_given_size_are_one_choice(tmp_path: Path) -> None:
    """4 -> 6 -> 11 -> 24 -> 48: with 48 given, no stride can change alone."""
    net = transposed_stack([(4, 1, 0, 0), (3, 1, 0, 0), (3, 2, 1, 0), (4, 2, 0, 0), (4, 2, 1, 0)])
    network = load_generator(save_calibrated(net, tmp_path), AuditConfig(image_size=48))
    joint = next(entry for entry in find_strides(network) if len(entry.layers) == 3)
    assert (joint.value, joint.note, joint.source) == ("1/0,2/1,2/0", "kernels 3x3, 3x3, 4x4", "flag")
    assert joint.fit is not None and joint.fit.mismatch is not None
    assert_same_outputs(network, net)


def test_enumerated_strides_all_lead_to_the_size_and_the_most_common_come_first() -> None:
    options = [COMMON_STRIDES[3], COMMON_STRIDES[3], COMMON_STRIDES[4]]
    paths = enumerate_strides(4, [3, 3, 4, 4], 48, options)
    for path in paths:
        size = 4
        for kernel, stride_spec in zip([3, 3, 4], path, strict=True):
            size = transposed_conv_size(size, kernel, stride_spec)
        assert 48 in {transposed_conv_size(size, 4, stride_spec) for stride_spec in COMMON_STRIDES[4]}, path
    assert len(set(paths)) == len(paths) > 3
    ranks = [sum(given.index(entry) for given, entry in zip(options, path, strict=True)) for path in paths]
    assert ranks == sorted(ranks)


def test_odd_transposed_kernels_after_a_reshape_are_not_convolutions(tmp_path: Path) -> None:
    """32 x 4 x 4 features cannot be reshaped to the first kernel's 24 output channels; the last one upsamples too."""
    net = transposed_stack([(3, 2, 1, 1), (3, 2, 1, 1), (3, 2, 1, 1)], start_size=4)
    network = load_generator(save(calibrated(net, normal(12)).state_dict(), tmp_path))
    assert network.output.shape == (3, 32, 32)
    assert_same_outputs(network, net)


def test_given_strides_are_used_and_checked(tmp_path: Path) -> None:
    """A stride of 5 is no candidate; given, it needs no statistics, and mistakes are named."""
    net = transposed_stack([(4, 1, 0, 0), (8, 5, 1, 0), (5, 3, 1, 0)])
    file = save_calibrated(net, tmp_path)
    with pytest.raises(LoadError, match="no common strides for kernels of size 8, 5; --strides"):
        load_generator(file)
    network = load_generator(file, AuditConfig(strides=("5/1", "3/1")))
    given = find_assumption(network, "strides")
    assert (given.value, given.note, given.source) == ("5/1,3/1", "kernels 8x8, 5x5", "flag")
    assert given.layers == ("3", "6")
    assert_same_outputs(network, net)


@pytest.mark.parametrize(
    "strides, size, message",
    [
        (("5/1",), None, r"gives 1, but 2 layers have a stride: 3\.weight, 6\.weight"),
        (("5/1", "3"), None, "--strides is 5/1,3"),
        (("5/1", "1/1/1"), None, "--strides is"),
        (("5/1", "1/60"), None, r"6\.weight, a 5x5 kernel with 1/60, turns size"),
        (("5/1", "3/1"), 64, "--strides leads to image size 63, and --image-size is 64"),
    ],
)
def test_given_strides_that_do_not_fit_are_refused(
    tmp_path: Path, strides: tuple[str, ...], size: int | None, message: str
) -> None:
    file = save(transposed_stack([(4, 1, 0, 0), (8, 5, 1, 0), (5, 3, 1, 0)]).state_dict(), tmp_path)
    with pytest.raises(LoadError, match=message):
        load_generator(file, AuditConfig(strides=strides, image_size=size))


def test_strides_for_a_network_without_transposed_convolutions_are_refused(tmp_path: Path) -> None:
    file = save(mlp((8, 32, 2)).state_dict(), tmp_path, "mlp.pth")
    with pytest.raises(LoadError, match="no transposed convolutions whose strides are open"):
        load_generator(file, AuditConfig(strides=("2/1",)))


def test_a_last_layer_of_stride_three_is_found_by_the_image_size(tmp_path: Path) -> None:
    """1 -> 4 -> 8, and then 5x5 with stride 3 and padding 1, after which there is no BatchNorm."""
    net = transposed_stack([(4, 1, 0, 0), (4, 2, 1, 0), (5, 3, 1, 0)])
    network = load_generator(save_calibrated(net, tmp_path), AuditConfig(image_size=24))
    assert format_module_strides(network.module) == ("2/1", "3/1") and network.output.shape == (3, 24, 24)


@pytest.mark.parametrize("n_flat", [1, 2])
def test_a_kernel_has_the_strides_of_the_last_one_of_its_size(tmp_path: Path, n_flat: int) -> None:
    """Two 3x3 kernels with stride 2, then stride 1: the last layer has no BatchNorm and follows the one before it."""
    net = transposed_stack([(4, 1, 0, 0), *[(3, 2, 1, 1)] * 2, *[(3, 1, 1, 0)] * n_flat])
    network = load_generator(save_calibrated(net, tmp_path))
    last = find_strides(network)[-1]
    assert (last.value, last.note, last.source) == ("2/1/1" if n_flat == 1 else "1/1", "3x3 kernel", "default")
    assert network.output.shape[-1] == (32 if n_flat == 1 else 16)


def test_an_unreachable_size_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(12, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    file = save_calibrated(net, tmp_path)
    assert load_generator(file, AuditConfig(image_size=4)).output.shape == (3, 4, 4)
    with pytest.raises(LoadError, match="--image-size 64 contradicts the weights"):
        load_generator(file, AuditConfig(image_size=64))


def test_candidates_with_larger_images_have_fewer_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default 3x3 kernels keep the size of 4; that each doubles it is tried without 1,000 times the memory."""
    largest = 0

    def watched(layer: nn.Module, x: Tensor, use_batch_stats: bool) -> Tensor:
        nonlocal largest
        output = forward_layer(layer, x, use_batch_stats)
        largest = max(largest, output.numel())
        return output

    monkeypatch.setattr(activation_cache, "forward_layer", watched)
    net = transposed_stack([(4, 1, 0, 0), *[(3, 2, 1, 1)] * 3, *[(3, 1, 1, 0)] * 2])
    network = load_generator(save_calibrated(net, tmp_path, batches=30))
    assert network.output.shape == (3, 32, 32) and 0 < largest <= 4e6


def test_a_square_first_kernel_takes_latents(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.ConvTranspose2d(24, 24, 3, 2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.ConvTranspose2d(24, 12, 4, 2, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 3, 4, 2, 1),
        nn.Tanh(),
    )
    network = load_generator(save_calibrated(net, tmp_path, dim=24))
    assert network.latent.dim == 24 and network.output.shape == (3, 12, 12)


def test_a_strides_flag_beside_a_spec_is_credited(tmp_path: Path) -> None:
    """The spec holds --image-size too, which would answer for the strides."""
    file = save_calibrated(transposed_stack([(4, 1, 0, 0), (4, 2, 1, 0), (4, 2, 1, 0)]), tmp_path)
    spec = str(tmp_path / "spec.json")
    load_generator(file, AuditConfig(spec=spec))
    replayed = find_assumption(load_generator(file, AuditConfig(spec=spec)), "strides")
    flagged = find_assumption(load_generator(file, AuditConfig(spec=spec, strides=("2/1", "2/1"))), "strides")
    assert (replayed.value, replayed.source) == ("2/1,2/1", "spec")
    assert (flagged.value, flagged.source) == ("2/1,2/1", "flag")
