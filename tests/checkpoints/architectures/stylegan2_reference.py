"""StyleGAN2 as the papers define it: random checkpoints, and the forward pass sample by sample in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Z_DIM, W_DIM, RESOLUTION = 6, 8, 16
RESOLUTIONS = (4, 8, 16)
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
SOURCE = "raise SystemExit('the source was run')"


def draw(seed: int = 0) -> Callable[..., Tensor]:
    """A function that draws normal tensors of a shape, times `scale`, from one stream."""
    rng = torch.Generator().manual_seed(seed)
    return lambda *shape, scale=1.0: scale * torch.randn(shape, generator=rng)


# formulas of the papers, for one sample


def scaled_leaky_relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * 2**0.5


def equalized_linear(x: Tensor, weight: Tensor, bias: Tensor, lr_multiplier: float = 1.0) -> Tensor:
    return x @ (weight * lr_multiplier / math.sqrt(weight.shape[1])).T + bias * lr_multiplier


def convolve(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """A true convolution of (C, H, W) by shifts and sums."""
    x, size = F.pad(x, (before, after, before, after)), len(kernel)
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    return sum(
        kernel[size - 1 - a, size - 1 - b] * x[:, a : a + height, b : b + width]
        for a in range(size)
        for b in range(size)
    )  # type: ignore[return-value]


def insert_zeros(x: Tensor) -> Tensor:
    """(C, H, W) to (C, 2H, 2W)."""
    out = x.new_zeros(x.shape[0], 2 * x.shape[1], 2 * x.shape[2])
    out[:, ::2, ::2] = x
    return out


def upsample(x: Tensor) -> Tensor:
    """The filter of sum 4 on an image with zeros between its pixels: its middle two taps straddle each pixel."""
    return convolve(insert_zeros(x), 4 * FILTER.double(), 2, 1)


def modulated_conv(x: Tensor, weight: Tensor, style: Tensor, *, up: bool = False, demodulate: bool = True) -> Tensor:
    """Eq. 1 and 3 of the paper for one sample: x (I, H, W), weight (O, I, k, k), style (I,)."""
    weight = weight * style[None, :, None, None]
    if demodulate:
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if not up:
        return F.conv2d(x[None], weight, padding=weight.shape[-1] // 2)[0]
    padded = F.pad(insert_zeros(x)[None, :, :-1, :-1], (2, 2, 2, 2))
    transposed = F.conv2d(padded, weight.flip(2, 3))[0]  # a transposed convolution: every pixel spreads its weight
    return convolve(transposed, 4 * FILTER.double(), 1, 1)


def normalize(z: Tensor) -> Tensor:
    return z / (z.square().mean(-1, keepdim=True) + 1e-8).sqrt()


def rosinality_tensors(seed: int = 0) -> Tensors:
    """A checkpoint in rosinality's layout, 16 pixels."""
    normal, state = draw(seed), {"input.input": draw(seed + 1)(1, 5, 4, 4)}
    for index in (1, 2, 3):
        state |= {
            f"style.{index}.weight": normal(W_DIM, W_DIM, scale=100.0),
            f"style.{index}.bias": normal(W_DIM, scale=30.0),
        }

    def add_modulated_conv(path: str, into: int, out: int, k: int, up: bool) -> None:
        state.update(
            {
                f"{path}.weight": normal(1, out, into, k, k),
                f"{path}.modulation.weight": normal(into, W_DIM),
                f"{path}.modulation.bias": 1 + normal(into, scale=0.3),
            }
        )
        if up:
            state[f"{path}.blur.kernel"] = 4 * FILTER

    def add_styled_conv(path: str, into: int, out: int, up: bool) -> None:
        add_modulated_conv(f"{path}.conv", into, out, 3, up)
        state.update({f"{path}.noise.weight": normal(1, scale=0.4), f"{path}.activate.bias": normal(out, scale=0.3)})

    def add_rgb(path: str, into: int, up: bool) -> None:
        add_modulated_conv(f"{path}.conv", into, 3, 1, False)
        state[f"{path}.bias"] = normal(1, 3, 1, 1, scale=0.3)
        if up:
            state[f"{path}.upsample.kernel"] = 4 * FILTER

    add_styled_conv("conv1", 5, 5, False)
    add_rgb("to_rgb1", 5, False)
    for index, (into, out) in enumerate(((5, 4), (4, 3))):
        add_styled_conv(f"convs.{2 * index}", into, out, True)
        add_styled_conv(f"convs.{2 * index + 1}", out, out, False)
        add_rgb(f"to_rgbs.{index}", out, True)
    for index in range(5):
        size = RESOLUTIONS[(index + 1) // 2]
        state[f"noises.noise_{index}"] = normal(1, 1, size, size)
    return state


def rosinality_forward(
    t: Tensors, z: Tensor, *, psi: float = 1.0, mean: Tensor | None = None, noise: list[Tensor] | None = None
) -> Tensor:
    t = {name: entry.double() for name, entry in t.items()}
    w = normalize(z.double())
    for index in (1, 2, 3):
        w = scaled_leaky_relu(equalized_linear(w, t[f"style.{index}.weight"], t[f"style.{index}.bias"], 0.01))
    w = w if mean is None else mean + psi * (w - mean)
    noise = noise or [t[f"noises.noise_{index}"].expand(len(z), 1, -1, -1) for index in range(5)]

    def modulated(x: Tensor, path: str, row: Tensor, **options: bool) -> Tensor:
        weight = t[f"{path}.weight"][0]
        style = equalized_linear(row, t[f"{path}.modulation.weight"], t[f"{path}.modulation.bias"])
        return modulated_conv(x, weight / math.sqrt(weight[0].numel()), style, **options)

    def layer(x: Tensor, path: str, row: Tensor, noise_image: Tensor, up: bool = False) -> Tensor:
        x = modulated(x, f"{path}.conv", row, up=up) + t[f"{path}.noise.weight"] * noise_image
        return scaled_leaky_relu(x + t[f"{path}.activate.bias"][:, None, None])

    images = []
    for sample, row in enumerate(w):
        x = layer(t["input.input"][0], "conv1", row, noise[0][sample])
        rgb = modulated(x, "to_rgb1.conv", row, demodulate=False) + t["to_rgb1.bias"][0]
        for index in (0, 1):
            x = layer(x, f"convs.{2 * index}", row, noise[2 * index + 1][sample], up=True)
            x = layer(x, f"convs.{2 * index + 1}", row, noise[2 * index + 2][sample])
            rgb = (
                upsample(rgb)
                + modulated(x, f"to_rgbs.{index}.conv", row, demodulate=False)
                + t[f"to_rgbs.{index}.bias"][0]
            )
        images.append(rgb)
    return torch.stack(images).float()


def nvidia_tensors(kind: str = "skip", classes: int = 0, seed: int = 0) -> Tensors:
    """A checkpoint in NVIDIA's layout, 16 pixels. `kind`: skip, resnet or orig."""
    normal, state = draw(seed), {"mapping.w_avg": draw(seed + 1)(W_DIM)}
    channels = dict(zip(RESOLUTIONS, (5, 4, 3), strict=True))
    if classes:
        state |= {"mapping.embed.weight": normal(W_DIM, classes), "mapping.embed.bias": normal(W_DIM, scale=0.1)}
    for index in range(3):
        state |= {
            f"mapping.fc{index}.weight": normal(W_DIM, W_DIM if index else Z_DIM + W_DIM * bool(classes), scale=100.0),
            f"mapping.fc{index}.bias": normal(W_DIM, scale=30.0),
        }

    def add_layer(path: str, into: int, out: int, size: int) -> None:
        state.update(
            {
                f"{path}.weight": normal(out, into, 3, 3),
                f"{path}.bias": normal(out, scale=0.3),
                f"{path}.affine.weight": normal(into, W_DIM),
                f"{path}.affine.bias": 1 + normal(into, scale=0.3),
                f"{path}.resample_filter": FILTER,
                f"{path}.noise_const": normal(size, size),
                f"{path}.noise_strength": normal(scale=0.4),
            }
        )

    for size in RESOLUTIONS:
        path, out = f"synthesis.b{size}", channels[size]
        state[f"{path}.resample_filter"] = FILTER
        if size == 4:
            state[f"{path}.const"] = normal(out, 4, 4)
        else:
            add_layer(f"{path}.conv0", channels[size // 2], out, size)
        add_layer(f"{path}.conv1", out, out, size)
        if kind == "skip" or size == RESOLUTION:
            state |= {f"{path}.torgb.weight": normal(3, out, 1, 1), f"{path}.torgb.bias": normal(3, scale=0.3)}
            state |= {
                f"{path}.torgb.affine.weight": normal(out, W_DIM),
                f"{path}.torgb.affine.bias": 1 + normal(out, scale=0.3),
            }
        if kind == "resnet" and size > 4:
            state |= {
                f"{path}.skip.weight": normal(out, channels[size // 2], 1, 1),
                f"{path}.skip.resample_filter": FILTER,
            }
    return state


def nvidia_forward(
    t: Tensors,
    z: Tensor,
    onehot: Tensor | None = None,
    *,
    psi: float = 1.0,
    clamp: float = 256.0,
    lr_multiplier: float = 0.01,
) -> Tensor:
    t = {name: entry.double() for name, entry in t.items()}
    w = normalize(z.double())
    if onehot is not None:
        w = torch.cat(
            [w, normalize(equalized_linear(onehot.double(), t["mapping.embed.weight"], t["mapping.embed.bias"]))], 1
        )
    for index in range(3):
        w = scaled_leaky_relu(
            equalized_linear(w, t[f"mapping.fc{index}.weight"], t[f"mapping.fc{index}.bias"], lr_multiplier)
        )
    w = t["mapping.w_avg"] + psi * (w - t["mapping.w_avg"])

    def style(path: str, row: Tensor) -> Tensor:
        return equalized_linear(row, t[f"{path}.affine.weight"], t[f"{path}.affine.bias"])

    def layer(x: Tensor, path: str, row: Tensor, *, up: bool = False, gain: float = 1.0) -> Tensor:
        x = (
            modulated_conv(x, t[f"{path}.weight"], style(path, row), up=up)
            + t[f"{path}.noise_const"] * t[f"{path}.noise_strength"]
        )
        return (scaled_leaky_relu(x + t[f"{path}.bias"][:, None, None]) * gain).clamp(-clamp * gain, clamp * gain)

    images = []
    for row in w:
        x, rgb = t["synthesis.b4.const"], None
        for size in RESOLUTIONS:
            path = f"synthesis.b{size}"
            if size == 4:
                x = layer(x, f"{path}.conv1", row)
            elif f"{path}.skip.weight" in t:
                kernel = t[f"{path}.skip.weight"]
                shortcut = upsample(F.conv2d(x[None], kernel / kernel.shape[1] ** 0.5)[0]) * 0.5**0.5
                x = shortcut + layer(layer(x, f"{path}.conv0", row, up=True), f"{path}.conv1", row, gain=0.5**0.5)
            else:
                x = layer(layer(x, f"{path}.conv0", row, up=True), f"{path}.conv1", row)
            rgb = None if rgb is None else upsample(rgb)
            if f"{path}.torgb.weight" in t:
                kernel = t[f"{path}.torgb.weight"]
                block_rgb = modulated_conv(
                    x, kernel, style(f"{path}.torgb", row) / kernel.shape[1] ** 0.5, demodulate=False
                )
                block_rgb = (block_rgb + t[f"{path}.torgb.bias"][:, None, None]).clamp(-clamp, clamp)
                rgb = block_rgb if rgb is None else rgb + block_rgb
        assert rgb is not None
        images.append(rgb)
    return torch.stack(images).float()


def persistent(cls: str, net: nn.Module, **settings: Any) -> Any:
    """An object as NVIDIA's persistence pickles it: source text beside the state."""
    return Persistent(
        {"type": "class", "version": 6, "module_src": SOURCE, "class_name": cls, "state": {**net.__dict__, **settings}}
    )


class Persistent:
    """Pickled as a call of `_reconstruct_persistent_obj`."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("the file was unpickled")


CLASS_NAMES = {
    "mapping": "MappingNetwork",
    "synthesis": "SynthesisNetwork",
    "fc": "FullyConnectedLayer",
    "embed": "FullyConnectedLayer",
    "affine": "FullyConnectedLayer",
    "conv": "SynthesisLayer",
    "torgb": "ToRGBLayer",
    "skip": "Conv2dLayer",
    "b": "SynthesisBlock",
}
BUFFERS = ("resample_filter", "noise_const", "w_avg")


def make_network_pickle(
    tensors: Tensors,
    *,
    lr_multiplier: float = 0.01,
    clamp: float | None = 256.0,
    activation: str = "lrelu",
    name: str = "",
) -> Any:
    """A network as in NVIDIA's pickles: every module is a persistent object with its tensors and plain attributes."""
    net = nn.Module()
    for key, entry in tensors.items():
        if "." not in key:
            net.register_buffer(key, entry) if key in BUFFERS else net.register_parameter(key, nn.Parameter(entry))
    for prefix in dict.fromkeys(key.split(".")[0] for key in tensors if "." in key):
        inner = {
            key.removeprefix(f"{prefix}."): entry for key, entry in tensors.items() if key.startswith(f"{prefix}.")
        }
        net._modules[prefix] = make_network_pickle(
            inner, lr_multiplier=lr_multiplier, clamp=clamp, activation=activation, name=prefix
        )
    letters = name.rstrip("0123456789")
    is_linear = letters in ("embed", "affine", "skip")
    settings: dict[str, Any] = (
        {"activation": "linear" if is_linear else activation}
        if letters in ("fc", "conv", "embed", "affine", "skip")
        else {}
    )
    settings |= {"bias_gain": lr_multiplier if letters == "fc" else 1} if letters in ("fc", "embed", "affine") else {}
    settings |= {"conv_clamp": clamp} if letters in ("conv", "torgb") else {}
    return persistent(CLASS_NAMES.get(letters, "Generator"), net, **settings)


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_close(samples: Tensor, expected: Tensor) -> None:
    """float32 against float64: some 10^2 additions at each of 7 layers, each off by 6e-8 of values up to 30."""
    assert samples.shape == expected.shape and expected.std() > 0.05
    assert torch.allclose(samples, expected, atol=1e-4 * float(expected.std()), rtol=1e-5)
