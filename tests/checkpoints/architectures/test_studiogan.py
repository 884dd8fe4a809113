"""StudioGAN's files become the generators that they are: against networks written here with torch's own layers and that code's names.

Spectral norm is torch's own (the old one, as there); batch statistics and power iterations are those of a few training batches.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

K, DIM, WIDTH, EMBEDDED = 5, 12, 8, 6


class Cond(nn.Module):
    """Batch norm whose gain and bias are linear in what it is told."""

    def __init__(self, told: int, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width, 1e-4, affine=False)
        self.gain, self.bias = normed(nn.Linear(told, width, bias=False)), normed(nn.Linear(told, width, bias=False))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.bn(x) * (1 + self.gain(y))[..., None, None] + self.bias(y)[..., None, None]
        return out


class Plain(nn.BatchNorm2d):
    def __init__(self, told: int, width: int) -> None:
        super().__init__(width, 1e-4)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(x)


def normed(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of the old spectral_norm
        return nn.utils.spectral_norm(layer, eps=1e-6)


def conv(into: int, out: int, kernel: int, bias: bool = True) -> nn.Module:
    return normed(nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias))


class Wide(nn.Module):
    """Two 3x3 convolutions; the side doubles before the first."""

    def __init__(self, norm: Any, told: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = norm(told, WIDTH), norm(told, WIDTH)
        self.conv2d0, self.conv2d1, self.conv2d2 = conv(WIDTH, WIDTH, 1), conv(WIDTH, WIDTH, 3), conv(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv2d1(F.interpolate(self.bn1(x, y).relu(), scale_factor=2, mode="nearest"))
        out: Tensor = self.conv2d2(self.bn2(h, y).relu()) + self.conv2d0(
            F.interpolate(x, scale_factor=2, mode="nearest")
        )
        return out


class Deep(nn.Module):
    """A bottleneck of four convolutions; with a convolution on the shortcut in StudioGAN's own kind."""

    def __init__(self, norm: Any, told: int, doubled: bool, shortcut: bool) -> None:
        super().__init__()
        self.doubled, inner = doubled, WIDTH // 4
        self.bn1, self.bn2, self.bn3, self.bn4 = (
            norm(told, WIDTH),
            norm(told, inner),
            norm(told, inner),
            norm(told, inner),
        )
        self.conv2d1, self.conv2d2, self.conv2d3, self.conv2d4 = (
            conv(WIDTH, inner, 1),
            conv(inner, inner, 3),
            conv(inner, inner, 3),
            conv(inner, WIDTH, 1),
        )
        if shortcut:
            self.conv2d0 = conv(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.bn2(self.conv2d1(self.bn1(x, y).relu()), y).relu()
        if self.doubled:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv2d3(self.bn3(self.conv2d2(h), y).relu())
        out: Tensor = self.conv2d4(self.bn4(h, y).relu()) + (self.conv2d0(x) if hasattr(self, "conv2d0") else x)
        return out


class Deconv(nn.Module):
    def __init__(self, norm: Any, told: int, into: int, out: int) -> None:
        super().__init__()
        self.deconv0, self.bn0 = normed(nn.ConvTranspose2d(into, out, 4, 2, 1)), norm(told, out)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        out: Tensor = self.bn0(self.deconv0(x), y).relu()
        return out


class Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1x1_theta, self.conv1x1_phi = conv(WIDTH, WIDTH // 8, 1, False), conv(WIDTH, WIDTH // 8, 1, False)
        self.conv1x1_g, self.conv1x1_attn = conv(WIDTH, WIDTH // 2, 1, False), conv(WIDTH // 2, WIDTH, 1, False)
        self.sigma = nn.Parameter(torch.tensor([0.8]))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        n, _, high, wide = x.shape
        key, value = (
            F.max_pool2d(part(x), 2).reshape(n, -1, high * wide // 4) for part in (self.conv1x1_phi, self.conv1x1_g)
        )
        weight = torch.einsum("ncq,nck->nqk", self.conv1x1_theta(x).reshape(n, -1, high * wide), key).softmax(-1)
        out: Tensor = x + self.sigma * self.conv1x1_attn(
            torch.einsum("nck,nqk->ncq", value, weight).reshape(n, -1, high, wide)
        )
        return out


class Studio(nn.Module):
    def __init__(self, backbone: str, *, classes: int | None = K, attention: bool = True) -> None:
        super().__init__()
        self.backbone, self.classes, blocks = backbone, classes, 3
        big, deep = backbone.startswith("big"), "deep_" in backbone and backbone != "deep_conv"
        self.chunk = DIM // (blocks + 1) if backbone == "big_resnet" else 0
        told = (self.chunk or DIM if big else 0) + (0 if classes is None else EMBEDDED if big else K)
        norm = Cond if told else Plain
        if big and classes:
            self.shared = nn.Embedding(K, EMBEDDED)
        first = 2 * WIDTH if backbone == "deep_conv" else WIDTH
        self.linear0 = normed(nn.Linear(told if deep else self.chunk or DIM, first * 16))
        made: list[nn.Module] = []
        for index in range(blocks):
            if backbone == "deep_conv":
                made.append(Deconv(norm, told, first if index == 0 else WIDTH, WIDTH))
            else:
                made += (
                    [Deep(norm, told, place == 1, "studiogan" in backbone) for place in range(2)]
                    if deep
                    else [Wide(norm, told)]
                )
            made += [Attend()] if attention and index == 1 else []
        self.blocks = nn.ModuleList([nn.ModuleList([block]) for block in made])
        if backbone == "deep_conv":
            self.conv4 = conv(WIDTH, 3, 3)
        else:
            self.bn4, self.conv2d5 = nn.BatchNorm2d(WIDTH, 1e-4), conv(WIDTH, 3, 3)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        y = (
            None
            if self.classes is None
            else self.shared(label)
            if hasattr(self, "shared")
            else F.one_hot(label, K).float()
        )
        known = [] if y is None else [y]
        if self.backbone.startswith("big_resnet_deep"):
            z = torch.cat([*known, z], 1)
            told: list[Any] = [z] * 6
        elif self.chunk:
            z, *rest = z.split(self.chunk, 1)
            told = [torch.cat([*known, piece], 1) for piece in rest]
        else:
            told = [y] * 3
        x = self.linear0(z)
        x = x.reshape(len(z), -1, 4, 4)
        for (block,) in self.blocks:  # type: ignore[misc]
            x = block(x, None if isinstance(block, Attend) else told.pop(0))  # type: ignore[has-type]
        x = self.conv4(x) if self.backbone == "deep_conv" else self.conv2d5(self.bn4(x).relu())
        return torch.tanh(x)


def trained(net: nn.Module, batches: int = 8) -> nn.Module:
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for entry in net.parameters():
            if entry.ndim == 1 and len(entry) > 1:
                entry += 0.1 * torch.randn(entry.shape, generator=rng)
        net.train()
        for _ in range(batches):
            net(torch.randn(8, DIM, generator=rng), torch.randint(K, (8,), generator=rng))
    return net.eval()


KINDS: dict[str, dict[str, Any]] = {
    "big_resnet": {},
    "big_resnet without classes": {"classes": None},
    "resnet": {},
    "resnet without classes": {"classes": None, "attention": False},
    "deep_conv": {},
    "deep_conv without classes": {"classes": None, "attention": False},
    "big_resnet_deep_legacy": {},
    "big_resnet_deep_studiogan": {},
    "big_resnet_deep_legacy without classes": {"classes": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_outputs_are_those_of_the_layers(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    backbone = kind.split()[0]
    net = trained(Studio(backbone, **KINDS[kind]))
    file = tmp_path / "model=G_ema-best-weights-step=2000.pth"
    torch.save({"state_dict": net.state_dict()}, file)
    network, classes = load_generator(file), KINDS[kind].get("classes", K)
    assert (network.subject["family"], network.latent.dim, network.output.shape) == (
        f"StudioGAN {backbone}",
        DIM,
        (3, 32, 32),
    )
    assert (network.classes, network.condition) == (classes, "index" if classes else None)
    z, labels = torch.randn(6, DIM), torch.arange(6) % K
    with torch.no_grad():
        wanted = net(z, labels)
    assert wanted.std() > 0.02
    assert torch.allclose(network.forward(z, labels if classes else None), wanted, atol=1e-5)


def test_batch_norm_is_seen_by_the_probes(tmp_path: Path) -> None:
    net = trained(Studio("resnet"), 60)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "G.pth")
    found = [
        statistics_mismatch(load_generator(tmp_path / "G.pth", AuditConfig(activation=name))) for name in (None, "tanh")
    ]
    assert found[0] is not None and found[1] is not None and 2 * found[0] < found[1]  # the wrong activation shows


def test_the_folder_of_a_training(tmp_path: Path) -> None:
    for name, classes in (
        ("G-best-weights-step=900", K),
        ("G_ema-best-weights-step=900", None),
        ("G_ema-current-weights-step=1000", K),
    ):
        state = {
            "state_dict": Studio("resnet", classes=classes).state_dict(),
            "optimizer": {"state": {}, "param_groups": []},
        }
        torch.save(state, tmp_path / f"model={name}.pth")
    torch.save(
        {"state_dict": {"linear1.weight": torch.zeros(1, 8)}, "best_fid": 9.0},
        tmp_path / "model=D-best-weights-step=900.pth",
    )
    network = load_generator(tmp_path)
    assert network.classes is None and "model=G_ema-best-weights-step=900.pth was taken" in network.notes[-1]
    assert load_generator(tmp_path, AuditConfig(weights="raw")).classes == K


def test_variants_that_are_not_rebuilt_say_why(tmp_path: Path) -> None:
    state = {**Studio("resnet").state_dict(), "info_mix_linear.weight": torch.zeros(DIM, DIM + 4)}
    torch.save({"state_dict": state}, tmp_path / "model=G-best-weights-step=1.pth")
    with pytest.raises(LoadError, match="InfoGAN variant"):
        load_generator(tmp_path / "model=G-best-weights-step=1.pth")


def test_as_many_classes_as_latents_is_a_question(tmp_path: Path) -> None:
    """resnet with K one-hot classes and big_resnet with pieces of K latents have the same shapes: a flag decides."""
    net = Studio("big_resnet", classes=None)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "G.pth")
    assert load_generator(tmp_path / "G.pth").subject["family"] == "StudioGAN big_resnet"
    told = load_generator(tmp_path / "G.pth", AuditConfig(classes=3))
    assert (told.subject["family"], told.classes, told.latent.dim) == ("StudioGAN resnet", 3, 3)
