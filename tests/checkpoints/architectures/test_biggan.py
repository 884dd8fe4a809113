"""Checkpoints of ajbrock's BigGAN against the paper's forward pass, written out with the names of that code.

Spectral norm here is one power iteration per call, as in training code; BatchNorm is the formula. Tolerance 1e-5: the
arithmetic is the same except for its order. No package contains that code, so the tests write these networks with its
names and buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assumption_lookup import find_assumption
from torch import Tensor

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

State = dict[str, Tensor]


class PaperBigGan:
    """A generator as a state dict and formulas.

    `hierarchical`: z is divided into chunks; `deep`: bottleneck blocks; `shared`: one class embedding for all norms;
    `standing`: the BatchNorm class with standing statistics.
    """

    def __init__(
        self,
        *,
        blocks: int = 3,
        width: int = 8,
        dim: int = 16,
        classes: int = 5,
        embedding_dim: int = 6,
        hierarchical: bool = True,
        deep: bool = False,
        shared: bool = True,
        spectral: bool = True,
        attention: int | None = 1,
        standing: bool = False,
    ) -> None:
        self.rng, self.state = torch.Generator().manual_seed(blocks + dim), State()
        self.deep, self.shared, self.spectral, self.attention, self.standing = (
            deep,
            shared,
            spectral,
            attention,
            standing,
        )
        self.blocks, self.width, self.classes = blocks, width, classes
        self.chunk = dim // (blocks + 1) if hierarchical and shared and not deep else 0
        self.dim = self.chunk * (blocks + 1) if self.chunk else dim
        self.norm_inputs = embedding_dim + (dim if deep else self.chunk)
        if shared:
            self.state["shared.weight"] = self.draw(classes, embedding_dim)
        self.add_layer("linear", width * 16, self.norm_inputs if deep else self.chunk or dim)
        for block in range(blocks):
            self.add_block(f"blocks.{block}.0")
            if block == attention:
                for name, out, into in (
                    ("theta", width // 8, width),
                    ("phi", width // 8, width),
                    ("g", width // 2, width),
                    ("o", width, width // 2),
                ):
                    self.add_layer(f"blocks.{block}.1.{name}", out, into, 1, bias=False)
                self.state[f"blocks.{block}.1.gamma"] = torch.tensor(0.8)
        self.state |= {"output_layer.0.gain": 1 + 0.2 * self.draw(width), "output_layer.0.bias": 0.2 * self.draw(width)}
        self.add_statistics("output_layer.0", width)
        self.add_layer("output_layer.2", 3, width, 3)

    def add_block(self, prefix: str) -> None:
        inner = self.width // 4 if self.deep else self.width
        sizes = (
            [(self.width, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, self.width, 1)]
            if self.deep
            else [(self.width, self.width, 3)] * 2
        )
        for index, (into, out, kernel) in enumerate(sizes, 1):
            self.add_layer(f"{prefix}.conv{index}", out, into, kernel)
            for name in ("gain", "bias"):
                if self.shared:
                    self.add_layer(f"{prefix}.bn{index}.{name}", into, self.norm_inputs, bias=False)
                else:
                    self.state[f"{prefix}.bn{index}.{name}.weight"] = 0.3 * self.draw(self.classes, into)
            self.add_statistics(f"{prefix}.bn{index}", into)
        if not self.deep:
            self.add_layer(f"{prefix}.conv_sc", self.width, self.width, 1)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng)

    def add_layer(self, name: str, out: int, into: int, kernel: int = 0, bias: bool = True) -> None:
        self.state[f"{name}.weight"] = (
            self.draw(out, into, *([kernel] * 2 if kernel else [])) / (into * max(1, kernel) ** 2) ** 0.5
        )
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.draw(out)
        if self.spectral:
            self.state |= {f"{name}.u0": self.draw(1, out), f"{name}.sv0": torch.ones(1)}

    def add_statistics(self, prefix: str, width: int) -> None:
        prefix = f"{prefix}.bn" if self.standing else prefix
        self.state |= {
            f"{prefix}.stored_mean": 0.1 * self.draw(width),
            f"{prefix}.stored_var": self.draw(width).square() + 0.5,
        }
        if self.standing:
            self.state[f"{prefix}.accumulation_counter"] = torch.zeros(1)

    # the forward pass

    def weight(self, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"]
        if f"{name}.u0" not in self.state:
            return weight
        matrix, u = weight.flatten(1), self.state[f"{name}.u0"]
        v = F.normalize(u @ matrix)
        u = F.normalize(v @ matrix.T)
        return weight / (v @ matrix.T @ u.T).squeeze()

    def apply(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weight(name), self.state.get(f"{name}.bias")
        return (
            F.linear(x, weight, bias) if weight.ndim == 2 else F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        )

    def norm(self, prefix: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        prefix = f"{prefix}.bn" if self.standing else prefix
        count = float(self.state.get(f"{prefix}.accumulation_counter", torch.zeros(1))) or 1.0
        mean, var = (self.state[f"{prefix}.stored_{name}"][:, None, None] / count for name in ("mean", "var"))
        return (x - mean) * torch.rsqrt(var + 1e-5) * gain[..., None, None] + bias[..., None, None]

    def conditional_norm(self, prefix: str, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = (
            (self.apply(f"{prefix}.{name}", y) if self.shared else self.state[f"{prefix}.{name}.weight"][y])
            for name in ("gain", "bias")
        )
        return self.norm(prefix, x, 1 + gain, bias).relu()

    def block(self, prefix: str, x: Tensor, y: Tensor, upsample: bool) -> Tensor:
        count = 4 if self.deep else 2
        h = x
        for index in range(1, count + 1):
            h = self.conditional_norm(f"{prefix}.bn{index}", h, y)
            if index == count // 2 and upsample:
                h, x = (part.repeat_interleave(2, 2).repeat_interleave(2, 3) for part in (h, x))
            h = self.apply(f"{prefix}.conv{index}", h)
        return h + (x if self.deep else self.apply(f"{prefix}.conv_sc", x))

    def attend(self, prefix: str, x: Tensor) -> Tensor:
        n, _, high, wide = x.shape
        theta = self.apply(f"{prefix}.theta", x).reshape(n, -1, high * wide)
        phi, g = (
            F.max_pool2d(self.apply(f"{prefix}.{name}", x), 2).reshape(n, -1, high * wide // 4) for name in ("phi", "g")
        )
        beta = torch.softmax(torch.einsum("ncq,nck->nqk", theta, phi), -1)
        return x + self.state[f"{prefix}.gamma"] * self.apply(
            f"{prefix}.o", torch.einsum("nck,nqk->ncq", g, beta).reshape(n, -1, high, wide)
        )

    def __call__(self, z: Tensor, labels: Tensor) -> Tensor:
        y = self.state["shared.weight"][labels] if self.shared else labels
        conditioning, first = [y] * self.blocks, z
        if self.deep:
            first = torch.cat([y, z], 1)
            conditioning = [first] * self.blocks
        elif self.chunk:
            first, *rest = z.split(self.chunk, 1)
            conditioning = [torch.cat([y, chunk], 1) for chunk in rest]
        x = self.apply("linear", first).reshape(len(z), self.width, 4, 4)
        for block in range(self.blocks):
            x = self.block(f"blocks.{block}.0", x, conditioning[block], not self.deep or block % 2 == 1)
            x = self.attend(f"blocks.{block}.1", x) if block == self.attention else x
        x = self.norm("output_layer.0", x, self.state["output_layer.0.gain"], self.state["output_layer.0.bias"]).relu()
        return torch.tanh(self.apply("output_layer.2", x))


KINDS: Mapping[str, dict[str, Any]] = {
    "hierarchical": {},
    "undivided": {"hierarchical": False},
    "unshared": {"shared": False, "attention": None},
    "without_spectral": {"spectral": False},
    "standing": {"standing": True},
    "deep": {"deep": True, "blocks": 4},
    "one_block": {"blocks": 1, "attention": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_match_the_paper(tmp_path: Path, kind: str) -> None:
    paper = PaperBigGan(**KINDS[kind])
    torch.save(paper.state, tmp_path / "G_ema.pth")
    network = load_generator(tmp_path / "G_ema.pth")
    size = 4 * 2 ** (paper.blocks // 2 if paper.deep else paper.blocks)
    assert (network.latent.dim, network.classes, network.condition, network.output.shape) == (
        paper.dim,
        5,
        "index",
        (3, size, size),
    )
    assert network.subject["family"] == ("BigGAN-deep (ajbrock)" if paper.deep else "BigGAN (ajbrock)")
    z, labels = torch.randn(6, paper.dim, generator=torch.Generator().manual_seed(3)), torch.arange(6) % 5
    expected = paper(z, labels)
    assert expected.std() > 0.05 and not torch.allclose(expected[0], expected[5], atol=1e-2)
    assert torch.allclose(network.forward(z, labels), expected, atol=1e-5)


def test_standing_statistics_are_sums(tmp_path: Path) -> None:
    paper = PaperBigGan(standing=True)
    for name in paper.state:
        paper.state[name] = paper.state[name] * 16 if ".stored_" in name else paper.state[name]
        paper.state[name] += 16 if name.endswith("accumulation_counter") else 0
    torch.save(paper.state, tmp_path / "G.pth")
    network = load_generator(tmp_path / "G.pth")
    statistics = find_assumption(network, "batchnorm_statistics")
    assert (statistics.value, statistics.source, statistics.origin) == ("standing", "file", "accumulation_counter")
    assert "sums of 16 batches" in statistics.note
    z, labels = torch.randn(3, paper.dim), torch.arange(3)
    assert torch.allclose(network.forward(z, labels), paper(z, labels), atol=1e-5)


def test_the_mismatch_probe_sees_these_batchnorms(tmp_path: Path) -> None:
    torch.save(PaperBigGan().state, tmp_path / "G.pth")
    network = load_generator(tmp_path / "G.pth")
    mismatch = statistics_mismatch(network)
    assert mismatch is not None and mismatch > 0.15  # the statistics were drawn at random


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"blocks.0.0.bn1.stored_mean": None, "blocks.0.0.bn1.stored_var": None}, "has no stored statistics"),
        ({"blocks.0.0.conv1.weight": torch.zeros(8, 4, 3, 3)}, "do not fit together"),
        ({"blocks.0.0.extra": torch.zeros(3)}, "is not part of it"),
        ({"linear.weight": torch.zeros(128, 7)}, "not the 6 of the class alone or with a chunk of z of 7"),
        ({"linear.u0": torch.zeros(1, 5)}, "is not a left singular vector"),
        ({"linear.u0": torch.ones(1, 128, dtype=torch.int64)}, "is not a left singular vector"),
        ({"blocks.1.1.gamma": None}, "gamma is missing"),
        ({"blocks.0.0.bn1.accumulation_counter": torch.ones(1)}, "does not belong to stored statistics"),
    ],
)
def test_inconsistent_tensors_are_refused(tmp_path: Path, change: dict[str, Tensor | None], reason: str) -> None:
    state = {name: change.get(name, entry) for name, entry in {**PaperBigGan().state, **change}.items()}
    torch.save({name: entry for name, entry in state.items() if entry is not None}, tmp_path / "G.pth")
    with pytest.raises(LoadError, match=reason):
        load_generator(tmp_path / "G.pth")


def test_the_image_size_of_biggan_deep_can_be_given(tmp_path: Path) -> None:
    torch.save(PaperBigGan(deep=True, blocks=4).state, tmp_path / "G.pth")
    assert load_generator(tmp_path / "G.pth", AuditConfig(image_size=8)).output.shape == (3, 8, 8)
    with pytest.raises(LoadError, match="--image-size 24 contradicts 4 blocks"):
        load_generator(tmp_path / "G.pth", AuditConfig(image_size=24))


def test_a_training_folder(tmp_path: Path) -> None:
    for name, dim in (
        ("G.pth", 16),
        ("G_ema.pth", 20),
        ("G_optim.pth", 0),
        ("G_ema_best3.pth", 24),
        ("state_dict.pth", 0),
    ):
        torch.save(
            PaperBigGan(dim=dim).state
            if dim
            else {"itr": 3, "best_FID": 9.5, "config": {"G_activation": torch.nn.ReLU()}},
            tmp_path / name,
        )
    assert load_generator(tmp_path).latent.dim == 20
    assert load_generator(tmp_path, AuditConfig(weights="raw")).latent.dim == 16
    (tmp_path / "G_ema.pth").unlink()
    (tmp_path / "G_ema_best3.pth").unlink()
    assert load_generator(tmp_path).latent.dim == 16
    with pytest.raises(LoadError, match="training bookkeeping") as caught:
        load_generator(tmp_path / "state_dict.pth")
    assert "G.pth" in caught.value.hint
