"""Files as other libraries write them become the generators that they are, without those libraries.

fixtures/families/make.py wrote them by each library's own save path, with its own outputs beside. Where the arithmetic is the
same the outputs agree to 1e-5; 1e-4 allows for another machine's convolutions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gandiag.checkpoints.loader import LoadedGenerator, load_generator
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

ROOT = Path(__file__).resolve().parents[3] / "fixtures" / "families"
KNOWN = load_file(ROOT / "reference.safetensors")


@dataclass(frozen=True)
class Family:
    """A fixture: its file, and what must be told of it."""

    file: str
    name: str
    latent: int
    shape: tuple[int, ...]
    classes: int | None = None
    condition: str | None = None
    range: tuple[float, float] | None = (-1.0, 1.0)
    weights: str = ""
    flags: tuple[tuple[str, Any], ...] = ()


FAMILIES = {
    "mimicry_sngan": Family("mimicry_sngan.pth", "mimicry ResNet", 16, (3, 32, 32), weights="model_state_dict"),
    "mimicry_infomax": Family("mimicry_infomax.pth", "mimicry ResNet", 16, (3, 48, 48), weights="model_state_dict"),
    "mimicry_cgan": Family(
        "mimicry_cgan.pth", "mimicry ResNet", 16, (3, 32, 32), 5, "index", weights="model_state_dict"
    ),
    "mimicry_sagan": Family(
        "mimicry_sagan.pth", "mimicry ResNet", 16, (3, 32, 32), 5, "index", weights="model_state_dict"
    ),
    "biggan_deep": Family(
        "biggan/pytorch_model.bin", "BigGAN-deep", 12, (3, 32, 32), 6, "onehot", weights="the whole file"
    ),
    "stylegan2_pytorch": Family(
        "stylegan2/model_3.pt",
        "StyleGAN2 (stylegan2-pytorch)",
        12,
        (3, 32, 32),
        range=(0.0, 1.0),
        weights="GAN.SE+GE (EMA copy",
    ),
    "torchgan_dcgan": Family("torchgan_dcgan.model", "transposed", 12, (3, 32, 32), weights="generator"),
    "ctgan": Family("ctgan.pt", "CTGAN", 8, (8,), 3, "concat", None, weights="_generator"),
}


def opened(name: str) -> LoadedGenerator:
    return load_generator(ROOT / FAMILIES[name].file, AuditConfig(**dict(FAMILIES[name].flags)))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_fixture_is_read_as_what_it_is(name: str) -> None:
    family, network = FAMILIES[name], opened(name)
    assert (network.subject["family"], network.latent.dim, network.output.shape) == (
        family.name,
        family.latent,
        family.shape,
    )
    assert (network.classes, network.condition, network.output.range) == (
        family.classes,
        family.condition,
        family.range,
    )
    assert network.subject["weights"].startswith(family.weights)
    assert (ROOT / family.file).stat().st_size < 300_000


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_outputs_are_those_of_the_library(name: str) -> None:
    network = opened(name)
    z = KNOWN[f"{name}.z"].reshape(-1, *network.latent.shape)
    made = network.forward(z, KNOWN.get(f"{name}.labels"))
    assert made.std() > 0.01
    assert torch.allclose(made, KNOWN[f"{name}.samples"].reshape(made.shape), atol=1e-4)


def test_the_raw_copy_and_the_configuration_beside_the_file(tmp_path: Path) -> None:
    source = ROOT / "stylegan2" / "model_3.pt"
    raw = load_generator(source, AuditConfig(weights="raw"))
    assert raw.subject["weights"].startswith("GAN.S+G; its EMA copy GAN.SE+GE is there too")
    (tmp_path / "model_3.pt").write_bytes(source.read_bytes())
    alone = load_generator(tmp_path / "model_3.pt")
    rate = next(entry for entry in alone.assumptions if "learning-rate" in entry.what)
    assert (rate.value, rate.source) == ("0.1", "family (stylegan2-pytorch)")
    with pytest.raises(LoadError, match="--strict takes no assumptions"):
        load_generator(tmp_path / "model_3.pt", AuditConfig(strict=True))


def test_without_its_configuration_biggan_doubles_every_second_block(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes((ROOT / "biggan" / "pytorch_model.bin").read_bytes())
    told = next(
        entry for entry in load_generator(tmp_path / "m.bin").assumptions if entry.what.startswith("upsampling")
    )
    assert told.source == "family (BigGAN-deep)" and "in blocks 1, 4" in told.value


@pytest.mark.parametrize(
    "flags, said", [({"latent_dim": 99}, "--latent-dim 99 contradicts"), ({"classes": 9}, "--classes 9 contradicts")]
)
def test_flags_that_contradict_a_family(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        load_generator(ROOT / "mimicry_cgan.pth", AuditConfig(**flags))


def normalised() -> list[tuple[nn.Module, nn.Module]]:
    """(with normalisation, the layer without) of every style and kind of layer."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of the old weight_norm
        makers = (
            nn.utils.spectral_norm,
            nn.utils.parametrizations.spectral_norm,
            nn.utils.weight_norm,
            nn.utils.parametrizations.weight_norm,
        )
        layers = (
            lambda: nn.Linear(5, 7),
            lambda: nn.Conv2d(3, 4, 3),
            lambda: nn.ConvTranspose2d(3, 4, 3),
            lambda: nn.ConvTranspose2d(4, 4, 3),
        )
        return [(make(layer()), layer()) for make in makers for layer in layers]


def test_normalisations_fold_into_the_weights_they_stand_for() -> None:
    torch.manual_seed(0)
    for layer, plain in normalised():
        x = torch.randn(2, 5) if isinstance(plain, nn.Linear) else torch.randn(2, plain.in_channels, 6, 6)
        layer.train()(x)  # a power iteration
        with torch.no_grad():
            wanted = layer.eval()(x)
            plain.load_state_dict(
                fold_weight_norms(Weights({name: entry.detach() for name, entry in layer.state_dict().items()})).tensors
            )
            assert torch.allclose(plain(x), wanted, atol=1e-6)


def test_loaders_of_others_can_be_checked() -> None:
    from gandiag.checkpoints.architectures import biggan_deep, mimicry
    from gandiag.errors import PluginError
    from gandiag.testing import check_loader

    name = "mimicry_cgan"
    known = {part: KNOWN.get(f"{name}.{part}") for part in ("z", "labels", "samples")}
    check_loader(mimicry.rebuild, str(ROOT / FAMILIES[name].file), **known)
    with pytest.raises(PluginError, match="away from the reference"):
        check_loader(mimicry.rebuild, str(ROOT / FAMILIES[name].file), **{**known, "z": KNOWN[f"{name}.z"] + 1})
    with pytest.raises(PluginError, match="one too many"):
        check_loader(lambda weights, config: mimicry.rebuild(OWN, config), str(ROOT / FAMILIES[name].file))
    with pytest.raises(Exception, match=r"^$"):  # not its own: no reason to give
        biggan_deep.rebuild(OWN, AuditConfig())


OWN = Weights(torch.load(ROOT / "mimicry_cgan.pth", weights_only=True)["model_state_dict"])


@pytest.mark.slow
def test_live_against_the_libraries(tmp_path: Path) -> None:
    """The recipes run again, against the packages unpacked in GANDIAG_FAMILY_LIBS, give files that agree as the shipped ones do."""
    libs = os.environ.get("GANDIAG_FAMILY_LIBS")
    if libs is None:
        pytest.skip("GANDIAG_FAMILY_LIBS does not name a folder with the packages (see fixtures/families/make.py)")
    for name, family in FAMILIES.items():
        subprocess.run(
            [sys.executable, ROOT / "make.py", "--libs", libs, "--out", tmp_path, "--only", name],
            check=True,
            timeout=300,
        )
        network, known = (
            load_generator(tmp_path / family.file, AuditConfig(**dict(family.flags))),
            load_file(tmp_path / "reference.safetensors"),
        )
        made = network.forward(known[f"{name}.z"].reshape(-1, *network.latent.shape), known.get(f"{name}.labels"))
        assert torch.allclose(made, known[f"{name}.samples"].reshape(made.shape), atol=1e-4), name


@pytest.mark.parametrize(
    "keys, said",
    [
        (("synthesis.L0_36_1024.weight", "mapping.fc0.weight"), "StyleGAN3 or StyleGAN-XL"),
        (("pos_embed.0", "blocks.0.attn.qkv.weight"), "TransGAN"),
        (("init.init.0.weight", "feat_8.2.weight"), "FastGAN"),
        (("linear0.weight", "blocks.0.0.conv2d1.weight"), "StudioGAN"),
        (("output_layer.0.gain", "blocks.0.0.conv1.weight"), "BigGAN (ajbrock)"),
    ],
)
def test_what_is_known_and_not_rebuilt_says_so(tmp_path: Path, keys: tuple[str, ...], said: str) -> None:
    torch.save({key: torch.zeros(8, 8) for key in keys}, tmp_path / "G.pth")
    with pytest.raises(LoadError) as caught:
        load_generator(tmp_path / "G.pth")
    assert (
        said in caught.value.message and "does not rebuild" in caught.value.message and "--model" in caught.value.hint
    )


def test_tensorflow_files_name_the_converter(tmp_path: Path) -> None:
    packed = b"\x80\x02(" + b"cdnnlib.tflib.network\nNetwork\n)\x81}X\x01\x00\x00\x00aK\x01sb" * 3 + b"t."
    (tmp_path / "stylegan2-ffhq.pkl").write_bytes(packed)
    with pytest.raises(LoadError, match="TensorFlow StyleGAN file") as caught:
        load_generator(tmp_path / "stylegan2-ffhq.pkl")
    assert "legacy.py" in caught.value.hint
