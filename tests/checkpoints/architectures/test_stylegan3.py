"""StyleGAN3 and StyleGAN-XL against the forward pass of Karras et al. 2021, sample by sample in double precision."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from stylegan2_reference import draw, equalized_linear, make_network_pickle, normalize, save, scaled_leaky_relu
from torch import Tensor

from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.loader import load_generator
from gandiag.errors import LoadError

Tensors = dict[str, Tensor]
Z_DIM, W_DIM, CHANNELS, CLASSES = 5, 6, 4, 3
FILTER_SIZE, MARGIN, INPUT_RATE = 3, 2, 8
# name, samples per image before and after the layer, window after it; windows are the rate plus twice the margin
LAYERS = (("L0_12_4", 8, 8, 12), ("L1_20_3", 8, 16, 20), ("L2_16_3", 16, 16, 16), ("L3_16_3", 16, 16, 16))


def make_tensors(variant: str = "t", classes: int = 0, *, xl: bool = False, seed: int = 0) -> Tensors:
    """A checkpoint of 16 pixels. `variant` r: 1x1 kernels, and radial filters for downsampling."""
    normal = draw(seed)
    state = {"mapping.w_avg": normal(classes, W_DIM) if xl else normal(W_DIM)}
    width = Z_DIM + (0 if not classes else Z_DIM if xl else W_DIM)
    for index, into in enumerate((width, W_DIM)):
        state[f"mapping.fc{index}.weight"] = normal(W_DIM, into, scale=100.0)
        state[f"mapping.fc{index}.bias"] = normal(W_DIM, scale=30.0)
    if xl:
        state |= {"mapping.embed.weight": normal(classes, 7), "mapping.embed_proj.weight": normal(Z_DIM, 7)}
        state["mapping.embed_proj.bias"] = normal(Z_DIM, scale=0.1)
    elif classes:
        state |= {"mapping.embed.weight": normal(W_DIM, classes), "mapping.embed.bias": normal(W_DIM, scale=0.1)}
    state |= {
        "synthesis.input.weight": normal(CHANNELS, CHANNELS),
        "synthesis.input.affine.weight": normal(4, W_DIM, scale=0.3),
        "synthesis.input.affine.bias": torch.tensor([1.0, 0.2, 0.1, 0.0]),
        "synthesis.input.transform": torch.eye(3),
        "synthesis.input.freqs": normal(CHANNELS, 2).clamp(-1.3, 1.3),
        "synthesis.input.phases": normal(CHANNELS),
    }
    into = CHANNELS
    for name, rate_in, rate_out, _ in LAYERS:
        out, is_last = int(name.split("_")[2]), name == LAYERS[-1][0]
        kernel = 1 if is_last or variant == "r" else 3
        path = f"synthesis.{name}"
        state |= {
            f"{path}.weight": normal(out, into, kernel, kernel),
            f"{path}.bias": normal(out, scale=0.3),
            f"{path}.affine.weight": normal(into, W_DIM, scale=0.3),
            f"{path}.affine.bias": 1 + normal(into, scale=0.3),
            f"{path}.magnitude_ema": torch.tensor(1.7),
        }
        if not is_last:
            up, down = 2 * rate_out // rate_in, 2
            state[f"{path}.up_filter"] = normal(FILTER_SIZE * up, scale=0.3)
            taps = FILTER_SIZE * down
            shape = (taps, taps) if variant == "r" and name != "L2_16_3" else (taps,)
            state[f"{path}.down_filter"] = normal(*shape, scale=0.3)
        into = out
    return state


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """A true convolution of (C, H, W) without padding; a kernel of one axis is applied along both."""
    square = kernel if kernel.ndim == 2 else kernel[:, None] * kernel
    return F.conv2d(x[:, None], square.flip(0, 1)[None, None])[:, 0]


def filter_layer(t: Tensors, x: Tensor, row: Tensor, layer: tuple[str, int, int, int], size_in: int) -> Tensor:
    name, rate_in, rate_out, size_out = layer
    path, is_last = f"synthesis.{name}", name == LAYERS[-1][0]
    style = equalized_linear(row, t[f"{path}.affine.weight"], t[f"{path}.affine.bias"])
    weight = t[f"{path}.weight"] * style[None, :, None, None]
    k = weight.shape[-1]
    if is_last:
        weight = weight / math.sqrt(weight[0].numel())
    else:
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
    x = F.conv2d(x[None], weight / t[f"{path}.magnitude_ema"].sqrt(), padding=k - 1)[0]
    x = x + t[f"{path}.bias"][:, None, None]
    if is_last:
        return x
    up, down = 2 * max(rate_in, rate_out) // rate_in, 2 * max(rate_in, rate_out) // rate_out
    wide = x.new_zeros(len(x), x.shape[1] * up, x.shape[2] * up)
    wide[:, ::up, ::up] = x
    up_filter, down_filter = t[f"{path}.up_filter"], t[f"{path}.down_filter"]
    # appendix C.3: as many samples as the next window takes; the samples stay centered
    total = (size_out - 1) * down + 1 - (size_in + k - 1) * up + len(up_filter) + len(down_filter) - 2
    before = (total + up) // 2
    wide = F.pad(wide, (before, total - before, before, total - before))
    x = scaled_leaky_relu(convolve(wide, up_filter * up))
    return convolve(x, down_filter)[:, ::down, ::down]


def forward(
    tensors: Tensors, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, output_scale: float = 0.25
) -> Tensor:
    t = {name: entry.double() for name, entry in tensors.items()}
    w, mean = normalize(z.double()), t["mapping.w_avg"]
    if "mapping.embed_proj.weight" in t:
        embedded = equalized_linear(
            t["mapping.embed.weight"][labels], t["mapping.embed_proj.weight"], t["mapping.embed_proj.bias"]
        )
        w, mean = torch.cat([w, normalize(scaled_leaky_relu(embedded))], 1), mean[labels]
    elif labels is not None:
        rows = F.one_hot(labels, CLASSES).double()
        embedded = equalized_linear(rows, t["mapping.embed.weight"], t["mapping.embed.bias"])
        w = torch.cat([w, normalize(embedded)], 1)
    for index in (0, 1):
        w = scaled_leaky_relu(equalized_linear(w, t[f"mapping.fc{index}.weight"], t[f"mapping.fc{index}.bias"], 0.01))
    images = []
    for row in mean + psi * (w - mean):
        x = fourier_features(t, row)
        size = INPUT_RATE + 2 * MARGIN
        for layer in LAYERS:
            x = filter_layer(t, x, row, layer, size)
            size = layer[3]
        images.append(x * output_scale)
    return torch.stack(images).float()


def fourier_features(t: Tensors, row: Tensor) -> Tensor:
    """Waves sin(2 pi (f x + p)) at the places of the samples, which the style turns and shifts."""
    cos, sin, shift_x, shift_y = equalized_linear(
        row, t["synthesis.input.affine.weight"], t["synthesis.input.affine.bias"]
    )
    length = math.hypot(cos, sin)
    cos, sin, shift_x, shift_y = (part / length for part in (cos, sin, shift_x, shift_y))
    size = INPUT_RATE + 2 * MARGIN
    places = [(index + 0.5 - size / 2) / INPUT_RATE for index in range(size)]
    image = torch.empty(CHANNELS, size, size, dtype=torch.double)
    for i, y in enumerate(places):
        for j, x in enumerate(places):
            at_x, at_y = x - shift_x, y - shift_y
            turned = torch.stack([cos * at_x - sin * at_y, sin * at_x + cos * at_y])
            waves = t["synthesis.input.freqs"] @ turned + t["synthesis.input.phases"]
            image[:, i, j] = torch.sin(2 * math.pi * waves)
    return torch.einsum("oc,chw->ohw", t["synthesis.input.weight"] / math.sqrt(CHANNELS), image)


@pytest.mark.parametrize(
    "variant, classes, xl", [("t", 0, False), ("r", 0, False), ("t", CLASSES, False), ("t", CLASSES, True)]
)
def test_outputs_match_the_paper(tmp_path: Path, variant: str, classes: int, xl: bool) -> None:
    tensors, z = make_tensors(variant, classes, xl=xl), draw(9)(3, Z_DIM)
    labels = torch.tensor([0, 2, 1]) if classes else None
    network = load_generator(save({"G_ema": tensors}, tmp_path / "G.pt"))
    synthesis, scale = find_assumption(network, "synthesis"), find_assumption(network, "output_scale")
    assert network.subject["family"] == ("StyleGAN-XL" if xl else "StyleGAN3")
    assert synthesis.value == ("StyleGAN-XL" if xl else f"StyleGAN3-{variant}")
    assert (network.latent.dim, network.output.shape, network.classes) == (Z_DIM, (3, 16, 16), classes or None)
    assert (scale.value, scale.source) == (0.25, "family")
    expected = forward(tensors, z, labels)
    assert expected.std() > 0.02
    assert torch.allclose(network.forward(z, labels), expected, atol=1e-5)
    with override_sampling(network.module, psi=0.6):
        assert torch.allclose(network.forward(z, labels), forward(tensors, z, labels, psi=0.6), atol=1e-5)


def test_a_super_resolution_stage_leaves_one_number_out(tmp_path: Path) -> None:
    tensors, z = make_tensors(), draw(9)(2, Z_DIM)
    renamed = {name.replace("L3_16_3", "L4_16_3").replace("L2_16_3", "L3_16_3"): e for name, e in tensors.items()}
    network = load_generator(save({"G_ema": renamed}, tmp_path / "G.pt"))
    assert torch.allclose(network.forward(z), forward(tensors, z), atol=1e-5)


def test_a_network_pickle_states_its_settings(tmp_path: Path) -> None:
    tensors, z = make_tensors(), draw(9)(2, Z_DIM)
    pickled = make_network_pickle(tensors)
    parts = pickled.meta["state"]["_modules"]
    parts["synthesis"].meta["state"]["output_scale"] = 0.5
    first = parts["synthesis"].meta["state"]["_modules"]["L1_20_3"].meta["state"]
    first |= {"up_factor": 4, "down_factor": 2}
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": pickled}))
    network = load_generator(tmp_path / "G.pkl")
    scale, multiplier = find_assumption(network, "output_scale"), find_assumption(network, "lr_multiplier")
    assert (scale.value, scale.source, multiplier.value, multiplier.source) == (0.5, "file", 0.01, "file")
    assert torch.allclose(network.forward(z), forward(tensors, z, output_scale=0.5), atol=1e-5)
    first["up_factor"] = 2
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": pickled}))
    with pytest.raises(LoadError, match="up_factor of L1_20_3 is not 4, as its filters say"):
        load_generator(tmp_path / "G.pkl")


def _rename(state: Tensors, old: str, new: str) -> None:
    for name in [name for name in state if old in name]:
        state[name.replace(old, new)] = state.pop(name)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda t: t.pop("synthesis.L1_20_3.up_filter"), "holds one of its two filters"),
        (lambda t: t.update({"synthesis.L1_20_3.up_filter": torch.ones(7)}), "filter of 7 taps"),
        (lambda t: t.update({"synthesis.L1_20_3.up_filter": torch.ones(3, 4)}), "not a filter"),
        (lambda t: t.pop("synthesis.input.freqs"), "synthesis.input.freqs is missing"),
        (lambda t: t.pop("synthesis.L2_16_3.affine.weight"), "affine.weight is missing"),
        (lambda t: _rename(t, "L3_16_3", "L3_99999_3"), "up to 99999 pixels"),
        (lambda t: _rename(t, "L3_16_3", "L7_16_3"), "not numbered in a row"),
        (lambda t: _rename(t, "L0_12_4", "L0_6_4"), "lead from 6 to 16 pixels"),
        (lambda t: t.update({"synthesis.L2_16_3.weight": torch.ones(3, 9, 3, 3)}), "layers do not fit together"),
        (lambda t: t.update({"synthesis.input.affine.weight": torch.ones(3, W_DIM)}), "a rotation and a shift"),
        (lambda t: t.update({"mapping.fc1.weight": torch.ones(W_DIM, 2)}), "mapping.fc1.weight|fc1.weight is"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: Callable[[Tensors], Any], reason: str) -> None:
    tensors = make_tensors("t", CLASSES)
    damage(tensors)
    with pytest.raises(LoadError, match=reason):
        load_generator(save({"G_ema": tensors}, tmp_path / "G.pt"))
