"""BigGAN's files become the generators that they are: against the paper's forward, written out plainly with that code's names.

Spectral norm here is one power iteration a call, as in training code; batch norm is the formula. 1e-5: the arithmetic is the same
but for its order. No package holds that code, so these networks are written in the tests, with its names and its buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.probes.batchnorm_mismatch import statistics_mismatch

State = dict[str, Tensor]


class Paper:
    """A generator as a state dict and formulas. `pieces`: a hierarchical z; `deep`: the bottleneck blocks; `shared`: one embedding."""

    def __init__(
        self,
        *,
        blocks: int = 3,
        width: int = 8,
        dim: int = 16,
        classes: int = 5,
        embedded: int = 6,
        pieces: bool = True,
        deep: bool = False,
        shared: bool = True,
        spectral: bool = True,
        attention: int | None = 1,
        mybn: bool = False,
    ) -> None:
        self.rng, self.state = torch.Generator().manual_seed(blocks + dim), State()
        self.pieces, self.deep, self.shared, self.spectral, self.attention, self.mybn = (
            pieces and shared,
            deep,
            shared,
            spectral,
            attention,
            mybn,
        )
        self.blocks, self.width, self.classes = blocks, width, classes
        self.chunk = dim // (blocks + 1) if self.pieces and not deep else 0
        self.dim = self.chunk * (blocks + 1) if self.chunk else dim
        self.told = embedded + (dim if deep else self.chunk)
        if shared:
            self.state["shared.weight"] = self.draw(classes, embedded)
        self.map("linear", width * 16, self.told if deep else self.chunk or dim)
        for block in range(blocks):
            self.make_block(f"blocks.{block}.0")
            if block == attention:
                for name, out, into in (
                    ("theta", width // 8, width),
                    ("phi", width // 8, width),
                    ("g", width // 2, width),
                    ("o", width, width // 2),
                ):
                    self.map(f"blocks.{block}.1.{name}", out, into, 1, bias=False)
                self.state[f"blocks.{block}.1.gamma"] = torch.tensor(0.8)
        self.state |= {"output_layer.0.gain": 1 + 0.2 * self.draw(width), "output_layer.0.bias": 0.2 * self.draw(width)}
        self.statistics("output_layer.0", width)
        self.map("output_layer.2", 3, width, 3)

    def make_block(self, head: str) -> None:
        inner = self.width // 4 if self.deep else self.width
        sizes = (
            [(self.width, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, self.width, 1)]
            if self.deep
            else [(self.width, self.width, 3)] * 2
        )
        for place, (into, out, kernel) in enumerate(sizes, 1):
            self.map(f"{head}.conv{place}", out, into, kernel)
            for name in ("gain", "bias"):
                if self.shared:
                    self.map(f"{head}.bn{place}.{name}", into, self.told, bias=False)
                else:
                    self.state[f"{head}.bn{place}.{name}.weight"] = 0.3 * self.draw(self.classes, into)
            self.statistics(f"{head}.bn{place}", into)
        if not self.deep:
            self.map(f"{head}.conv_sc", self.width, self.width, 1)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng)

    def map(self, name: str, out: int, into: int, kernel: int = 0, bias: bool = True) -> None:
        self.state[f"{name}.weight"] = (
            self.draw(out, into, *([kernel] * 2 if kernel else [])) / (into * max(1, kernel) ** 2) ** 0.5
        )
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.draw(out)
        if self.spectral:
            self.state |= {f"{name}.u0": self.draw(1, out), f"{name}.sv0": torch.ones(1)}

    def statistics(self, head: str, width: int) -> None:
        head = f"{head}.bn" if self.mybn else head
        self.state |= {
            f"{head}.stored_mean": 0.1 * self.draw(width),
            f"{head}.stored_var": self.draw(width).square() + 0.5,
        }
        if self.mybn:
            self.state[f"{head}.accumulation_counter"] = torch.zeros(1)

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

    def norm(self, head: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        head = f"{head}.bn" if self.mybn else head
        count = float(self.state.get(f"{head}.accumulation_counter", torch.zeros(1))) or 1.0
        mean, var = (self.state[f"{head}.stored_{name}"][:, None, None] / count for name in ("mean", "var"))
        return (x - mean) * torch.rsqrt(var + 1e-5) * gain[..., None, None] + bias[..., None, None]

    def told_norm(self, head: str, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = (
            (self.apply(f"{head}.{name}", y) if self.shared else self.state[f"{head}.{name}.weight"][y])
            for name in ("gain", "bias")
        )
        return self.norm(head, x, 1 + gain, bias).relu()

    def block(self, head: str, x: Tensor, y: Tensor, doubled: bool) -> Tensor:
        count = 4 if self.deep else 2
        h = x
        for place in range(1, count + 1):
            h = self.told_norm(f"{head}.bn{place}", h, y)
            if place == count // 2 and doubled:
                h, x = (part.repeat_interleave(2, 2).repeat_interleave(2, 3) for part in (h, x))
            h = self.apply(f"{head}.conv{place}", h)
        return h + (x if self.deep else self.apply(f"{head}.conv_sc", x))

    def attend(self, head: str, x: Tensor) -> Tensor:
        n, _, high, wide = x.shape
        theta = self.apply(f"{head}.theta", x).reshape(n, -1, high * wide)
        phi, g = (
            F.max_pool2d(self.apply(f"{head}.{name}", x), 2).reshape(n, -1, high * wide // 4) for name in ("phi", "g")
        )
        beta = torch.softmax(torch.einsum("ncq,nck->nqk", theta, phi), -1)
        return x + self.state[f"{head}.gamma"] * self.apply(
            f"{head}.o", torch.einsum("nck,nqk->ncq", g, beta).reshape(n, -1, high, wide)
        )

    def __call__(self, z: Tensor, labels: Tensor) -> Tensor:
        y = self.state["shared.weight"][labels] if self.shared else labels
        told, first = [y] * self.blocks, z
        if self.deep:
            first = torch.cat([y, z], 1)
            told = [first] * self.blocks
        elif self.chunk:
            first, *rest = z.split(self.chunk, 1)
            told = [torch.cat([y, piece], 1) for piece in rest]
        x = self.apply("linear", first).reshape(len(z), self.width, 4, 4)
        for block in range(self.blocks):
            x = self.block(f"blocks.{block}.0", x, told[block], not self.deep or block % 2 == 1)
            x = self.attend(f"blocks.{block}.1", x) if block == self.attention else x
        x = self.norm("output_layer.0", x, self.state["output_layer.0.gain"], self.state["output_layer.0.bias"]).relu()
        return torch.tanh(self.apply("output_layer.2", x))


KINDS: Mapping[str, dict[str, Any]] = {
    "hierarchical": {},
    "undivided": {"pieces": False},
    "unshared": {"shared": False, "attention": None},
    "without_spectral": {"spectral": False},
    "standing": {"mybn": True},
    "deep": {"deep": True, "blocks": 4},
    "one_block": {"blocks": 1, "attention": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_outputs_are_those_of_the_paper(tmp_path: Path, kind: str) -> None:
    paper = Paper(**KINDS[kind])
    torch.save(paper.state, tmp_path / "G_ema.pth")
    network = load_generator(tmp_path / "G_ema.pth")
    side = 4 * 2 ** (paper.blocks // 2 if paper.deep else paper.blocks)
    assert (network.latent.dim, network.classes, network.condition, network.output.shape) == (
        paper.dim,
        5,
        "index",
        (3, side, side),
    )
    assert network.subject["family"] == ("BigGAN-deep (ajbrock)" if paper.deep else "BigGAN (ajbrock)")
    z, labels = torch.randn(6, paper.dim, generator=torch.Generator().manual_seed(3)), torch.arange(6) % 5
    wanted = paper(z, labels)
    assert wanted.std() > 0.05 and not torch.allclose(wanted[0], wanted[5], atol=1e-2)
    assert torch.allclose(network.forward(z, labels), wanted, atol=1e-5)


def test_standing_statistics_are_sums(tmp_path: Path) -> None:
    paper = Paper(mybn=True)
    for name in paper.state:
        paper.state[name] = paper.state[name] * 16 if ".stored_" in name else paper.state[name]
        paper.state[name] += 16 if name.endswith("accumulation_counter") else 0
    torch.save(paper.state, tmp_path / "G.pth")
    network = load_generator(tmp_path / "G.pth")
    said = next(entry for entry in network.assumptions if entry.what == "batch-norm statistics")
    assert "sums of 16 batches" in said.value and said.source.startswith("file")
    z, labels = torch.randn(3, paper.dim), torch.arange(3)
    assert torch.allclose(network.forward(z, labels), paper(z, labels), atol=1e-5)


def test_batch_norm_is_seen_by_the_probes(tmp_path: Path) -> None:
    torch.save(Paper().state, tmp_path / "G.pth")
    network = load_generator(tmp_path / "G.pth")
    found = statistics_mismatch(network)
    assert found is not None and found > 0.15  # made-up statistics are not those of the network, and that is noticed


@pytest.mark.parametrize(
    "change, said",
    [
        ({"blocks.0.0.bn1.stored_mean": None, "blocks.0.0.bn1.stored_var": None}, "keeps no statistics"),
        ({"blocks.0.0.conv1.weight": torch.zeros(8, 4, 3, 3)}, "follow each other"),
        ({"blocks.0.0.extra": torch.zeros(3)}, "is not part of it"),
        ({"linear.weight": torch.zeros(128, 7)}, "and a piece of z 7"),
        ({"linear.u0": torch.zeros(1, 5)}, "no left singular vector"),
        ({"linear.u0": torch.ones(1, 128, dtype=torch.int64)}, "no left singular vector"),
        ({"blocks.1.1.gamma": None}, "gamma is missing"),
        ({"blocks.0.0.bn1.accumulation_counter": torch.ones(1)}, "counts no statistics beside it"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Tensor | None], said: str) -> None:
    state = {name: change.get(name, entry) for name, entry in {**Paper().state, **change}.items()}
    torch.save({name: entry for name, entry in state.items() if entry is not None}, tmp_path / "G.pth")
    with pytest.raises(LoadError, match=said):
        load_generator(tmp_path / "G.pth")


def test_the_side_of_the_deep_one_can_be_told(tmp_path: Path) -> None:
    torch.save(Paper(deep=True, blocks=4).state, tmp_path / "G.pth")
    assert load_generator(tmp_path / "G.pth", AuditConfig(image_size=8)).output.shape == (3, 8, 8)
    with pytest.raises(LoadError, match="--image-size 24 contradicts 4 blocks"):
        load_generator(tmp_path / "G.pth", AuditConfig(image_size=24))


def test_the_folder_of_a_training(tmp_path: Path) -> None:
    for name, dim in (
        ("G.pth", 16),
        ("G_ema.pth", 20),
        ("G_optim.pth", 0),
        ("G_ema_best3.pth", 24),
        ("state_dict.pth", 0),
    ):
        torch.save(
            Paper(dim=dim).state if dim else {"itr": 3, "best_FID": 9.5, "config": {"G_activation": torch.nn.ReLU()}},
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
