"""Residual generators of BigGAN's line, from tensors under one set of names, whatever code wrote them.

    linear  [shared]  steps.0 … steps.N  [norm]  conv
    a step  is a block (conv1, conv2 or conv1 … conv4, each behind a norm bn1 …; [conv_sc] on the shortcut), attention
            (theta, phi, g, o, gamma), or a transposed convolution with its norm (deconv, bn)
    a norm  is bn.running_mean, bn.running_var with gain and bias: vectors, or maps of what the block is told (1 + gain)

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B: nearest neighbours double the
side inside the block; of a hierarchical z every block gets its own piece beside the class; the deep variant tells all of z to all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.load.rebuild.chain import hidden_module, output_module
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.ready import shape_of
from gandiag.load.rebuild.tried import rehearsed

Told = Literal["none", "shared", "onehot", "own"]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class Design:
    """What shapes alone do not say. `told`: how a norm learns of the class: by one shared embedding, as a one-hot vector, by an
    embedding of its own, or not at all. `chunk`: latents of each piece, 0 for an undivided z; `joined`: the class stands before z
    and both go everywhere. `doubled`: places among the blocks behind which the side is twice as large. `last_eps`: of the last norm."""

    told: Told
    chunk: int = 0
    joined: bool = False
    doubled: frozenset[int] = frozenset()
    eps: float = 1e-5
    last_eps: float = 1e-5
    activation: str = "relu"
    final: str = "tanh"


class Stack(nn.Module):
    """forward(z (B, dim), labels (B,) int64 or none): images (B, C, H, W)."""

    def __init__(self, tensors: Mapping[str, Tensor], design: Design, classes: int | None) -> None:
        super().__init__()
        self.design, self.classes = design, classes
        self.linear = linear_of(tensors, "linear")
        if design.told == "shared":
            self.shared = embedding_of(tensors, "shared")
        self.steps = nn.ModuleList(_steps(tensors, design))
        if "norm.gain" in tensors:
            self.norm = Norm(tensors, "norm", design.last_eps, told=False)
        self.act, self.final = hidden_module(design.activation), output_module(design.final)
        self.conv = conv_of(tensors, "conv")
        first: Step = self.steps[0]  # type: ignore[assignment]
        self.width = first.width

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, told = self._split(z, labels)
        x = self.linear(first)
        side = round((x.shape[1] / self.width) ** 0.5)
        x = x.view(len(x), self.width, side, side)  # (B, C, 4, 4)
        pieces = iter(told)
        for step in self.steps:
            x = step(x) if isinstance(step, Attention) else step(x, next(pieces))
        if hasattr(self, "norm"):
            x = self.act(self.norm(x, None))
        out: Tensor = self.final(self.conv(x))
        return out

    def _split(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """What the first map is given, and what the norms of every block are told."""
        design, blocks = self.design, sum(not isinstance(step, Attention) for step in self.steps)
        label = self._label(labels)
        if design.joined:
            whole = z if label is None else torch.cat([label, z], 1)
            return whole, [whole] * blocks
        if not design.chunk:
            return z, [label] * blocks
        first, *rest = torch.split(z, design.chunk, 1)  # each (B, chunk)
        return first, [piece if label is None else torch.cat([label, piece], 1) for piece in rest]

    def _label(self, labels: Tensor | None) -> Tensor | None:
        if labels is None or self.design.told in ("none", "own"):
            return labels
        if self.design.told == "shared":
            found: Tensor = self.shared(labels)
            return found
        return F.one_hot(labels, self.classes or 1).to(self.linear.weight)


class Step(nn.Module):
    """`width`: channels that go in."""

    width: int


def _steps(tensors: Mapping[str, Tensor], design: Design) -> list[Step]:
    count = 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("steps.")), default=-1)
    made: list[Step] = []
    blocks = 0
    for head in (f"steps.{index}" for index in range(count)):
        if f"{head}.theta.weight" in tensors:
            made.append(Attention(tensors, head))
        elif f"{head}.deconv.weight" in tensors:
            made.append(Rise(tensors, head, design))
        else:
            made.append(Block(tensors, head, design, doubled=blocks in design.doubled))
            blocks += 1
    if not made:
        raise NotThis("it has no blocks")
    return made


class Block(Step):
    """Norm, activation, convolution; twice, or four times with the side doubled before the second convolution."""

    def __init__(self, tensors: Mapping[str, Tensor], head: str, design: Design, *, doubled: bool) -> None:
        super().__init__()
        self.doubled, self.act = doubled, hidden_module(design.activation)
        self.count = 4 if f"{head}.conv4.weight" in tensors else 2
        self.width = shape_of(tensors, f"{head}.conv1.weight", 4)[1]
        for place in range(1, self.count + 1):
            setattr(self, f"bn{place}", Norm(tensors, f"{head}.bn{place}", design.eps, told=design.told == "own"))
            setattr(self, f"conv{place}", conv_of(tensors, f"{head}.conv{place}"))
        if f"{head}.conv_sc.weight" in tensors:
            self.conv_sc = conv_of(tensors, f"{head}.conv_sc")

    def forward(self, x: Tensor, told: Tensor | None) -> Tensor:
        y = x
        for place in range(1, self.count + 1):
            y = self.act(getattr(self, f"bn{place}")(y, told))
            y = F.interpolate(y, scale_factor=2) if self.doubled and place == self.count // 2 else y
            y = getattr(self, f"conv{place}")(y)
        x = F.interpolate(x, scale_factor=2) if self.doubled else x
        x = self.conv_sc(x) if hasattr(self, "conv_sc") else x[:, : y.shape[1]]
        return y + x


class Rise(Step):
    """A 4x4 transposed convolution that doubles the side, norm, activation."""

    def __init__(self, tensors: Mapping[str, Tensor], head: str, design: Design) -> None:
        super().__init__()
        self.width, out, kernel, _ = shape_of(tensors, f"{head}.deconv.weight", 4)
        self.deconv = nn.ConvTranspose2d(self.width, out, kernel, 2, 1, bias=f"{head}.deconv.bias" in tensors)
        self.bn, self.act = Norm(tensors, f"{head}.bn", design.eps, told=False), hidden_module(design.activation)

    def forward(self, x: Tensor, told: Tensor | None) -> Tensor:
        out: Tensor = self.act(self.bn(self.deconv(x), told))
        return out


class Norm(nn.Module):
    """Batch norm, then gain and bias: of its own, or 1 + gain and bias as maps of what it is told; `told`: by embeddings."""

    def __init__(self, tensors: Mapping[str, Tensor], head: str, eps: float, *, told: bool) -> None:
        super().__init__()
        width = shape_of(tensors, f"{head}.bn.running_mean", 1)[0]
        self.bn = nn.BatchNorm2d(width, eps, affine=False)
        self.mapped = f"{head}.gain.weight" in tensors
        for name in ("gain", "bias"):
            if not self.mapped:
                setattr(self, name, nn.Parameter(torch.empty(shape_of(tensors, f"{head}.{name}", 1))))
            elif told:
                setattr(self, name, embedding_of(tensors, f"{head}.{name}"))
            else:
                setattr(self, name, linear_of(tensors, f"{head}.{name}"))

    def forward(self, x: Tensor, told: Tensor | None) -> Tensor:
        gain, bias = (1 + self.gain(told), self.bias(told)) if self.mapped else (self.gain[None], self.bias[None])  # type: ignore[operator, index]
        out: Tensor = self.bn(x) * gain[:, :, None, None] + bias[:, :, None, None]
        return out


class Attention(Step):
    """Self-attention (Zhang et al. 2019) with keys and values at half the side."""

    theta: nn.Module
    phi: nn.Module
    g: nn.Module
    o: nn.Module

    def __init__(self, tensors: Mapping[str, Tensor], head: str) -> None:
        super().__init__()
        self.width = shape_of(tensors, f"{head}.theta.weight", 4)[1]
        for name in ("theta", "phi", "g", "o"):
            setattr(self, name, conv_of(tensors, f"{head}.{name}"))
        if f"{head}.gamma" not in tensors:
            raise NotThis(f"{head}.gamma is missing")
        self.gamma = nn.Parameter(torch.empty(tensors[f"{head}.gamma"].shape))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)  # (B, C/8, HW)
        key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.phi, self.g))
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)  # (B, HW, HW/4)
        seen = torch.bmm(value, weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        out: Tensor = x + self.gamma * self.o(seen)
        return out


def conv_of(tensors: Mapping[str, Tensor], head: str) -> nn.Conv2d:
    """A convolution that keeps the side."""
    out, into, kernel, _ = shape_of(tensors, f"{head}.weight", 4)
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=f"{head}.bias" in tensors)


def linear_of(tensors: Mapping[str, Tensor], head: str) -> nn.Linear:
    out, into = shape_of(tensors, f"{head}.weight", 2)
    return nn.Linear(into, out, bias=f"{head}.bias" in tensors)


def embedding_of(tensors: Mapping[str, Tensor], head: str) -> nn.Embedding:
    rows, width = shape_of(tensors, f"{head}.weight", 2)
    return nn.Embedding(rows, width)


def with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, and the counter that torch's batch norm keeps beside its statistics wherever the file has none."""
    heads = [name.removesuffix("running_mean") for name in tensors if name.endswith("bn.running_mean")]
    return {**{f"{head}num_batches_tracked": torch.zeros((), dtype=torch.long) for head in heads}, **tensors}


def shape_made(net: Stack, dim: int) -> tuple[int, ...]:
    """The shape of one output, while the network is still on the meta device. NotThis where layers do not fit."""
    labels = None if net.classes is None else torch.zeros(2, dtype=torch.long, device="meta")
    return rehearsed(net, torch.empty(2, dim, device="meta"), labels)
