"""R3GAN against the forward pass of Huang et al. 2024, written out over plain tensors with different arithmetic."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import save

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

CHANNELS, GROUPS, BLOCKS = (12, 12, 8), (3, 2, 4), (2, 1, 1)
LATENT, EMBEDDING_DIM, CLASSES, RESOLUTION = 7, 5, 4, 16


def draw_tensors(classes: int | None, *, taps: tuple[float, ...] = (1, 2, 1), seed: int = 0) -> dict[str, Tensor]:
    """A state dict under the names of the public files, expansion 2."""
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        state[name] = torch.randn(*shape, generator=rng) * scale

    filtered = torch.tensor([a + b for a, b in zip((*taps, 0), (0, *taps), strict=True)])
    for stage, (width, groups, blocks) in enumerate(zip(CHANNELS, GROUPS, BLOCKS, strict=True)):
        path = f"MainLayers.{stage}.Layers."
        if stage == 0:
            add(path + "0.Basis", width, 4, 4, scale=1.0)
            add(path + "0.LinearLayer.weight", width, LATENT + (EMBEDDING_DIM if classes else 0))
        else:
            state[path + "0.Resampler.Kernel"] = filtered[:, None] * filtered[None] / filtered.sum() ** 2
            if CHANNELS[stage - 1] != width:
                add(path + "0.LinearLayer.Layer.weight", width, CHANNELS[stage - 1], 1, 1)
        for block in range(1, blocks + 1):
            add(f"{path}{block}.LinearLayer1.Layer.weight", 2 * width, width, 1, 1)
            add(f"{path}{block}.LinearLayer2.Layer.weight", 2 * width, 2 * width // groups, 3, 3)
            add(f"{path}{block}.LinearLayer3.Layer.weight", width, 2 * width, 1, 1)
            add(f"{path}{block}.NonLinearity1.Bias", 2 * width)
            add(f"{path}{block}.NonLinearity2.Bias", 2 * width)
    add("AggregationLayer.Layer.weight", 3, CHANNELS[-1], 1, 1)
    if classes:
        add("EmbeddingLayer.weight", EMBEDDING_DIM, classes, scale=1.0)
    return state


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Zeros between the pixels, then the filter as a sum of shifted images, times 4 to make up for the zeros."""
    wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    reach = len(kernel) // 2
    padded = F.pad(wide, (reach, reach, reach, reach))
    out = torch.zeros_like(wide)
    for i in range(len(kernel)):
        for j in range(len(kernel)):
            # tap (i, j) carries the pixel at p to p + (i, j) - (reach - 1)
            out += (
                4
                * kernel[i, j]
                * padded[:, :, 2 * reach - 1 - i :, 2 * reach - 1 - j :][:, :, : wide.shape[2], : wide.shape[3]]
            )
    return out


def grouped_conv(x: Tensor, weight: Tensor) -> Tensor:
    """A grouped convolution, one group after another."""
    parts = x.split(weight.shape[1], 1)
    return torch.cat(
        [F.conv2d(part, kernel, padding=1) for part, kernel in zip(parts, weight.chunk(len(parts)), strict=True)], 1
    )


def forward(t: dict[str, Tensor], z: Tensor, labels: Tensor | None) -> Tensor:
    if labels is not None:
        z = torch.cat([z, t["EmbeddingLayer.weight"].T[labels]], 1)
    x = torch.zeros(0)
    for stage, blocks in enumerate(BLOCKS):
        path = f"MainLayers.{stage}.Layers."
        if stage == 0:
            x = torch.einsum("bi,ci,chw->bchw", z, t[path + "0.LinearLayer.weight"], t[path + "0.Basis"])
        else:
            mixed = t.get(path + "0.LinearLayer.Layer.weight")
            x = upsample(x if mixed is None else F.conv2d(x, mixed), t[path + "0.Resampler.Kernel"])
        for block in range(1, blocks + 1):
            w = [t[f"{path}{block}.LinearLayer{i}.Layer.weight"] for i in (1, 2, 3)]
            b = [t[f"{path}{block}.NonLinearity{i}.Bias"][:, None, None] for i in (1, 2)]
            y = F.leaky_relu(F.conv2d(x, w[0]) + b[0], 0.2)
            x = x + F.conv2d(F.leaky_relu(grouped_conv(y, w[1]) + b[1], 0.2), w[2])
    return F.conv2d(x, t["AggregationLayer.Layer.weight"])


def make_module(tensors: dict[str, Tensor], **settings: Any) -> nn.Module:
    """A module with tensors of these names, as a training snapshot pickles it."""
    root = nn.Module()
    for name, entry in tensors.items():
        *path, leaf = name.split(".")
        part = root
        for step in path:
            if step not in part._modules:
                part.add_module(step, nn.Module())
            part = part.get_submodule(step)
        part.register_buffer(leaf, entry) if leaf == "Kernel" else part.register_parameter(leaf, nn.Parameter(entry))
    for key, value in settings.items():
        setattr(root, key, value)
    return root


def save_snapshot(folder: Path, **settings: Any) -> str:
    attributes = {"z_dim": LATENT, "c_dim": CLASSES, "img_resolution": RESOLUTION, **settings}
    nets = {
        name: make_module(
            {f"Model.{key}": entry for key, entry in draw_tensors(CLASSES, seed=seed).items()}, **attributes
        )
        for name, seed in (("G", 1), ("G_ema", 0))
    }
    nets["G_ema"].get_submodule("Model.MainLayers.2").DataType = torch.bfloat16  # type: ignore[assignment]
    (folder / "network-snapshot.pkl").write_bytes(
        pickle.dumps({**nets, "training_set_kwargs": {"use_labels": True}, "cur_nimg": 1})
    )
    return str(folder / "network-snapshot.pkl")


@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("taps", [(1, 2, 1), (1, 4, 6, 4, 1)])
def test_outputs_match_the_paper(tmp_path: Path, classes: int | None, taps: tuple[float, ...]) -> None:
    tensors = draw_tensors(classes, taps=taps)
    network = load_generator(save(tensors, tmp_path, "r3gan.pt"))
    z, labels = (
        torch.randn(5, LATENT, generator=torch.Generator().manual_seed(2)),
        torch.arange(5) % CLASSES if classes else None,
    )
    samples = network.forward(z, labels)
    assert samples.std() > 0.1
    assert torch.allclose(samples, forward(tensors, z, labels), atol=1e-5)
    assert not torch.allclose(network.forward(3 * z, labels), samples, atol=0.1)  # z is not normalized


def test_loaded_facts(tmp_path: Path) -> None:
    network = load_generator(save(draw_tensors(CLASSES), tmp_path, "r3gan.pt"))
    assert (network.subject["family"], network.latent.dim, network.latent.prior, network.output.shape) == (
        "R3GAN",
        LATENT,
        "normal",
        (3, RESOLUTION, RESOLUTION),
    )
    assert (network.classes, network.condition, network.output.range) == (CLASSES, "onehot", (-1.0, 1.0))
    assert network.subject["parameters"] == sum(entry.numel() for name, entry in draw_tensors(CLASSES).items())
    flagged = load_generator(
        save(draw_tensors(None), tmp_path, "r3gan.pt"), AuditConfig(prior="uniform", output_range=(0.0, 1.0))
    )
    assert (flagged.latent.prior, flagged.output.range, flagged.classes) == ("uniform", (0.0, 1.0), None)


def test_a_training_snapshot_gives_the_average_and_its_settings(tmp_path: Path) -> None:
    network = load_generator(save_snapshot(tmp_path))
    z, labels = torch.randn(3, LATENT, generator=torch.Generator().manual_seed(2)), torch.arange(3)
    assert torch.allclose(network.forward(z, labels), forward(draw_tensors(CLASSES, seed=0), z, labels), atol=1e-5)
    assert network.subject["weights"].startswith("G_ema (EMA copy; the raw G is there too")
    raw = load_generator(save_snapshot(tmp_path), AuditConfig(weights="raw"))
    assert torch.allclose(raw.forward(z, labels), forward(draw_tensors(CLASSES, seed=1), z, labels), atol=1e-5)
    size, precision = find_assumption(network, "latent_dim"), find_assumption(network, "precision")
    assert (size.value, size.source, size.origin, size.note) == (7, "file", "z_dim", "agrees with the shapes")
    assert (precision.value, precision.source) == ("float32", "gandiag")
    assert precision.note == "throughout; the file runs stages 2 in bfloat16"


def test_inconsistent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="c_dim is 9 in the file, but 4 by its shapes"):
        load_generator(save_snapshot(tmp_path, c_dim=9))
    odd_filter = draw_tensors(None) | {"MainLayers.1.Layers.0.Resampler.Kernel": torch.ones(3, 3)}
    with pytest.raises(LoadError, match="not a square filter of even size"):
        load_generator(save(odd_filter, tmp_path, "odd.pt"))
    mismatched = draw_tensors(None) | {
        "MainLayers.2.Layers.0.LinearLayer.Layer.weight": torch.ones(CHANNELS[2], 5, 1, 1)
    }
    with pytest.raises(LoadError, match="its layers do not fit together"):
        load_generator(save(mismatched, tmp_path, "torn.pt"))
    extra = draw_tensors(None) | {"MainLayers.1.Layers.1.Gain": torch.ones(3)}
    with pytest.raises(LoadError, match=r"MainLayers\.1\.Layers\.1\.Gain is not part of it"):
        load_generator(save(extra, tmp_path, "more.pt"))
    with pytest.raises(LoadError, match=r"MainLayers\.0\.Layers\.1\.NonLinearity1\.Bias is missing"):
        load_generator(
            save(
                {
                    name: entry
                    for name, entry in draw_tensors(None).items()
                    if name != "MainLayers.0.Layers.1.NonLinearity1.Bias"
                },
                tmp_path,
                "less.pt",
            )
        )
