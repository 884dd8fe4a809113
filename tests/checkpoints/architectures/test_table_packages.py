"""Saved objects of the packages ctgan and sdv, built from classes of the same names: the real network's outputs."""

import pickle
import sys
from collections import namedtuple
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig

SpanInfo = namedtuple("SpanInfo", ["dim", "activation_fn"])
SPANS = [[SpanInfo(1, "tanh"), SpanInfo(4, "softmax")], [SpanInfo(3, "softmax")]]
Z, CONDITIONS, WIDTH = 6, 3, 8


class Residual(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.fc, self.bn, self.relu = nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.relu(self.bn(self.fc(x))), x], dim=1)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(Residual(Z + CONDITIONS, 16), Residual(Z + CONDITIONS + 16, 16), nn.Linear(41, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(Z, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, WIDTH))
        self.sigma = nn.Parameter(torch.ones(WIDTH) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class DataTransformer:
    def __init__(self) -> None:
        self.output_info_list, self.output_dimensions = SPANS, WIDTH


class CTGAN:
    def __init__(self) -> None:
        self._embedding_dim, self._generator, self._transformer = Z, Generator().eval(), DataTransformer()


class TVAE:
    def __init__(self) -> None:
        self.embedding_dim, self.decoder, self.transformer = Z, Decoder().eval(), DataTransformer()


class CTGANSynthesizer:
    def __init__(self, model: object) -> None:
        self._model, self.metadata, self.epochs = model, {"columns": {"a": {"sdtype": "numerical"}}}, 2


HOMES = {
    SpanInfo: "ctgan.data_transformer",
    DataTransformer: "ctgan.data_transformer",
    Residual: "ctgan.synthesizers.ctgan",
    Generator: "ctgan.synthesizers.ctgan",
    CTGAN: "ctgan.synthesizers.ctgan",
    Decoder: "ctgan.synthesizers.tvae",
    TVAE: "ctgan.synthesizers.tvae",
    CTGANSynthesizer: "sdv.single_table.ctgan",
}


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules under the packages' names, so that the pickles name the packages' classes."""
    for cls, home in HOMES.items():
        parts = home.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            if name not in sys.modules:
                monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules[home], cls.__name__, cls, raising=False)
        monkeypatch.setattr(cls, "__module__", home)


def expected(out: Tensor) -> Tensor:
    return torch.cat([out[:, :1].tanh(), (out[:, 1:5] / 0.2).softmax(1), (out[:, 5:] / 0.2).softmax(1)], 1)


def settle(generator: nn.Module) -> None:
    generator.train()
    for _ in range(20):
        generator(torch.randn(32, Z + CONDITIONS))
    generator.eval()


@pytest.mark.parametrize("wrapped", [False, True], ids=["ctgan", "sdv"])
def test_ctgan_is_read_inside_the_synthesizer_of_sdv(tmp_path, wrapped: bool) -> None:
    torch.manual_seed(0)
    model = CTGAN()
    settle(model._generator)
    file = tmp_path / "synthesizer.pkl"
    file.write_bytes(pickle.dumps(CTGANSynthesizer(model) if wrapped else model))
    network = load_generator(file)
    assert (network.subject["family"], network.latent.dim, network.classes) == ("CTGAN", Z, CONDITIONS)
    z, labels = torch.randn(5, Z), torch.arange(5) % CONDITIONS
    conditions = torch.nn.functional.one_hot(labels, CONDITIONS).float()
    with torch.no_grad():
        want = expected(model._generator(torch.cat([z, conditions], 1)))
    assert (network.forward(z, labels) - want).abs().max() < 1e-6


@pytest.mark.parametrize("wrapped", [False, True], ids=["ctgan", "sdv"])
def test_the_decoder_of_tvae_is_read(tmp_path, wrapped: bool) -> None:
    torch.manual_seed(0)
    model = TVAE()
    file = tmp_path / "synthesizer.pkl"
    file.write_bytes(pickle.dumps(CTGANSynthesizer(model) if wrapped else model))
    network = load_generator(file)
    assert (network.subject["family"], network.latent.dim, network.classes) == ("TVAE", Z, None)
    z = torch.randn(5, Z)
    with torch.no_grad():
        want = expected(model.decoder(z))
    assert (network.forward(z) - want).abs().max() < 1e-6


def test_a_bare_decoder_is_read_without_columns(tmp_path) -> None:
    decoder = Decoder()
    torch.save(decoder.state_dict(), tmp_path / "decoder.pt")
    network = load_generator(tmp_path / "decoder.pt", AuditConfig())
    z = torch.randn(5, Z)
    with torch.no_grad():
        assert (network.forward(z) - decoder(z).tanh()).abs().max() < 1e-6
