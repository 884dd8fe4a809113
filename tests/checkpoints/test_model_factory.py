"""--model, live modules, and the outputs of networks: lists, dicts, flat images, labels as index or one-hot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_generators import DCGAN, calibrated, mlp, normal, save, shuffled

from gandiag.checkpoints.loader import load_generator, wrap_module
from gandiag.checkpoints.model_factory import import_function
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, LoadError

FACTORY = '''
import torch
from torch import nn

class Gated(nn.Module):
    """Not an architecture that gandiag rebuilds: layer norm and a gate."""

    def __init__(self, nz=8, width=16, act="relu"):
        super().__init__()
        self.fc, self.norm = nn.Linear(nz, width), nn.LayerNorm(width)
        self.gate, self.out = nn.Linear(nz, width), nn.Linear(width, 2)
        self.act = getattr(torch, act)

    def forward(self, z):
        return self.out(self.act(self.norm(self.fc(z))) * torch.sigmoid(self.gate(z)))

def number():
    return 3
'''


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"gated_{abs(hash(request.node.name)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)  # the current folder is searched too
    return name


def build(folder: Path, name: str, **init: Any) -> nn.Module:
    scope: dict[str, Any] = {}
    exec((folder / f"{name}.py").read_text(), scope)
    module: nn.Module = scope["Gated"](**init)
    return shuffled(module).eval()


def test_weights_are_loaded_into_the_model(tmp_path: Path, gated: str) -> None:
    net = build(tmp_path, gated, nz=6, act="tanh")
    file = save({"gen": {f"module.{key}": entry for key, entry in net.state_dict().items()}, "epoch": 1}, tmp_path)
    for location in (gated, str(tmp_path / f"{gated}.py")):
        network = load_generator(file, AuditConfig(model=f"{location}:Gated", init=("nz=6", "act=tanh")))
        z = torch.randn(5, 6)
        with torch.no_grad():
            assert torch.equal(network.forward(z), net(z))
        assert network.subject["weights"] == "gen" and network.latent.dim == 6


def test_mismatches_are_listed_five_at_a_time(tmp_path: Path, gated: str) -> None:
    file = save(build(tmp_path, gated).state_dict(), tmp_path)
    with pytest.raises(LoadError) as caught:
        load_generator(file, AuditConfig(model=f"{gated}:Gated", init=("width=32",)))
    assert "7 wrong shape (fc.weight is (16, 8) in the file and (32, 8) in the model" in caught.value.message
    assert "and 2 more" in caught.value.message and "out.weight" not in caught.value.message
    other = save({f"deep.{i}.weight": torch.zeros(3, 3) for i in range(7)}, tmp_path)
    with pytest.raises(LoadError) as caught:
        load_generator(other, AuditConfig(model=f"{gated}:Gated"))
    assert "8 missing (fc.weight" in caught.value.message and "7 unexpected (" in caught.value.message


def test_factories_that_do_not_work(tmp_path: Path, gated: str) -> None:
    file = save(mlp().state_dict(), tmp_path)
    for model, init, error, message in (
        ("nowhere:Gated", (), LoadError, "cannot be imported"),
        (f"{gated}:Missing", (), LoadError, "cannot be imported"),
        (f"{gated}:number", (), LoadError, "returned int, not a torch.nn.Module"),
        (f"{gated}:Gated", ("depth=3",), LoadError, "cannot be called with depth=3"),
        (f"{gated}:Gated", ("depth",), ConfigError, "--init is 'depth'"),
        (gated, (), ConfigError, "--model is"),
    ):
        with pytest.raises(error, match=message):
            load_generator(file, AuditConfig(model=model, init=init))


# live modules


def test_a_live_module_is_not_changed() -> None:
    net = calibrated(DCGAN(), normal(12), batches=5).train()
    before = {key: entry.clone() for key, entry in net.state_dict().items()}
    state = torch.random.get_rng_state()
    network = wrap_module(net, AuditConfig(latent_dim=12))
    network.forward(torch.randn(4, *network.latent.shape, generator=torch.Generator().manual_seed(0)))
    assert net.training and all(entry.requires_grad for entry in net.parameters())
    assert all(torch.equal(before[key], entry) for key, entry in net.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert not network.module.training and network.subject["path"] is None


def test_weights_computed_on_the_fly_can_be_copied() -> None:
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 2))
    net.train()
    net(torch.randn(3, 4)).sum().backward()
    assert wrap_module(net).latent.dim == 4
    first = nn.Linear(4, 4)
    first.scaled = first.weight * 2  # type: ignore[assignment]
    assert wrap_module(nn.Sequential(first)).output.shape == (4,)


def test_noise_inside_a_network_does_not_change_the_global_random_state() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, z: Tensor) -> Tensor:
            out: Tensor = self.fc(z) + torch.randn(len(z), 2)
            return out

    net = Noisy()
    state = torch.random.get_rng_state()
    wrap_module(net)
    assert torch.equal(state, torch.random.get_rng_state())


class Returns(nn.Module):
    """A DCGAN that wraps its images in a container."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.body, self.wrap = DCGAN(6, 4, blocks=2), wrap

    def forward(self, z: Tensor) -> Any:
        return self.wrap(self.body(z))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda image: [image, image[:, :, ::2, ::2]],
        lambda image: (image.mean((2, 3)), image),
        lambda image: {"latents": image.mean((1, 2, 3)), "sample": image},
        lambda image: {"deep": [(image,)]},
    ],
)
def test_the_largest_tensor_is_the_image(wrap: Any) -> None:
    net = shuffled(Returns(wrap)).eval()
    network = wrap_module(net)
    z = torch.randn(3, *network.latent.shape)
    with torch.no_grad():
        assert torch.equal(network.forward(z), net.body(z))
    assert network.output.shape == (3, 16, 16)


def test_flat_images_are_reshaped_and_series_are_not() -> None:
    network = wrap_module(shuffled(mlp((5, 16, 784), final=nn.Tanh())))
    assert network.output.shape == (1, 28, 28) and network.output.range == (-1.0, 1.0)
    assert network.forward(torch.randn(2, 5)).shape == (2, 1, 28, 28)
    series = wrap_module(nn.Sequential(nn.Linear(5, 60), nn.Unflatten(1, (3, 20))))
    assert (series.output.kind, series.output.shape) == ("series", (3, 20))


class Labelled(nn.Module):
    def __init__(self, condition: str) -> None:
        super().__init__()
        self.condition, self.embed = condition, nn.Embedding(4, 3)
        self.fc = nn.Linear(5 + (3 if condition == "index" else 4), 2)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.cat([z, self.embed(y) if self.condition == "index" else y], 1))
        return out


@pytest.mark.parametrize("condition", ["index", "onehot"])
def test_labels_as_index_or_onehot(condition: str) -> None:
    net = shuffled(Labelled(condition)).eval()
    network = wrap_module(net, AuditConfig(latent_dim=5, classes=4))
    assert (network.condition, network.classes) == (condition, 4)
    z, labels = torch.randn(6, 5), torch.arange(6) % 4
    expected = net(z, labels if condition == "index" else nn.functional.one_hot(labels, 4).float())
    with torch.no_grad():
        assert torch.equal(network.forward(z, labels), expected)


def test_missing_label_and_latent_settings_are_requested() -> None:
    with pytest.raises(LoadError, match=r"needs class labels \(4 classes, by its embedding") as caught:
        wrap_module(Labelled("index"), AuditConfig(latent_dim=5))
    assert "--classes 4 --condition index" in caught.value.hint
    with pytest.raises(LoadError, match="cannot be called with latents"):
        wrap_module(mlp(), AuditConfig(latent_dim=7))
    with pytest.raises(LoadError, match="cannot be inferred") as caught:
        wrap_module(nn.Identity())
    assert caught.value.hint == "give it: --latent-dim N"


def test_strict_applies_to_models_too() -> None:
    with pytest.raises(LoadError, match="--strict allows no assumptions") as caught:
        wrap_module(shuffled(mlp()), AuditConfig(strict=True))
    assert caught.value.hint == "give --prior"
    assert wrap_module(shuffled(mlp()), AuditConfig(strict=True, prior="normal")).latent.dim == 2


@pytest.mark.parametrize(("line", "name"), [("import sys; sys.exit(0)", "SystemExit"), ("1 / 0", "ZeroDivisionError")])
def test_a_file_that_ends_at_import_is_an_error_not_a_verdict(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "script.py").write_text(line)
    with pytest.raises(LoadError, match=f"cannot be imported: {name}") as caught:
        import_function(f"{tmp_path / 'script.py'}:fn", ())
    assert "__main__" in caught.value.hint
