"""--trust on real programs: TorchScript, torch.export and whole pickles give the samples of the original networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gandiag
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError


class ImageGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.norm, self.conv = nn.Linear(12, 256), nn.BatchNorm2d(16), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(self.project(z).view(-1, 16, 4, 4)).relu()
        return torch.tanh(self.conv(nn.functional.interpolate(x, scale_factor=2.0)))


class Labelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(5, 6), nn.Linear(18, 192)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.last(torch.cat([z, self.table(y)], 1))).view(-1, 3, 8, 8)


def export(net: nn.Module, path: Path, inputs: tuple[Tensor, ...], *, fixed: bool = False) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.export.save(
        torch.export.export(net, inputs, dynamic_shapes=None if fixed else tuple({0: batch} for _ in inputs)), path
    )


Write = Callable[[nn.Module, Path], object]
WRITERS: dict[str, Write] = {
    "scripted": lambda net, path: torch.jit.script(net).save(path),
    "traced": lambda net, path: torch.jit.trace(net, torch.zeros(2, 12)).save(path),
    "exported": lambda net, path: export(net, path, (torch.zeros(2, 12),)),
    "exported for four": lambda net, path: export(net, path, (torch.zeros(4, 12),), fixed=True),
    "exported for one": lambda net, path: export(net, path, (torch.zeros(1, 12),), fixed=True),
    "pickled": lambda net, path: torch.save({"netG": net, "epoch": 3}, path),
}


@pytest.fixture(autouse=True)
def ignore_warnings() -> None:
    warnings.simplefilter("ignore")  # torch.jit and parts of torch.export announce their deprecation


@pytest.mark.parametrize("kind", WRITERS)
def test_a_trusted_program_is_sampled(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    net = ImageGenerator().eval()
    WRITERS[kind](net, tmp_path / "g.pt")
    if kind != "pickled":
        with pytest.raises(LoadError, match="runs code from the file"):
            load_generator(tmp_path / "g.pt")
    sampler = gandiag.load(tmp_path / "g.pt", trust=True)
    assert (sampler.latent.dim, sampler.output.shape) == (12, (3, 8, 8))
    assert any("code from the file ran, by --trust" in str(note) for note in sampler.notes)
    z = torch.randn(7, 12)
    with torch.no_grad():
        assert torch.allclose(sampler.generate(z), net(z), atol=1e-6)
    assert torch.allclose(
        sampler.sample_indices(torch.arange(7), seed=1)[3:5],
        sampler.sample_indices(torch.arange(3, 5), seed=1),
        atol=1e-6,
    )


def test_labels_reach_an_exported_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, z, y = Labelled().eval(), torch.randn(7, 12), torch.arange(7) % 5
    export(net, tmp_path / "g.pt2", (torch.zeros(2, 12), torch.zeros(2, dtype=torch.long)))
    network = load_generator(tmp_path / "g.pt2", AuditConfig(trust=True, classes=5))
    assert (network.latent.dim, network.condition) == (12, "index")
    with torch.no_grad():
        assert torch.allclose(network.forward(z, y), net(z, y), atol=1e-6)


def test_a_frozen_program_needs_the_latent_size(tmp_path: Path) -> None:
    torch.jit.freeze(torch.jit.script(ImageGenerator().eval())).save(tmp_path / "g.pt")
    with pytest.raises(LoadError, match="latent size") as caught:
        load_generator(tmp_path / "g.pt", AuditConfig(trust=True))
    assert "--latent-dim" in caught.value.hint
    assert load_generator(tmp_path / "g.pt", AuditConfig(trust=True, latent_dim=12)).output.shape == (3, 8, 8)
