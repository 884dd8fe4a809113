"""lightweight-gan: checkpoints of its Trainer (fixtures/families/lightweight.py), and layers against plain formulas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_generators import save

from gandiag.checkpoints.architectures.layers.noise_input import find_noise_inputs
from gandiag.checkpoints.architectures.lightweight_gan_layers import (
    FrequencyChannelAttention,
    GlobalContext,
    LocalAndLinearAttention,
    SamePadConv2d,
)
from gandiag.checkpoints.architectures.sampling_controls import override_sampling
from gandiag.checkpoints.batchnorm.moments import batchnorm_mismatch, sample_prior
from gandiag.checkpoints.batchnorm.thresholds import GOOD_MISMATCH
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch
from gandiag.sampling.latents import make_noise_sampler

ROOT = Path(__file__).resolve().parents[3] / "fixtures" / "families"
STRIDE = 8  # the reference holds every eighth pixel
SHAPES = {"lightweight": (3, 128, 128), "lightweight_attention": (4, 32, 32)}
LIVE = {"lightweight_frequencies": (1, 128, 128), "lightweight_256": (3, 256, 256)}


def max_error(network: LoadedGenerator, reference: dict[str, Tensor], name: str) -> float:
    expected = reference[f"{name}.samples"]
    assert expected.std() > 0.1
    return float((network.forward(reference[f"{name}.z"])[:, :, ::STRIDE, ::STRIDE] - expected).abs().max())


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_outputs_match_the_library(name: str) -> None:
    network = load_generator(ROOT / name / "model_1.pt", AuditConfig(noise="none"))
    assert (network.subject["family"], network.output.shape, network.output.range) == (
        "lightweight-gan",
        SHAPES[name],
        (0.0, 1.0),
    )
    assert network.subject["weights"].startswith("GAN.GE (EMA copy; the raw GAN.G is there too")
    assert max_error(network, load_file(ROOT / "lightweight.safetensors"), name) < 1e-4
    assert (ROOT / name / "model_1.pt").stat().st_size < 160_000


def test_all_samples_share_one_noise_image() -> None:
    path = ROOT / "lightweight" / "model_1.pt"
    z = load_file(ROOT / "lightweight.safetensors")["lightweight.z"][:1].expand(2, -1)
    with_noise, without_noise = load_generator(path), load_generator(path, AuditConfig(noise="none"))
    assert torch.equal(with_noise.forward(z)[0], with_noise.forward(z)[1])
    assert not torch.allclose(with_noise.forward(z), without_noise.forward(z), atol=1e-3)


def test_assumptions_describe_the_layers() -> None:
    network = load_generator(ROOT / "lightweight_attention" / "model_1.pt")
    attention, size = find_assumption(network, "attention"), find_assumption(network, "image_size")
    assert (attention.value, attention.note) == ((16,), "resolutions in pixels; heads of 64 channels")
    assert (size.value, size.source, size.note) == (32, "shapes", "from 4 pixels, doubled by pixel shuffle")
    assert (
        find_assumption(network, "antialiasing").value is None and find_assumption(network, "excitation").value is None
    )
    network = load_generator(ROOT / "lightweight" / "model_1.pt")
    assert find_assumption(network, "antialiasing").note.startswith("[1, 2, 1]")
    assert find_assumption(network, "excitation").value == "global context"
    strict = AuditConfig(strict=True, prior="normal", output_range=(0.0, 1.0))
    assert load_generator(ROOT / "lightweight" / "model_1.pt", strict).output.range == (0.0, 1.0)
    raw = load_generator(ROOT / "lightweight" / "model_1.pt", AuditConfig(weights="raw"))
    assert raw.subject["weights"].startswith("GAN.G; its EMA copy GAN.GE")


# releases before 1.0, by their shapes


def draw_tensors(
    *, noise: bool, size: int, blur: bool = False, layers: int = 2, width: int = 6, seed: int = 0
) -> dict[str, Tensor]:
    """A generator in the layout of 0.16 to 0.21, with plausible BatchNorm statistics."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng) * 0.3

    def norm(path: str, channels: int) -> dict[str, Tensor]:
        leaves = {
            "weight": 1 + draw(channels),
            "bias": draw(channels),
            "running_mean": draw(channels),
            "running_var": 0.5 + draw(channels).abs(),
        }
        return {f"{path}.{name}": entry for name, entry in leaves.items()} | {
            f"{path}.num_batches_tracked": torch.tensor(9)
        }

    state = {
        "initial_conv.0.weight": draw(5, 2 * width, 4, 4),
        "initial_conv.0.bias": draw(2 * width),
        **norm("initial_conv.1", 2 * width),
    }
    for index in range(layers):
        path, inner = f"layers.{index}.0", "2" if size == 3 else "2.1"
        state |= {f"{path}.1.f": torch.tensor([1.0, 2.0, 1.0])} if blur else {}
        state |= {
            f"{path}.{inner}.weight": draw(2 * width, width, size, size),
            f"{path}.{inner}.bias": draw(2 * width),
        }
        state |= {f"{path}.3.weight": draw(1)} if noise else {}
        state |= norm(f"{path}.{4 if noise else 3}", 2 * width)
    return state | {"out_conv.weight": draw(3, width, 3, 3), "out_conv.bias": draw(3) + 0.5}


def forward(t: dict[str, Tensor], z: Tensor, mode: str, *, noise: bool, size: int) -> Tensor:
    def gated(path: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            t[f"{path}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        a, b = ((x - mean) / (var + 1e-5).sqrt() * weight + bias).chunk(2, 1)
        return a * b.sigmoid()

    x = gated(
        "initial_conv.1",
        torch.einsum("bi,iohw->bohw", z, t["initial_conv.0.weight"]) + t["initial_conv.0.bias"][:, None, None],
    )
    x = x / x.norm(dim=1, keepdim=True)
    for index in range(sum(name.endswith(".0.2.weight") or name.endswith(".0.2.1.weight") for name in t)):
        path, inner = f"layers.{index}.0", "2" if size == 3 else "2.1"
        x = (
            x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            if mode == "nearest"
            else F.interpolate(x, scale_factor=2, mode="bilinear")
        )
        if f"{path}.1.f" in t:
            kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
            x = torch.cat(
                [F.conv2d(F.pad(part, (1, 1, 1, 1), mode="reflect"), kernel[None, None]) for part in x.split(1, 1)], 1
            )
        x = F.conv2d(
            F.pad(x, (1, 1, 1, 1) if size == 3 else (2, 1, 2, 1)),
            t[f"{path}.{inner}.weight"],
            t[f"{path}.{inner}.bias"],
        )
        x = gated(f"{path}.{4 if noise else 3}", x)
    return F.conv2d(x, t["out_conv.weight"], t["out_conv.bias"], padding=1).clamp(0, 1)


@pytest.mark.parametrize(
    "version, layout, mode",
    [
        ("0.20.7", {"noise": False, "size": 3, "blur": True}, "nearest"),
        ("0.21.2", {"noise": True, "size": 3}, "bilinear"),
        ("0.21.3", {"noise": True, "size": 4}, "bilinear"),
        ("0.21.4", {"noise": True, "size": 4}, "nearest"),
        (None, {"noise": True, "size": 4}, "nearest"),
    ],
)
def test_releases_before_pixel_shuffle(tmp_path: Path, version: str | None, layout: dict[str, Any], mode: str) -> None:
    tensors = draw_tensors(**layout)
    content = {
        "GAN": {f"{head}.{name}": entry for head in ("G", "GE") for name, entry in tensors.items()},
        **({"version": version} if version else {}),
    }
    network = load_generator(
        save(content, tmp_path, "model_1.pt"), AuditConfig(noise="none" if layout["noise"] else "const")
    )
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    samples = network.forward(z)
    assert samples.std() > 0.05 and network.output.shape == (3, 16, 16)
    assert torch.allclose(samples, forward(tensors, z, mode, noise=layout["noise"], size=layout["size"]), atol=1e-5)
    size = find_assumption(network, "image_size")
    assert mode in size.note
    sources = {"0.21.3": ("file", "version"), "0.21.4": ("file", "version"), None: ("family", "lightweight-gan")}
    assert (size.source, size.origin) == sources.get(version, ("shapes", ""))


def test_statistics_are_compared_under_random_noise_as_in_training(tmp_path: Path) -> None:
    """One noise image for all samples, the default of audits, would look like a loading error."""
    tensors = {
        name: entry if entry.shape != (1,) else torch.full((1,), 3.0)
        for name, entry in draw_tensors(noise=True, size=4).items()
    }
    network, rng = load_generator(save(tensors, tmp_path, "G.pt")), torch.Generator().manual_seed(3)
    network.module.train()
    with torch.no_grad():
        for step in range(60):
            with override_sampling(
                network.module, noise_mode="random", noise_sampler=make_noise_sampler(step, torch.arange(32))
            ):
                network.module(torch.randn(32, 5, generator=rng))
    network.module.eval()
    with_random_noise, with_fixed_noise = (
        statistics_mismatch(network),
        batchnorm_mismatch(network.forward, network.module, sample_prior(256, (5,), "normal", 0), None),
    )
    assert with_random_noise is not None and with_fixed_noise is not None
    assert with_random_noise < GOOD_MISMATCH and with_fixed_noise > 2 * with_random_noise
    assert not any(part.mode == "random" for part in find_noise_inputs(network.module))


def test_unsupported_releases_are_refused(tmp_path: Path) -> None:
    tensors = draw_tensors(noise=False, size=3)
    weights = {f"{head}.{name}": entry for head in ("G", "GE") for name, entry in tensors.items()}
    with pytest.raises(LoadError, match=r"from version 0\.15\.2, whose excitations are added") as caught:
        load_generator(save({"GAN": weights, "version": "0.15.2"}, tmp_path, "model_1.pt"))
    assert "lightweight-gan<0.16" in caught.value.hint and "--model" in caught.value.hint
    outdated = tensors | {"layers.0.2.g": torch.ones(1, 6, 1, 1), "layers.0.2.fn.to_q.weight": torch.ones(512, 6, 1, 1)}
    with pytest.raises(LoadError, match=r"attention from before version 0\.20"):
        load_generator(save(outdated, tmp_path, "model_1.pt"))
    with pytest.raises(LoadError, match=r"layers\.1\.0\.9\.weight is not part of it"):
        load_generator(save(tensors | {"layers.1.0.9.weight": torch.ones(3)}, tmp_path, "model_1.pt"))


# layers


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    rng = torch.Generator().manual_seed(seed)
    for entry in [*module.parameters(), *module.buffers()]:
        entry.data.copy_(torch.randn(entry.shape, generator=rng) * 0.3)
    return module.eval()


def test_excitations_are_weighted_sums_through_a_gate() -> None:
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    shapes = {
        "to_k.weight": (1, 4, 1, 1),
        "net.0.weight": (3, 4, 1, 1),
        "net.2.weight": (6, 3, 1, 1),
        "dct_weights": (1, 4, 5, 5),
    }
    tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    for module in (fill(GlobalContext(tensors, "")), fill(FrequencyChannelAttention(tensors, ""))):
        state = module.state_dict()
        if "to_k.weight" in state:
            weights = (torch.einsum("bchw,c->bhw", x, state["to_k.weight"].flatten()) + state["to_k.bias"]).exp()
            pooled = torch.einsum("bchw,bhw->bc", x, weights / weights.sum((1, 2), keepdim=True))
        else:
            pooled = torch.einsum("bchw,chw->bc", x, state["dct_weights"][0])
        hidden = F.leaky_relu(pooled @ state["net.0.weight"][:, :, 0, 0].T + state["net.0.bias"], 0.1)
        expected = (hidden @ state["net.2.weight"][:, :, 0, 0].T + state["net.2.bias"]).sigmoid()
        assert torch.allclose(module(x)[:, :, 0, 0], expected, atol=1e-6)


def test_window_attention_matches_attention_of_each_pixel_alone() -> None:
    module = fill(LocalAndLinearAttention(3, 128), seed=3)
    x = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    state = module.state_dict()
    q, (k, v) = F.conv2d(x, state["to_q.weight"]), F.conv2d(x, state["to_kv.weight"]).chunk(2, 1)
    k, v = F.pad(k, (1, 1, 1, 1)), F.pad(v, (1, 1, 1, 1))
    expected = torch.zeros(1, 128, 4, 5)
    for head in (slice(0, 64), slice(64, 128)):
        for row in range(4):
            for column in range(5):
                window = [part[0, head, row : row + 3, column : column + 3].flatten(1) for part in (k, v)]  # (64, 9)
                expected[0, head, row, column] = window[1] @ ((q[0, head, row, column] / 8) @ window[0]).softmax(0)
    assert isinstance(module, LocalAndLinearAttention)
    assert torch.allclose(module._attend_locally(x), expected, atol=1e-5)


def test_even_kernels_keep_the_resolution() -> None:
    assert SamePadConv2d(2, 3, 4)(torch.zeros(1, 2, 6, 8)).shape == (1, 3, 6, 8)


@pytest.mark.slow
def test_live_against_the_library(tmp_path: Path) -> None:
    """The recipes, with those too large to ship, run against the package unpacked in GANDIAG_FAMILY_LIBS."""
    libs = os.environ.get("GANDIAG_FAMILY_LIBS")
    if libs is None or not (Path(libs) / "lightweight_gan").exists():
        pytest.skip(
            "GANDIAG_FAMILY_LIBS does not name a folder with lightweight_gan and einops "
            "(see fixtures/families/lightweight.py)"
        )
    for name, shape in {**SHAPES, **LIVE}.items():
        subprocess.run(
            [sys.executable, ROOT / "lightweight.py", "--libs", libs, "--out", tmp_path, "--only", name],
            check=True,
            timeout=600,
        )
        network = load_generator(tmp_path / name / "model_1.pt", AuditConfig(noise="none"))
        assert network.output.shape == shape
        assert max_error(network, load_file(tmp_path / "lightweight.safetensors"), name) < 1e-4, name
