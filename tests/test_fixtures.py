"""The shipped fixtures are what fixtures/make.py says: loadable, small, reproducible, collapsed as declared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parent.parent / "fixtures"
IMAGES = ("healthy", "mode_dropping", "collapsed", "scale_mismatched")
N = 400  # samples a side


@pytest.fixture(scope="module")
def kit() -> Iterator[Any]:
    """The modules that made the fixtures, imported as make.py imports them."""
    sys.path.insert(0, str(ROOT))
    try:
        import distil
        import render
        import ring

        yield type("Kit", (), {"distil": distil, "render": render, "ring": ring})
    finally:
        sys.path.remove(str(ROOT))
        for name in ("distil", "render", "ring"):
            sys.modules.pop(name, None)


def sample(kit: Any, name: str, scale: float = 1.0, n: int = N) -> Tensor:
    """n images of a shipped generator in eval mode, (n, 3, 32, 32) in [0, 1]."""
    state = torch.load(ROOT / f"{name}.pt", weights_only=True)
    net = kit.distil.DCGAN(state["main.0.weight"].shape[0], state["main.6.weight"].shape[1], torch.Generator())
    net.load_state_dict(state)
    with torch.no_grad():
        images: Tensor = net.eval()(kit.render.latents(n, torch.Generator().manual_seed(7), scale))
    return (images + 1) / 2


def real(start: int) -> Tensor:
    """N shipped real images from `start` on, (N, 3, 32, 32) in [0, 1]."""
    images = np.load(ROOT / "real.npz")["images"][start : start + N]
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def covered(reference: Tensor, other: Tensor, k: int = 5) -> float:
    """Share of reference images with one of `other` nearer than their k-th neighbour, in 8x8 pooled pixels."""
    a, b = (F.avg_pool2d(images, 4).flatten(1) for images in (reference, other))  # (N, 192)
    radius = torch.cdist(a, a).kthvalue(k + 1, dim=1).values  # the first is the image itself
    return float((torch.cdist(a, b).min(dim=1).values < radius).float().mean())


@pytest.mark.parametrize("name", IMAGES)
def test_generators_are_plain_dcgan_state_dicts(name: str) -> None:
    state = torch.load(ROOT / f"{name}.pt", weights_only=True)
    convolutions = [f"main.{i}.weight" for i in (0, 3, 6, 9)]
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert set(state) == {*convolutions, *(f"main.{i}.{kind}" for i in (1, 4, 7) for kind in kinds)}
    assert state["main.0.weight"].shape[0] == 32 and state["main.9.weight"].shape[1:] == (3, 4, 4)
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_training_state_holds_raw_and_averaged_weights() -> None:
    document = torch.load(ROOT / "training_state.pt", weights_only=True)
    assert set(document) == {"epoch", "netG", "netG_ema", "netD", "optimizerG"}
    assert {key.removeprefix("module.") for key in document["netG"]} == set(document["netG_ema"])
    assert all(key.startswith("module.") for key in document["netG"])


def test_files_are_small() -> None:
    sizes = {
        path: path.stat().st_size for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    formats = {
        folder: sum(size for path, size in sizes.items() if path.is_relative_to(ROOT / folder))
        for folder in ("families", "logs")
    }
    assert max(sizes.values()) <= 3_000_000 and sum(sizes.values()) - sum(formats.values()) <= 8_000_000
    assert 0 < formats["families"] <= 2_000_000 and 0 < formats["logs"] <= 1_500_000
    assert all((ROOT / f"{name}.pt").stat().st_size <= 1_500_000 for name in IMAGES)


def test_real_images_are_what_the_renderer_draws(kit: Any) -> None:
    shipped = np.load(ROOT / "real.npz")
    drawn = kit.render.factors(kit.render.latents(1600, torch.Generator().manual_seed(1)))
    once, again = (kit.render.to_uint8(kit.render.render(drawn)).numpy() for _ in range(2))
    assert np.array_equal(once, again)
    # Another processor may round a pixel to the neighbouring level (levels are 3 apart), never further.
    assert np.abs(once.astype(int) - shipped["images"]).max() <= 3
    assert np.array_equal(drawn.label.numpy(), shipped["labels"])
    assert np.bincount(shipped["labels"]).min() > 110  # 160 each but for chance: 4 standard deviations are 48


def test_class_folders_hold_32_pixel_rgb_images(kit: Any) -> None:
    folders = sorted(path for path in (ROOT / "real_by_class").iterdir())
    assert [folder.name for folder in folders] == sorted(kit.render.CLASSES)
    for folder in folders:
        files = list(folder.glob("*.png"))
        assert len(files) == 4
        for file in files:
            with Image.open(file) as image:
                assert image.size == (32, 32) and image.mode == "RGB"


@pytest.mark.parametrize("name", IMAGES)
def test_batch_norm_statistics_are_those_of_the_training_prior(name: str) -> None:
    """Behind the first layer, which is linear in z, variance = scale² x |w|², so the file tells its latent scale."""
    state = torch.load(ROOT / f"{name}.pt", weights_only=True)
    energy = state["main.0.weight"].square().sum(0).mean((1, 2))  # (C,)
    scale = (state["main.1.running_var"] / energy).sqrt().median()
    assert float(scale) == pytest.approx(0.02 if name == "scale_mismatched" else 1.0, rel=0.02)


def test_healthy_covers_the_real_data_and_the_others_do_not(kit: Any) -> None:
    reference, null = real(0), covered(real(0), real(N))
    assert null > 0.95
    assert covered(reference, sample(kit, "healthy")) > null - 0.06
    assert covered(reference, sample(kit, "scale_mismatched", scale=0.02)) > null - 0.06
    assert covered(reference, sample(kit, "mode_dropping")) == pytest.approx(0.5, abs=0.1)
    assert (
        covered(reference, sample(kit, "collapsed")) < 0.15
    )  # one image can cover its own class, a tenth, and no other
    assert covered(reference, sample(kit, "scale_mismatched", scale=1.0)) < 0.1


def test_scale_mismatched_saturates_to_one_image_at_the_usual_scale(kit: Any) -> None:
    trained, usual = (F.pdist(sample(kit, "scale_mismatched", scale).flatten(1)).median() for scale in (0.02, 1.0))
    assert float(usual) < 0.02 * float(trained)


def stack(state: dict[str, Tensor], n: int) -> Tensor:
    """Points (n, 2) of a Linear/ReLU stack."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(3))
    for layer in (0, 2):
        x = F.linear(x, state[f"net.{layer}.weight"], state[f"net.{layer}.bias"]).relu()
    return F.linear(x, state["net.4.weight"], state["net.4.bias"])


def modes(kit: Any, points: Tensor) -> Tensor:
    """How many points lie within 4 sigma of each of the ring's eight centres, (8,)."""
    return (torch.cdist(points, kit.ring.centres()) < 4 * kit.ring.SIGMA).sum(0)


def test_the_ring_has_eight_modes_and_its_generators_reach_eight_and_one(kit: Any) -> None:
    real_points = torch.from_numpy(np.load(ROOT / "ring.npz")["points"])
    assert real_points.shape == (4000, 2) and real_points.dtype == torch.float32
    healthy = stack(torch.load(ROOT / "ring_healthy.pt", weights_only=True)["generator"], 4000)
    one = stack(load_file(ROOT / "ring_one_mode.safetensors"), 4000)
    # 500 in each mode but for chance; a hundredth of the generator's lie on a step between two.
    assert modes(kit, real_points).min() > 400 and modes(kit, real_points).sum() > 3980
    assert modes(kit, healthy).min() > 400 and modes(kit, healthy).sum() > 3880
    assert modes(kit, one)[0] > 3980 and modes(kit, one)[1:].sum() == 0
