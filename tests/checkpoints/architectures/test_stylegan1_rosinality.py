"""StyleGAN in rosinality's layout against the forward pass of Karras et al. 2019, over plain tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from stylegan2_reference import draw, save
from torch import Tensor

from gandiag.checkpoints.architectures.layers.noise_input import find_noise_inputs
from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

Tensors = dict[str, Tensor]
DIM, WIDTHS, TRAINED = 6, (5, 5, 4, 3), 3  # the last block was never reached
BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16


def make_tensors() -> Tensors:
    """Blocks of 4 to 32 pixels; those of 16 and 32 upsample by a transposed convolution."""
    normal, state = draw(0), Tensors()

    def add(path: str, kind: str, *shape: int, bias_scale: float = 0.3) -> None:
        state[f"{path}.{kind}.weight_orig"] = normal(*shape)
        state[f"{path}.{kind}.bias"] = normal(shape[0], scale=bias_scale)

    for index in (1, 3):
        add(f"style.{index}", "linear", DIM, DIM)
    for index, width in enumerate(WIDTHS):
        path, into = f"generator.progression.{index}", WIDTHS[max(0, index - 1)]
        scale = 0.3 if index < TRAINED else 0.0
        if index == 0:
            state[f"{path}.conv1.input"] = normal(1, width, 4, 4)
        elif index == 1:
            add(f"{path}.conv1.1", "conv", width, into, 3, 3, bias_scale=scale)
        else:
            state[f"{path}.conv1.0.weight"] = normal(into, width, 3, 3)
            state[f"{path}.conv1.0.bias"] = normal(width, scale=scale)
        if index:
            for name in ("weight", "weight_flip"):
                state[f"{path}.conv1.{2 if index == 1 else 1}.{name}"] = BLUR.repeat(width, 1, 1, 1)
        for n in (1, 2):
            state[f"{path}.noise{n}.weight_orig"] = normal(1, width, 1, 1, scale=scale)
            add(f"{path}.adain{n}.style", "linear", 2 * width, DIM)
        add(f"{path}.conv2", "conv", width, width, 3, 3, bias_scale=scale)
        add(f"generator.to_rgb.{index}", "conv", 3, width, 1, 1, bias_scale=scale)
    return state


def he(weight: Tensor) -> Tensor:
    return weight * math.sqrt(2 / weight[0].numel())


def forward(t: Tensors, z: Tensor, noise: list[Tensor], *, psi: float = 1.0, mean: Tensor | None = None) -> Tensor:
    w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for index in (1, 3):
        w = F.leaky_relu(w @ he(t[f"style.{index}.linear.weight_orig"]).T + t[f"style.{index}.linear.bias"], 0.2)
    w = w if mean is None else mean + psi * (w - mean)

    def finish(x: Tensor, path: str, n: int, image: Tensor) -> Tensor:
        x = F.leaky_relu(
            x + t[f"{path}.noise{n}.weight_orig"] * math.sqrt(2 / t[f"{path}.noise{n}.weight_orig"].shape[1]) * image,
            0.2,
        )
        style = w @ he(t[f"{path}.adain{n}.style.linear.weight_orig"]).T + t[f"{path}.adain{n}.style.linear.bias"]
        gain, bias = style[:, :, None, None].chunk(2, 1)
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
        return gain * (x - mean) / (var + 1e-5).sqrt() + bias

    x = t["generator.progression.0.conv1.input"].expand(len(z), -1, -1, -1)
    for index in range(TRAINED):
        path = f"generator.progression.{index}"
        if index == 1:
            weight, bias = he(t[f"{path}.conv1.1.conv.weight_orig"]), t[f"{path}.conv1.1.conv.bias"]
            x = F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, bias, padding=1)
        elif index == 2:
            kernel = t[f"{path}.conv1.0.weight"]
            # every pixel spreads the kernel over 4x4 places: the mean of four shifts of it
            spread = sum(F.pad(kernel, (a, 1 - a, b, 1 - b)) for a in (0, 1) for b in (0, 1)) / 4
            scale = math.sqrt(2 / (kernel.shape[0] * 9))
            x = F.conv_transpose2d(x, spread * scale, t[f"{path}.conv1.0.bias"], stride=2, padding=1)
        if index:
            x = F.conv2d(x, BLUR.to(x).repeat(x.shape[1], 1, 1, 1), padding=1, groups=x.shape[1])
        x = finish(x, path, 1, noise[index])
        x = F.conv2d(x, he(t[f"{path}.conv2.conv.weight_orig"]), t[f"{path}.conv2.conv.bias"], padding=1)
        x = finish(x, path, 2, noise[index])
    last = f"generator.to_rgb.{TRAINED - 1}.conv"
    return F.conv2d(x, he(t[f"{last}.weight_orig"]), t[f"{last}.bias"])


def test_outputs_match_the_paper(tmp_path: Path) -> None:
    tensors, z = make_tensors(), draw(5)(3, DIM)
    network = load_generator(save({"g_running": tensors, "generator": tensors}, tmp_path / "train_step-4.model"))
    size = find_assumption(network, "image_size")
    assert network.subject["family"] == "StyleGAN (rosinality)"
    assert (network.output.shape, size.value, size.source) == ((3, 16, 16), 16, "weights")
    inputs = {part.name: part for part in find_noise_inputs(network.module)}
    noise = [inputs[f"noise_{index}"](torch.zeros(1, 1, 4 * 2**index, 4 * 2**index)) for index in range(TRAINED)]
    assert torch.allclose(network.forward(z), forward(tensors, z, noise), atol=1e-4)
    with override_sampling(network.module, psi=0.5):
        truncated = network.forward(z)
    mean = network.module.w_avg
    assert isinstance(mean, Tensor)
    assert torch.allclose(truncated, forward(tensors, z, noise, psi=0.5, mean=mean), atol=1e-4)


def test_the_image_size_may_be_given(tmp_path: Path) -> None:
    path = save({"generator": make_tensors()}, tmp_path / "G.pt")
    assert load_generator(path, AuditConfig(image_size=8)).output.shape == (3, 8, 8)
    with pytest.raises(LoadError, match="--image-size 64 contradicts the weights, which lead to 4 … 32"):
        load_generator(path, AuditConfig(image_size=64))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda t: t.pop("generator.to_rgb.1.conv.bias"), "not numbered in a row"),
        (lambda t: t.pop("style.1.linear.bias"), "style.1.linear.bias is missing"),
        (lambda t: t.pop("generator.progression.2.adain1.style.linear.weight_orig"), "is missing"),
        (lambda t: t.update({"generator.progression.0.conv1.input": torch.ones(2, 5, 4, 4)}), "first axis must be 1"),
        (lambda t: t.update({"style.3.linear.weight_orig": torch.ones(DIM, 2)}), "layers do not fit together"),
        (lambda t: t.update({"extra.weight": torch.ones(2)}), "extra.weight is not part of it"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: Callable[[Tensors], Any], reason: str) -> None:
    tensors = make_tensors()
    damage(tensors)
    with pytest.raises(LoadError, match=reason):
        load_generator(save({"generator": tensors}, tmp_path / "G.pt"))
