"""StyleGAN2 in the layouts of rosinality and NVIDIA, against the papers' forward pass written out sample by sample in double precision."""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from gandiag.api import audit
from gandiag.checkpoints.architectures import stylegan2_lucidrains, stylegan2_nvidia, stylegan2_rosinality
from gandiag.checkpoints.architectures.layers.linear_attention import LinearAttention
from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.loader import LoadedGenerator, load_generator
from gandiag.checkpoints.state_dict import Weights, cast_to_float32, find_generator_weights
from gandiag.checkpoints.summary import summarize_file
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

Tensors = dict[str, Tensor]
Z, W, SIDE = 6, 8, 16
SIDES = (4, 8, 16)
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
LUCIDRAINS = Path(__file__).resolve().parents[3] / "fixtures" / "families" / "stylegan2" / "model_3.pt"
SOURCE = "raise SystemExit('the source was run')"


def draw(seed: int = 0) -> Callable[..., Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return lambda *shape, scale=1.0: scale * torch.randn(shape, generator=rng)


# the papers, sample by sample


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * 2**0.5


def equal(x: Tensor, weight: Tensor, bias: Tensor, rate: float = 1.0) -> Tensor:
    return x @ (weight * rate / math.sqrt(weight.shape[1])).T + bias * rate


def smooth(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """A true convolution of (C, H, W) by shifts and sums."""
    x, size = F.pad(x, (before, after, before, after)), len(kernel)
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    return sum(
        kernel[size - 1 - a, size - 1 - b] * x[:, a : a + height, b : b + width]
        for a in range(size)
        for b in range(size)
    )  # type: ignore[return-value]


def spaced(x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], 2 * x.shape[1], 2 * x.shape[2])
    out[:, ::2, ::2] = x
    return out


def twice(x: Tensor) -> Tensor:
    """The filter of sum 4 on an image with zeros between its pixels: its middle two taps straddle each pixel."""
    return smooth(spaced(x), 4 * FILTER.double(), 2, 1)


def conv(x: Tensor, weight: Tensor, style: Tensor, *, up: bool = False, demodulate: bool = True) -> Tensor:
    """Eq. 1 and 3 of the paper for one sample: x (I, H, W), weight (O, I, k, k), style (I,)."""
    weight = weight * style[None, :, None, None]
    if demodulate:
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if not up:
        return F.conv2d(x[None], weight, padding=weight.shape[-1] // 2)[0]
    wide = F.conv2d(F.pad(spaced(x)[None, :, :-1, :-1], (2, 2, 2, 2)), weight.flip(2, 3))[
        0
    ]  # every pixel spreads its weight
    return smooth(wide, 4 * FILTER.double(), 1, 1)


def normalised(z: Tensor) -> Tensor:
    return z / (z.square().mean(-1, keepdim=True) + 1e-8).sqrt()


# rosinality's names


def ros(seed: int = 0) -> Tensors:
    normal, found = draw(seed), {"input.input": draw(seed + 1)(1, 5, 4, 4)}
    for index in (1, 2, 3):
        found |= {f"style.{index}.weight": normal(W, W, scale=100.0), f"style.{index}.bias": normal(W, scale=30.0)}

    def styled(path: str, into: int, out: int, k: int, up: bool) -> None:
        found.update(
            {
                f"{path}.weight": normal(1, out, into, k, k),
                f"{path}.modulation.weight": normal(into, W),
                f"{path}.modulation.bias": 1 + normal(into, scale=0.3),
            }
        )
        if up:
            found[f"{path}.blur.kernel"] = 4 * FILTER

    def whole(path: str, into: int, out: int, up: bool) -> None:
        styled(f"{path}.conv", into, out, 3, up)
        found.update({f"{path}.noise.weight": normal(1, scale=0.4), f"{path}.activate.bias": normal(out, scale=0.3)})

    def rgb(path: str, into: int, up: bool) -> None:
        styled(f"{path}.conv", into, 3, 1, False)
        found[f"{path}.bias"] = normal(1, 3, 1, 1, scale=0.3)
        if up:
            found[f"{path}.upsample.kernel"] = 4 * FILTER

    whole("conv1", 5, 5, False)
    rgb("to_rgb1", 5, False)
    for place, (into, out) in enumerate(((5, 4), (4, 3))):
        whole(f"convs.{2 * place}", into, out, True)
        whole(f"convs.{2 * place + 1}", out, out, False)
        rgb(f"to_rgbs.{place}", out, True)
    for index in range(5):
        side = SIDES[(index + 1) // 2]
        found[f"noises.noise_{index}"] = normal(1, 1, side, side)
    return found


def rosinality_forward(
    t: Tensors, z: Tensor, *, psi: float = 1.0, mean: Tensor | None = None, noise: list[Tensor] | None = None
) -> Tensor:
    t = {name: entry.double() for name, entry in t.items()}
    w = normalised(z.double())
    for index in (1, 2, 3):
        w = lrelu(equal(w, t[f"style.{index}.weight"], t[f"style.{index}.bias"], 0.01))
    w = w if mean is None else mean + psi * (w - mean)
    noise = noise or [t[f"noises.noise_{index}"].expand(len(z), 1, -1, -1) for index in range(5)]

    def modulated(x: Tensor, path: str, row: Tensor, **how: bool) -> Tensor:
        weight = t[f"{path}.weight"][0]
        style = equal(row, t[f"{path}.modulation.weight"], t[f"{path}.modulation.bias"])
        return conv(x, weight / math.sqrt(weight[0].numel()), style, **how)

    def layer(x: Tensor, path: str, row: Tensor, picture: Tensor, up: bool = False) -> Tensor:
        x = modulated(x, f"{path}.conv", row, up=up) + t[f"{path}.noise.weight"] * picture
        return lrelu(x + t[f"{path}.activate.bias"][:, None, None])

    made = []
    for at, row in enumerate(w):
        x = layer(t["input.input"][0], "conv1", row, noise[0][at])
        rgb = modulated(x, "to_rgb1.conv", row, demodulate=False) + t["to_rgb1.bias"][0]
        for place in (0, 1):
            x = layer(x, f"convs.{2 * place}", row, noise[2 * place + 1][at], up=True)
            x = layer(x, f"convs.{2 * place + 1}", row, noise[2 * place + 2][at])
            rgb = (
                twice(rgb)
                + modulated(x, f"to_rgbs.{place}.conv", row, demodulate=False)
                + t[f"to_rgbs.{place}.bias"][0]
            )
        made.append(rgb)
    return torch.stack(made).float()


# NVIDIA's names


def ada(kind: str = "skip", classes: int = 0, seed: int = 0) -> Tensors:
    normal, found = draw(seed), {"mapping.w_avg": draw(seed + 1)(W)}
    widths = dict(zip(SIDES, (5, 4, 3), strict=True))
    if classes:
        found |= {"mapping.embed.weight": normal(W, classes), "mapping.embed.bias": normal(W, scale=0.1)}
    for index in range(3):
        found |= {
            f"mapping.fc{index}.weight": normal(W, W if index else Z + W * bool(classes), scale=100.0),
            f"mapping.fc{index}.bias": normal(W, scale=30.0),
        }

    def layer(path: str, into: int, out: int, side: int) -> None:
        found.update(
            {
                f"{path}.weight": normal(out, into, 3, 3),
                f"{path}.bias": normal(out, scale=0.3),
                f"{path}.affine.weight": normal(into, W),
                f"{path}.affine.bias": 1 + normal(into, scale=0.3),
                f"{path}.resample_filter": FILTER,
                f"{path}.noise_const": normal(side, side),
                f"{path}.noise_strength": normal(scale=0.4),
            }
        )

    for side in SIDES:
        path, out = f"synthesis.b{side}", widths[side]
        found[f"{path}.resample_filter"] = FILTER
        if side == 4:
            found[f"{path}.const"] = normal(out, 4, 4)
        else:
            layer(f"{path}.conv0", widths[side // 2], out, side)
        layer(f"{path}.conv1", out, out, side)
        if kind == "skip" or side == SIDE:
            found |= {f"{path}.torgb.weight": normal(3, out, 1, 1), f"{path}.torgb.bias": normal(3, scale=0.3)}
            found |= {
                f"{path}.torgb.affine.weight": normal(out, W),
                f"{path}.torgb.affine.bias": 1 + normal(out, scale=0.3),
            }
        if kind == "resnet" and side > 4:
            found |= {
                f"{path}.skip.weight": normal(out, widths[side // 2], 1, 1),
                f"{path}.skip.resample_filter": FILTER,
            }
    return found


def nvidia_forward(
    t: Tensors, z: Tensor, onehot: Tensor | None = None, *, psi: float = 1.0, clamp: float = 256.0, rate: float = 0.01
) -> Tensor:
    t = {name: entry.double() for name, entry in t.items()}
    w = normalised(z.double())
    if onehot is not None:
        w = torch.cat([w, normalised(equal(onehot.double(), t["mapping.embed.weight"], t["mapping.embed.bias"]))], 1)
    for index in range(3):
        w = lrelu(equal(w, t[f"mapping.fc{index}.weight"], t[f"mapping.fc{index}.bias"], rate))
    w = t["mapping.w_avg"] + psi * (w - t["mapping.w_avg"])

    def style(path: str, row: Tensor) -> Tensor:
        return equal(row, t[f"{path}.affine.weight"], t[f"{path}.affine.bias"])

    def layer(x: Tensor, path: str, row: Tensor, *, up: bool = False, gain: float = 1.0) -> Tensor:
        x = (
            conv(x, t[f"{path}.weight"], style(path, row), up=up)
            + t[f"{path}.noise_const"] * t[f"{path}.noise_strength"]
        )
        return (lrelu(x + t[f"{path}.bias"][:, None, None]) * gain).clamp(-clamp * gain, clamp * gain)

    made = []
    for row in w:
        x, rgb = t["synthesis.b4.const"], None
        for side in SIDES:
            path = f"synthesis.b{side}"
            if side == 4:
                x = layer(x, f"{path}.conv1", row)
            elif f"{path}.skip.weight" in t:
                kernel = t[f"{path}.skip.weight"]
                short = twice(F.conv2d(x[None], kernel / kernel.shape[1] ** 0.5)[0]) * 0.5**0.5
                x = short + layer(layer(x, f"{path}.conv0", row, up=True), f"{path}.conv1", row, gain=0.5**0.5)
            else:
                x = layer(layer(x, f"{path}.conv0", row, up=True), f"{path}.conv1", row)
            rgb = None if rgb is None else twice(rgb)
            if f"{path}.torgb.weight" in t:
                kernel = t[f"{path}.torgb.weight"]
                shown = conv(x, kernel, style(f"{path}.torgb", row) / kernel.shape[1] ** 0.5, demodulate=False)
                shown = (shown + t[f"{path}.torgb.bias"][:, None, None]).clamp(-clamp, clamp)
                rgb = shown if rgb is None else rgb + shown
        assert rgb is not None
        made.append(rgb)
    return torch.stack(made).float()


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def said(network: LoadedGenerator, what: str) -> tuple[str, str]:
    return next((entry.value, entry.source) for entry in network.assumptions if entry.what.startswith(what))


def close(made: Tensor, wanted: Tensor) -> None:
    """float32 against float64: some 10^2 additions at each of 7 layers, each off by 6e-8 of values up to 30."""
    assert made.shape == wanted.shape and wanted.std() > 0.05
    assert torch.allclose(made, wanted, atol=1e-4 * float(wanted.std()), rtol=1e-5)


# rosinality


def test_rosinality_is_the_papers_forward(tmp_path: Path) -> None:
    ema, z = ros(), draw(9)(4, W)
    content = {
        "g": ros(5),
        "d": {"convs.0.0.weight": torch.zeros(4, 3, 1, 1)},
        "g_ema": ema,
        "g_optim": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(size=16, latent=W),
        "ada_aug_p": 0.2,
    }
    network = load_generator(saved(content, tmp_path / "000100.pt"))
    assert network.subject["family"] == "StyleGAN2 (rosinality)" and network.subject["weights"].startswith(
        "g_ema (EMA copy; the raw g is there too"
    )
    assert (network.latent.dim, network.output.shape, network.output.range, network.classes) == (
        W,
        (3, 16, 16),
        (-1.0, 1.0),
        None,
    )
    pictures = sum(entry.numel() for name, entry in ema.items() if name.startswith("noises."))
    filters = sum(entry.numel() for name, entry in ema.items() if name.endswith(".kernel"))
    assert network.subject["parameters"] == sum(entry.numel() for entry in ema.values()) - pictures - filters
    close(network.forward(z), rosinality_forward(ema, z))
    with override_sampling(network.module, noise_mode="none"):
        close(
            network.forward(z),
            rosinality_forward(ema, z, noise=[torch.zeros(4, 1, side, side).double() for side in (4, 8, 8, 16, 16)]),
        )
    raw = load_generator(tmp_path / "000100.pt", AuditConfig(weights="raw"))
    close(raw.forward(z), rosinality_forward(ros(5), z))


def test_rosinality_truncates_towards_the_files_mean_or_its_own(tmp_path: Path) -> None:
    tensors, z, mean = ros(), draw(9)(4, W), draw(3)(W)
    network = load_generator(
        saved({"g_ema": tensors, "latent_avg": mean}, tmp_path / "official.pt"), AuditConfig(psi=0.5)
    )
    assert said(network, "mean style")[0].startswith("latent_avg of the file") and said(network, "truncation") == (
        "0.5",
        "flag",
    )
    close(network.forward(z), rosinality_forward(tensors, z, psi=0.5, mean=mean.double()))
    alone = load_generator(saved({"g_ema": tensors}, tmp_path / "own.pt"), AuditConfig(psi=0.0))
    assert said(alone, "mean style")[0].startswith("the average of 4,096 mapped z")
    w = normalised(draw(7)(20_000, W).double())
    for index in (1, 2, 3):
        w = lrelu(equal(w, tensors[f"style.{index}.weight"].double(), tensors[f"style.{index}.bias"].double(), 0.01))
    assert (alone.module._mean(z) - w.mean(0)).abs().max() < 5 * w.std(0).max() / 4_096**0.5  # type: ignore[operator]
    made = alone.forward(z)
    assert torch.allclose(made, made[:1].expand_as(made), atol=1e-5)


@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_the_rate_of_the_mapping_is_told_by_its_weights(tmp_path: Path, rate: float) -> None:
    tensors = ros()
    changed = {name: entry * 0.01 / rate if name.startswith("style.") else entry for name, entry in tensors.items()}
    network, z = load_generator(saved({"g_ema": changed}, tmp_path / "m.pt")), draw(9)(2, W)
    assert (
        f"factor {rate:g} (its weights have deviation" in said(network, "mapping")[0]
        and said(network, "mapping")[1] == "file"
    )
    close(network.forward(z), rosinality_forward(tensors, z))


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda t: t.pop("convs.2.noise.weight"), "convs.2.noise.weight is missing"),
        (lambda t: t.pop("convs.0.conv.blur.kernel"), "convs.0.conv.blur.kernel is missing"),
        (lambda t: t.update({"convs.1.gate": torch.zeros(2, 2)}), "convs.1.gate is not part of it"),
        (
            lambda t: t.update({"noises.noise_3": torch.zeros(1, 1, 8, 8)}),
            r"noises.noise_3 is \(1, 1, 8, 8\), not \(1, 1, 16, 16\)",
        ),
    ],
)
def test_what_is_not_quite_it_is_not_run(tmp_path: Path, spoil: Callable[[Tensors], Any], reason: str) -> None:
    tensors = ros()
    spoil(tensors)
    with pytest.raises(LoadError, match=f"rosinality: {reason}"):
        load_generator(saved({"g_ema": tensors}, tmp_path / "m.pt"))


# NVIDIA


@pytest.mark.parametrize("kind", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("classes", [0, 3])
def test_nvidia_is_the_papers_forward(tmp_path: Path, kind: str, classes: int) -> None:
    tensors, z = ada(kind, classes), draw(9)(4, Z)
    labels = torch.arange(4) % classes if classes else None
    onehot = None if labels is None else F.one_hot(labels, classes)
    network = load_generator(saved({"G_ema": tensors}, tmp_path / "G.pt"))
    assert network.subject["family"] == "StyleGAN2 (NVIDIA)" and said(network, "synthesis") == (
        f"{kind} architecture to 16 pixels",
        "shapes",
    )
    assert (network.latent.dim, network.output.shape, network.classes) == (Z, (3, 16, 16), classes or None)
    close(network.forward(z, labels), nvidia_forward(tensors, z, onehot))
    with override_sampling(network.module, psi=0.6):
        close(network.forward(z, labels), nvidia_forward(tensors, z, onehot, psi=0.6))


def persistent(cls: str, net: nn.Module, **settings: Any) -> Any:
    """An object as NVIDIA's persistence writes it: source text beside the state."""
    return Persistent(
        {"type": "class", "version": 6, "module_src": SOURCE, "class_name": cls, "state": {**net.__dict__, **settings}}
    )


class Persistent:
    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,)


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("the file was unpickled")


KINDS = {
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


def pickled(
    tensors: Tensors, *, rate: float = 0.01, clamp: float | None = 256.0, way: str = "lrelu", name: str = ""
) -> Any:
    """The network as its pickles hold it: every module a persistent object with its tensors and plain attributes."""
    net = nn.Module()
    for key, entry in tensors.items():
        if "." not in key:
            net.register_buffer(key, entry) if key in BUFFERS else net.register_parameter(key, nn.Parameter(entry))
    for head in dict.fromkeys(key.split(".")[0] for key in tensors if "." in key):
        inner = {key.removeprefix(f"{head}."): entry for key, entry in tensors.items() if key.startswith(f"{head}.")}
        net._modules[head] = pickled(inner, rate=rate, clamp=clamp, way=way, name=head)
    letters = name.rstrip("0123456789")
    linear = letters in ("embed", "affine", "skip")
    settings: dict[str, Any] = (
        {"activation": "linear" if linear else way} if letters in ("fc", "conv", "embed", "affine", "skip") else {}
    )
    settings |= {"bias_gain": rate if letters == "fc" else 1} if letters in ("fc", "embed", "affine") else {}
    settings |= {"conv_clamp": clamp} if letters in ("conv", "torgb") else {}
    return persistent(KINDS.get(letters, "Generator"), net, **settings)


def test_a_network_pickle_says_what_its_tensors_do_not(tmp_path: Path) -> None:
    tensors, z = ada("resnet", 3), draw(9)(4, Z)
    labels = torch.arange(4) % 3
    content = {
        "G": pickled(ada("resnet", 3, 5)),
        "D": None,
        "G_ema": pickled(tensors, rate=0.02, clamp=0.7),
        "augment_pipe": None,
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset"},
    }
    (tmp_path / "network-snapshot-000100.pkl").write_bytes(pickle.dumps(content))
    network = load_generator(tmp_path / "network-snapshot-000100.pkl")
    assert network.subject["family"] == "StyleGAN2 (NVIDIA)" and network.subject["weights"].startswith(
        "G_ema (EMA copy; the raw G is there too"
    )
    assert "code that was not run" in network.notes[0]
    told = [
        line for line in summarize_file(str(tmp_path / "network-snapshot-000100.pkl")).code_actions if "source" in line
    ]
    assert (
        len(told) == 1
        and told[0].startswith(f"carries source text ({len(SOURCE)} characters, sha256 ")
        and "and 2 more classes" in told[0]
    )
    assert said(network, "mapping") == ("3 layers, learning-rate factor 0.02", "file")
    assert said(network, "arithmetic") == ("float32 throughout, convolutions clamped at 0.7", "file")
    wanted = nvidia_forward(tensors, z, F.one_hot(labels, 3), rate=0.02, clamp=0.7)
    close(network.forward(z, labels), wanted)
    assert (
        wanted - nvidia_forward(tensors, z, F.one_hot(labels, 3), rate=0.02)
    ).abs().max() > 0.1  # the clamp was at work


def test_a_network_pickle_without_clamp_and_one_of_another_activation(tmp_path: Path) -> None:
    tensors, z = ada(), draw(9)(2, Z)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": pickled(tensors, clamp=None)}))
    network = load_generator(tmp_path / "a.pkl")
    assert said(network, "arithmetic") == ("float32 throughout, no clamp", "file")
    close(network.forward(z), nvidia_forward(tensors, z))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"G_ema": pickled(tensors, way="swish")}))
    with pytest.raises(LoadError, match="has the activation swish, not lrelu"):
        load_generator(tmp_path / "b.pkl")


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith("synthesis.b8.torgb")],
            "neither at every size nor at the last alone",
        ),
        (lambda t: t.pop("synthesis.b16.conv0.noise_const"), "synthesis.b16.conv0.noise_const is missing"),
        (lambda t: t.update({"synthesis.b32.extra": torch.zeros(3, 3)}), "synthesis.b32.extra is not part of it"),
    ],
)
def test_nvidias_near_misses_are_named(tmp_path: Path, spoil: Callable[[Tensors], Any], reason: str) -> None:
    tensors = ada()
    spoil(tensors)
    with pytest.raises(LoadError, match=f"nvidia: .*{reason}"):
        load_generator(saved({"G_ema": tensors}, tmp_path / "G.pt"))


def test_a_mean_that_is_not_the_mappings_own_is_told(tmp_path: Path) -> None:
    tensors = ada()
    styles = load_generator(saved({"G_ema": tensors}, tmp_path / "a.pt")).module.mapping.sample_w(4_096)  # type: ignore[union-attr,operator]
    right, wrong = dict(tensors), dict(tensors)
    right["mapping.w_avg"], wrong["mapping.w_avg"] = styles.mean(0), styles.mean(0) + 3 * styles.std(0)
    far = "which is far"
    assert far not in said(load_generator(saved({"G_ema": right}, tmp_path / "b.pt")), "mean style")[0]
    assert far in said(load_generator(saved({"G_ema": wrong}, tmp_path / "c.pt")), "mean style")[0]


@pytest.mark.parametrize("tensors, forward", [(ros, rosinality_forward), (ada, nvidia_forward)])
def test_bare_wrapped_sorted_and_halved_files_are_the_same(
    tmp_path: Path, tensors: Callable[[], Tensors], forward: Callable[..., Tensor]
) -> None:
    made = tensors()
    z = draw(9)(2, W if tensors is ros else Z)
    save_file({name: entry.clone() for name, entry in made.items()}, tmp_path / "a.safetensors")
    paths = [
        saved(made, tmp_path / "b.pt"),
        saved({f"module.{name}": entry for name, entry in made.items()}, tmp_path / "c.pt"),
        tmp_path / "a.safetensors",
    ]
    for path in paths:
        close(load_generator(path).forward(z), forward(made, z))
    half = {name: entry.half() for name, entry in made.items()}
    close(
        load_generator(saved(half, tmp_path / "d.pt")).forward(z),
        forward({name: entry.float() for name, entry in half.items()}, z),
    )


@pytest.mark.parametrize("tensors", [ros, ada])
def test_strict_asks_for_what_neither_file_nor_flag_says(tmp_path: Path, tensors: Callable[[], Tensors]) -> None:
    path = saved({"g_ema": tensors()}, tmp_path / "m.pt")
    with pytest.raises(LoadError, match=r"takes no assumptions: .*output range") as caught:
        load_generator(path, AuditConfig(strict=True))
    assert caught.value.hint == "give --prior, --output-range"
    (tmp_path / "config.json").write_text('{"conv_clamp": 256, "lr_mlp": 0.01}')
    network = load_generator(path, AuditConfig(strict=True, output_range=(0.0, 1.0), prior="uniform"))
    assert network.output.range == (0.0, 1.0) and said(network, "output range") == ("[0, 1]", "flag")
    assert network.latent.prior == "uniform" and said(network, "latent prior")[0].startswith(
        "uniform, of which only the direction matters"
    )


# whole audits


def test_an_audit_sweeps_psi_and_weighs_the_noise(tmp_path: Path) -> None:
    path = saved({"g_ema": ros(), "latent_avg": draw(3)(W)}, tmp_path / "m.pt")
    record = audit(path, n=128, features="pixels", psi=0.7, noise="random", device="cpu")
    assert record.response["axis"] == "psi" and "z is normalised" in record.response["reason"]
    points = {point["psi"]: point for point in record.response["points"]}
    assert points[1.0]["spread"] == 1.0 and points[0.25]["spread"] < points[0.5]["spread"] < points[0.7]["spread"] < 1
    share = record.measurements["noise_share"]
    assert share.value is not None and 0 < share.value < 1 and share.better == "lower"
    assert record.subject["latent"]["psi"] == 0.7 and record.subject["latent"]["noise"] == "random"
    told = {entry["what"]: entry["source"] for entry in record.subject["assumptions"]}
    assert told["truncation psi (--psi)"] == told["noise inputs (--noise)"] == "flag"
    assert "noise inputs alone, at a fixed latent" in str(record) and "psi" in str(record)


def test_samples_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    from gandiag.sampling.sampler import Sampler

    network = load_generator(saved({"g_ema": ros()}, tmp_path / "m.pt"), AuditConfig(noise="random"))
    whole = Sampler(network, device="cpu").sample(6, seed=2)
    assert torch.allclose(Sampler(network, device="cpu", batch_size=2).sample(6, seed=2), whole, atol=1e-5)
    assert (whole - Sampler(network, device="cpu").sample(6, seed=3)).abs().max() > 0.1


# damage


def lucidrains_file() -> Tensors:
    return dict(cast_to_float32(find_generator_weights(torch.load(LUCIDRAINS, weights_only=True))).tensors)


FAMILIES = {
    "rosinality": (stylegan2_rosinality.rebuild, ros),
    "nvidia": (stylegan2_nvidia.rebuild, lambda: ada("resnet", 3)),
    "lucidrains": (stylegan2_lucidrains.rebuild, lucidrains_file),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_is_wrong_with_a_file_is_not_its_own(family: str) -> None:
    """Each tensor in turn missing, empty, flat, integer, or also there under a far number: NotThis, and no other error."""
    rebuild, tensors = FAMILIES[family]
    whole = tensors()
    for name in [name for name in whole if name != "mapping.w_avg"][:: max(1, len(whole) // 10)]:
        rest, entry, far = (
            {key: value for key, value in whole.items() if key != name},
            whole[name],
            re.sub(r"\d+", "99999999", name),
        )
        others = [torch.zeros(0), entry.long(), *([entry.flatten()] if entry.ndim != 1 else [])]
        for spoilt in [
            rest,
            *({**rest, name: other} for other in others),
            *([{**whole, far: entry}] if far != name else []),
        ]:
            with pytest.raises(ArchitectureMismatch):
                rebuild(Weights(spoilt), AuditConfig())


# lucidrains' attention


def test_linear_attention_is_attention_with_keys_joined_first() -> None:
    torch.manual_seed(0)
    layer, x = LinearAttention(6, 128), torch.randn(2, 6, 5, 4)
    seen = []
    depth, point = list(layer.to_kv.net)  # type: ignore[arg-type]
    both, queries = point(depth(x)), layer.to_q(x)
    for head in range(2):
        part = slice(64 * head, 64 * head + 64)
        q, k, v = (
            entry.flatten(2).transpose(1, 2)
            for entry in (queries[:, part], both[:, :128][:, part], both[:, 128:][:, part])
        )  # (B, N, 64)
        seen.append(q.softmax(2) / 8 @ (k.softmax(1).transpose(1, 2) @ v))
    wanted = layer.to_out(F.gelu(torch.cat(seen, 2).transpose(1, 2).reshape(2, 128, 5, 4)))
    assert torch.allclose(layer(x), wanted, atol=1e-6)
