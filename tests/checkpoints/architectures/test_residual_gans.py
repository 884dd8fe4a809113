"""Residual generators of three repositories against their forward passes, written out over plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stylegan2_reference import save
from torch import Tensor

from gandiag.checkpoints.loader import load_generator
from gandiag.errors import LoadError

Tensors = dict[str, Tensor]
Z, CLASSES, LABELS = 6, 3, torch.tensor([2, 0, 1])


class Drawer:
    """Adds random layers to a state dict."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.state = torch.Generator().manual_seed(seed), Tensors()

    def add(self, name: str, *shape: int, scale: float = 0.4, center: float = 0.0) -> None:
        self.state[name] = center + scale * torch.randn(*shape, generator=self.rng)

    def layer(self, name: str, *shape: int) -> None:
        self.add(f"{name}.weight", *shape)
        self.add(f"{name}.bias", shape[0])

    def norm(self, name: str, channels: int, *, affine: bool = True) -> None:
        if affine:
            self.add(f"{name}.weight", channels, scale=0.2, center=1.0)
            self.add(f"{name}.bias", channels)
        self.add(f"{name}.running_mean", channels)
        self.state[f"{name}.running_var"] = torch.rand(channels, generator=self.rng) + 0.5
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(100)


def make_projection(classes: int) -> Tensors:
    draw = Drawer()
    draw.layer("l1", 8 * 16, Z)
    for block, (into, out) in ((2, (8, 6)), (3, (6, 4))):
        path = f"block{block}"
        for name, channels in (("b1", into), ("b2", out)):
            draw.norm(f"{path}.{name}", channels, affine=not classes)
            if classes:
                draw.add(f"{path}.{name}.weights.weight", classes, channels, center=1.0)
                draw.add(f"{path}.{name}.biases.weight", classes, channels)
        draw.layer(f"{path}.c1", out, into, 3, 3)
        draw.layer(f"{path}.c2", out, out, 3, 3)
        draw.layer(f"{path}.c_sc", out, into, 1, 1)
    draw.norm("b4", 4)
    draw.layer("conv4", 3, 4, 1, 1)
    return draw.state


def make_collection() -> Tensors:
    draw = Drawer(1)
    draw.layer("linear", 6 * 16, Z)
    for block in (0, 1):
        path = f"blocks.{block}"
        draw.norm(f"{path}.residual.0", 6)
        draw.layer(f"{path}.residual.3", 6, 6, 3, 3)
        draw.norm(f"{path}.residual.4", 6)
        draw.layer(f"{path}.residual.6", 6, 6, 3, 3)
        draw.layer(f"{path}.shortcut.1", 6, 6, 1, 1)
    draw.norm("output.0", 6)
    draw.layer("output.2", 3, 6, 3, 3)
    return draw.state


def make_stability(kind: str) -> Tensors:
    """`kind`: numbered blocks, named ones in pairs, or the variants with 7x7 kernels and six or seven levels."""
    draw = Drawer(2)
    draw.add("embedding.weight", CLASSES, 5, scale=1.0)
    start = 4 if kind in ("numbered", "pairs") else 1
    draw.layer("fc", 6 * start**2, Z + 5)
    plans = {
        "numbered": [("resnet.0", 6, 4), ("resnet.2", 4, 4)],
        "pairs": [("resnet_0_0", 6, 6), ("resnet_0_1", 6, 6), ("resnet_1_0", 6, 4), ("resnet_1_1", 4, 4)],
        "six": [("resnet_0_0", 6, 4), *((f"resnet_{level}_0", 4, 4) for level in range(1, 6))],
        "seven": [("resnet_0_0", 6, 4), *((f"resnet_{level}_0", 4, 4) for level in range(1, 7))],
    }
    for name, into, out in plans[kind]:
        draw.layer(f"{name}.conv_0", min(into, out), into, 3, 3)
        draw.layer(f"{name}.conv_1", out, min(into, out), 3, 3)
        if into != out:
            draw.add(f"{name}.conv_s.weight", out, into, 1, 1)
    kernel = 3 if start == 4 else 7
    draw.layer("conv_img", 3, 4, kernel, kernel)
    return draw.state


def conv(t: Tensors, name: str, x: Tensor) -> Tensor:
    weight = t[f"{name}.weight"]
    return F.conv2d(x, weight, t.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def batchnorm(t: Tensors, name: str, x: Tensor, labels: Tensor | None = None) -> Tensor:
    mean, var = (t[f"{name}.{leaf}"][:, None, None] for leaf in ("running_mean", "running_var"))
    x = (x - mean) / (var + 1e-5).sqrt()
    if labels is None:
        return x * t[f"{name}.weight"][:, None, None] + t[f"{name}.bias"][:, None, None]
    gain, bias = (t[f"{name}.{table}.weight"][labels][:, :, None, None] for table in ("weights", "biases"))
    return x * gain + bias


def double(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def smooth_double(x: Tensor) -> Tensor:
    """Bilinear interpolation: between the pixels, a quarter of the way to the neighbor on either side."""
    for axis in (2, 3):
        size = x.shape[axis]
        before = x.index_select(axis, torch.tensor([0, *range(size - 1)]))
        after = x.index_select(axis, torch.tensor([*range(1, size), size - 1]))
        pair = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.flatten(axis, axis + 1)
    return x


def run_projection(t: Tensors, z: Tensor, labels: Tensor | None) -> Tensor:
    labels = labels if "block2.b1.weights.weight" in t else None
    x = (z @ t["l1.weight"].T + t["l1.bias"]).reshape(len(z), 8, 4, 4)
    for path in ("block2", "block3"):
        y = smooth_double(batchnorm(t, f"{path}.b1", x, labels).relu())
        y = conv(t, f"{path}.c2", batchnorm(t, f"{path}.b2", conv(t, f"{path}.c1", y), labels).relu())
        x = y + conv(t, f"{path}.c_sc", smooth_double(x))
    return conv(t, "conv4", batchnorm(t, "b4", x).relu()).tanh()


def run_collection(t: Tensors, z: Tensor, labels: Tensor | None) -> Tensor:
    x = (z @ t["linear.weight"].T + t["linear.bias"]).reshape(len(z), 6, 4, 4)
    for path in ("blocks.0", "blocks.1"):
        y = conv(t, f"{path}.residual.3", double(batchnorm(t, f"{path}.residual.0", x).relu()))
        y = conv(t, f"{path}.residual.6", batchnorm(t, f"{path}.residual.4", y).relu())
        x = y + conv(t, f"{path}.shortcut.1", double(x))
    return conv(t, "output.2", batchnorm(t, "output.0", x).relu()).tanh()


def run_stability(t: Tensors, z: Tensor, labels: Tensor | None, steps: tuple[str, ...]) -> Tensor:
    """`steps`: blocks by name, and "up"."""
    embedded = t["embedding.weight"][labels]
    if t["conv_img.weight"].shape[-1] == 3:
        embedded = embedded / embedded.square().sum(1, keepdim=True).sqrt()
    x = torch.cat([z, embedded], 1) @ t["fc.weight"].T + t["fc.bias"]
    size = round((x.shape[1] / 6) ** 0.5)
    x = x.reshape(len(z), 6, size, size)
    for step in steps:
        if step == "up":
            x = double(x)
            continue
        y = conv(t, f"{step}.conv_1", F.leaky_relu(conv(t, f"{step}.conv_0", F.leaky_relu(x, 0.2)), 0.2))
        x = (conv(t, f"{step}.conv_s", x) if f"{step}.conv_s.weight" in t else x) + 0.1 * y
    return conv(t, "conv_img", F.leaky_relu(x, 0.2)).tanh()


def _stability(kind: str, *steps: str) -> tuple[Callable[[], Tensors], Callable[..., Tensor]]:
    return lambda: make_stability(kind), lambda t, z, labels: run_stability(t, z, labels, steps)


def _levels(count: int) -> list[str]:
    return [step for level in range(count) for step in ("up", f"resnet_{level}_0")][1:]


CASES: dict[str, tuple[str, Callable[[], Tensors], Callable[..., Tensor]]] = {
    "projection": ("SNGAN projection (crcrpar)", lambda: make_projection(0), run_projection),
    "projection_classes": ("SNGAN projection (crcrpar)", lambda: make_projection(CLASSES), run_projection),
    "collection": ("ResNet (pytorch-gan-collections)", make_collection, run_collection),
    "numbered": ("ResNet (GAN_stability)", *_stability("numbered", "resnet.0", "up", "resnet.2")),
    "pairs": (
        "ResNet (GAN_stability)",
        *_stability("pairs", "resnet_0_0", "resnet_0_1", "up", "resnet_1_0", "resnet_1_1"),
    ),
    "six": ("ResNet (GAN_stability)", *_stability("six", *_levels(6), "up")),
    "seven": ("ResNet (GAN_stability)", *_stability("seven", *_levels(7))),
}
CONDITIONAL = ("projection_classes", "numbered", "pairs", "six", "seven")


@pytest.mark.parametrize("name", CASES)
def test_outputs_match_the_forward_pass(tmp_path: Path, name: str) -> None:
    family, make, run = CASES[name]
    tensors, z = make(), torch.randn(3, Z, generator=torch.Generator().manual_seed(7))
    network = load_generator(save({"netG": tensors}, tmp_path / "G.pt"))
    classes = CLASSES if name in CONDITIONAL else None
    assert (network.subject["family"], network.latent.dim, network.classes) == (family, Z, classes)
    labels = LABELS if classes else None
    exact = {key: entry.double() if entry.is_floating_point() else entry for key, entry in tensors.items()}
    expected = run(exact, z.double(), labels).float()
    assert expected.shape[1:] == network.output.shape and expected.std() > 0.05
    assert torch.allclose(network.forward(z, labels), expected, atol=1e-4)


def test_the_moving_average_of_gan_stability_is_taken(tmp_path: Path) -> None:
    state = {"generator": make_stability("pairs"), "generator_test": make_stability("pairs"), "it": 3}
    network = load_generator(save(state, tmp_path / "model.pt"))
    assert network.subject["weights"].startswith("generator_test (EMA copy")


@pytest.mark.parametrize("name", CASES)
def test_damaged_files_end_in_one_sentence(tmp_path: Path, name: str) -> None:
    """A missing weight and a tensor of another shape are refused, and the message names an action."""
    _, make, _ = CASES[name]
    damages: list[Callable[[Tensors, str], Any]] = [
        lambda t, key: t.pop(key),
        lambda t, key: t.update({key: torch.zeros(*t[key].shape, 2)}),
        lambda t, key: t.update({key: t[key][: len(t[key]) - 1] if t[key].ndim else torch.zeros(2)}),
    ]
    keys = [key for key in make() if key.endswith("weight")]
    for key in keys[:: max(1, len(keys) // 4)]:
        for damage in damages:
            if damage is damages[2] and key == "embedding.weight":
                continue  # one class fewer is another network
            tensors = make()
            damage(tensors, key)
            with pytest.raises(LoadError) as caught:
                load_generator(save({"netG": tensors}, tmp_path / "G.pt"))
            assert caught.value.hint and "\n" not in caught.value.message
