"""Chains whose class is a row of a table: where it goes is read from batch norm, and said where nothing tells."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
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
    """An embedding `name` of `width` numbers, joined at `place`; then linear layers, or transposed convolutions."""

    def __init__(
        self, place: LabelPosition, width: int, *, name: str = "label_emb", spatial: bool = False, norm: bool = True
    ) -> None:
        super().__init__()
        inputs = LATENT if place in ("times", "plus") else LATENT + width
        self.place, self.name, self.spatial = place, name, spatial
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
        else:  # no norm behind the first layer, as in PyTorch-GAN's cgan.py
            layers: list[nn.Module] = [nn.Linear(inputs, 48), nn.LeakyReLU(0.2)]
            for into, out in ((48, 64), (64, 96)):
                layers += [nn.Linear(into, out), *([nn.BatchNorm1d(out, 0.8)] if norm else []), nn.LeakyReLU(0.2)]
            self.net = nn.Sequential(*layers, nn.Linear(96, 256), nn.Tanh())

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = combine_label(z, self.get_submodule(self.name)(labels), self.place)
        made: Tensor = self.net(x[:, :, None, None] if self.spatial else x)
        return made


class Trained(nn.Module):
    """Draws the classes itself, to be calibrated by latents alone."""

    def __init__(self, net: Conditional) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = self.net(z, torch.arange(len(z)) % CLASSES)
        return made


def trained(net: Conditional, scale: float = 1.0) -> Conditional:
    calibrated(Trained(net), lambda rng: torch.randn(60, LATENT, generator=rng), batches=1)
    with torch.no_grad():
        net.get_submodule(net.name).weight.normal_(
            generator=torch.Generator().manual_seed(0)
        )  # as nn.Embedding begins, whose numbers no trial may draw again
    net.train()
    with torch.no_grad():
        for step in range(60):
            Trained(net)(scale * torch.randn(60, LATENT, generator=torch.Generator().manual_seed(step)))
    return net.eval()


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize(
    ("place", "width"), [("before", 4), ("after", 4), ("before", 5), ("times", LATENT), ("plus", LATENT)]
)
def test_batch_norm_says_how_the_class_is_joined(
    tmp_path: Path, place: LabelPosition, width: int, spatial: bool
) -> None:
    net = trained(Conditional(place, width, spatial=spatial))
    network = load_generator(save(net.state_dict(), tmp_path))
    z, labels = torch.randn(10, LATENT), torch.arange(10) % CLASSES
    with torch.no_grad():
        made, true = network.forward(z.reshape(10, *network.latent.shape), labels), net(z, labels)
    assert (made - true.reshape(made.shape)).abs().max() < 1e-6, [
        entry for entry in network.assumptions if entry.source != "shapes"
    ]
    assert (network.latent.dim, network.classes, network.condition) == (LATENT, CLASSES, "index")
    entry = next(entry for entry in network.assumptions if entry.what.startswith("place of the class"))
    assert entry.source == "batch-norm" and entry.value.rstrip(")").endswith(("times as far", "impossible"))


@pytest.mark.parametrize("scale", [0.05, 1.0])
@pytest.mark.parametrize(("place", "width"), [("before", 4), ("after", 4), ("times", LATENT), ("plus", LATENT)])
def test_the_scale_of_the_training_is_read_behind_the_embedding(
    tmp_path: Path, place: LabelPosition, width: int, scale: float
) -> None:
    """And with it the place and the prior, which a wrong scale would hide."""
    network = load_generator(save(trained(Conditional(place, width, spatial=True), scale).state_dict(), tmp_path))
    found = estimate_trained_scale(network)
    told = {entry.what.split(" (")[0]: entry for entry in network.assumptions}
    assert (
        told["place of the class"].value.startswith(f"{place} ") and told["place of the class"].source == "batch-norm"
    ), told
    assert network.latent.prior == "normal" and told["latent prior"].source != "undecided"
    if place == "plus" and scale < 1:  # the classes carry the variance
        assert found is None
    else:
        assert (
            found is not None
            and found.low <= scale <= found.high
            and found.high - found.low < (12 if place in ("before", "after") else 2) * scale
        )


@pytest.mark.parametrize(("name", "place"), [("label_emb", "before"), ("embed", "after")])
def test_without_batch_norm_custom_decides_and_strict_asks(tmp_path: Path, name: str, place: LabelPosition) -> None:
    net = Conditional(place, 4, name=name, norm=False).eval()
    file = save(net.state_dict(), tmp_path)
    network = load_generator(file, AuditConfig(activation="leaky:0.2"))
    z, labels = torch.randn(10, LATENT), torch.arange(10) % CLASSES
    with torch.no_grad():
        assert torch.equal(network.forward(z, labels), net(z, labels).reshape(10, *network.output.shape))
    entry = next(entry for entry in network.assumptions if entry.what.startswith("place of the class"))
    assert entry.source == "default" and entry.value == f"{place} the latents"
    with pytest.raises(LoadError, match="place of the class"):
        load_generator(file, AuditConfig(strict=True))


def test_a_reading_that_was_written_down_is_replayed(tmp_path: Path) -> None:
    file, spec = (
        save(trained(Conditional("times", LATENT, spatial=True)).state_dict(), tmp_path),
        str(tmp_path / "reading.json"),
    )
    first = load_generator(file, AuditConfig(spec=spec))
    assert read_loading_spec(spec).settings["condition"] == "index" and read_loading_spec(spec).settings["strides"] == (
        "2/1",
        "2/1",
    )
    again = load_generator(file, AuditConfig(spec=spec))
    z, labels = torch.randn(4, *first.latent.shape), torch.arange(4)
    assert torch.equal(first.forward(z, labels), again.forward(z, labels))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": 7}, "--classes 7 contradicts the weights: label_emb.weight holds 5 classes"),
        (
            {"latent_dim": 16},
            r"--latent-dim 16 contradicts the weights: net.0.weight takes 16 inputs, 4 of them the class",
        ),
        ({"condition": "onehot", "classes": 5}, "--condition onehot contradicts the weights"),
    ],
)
def test_flags_that_contradict_the_table_are_named(tmp_path: Path, given: dict[str, object], said: str) -> None:
    file = save(Conditional("before", 4).state_dict(), tmp_path)
    with pytest.raises(LoadError, match=said):
        load_generator(file, AuditConfig(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_place_that_was_told_is_where_the_class_goes(tmp_path: Path, place: LabelPosition) -> None:
    """The embedding's vector; and, in a chain that shows no embedding, the one-hot label."""
    net = Conditional(place, CLASSES, name="embed", norm=False).eval()
    state = net.state_dict()
    given = AuditConfig(class_place=place, activation="leaky:0.2")
    table = load_generator(save(state, tmp_path), given)
    z, labels = torch.randn(10, LATENT), torch.arange(10) % CLASSES
    with torch.no_grad():
        assert torch.equal(table.forward(z, labels), net(z, labels).reshape(10, *table.output.shape))
        net.get_submodule("embed").weight.copy_(torch.eye(CLASSES))
        del state["embed.weight"]
        onehot = load_generator(save(state, tmp_path), replace(given, classes=CLASSES))
        assert torch.equal(onehot.forward(z, labels), net(z, labels).reshape(10, *onehot.output.shape))
    assert [entry.source for entry in (*table.assumptions, *onehot.assumptions) if "--class-place" in entry.what] == [
        "flag",
        "flag",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"class_place": "times"},
            "--class-place times contradicts the weights: label_emb.weight holds vectors of 4 numbers, and net.0.weight takes 16",
        ),
        (
            {"class_place": "times", "classes": 5, "key": "onehot"},
            "--class-place times contradicts the weights: 0.weight takes the class one-hot",
        ),
        ({"class_place": "before", "key": "onehot"}, "--class-place before needs the number of classes"),
    ],
)
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, given: dict[str, object], said: str) -> None:
    content = {
        "generator": Conditional("before", 4).state_dict(),
        "onehot": nn.Sequential(nn.Linear(17, 32), nn.ReLU(), nn.Linear(32, 256)).state_dict(),
    }
    with pytest.raises(LoadError, match=said):
        load_generator(save(content, tmp_path), AuditConfig(**given))  # type: ignore[arg-type]


def test_a_model_that_takes_one_tensor_has_the_label_where_it_was_told(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(17, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    config = AuditConfig(classes=5, latent_dim=12, condition="concat", class_place="before")
    z, labels = torch.randn(5, 12), torch.arange(5)
    with torch.no_grad():
        assert torch.equal(wrap_module(net, config).forward(z, labels), net(torch.cat([torch.eye(5), z], 1)))
    with pytest.raises(LoadError, match="--class-place before was given, and Sequential takes no class"):
        wrap_module(net, AuditConfig(latent_dim=17, class_place="before"))


def test_a_table_that_fits_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    state = Conditional("before", 4).state_dict()
    state["label_emb.weight"] = torch.randn(CLASSES, 40)
    with pytest.raises(
        LoadError,
        match=r"label_emb.weight holds 5 vectors of 40 numbers, which do not fit the 16 inputs of net.0.weight",
    ):
        load_generator(save(state, tmp_path))


def test_latents_of_a_trial_are_not_the_first_numbers_of_a_training() -> None:
    """A conditional generator's embedding is often the first thing drawn after manual_seed(0): multiplied with itself it would look like another prior."""
    embedding = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    assert not torch.isclose(sample_prior(16, (100,), "normal", 0)[:8], embedding).any()


class Informed(nn.Module):
    """InfoGAN's inputs, noise, one-hot class, codes on [-1, 1], in PyTorch-GAN's layout; the class and the codes are drawn inside."""

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
        return self.of(
            z[:, : z.shape[1] - self.codes], torch.randint(CLASSES, (len(z),)), 2 * torch.rand(len(z), self.codes) - 1
        )

    def of(self, noise: Tensor, labels: Tensor, codes: Tensor) -> Tensor:
        made: Tensor = self.conv_blocks(
            self.l1(torch.cat([noise, torch.eye(CLASSES)[labels], codes], 1)).view(-1, 64, 4, 4)
        )
        return made


@pytest.mark.parametrize("codes", [1, 2, 3])
def test_a_class_between_latents_and_codes_is_found(tmp_path: Path, codes: int) -> None:
    torch.manual_seed(0)
    net = calibrated(Informed(codes=codes), lambda rng: torch.randn(64, 20 + codes, generator=rng), batches=150)
    spec = str(tmp_path / "reading.json")
    file = save(net.state_dict(), tmp_path)
    z, labels = torch.randn(10, 20 + codes), torch.arange(10) % CLASSES
    for given in (
        {"bn_eps": 0.8, "activation": "leaky:0.2"},
        {},
    ):  # read, and replayed: what stands behind the last norm shows no eps
        network = load_generator(file, AuditConfig(spec=spec, **given))  # type: ignore[arg-type]
        assert (network.latent.dim, network.classes, network.condition, network.latent.prior) == (
            20 + codes,
            CLASSES,
            "index",
            "normal",
        )
        with torch.no_grad():
            made, true = network.forward(z, labels), net.of(z[:, :20], labels, z[:, 20:])  # type: ignore[operator]
        assert torch.allclose(made, true, atol=1e-6)
    entry = next(entry for entry in network.assumptions if entry.what.startswith("place of the class"))
    assert entry.value.startswith(f"between the latents: the last {codes} ")
    found = estimate_trained_scale(network)
    assert found is not None and found.low < 1 < found.high


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
        "of a one-hot class, biased",
        "of the latents",
        "of a conditional batch norm",
        "of one class",
    ],
)
def test_what_may_be_another_layer_is_no_table(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(LoadError):
        load_generator(save(state, tmp_path))


def test_a_last_layer_of_an_ensemble_is_a_layer(tmp_path: Path) -> None:
    state = layers(("ensemble.0", nn.Linear(100, 256)), ("ensemble.2", nn.Linear(256, 784, bias=False)))
    network = load_generator(save(state, tmp_path))
    assert network.classes is None and network.latent.dim == 100 and network.output.shape == (1, 28, 28)


def test_many_classes_cost_little(tmp_path: Path) -> None:
    """60,000 rows: classes times channels times positions would be gigabytes."""
    net = trained(Conditional("before", 4, spatial=True))
    state = dict(net.state_dict())
    state["label_emb.weight"] = torch.randn(60_000, 4, generator=torch.Generator().manual_seed(2))
    begun = time.monotonic()
    found = estimate_trained_scale(load_generator(save(state, tmp_path)))
    assert found is not None and found.low <= 1 <= found.high and time.monotonic() - begun < 20


def test_statistics_that_fit_no_place_leave_it_open(tmp_path: Path) -> None:
    state = dict(trained(Conditional("plus", LATENT, spatial=True)).state_dict())
    state["net.1.running_var"] = state["net.1.running_var"] * 1e-6
    entry = next(
        entry
        for entry in load_generator(save(state, tmp_path)).assumptions
        if entry.what.startswith("place of the class")
    )
    assert entry.source == "undecided" and "fit none" in entry.value


def test_a_program_has_its_class_where_it_has_it(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert onnx
    from test_onnx import pictures

    pictures(tmp_path / "g.onnx", label="index")
    with pytest.raises(LoadError, match=r"--class-place was given, and g\.onnx is a whole program"):
        load_generator(tmp_path / "g.onnx", AuditConfig(class_place="after"))
