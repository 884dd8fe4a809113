"""Sequential generators with a class embedding, and how BatchNorm shows the way it is joined to the latents."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from assumption_lookup import find_assumption
from torch import Tensor, nn
from toy_generators import calibrated, save

from gandiag.checkpoints.batchnorm.latent_scale import estimate_trained_scale
from gandiag.checkpoints.batchnorm.moments import sample_prior
from gandiag.checkpoints.inference.conditioning import LabelPosition, combine_label
from gandiag.checkpoints.loader import load_generator, wrap_module
from gandiag.checkpoints.loading_spec import read_loading_spec
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

CLASSES, LATENT = 5, 12


class Conditional(nn.Module):
    """An embedding `name` of `width` numbers at `position`; then linear layers, or transposed convolutions."""

    def __init__(
        self, position: LabelPosition, width: int, *, name: str = "label_emb", spatial: bool = False, norm: bool = True
    ) -> None:
        super().__init__()
        inputs = LATENT if position in ("times", "plus") else LATENT + width
        self.position, self.name, self.spatial = position, name, spatial
        self.add_module(name, nn.Embedding(CLASSES, width))
        if spatial:
            self.net = nn.Sequential(
                nn.ConvTranspose2d(inputs, 48, 4),
                nn.BatchNorm2d(48),
                nn.ReLU(),
                nn.ConvTranspose2d(48, 24, 4, 2, 1),
                nn.BatchNorm2d(24),
                nn.ReLU(),
                nn.ConvTranspose2d(24, 3, 4, 2, 1),
                nn.Tanh(),
            )
        else:  # no BatchNorm after the first layer, as in PyTorch-GAN's cgan.py
            layers: list[nn.Module] = [nn.Linear(inputs, 48), nn.LeakyReLU(0.2)]
            for n_in, n_out in ((48, 64), (64, 96)):
                batchnorm = [nn.BatchNorm1d(n_out, 0.8)] if norm else []
                layers += [nn.Linear(n_in, n_out), *batchnorm, nn.LeakyReLU(0.2)]
            self.net = nn.Sequential(*layers, nn.Linear(96, 256), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = combine_label(z, self.get_submodule(self.name)(labels), self.position)
        out: Tensor = self.net(x[:, :, None, None] if self.spatial else x)
        return out


class WithLabels(nn.Module):
    """Adds labels, all classes in turn, so that the network can be calibrated with latents alone."""

    def __init__(self, net: Conditional) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.net(z, torch.arange(len(z)) % CLASSES)
        return out


def trained(net: Conditional, scale: float = 1.0) -> Conditional:
    """The network with BatchNorm statistics from latents at this scale, and an embedding as it is initialized."""
    calibrated(WithLabels(net), lambda rng: torch.randn(60, LATENT, generator=rng), batches=1)
    with torch.no_grad():
        # As nn.Embedding is initialized; sampled latents must not repeat these numbers.
        net.get_submodule(net.name).weight.normal_(generator=torch.Generator().manual_seed(0))
    net.train()
    with torch.no_grad():
        for step in range(60):
            WithLabels(net)(scale * torch.randn(60, LATENT, generator=torch.Generator().manual_seed(step)))
    return net.eval()


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize(
    ("position", "width"), [("before", 4), ("after", 4), ("before", 5), ("times", LATENT), ("plus", LATENT)]
)
def test_batchnorm_shows_how_the_class_is_joined(
    tmp_path: Path, position: LabelPosition, width: int, spatial: bool
) -> None:
    net = trained(Conditional(position, width, spatial=spatial))
    network = load_generator(save(net.state_dict(), tmp_path))
    z, labels = torch.randn(10, LATENT), torch.arange(10) % CLASSES
    with torch.no_grad():
        samples, expected = network.forward(z.reshape(10, *network.latent.shape), labels), net(z, labels)
    assert (samples - expected.reshape(samples.shape)).abs().max() < 1e-6, network.assumptions
    assert (network.latent.dim, network.classes, network.condition) == (LATENT, CLASSES, "index")
    assumption = find_assumption(network, "class_place")
    assert (assumption.value, assumption.source) == (position, "batch-norm")
    assert assumption.fit is not None and assumption.fit.runner_up is not None


@pytest.mark.parametrize("scale", [0.05, 1.0])
@pytest.mark.parametrize(("position", "width"), [("before", 4), ("after", 4), ("times", LATENT), ("plus", LATENT)])
def test_the_training_scale_is_recovered_despite_the_embedding(
    tmp_path: Path, position: LabelPosition, width: int, scale: float
) -> None:
    """And with it the label position and the prior, which a wrong scale would hide."""
    network = load_generator(save(trained(Conditional(position, width, spatial=True), scale).state_dict(), tmp_path))
    assumption = find_assumption(network, "class_place")
    assert (assumption.value, assumption.source) == (position, "batch-norm")
    assert network.latent.prior == "normal" and not find_assumption(network, "prior").undecided
    estimate = estimate_trained_scale(network)
    if position == "plus" and scale < 1:  # the classes carry the variance
        assert estimate is None
        return
    assert estimate is not None and estimate.low <= scale <= estimate.high
    assert estimate.high - estimate.low < (12 if position in ("before", "after") else 2) * scale


@pytest.mark.parametrize(("name", "position"), [("label_emb", "before"), ("embed", "after")])
def test_without_batchnorm_the_default_position_stands_and_strict_rejects_it(
    tmp_path: Path, name: str, position: LabelPosition
) -> None:
    net = Conditional(position, 4, name=name, norm=False).eval()
    file = save(net.state_dict(), tmp_path)
    network = load_generator(file, AuditConfig(activation="leaky:0.2"))
    z, labels = torch.randn(10, LATENT), torch.arange(10) % CLASSES
    with torch.no_grad():
        assert torch.equal(network.forward(z, labels), net(z, labels).reshape(10, *network.output.shape))
    assumption = find_assumption(network, "class_place")
    assert (assumption.value, assumption.source) == (position, "default")
    with pytest.raises(LoadError) as caught:
        load_generator(file, AuditConfig(strict=True))
    assert "--class-place" in caught.value.hint


def test_a_spec_replays_the_inferred_settings(tmp_path: Path) -> None:
    file = save(trained(Conditional("times", LATENT, spatial=True)).state_dict(), tmp_path)
    spec = str(tmp_path / "spec.json")
    first = load_generator(file, AuditConfig(spec=spec))
    settings = read_loading_spec(spec).settings
    assert (settings["condition"], settings["strides"]) == ("index", ("2/1", "2/1"))
    again = load_generator(file, AuditConfig(spec=spec))
    z, labels = torch.randn(4, *first.latent.shape), torch.arange(4)
    assert torch.equal(first.forward(z, labels), again.forward(z, labels))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"classes": 7}, "--classes 7 contradicts the weights: label_emb.weight holds 5 classes"),
        (
            {"latent_dim": 16},
            r"--latent-dim 16 contradicts the weights: net.0.weight takes 16 inputs, 4 of them for the class",
        ),
        ({"condition": "onehot", "classes": 5}, "--condition onehot contradicts the weights"),
    ],
)
def test_flags_that_contradict_the_embedding_are_named(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    file = save(Conditional("before", 4).state_dict(), tmp_path)
    with pytest.raises(LoadError, match=message):
        load_generator(file, AuditConfig(**flags))


@pytest.mark.parametrize("position", ["before", "after"])
def test_class_place_sets_the_position(tmp_path: Path, position: LabelPosition) -> None:
    """Of the embedding's vector; and, in a network without an embedding, of the one-hot label."""
    net = Conditional(position, CLASSES, name="embed", norm=False).eval()
    state = net.state_dict()
    config = AuditConfig(class_place=position, activation="leaky:0.2")
    embedded = load_generator(save(state, tmp_path), config)
    z, labels = torch.randn(10, LATENT), torch.arange(10) % CLASSES
    with torch.no_grad():
        assert torch.equal(embedded.forward(z, labels), net(z, labels).reshape(10, *embedded.output.shape))
        net.get_submodule("embed").weight.copy_(torch.eye(CLASSES))
        del state["embed.weight"]
        onehot = load_generator(save(state, tmp_path), replace(config, classes=CLASSES))
        assert torch.equal(onehot.forward(z, labels), net(z, labels).reshape(10, *onehot.output.shape))
    for network in (embedded, onehot):
        assumption = find_assumption(network, "class_place")
        assert (assumption.value, assumption.source) == (position, "flag")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"class_place": "times"},
            "--class-place times contradicts the weights: label_emb.weight holds vectors of 4 numbers, and net.0.weight"
            " takes 16 inputs",
        ),
        (
            {"class_place": "times", "classes": 5, "key": "onehot"},
            "--class-place times contradicts the weights: 0.weight takes the class one-hot",
        ),
        ({"class_place": "before", "key": "onehot"}, "--class-place before needs the number of classes"),
    ],
)
def test_an_impossible_class_place_is_refused(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    content = {
        "generator": Conditional("before", 4).state_dict(),
        "onehot": nn.Sequential(nn.Linear(17, 32), nn.ReLU(), nn.Linear(32, 256)).state_dict(),
    }
    with pytest.raises(LoadError, match=message):
        load_generator(save(content, tmp_path), AuditConfig(**flags))


def test_class_place_applies_to_a_module_with_one_input(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(17, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    config = AuditConfig(classes=5, latent_dim=12, condition="concat", class_place="before")
    z, labels = torch.randn(5, 12), torch.arange(5)
    with torch.no_grad():
        assert torch.equal(wrap_module(net, config).forward(z, labels), net(torch.cat([torch.eye(5), z], 1)))
    with pytest.raises(LoadError, match="--class-place before was given, but Sequential takes no class"):
        wrap_module(net, AuditConfig(latent_dim=17, class_place="before"))


def test_an_embedding_of_the_wrong_width_is_refused_by_name(tmp_path: Path) -> None:
    state = Conditional("before", 4).state_dict()
    state["label_emb.weight"] = torch.randn(CLASSES, 40)
    with pytest.raises(
        LoadError,
        match=r"label_emb.weight holds 5 vectors of 40 numbers, which do not fit the 16 inputs of net.0.weight",
    ):
        load_generator(save(state, tmp_path))


def test_sampled_latents_differ_from_a_fresh_embedding() -> None:
    """An embedding is often drawn first after manual_seed(0); multiplied with itself it looks like another prior."""
    embedding = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    assert not torch.isclose(sample_prior(16, (100,), "normal", 0)[:8], embedding).any()


class InfoGAN(nn.Module):
    """InfoGAN in PyTorch-GAN's layout: noise, one-hot class, codes on [-1, 1]; the last two are drawn inside."""

    def __init__(self, noise: int = 20, codes: int = 2) -> None:
        super().__init__()
        self.codes = codes
        self.l1 = nn.Sequential(nn.Linear(noise + CLASSES + codes, 64 * 16))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(64),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(64, 16, 3, 1, 1),
            nn.BatchNorm2d(16, 0.8),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 1, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.generate(
            z[:, : z.shape[1] - self.codes], torch.randint(CLASSES, (len(z),)), 2 * torch.rand(len(z), self.codes) - 1
        )

    def generate(self, noise: Tensor, labels: Tensor, codes: Tensor) -> Tensor:
        inputs = torch.cat([noise, torch.eye(CLASSES)[labels], codes], 1)
        samples: Tensor = self.conv_blocks(self.l1(inputs).view(-1, 64, 4, 4))
        return samples


@pytest.mark.parametrize("codes", [1, 2, 3])
def test_a_class_between_noise_and_codes_is_detected(tmp_path: Path, codes: int) -> None:
    torch.manual_seed(0)
    net = InfoGAN(codes=codes)
    calibrated(net, lambda rng: torch.randn(64, 20 + codes, generator=rng), batches=150)
    spec = str(tmp_path / "spec.json")
    file = save(net.state_dict(), tmp_path)
    z, labels = torch.randn(10, 20 + codes), torch.arange(10) % CLASSES
    # Written, then replayed. No statistics show the eps of the last BatchNorm.
    for config in (AuditConfig(spec=spec, bn_eps=0.8, activation="leaky:0.2"), AuditConfig(spec=spec)):
        network = load_generator(file, config)
        assert (network.latent.dim, network.classes, network.condition, network.latent.prior) == (
            20 + codes,
            CLASSES,
            "index",
            "normal",
        )
        with torch.no_grad():
            samples, expected = network.forward(z, labels), net.generate(z[:, :20], labels, z[:, 20:])
        assert torch.allclose(samples, expected, atol=1e-6)
    assumption = find_assumption(network, "class_place")
    assert assumption.value == "between" and assumption.note.startswith(f"the last {codes} latents ")
    estimate = estimate_trained_scale(network)
    assert estimate is not None and estimate.low < 1 < estimate.high


def layers(*parts: tuple[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{leaf}": tensor for name, part in parts for leaf, tensor in part.state_dict().items()}


@pytest.mark.parametrize(
    "state",
    [
        layers(("embed", nn.Linear(100, 256, bias=False)), ("fc1", nn.Linear(256, 512)), ("fc2", nn.Linear(512, 784))),
        layers(
            ("label_emb", nn.Linear(10, 100, bias=False)),
            ("main.0", nn.Linear(100, 256)),
            ("main.2", nn.Linear(256, 784)),
        ),
        layers(("label_emb", nn.Linear(10, 100)), ("main.0", nn.Linear(100, 256)), ("main.2", nn.Linear(256, 784))),
        layers(
            ("z_embed", nn.Linear(64, 100, bias=False)),
            ("main.0", nn.Linear(100, 256)),
            ("main.2", nn.Linear(256, 784)),
        ),
        layers(
            ("fc", nn.Linear(128, 32)),
            ("bn", nn.BatchNorm1d(32, affine=False)),
            ("embed", nn.Embedding(10, 64)),
            ("out", nn.Linear(32, 784)),
        ),
        layers(("label_emb", nn.Embedding(1, 4)), ("main.0", nn.Linear(100, 256)), ("main.2", nn.Linear(256, 784))),
    ],
    ids=[
        "the first layer",
        "of a one-hot class",
        "of a one-hot class, with bias",
        "of the latents",
        "of a conditional BatchNorm",
        "of one class",
    ],
)
def test_an_ambiguous_layer_is_not_taken_for_an_embedding(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(LoadError):
        load_generator(save(state, tmp_path))


def test_a_module_called_ensemble_is_not_an_embedding(tmp_path: Path) -> None:
    state = layers(("ensemble.0", nn.Linear(100, 256)), ("ensemble.2", nn.Linear(256, 784, bias=False)))
    network = load_generator(save(state, tmp_path))
    assert network.classes is None and network.latent.dim == 100 and network.output.shape == (1, 28, 28)


def test_many_classes_cost_little(tmp_path: Path) -> None:
    """60,000 rows: classes times channels times positions would be gigabytes."""
    net = trained(Conditional("before", 4, spatial=True))
    state = dict(net.state_dict())
    state["label_emb.weight"] = torch.randn(60_000, 4, generator=torch.Generator().manual_seed(2))
    start = time.monotonic()
    estimate = estimate_trained_scale(load_generator(save(state, tmp_path)))
    assert estimate is not None and estimate.low <= 1 <= estimate.high and time.monotonic() - start < 20


def test_statistics_that_fit_no_position_leave_it_undecided(tmp_path: Path) -> None:
    state = dict(trained(Conditional("plus", LATENT, spatial=True)).state_dict())
    state["net.1.running_var"] = state["net.1.running_var"] * 1e-6
    assumption = find_assumption(load_generator(save(state, tmp_path)), "class_place")
    assert assumption.undecided and assumption.fit is not None and assumption.fit.outcome == "none_fits"


def test_class_place_is_refused_for_a_program(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert onnx
    from test_onnx import save_image_graph

    save_image_graph(tmp_path / "g.onnx", label="index")
    with pytest.raises(LoadError, match=r"--class-place was given, but g\.onnx is a complete program"):
        load_generator(tmp_path / "g.onnx", AuditConfig(class_place="after"))
