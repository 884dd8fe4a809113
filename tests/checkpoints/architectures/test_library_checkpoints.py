"""Files as other libraries write them become the generators that they are, without those libraries.

fixtures/families/make.py wrote them by each library's own save path, with its own outputs beside. Where the arithmetic
is the same the outputs agree to 1e-5; 1e-4 allows for another machine's convolutions.
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
from assumption_lookup import find_assumption
from safetensors.torch import load_file
from torch import nn

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError

ROOT = Path(__file__).resolve().parents[3] / "fixtures" / "families"
KNOWN = load_file(ROOT / "reference.safetensors")


@dataclass(frozen=True)
class Family:
    """A fixture: its file, and how it must be read."""

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


def load_family(name: str) -> LoadedGenerator:
    return load_generator(ROOT / FAMILIES[name].file, AuditConfig(**dict(FAMILIES[name].flags)))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_fixture_is_recognized(name: str) -> None:
    family, network = FAMILIES[name], load_family(name)
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
def test_outputs_match_the_library(name: str) -> None:
    network = load_family(name)
    z = KNOWN[f"{name}.z"].reshape(-1, *network.latent.shape)
    samples = network.forward(z, KNOWN.get(f"{name}.labels"))
    assert samples.std() > 0.01
    assert torch.allclose(samples, KNOWN[f"{name}.samples"].reshape(samples.shape), atol=1e-4)


def test_stylegan2_pytorch_without_its_configuration(tmp_path: Path) -> None:
    source = ROOT / "stylegan2" / "model_3.pt"
    raw = load_generator(source, AuditConfig(weights="raw"))
    assert raw.subject["weights"].startswith("GAN.S+G; its EMA copy GAN.SE+GE is there too")
    (tmp_path / "model_3.pt").write_bytes(source.read_bytes())
    alone = load_generator(tmp_path / "model_3.pt")
    multiplier = find_assumption(alone, "lr_multiplier")
    assert (multiplier.value, multiplier.source, multiplier.origin) == (0.1, "family", "stylegan2-pytorch")
    with pytest.raises(LoadError, match="--strict allows no assumptions"):
        load_generator(tmp_path / "model_3.pt", AuditConfig(strict=True))


def test_without_its_configuration_biggan_doubles_every_second_block(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes((ROOT / "biggan" / "pytorch_model.bin").read_bytes())
    upsampling = find_assumption(load_generator(tmp_path / "m.bin"), "upsampling_blocks")
    assert (upsampling.value, upsampling.source, upsampling.origin) == ((1, 4), "family", "BigGAN-deep")


@pytest.mark.parametrize(
    "flags, message", [({"latent_dim": 99}, "--latent-dim 99 contradicts"), ({"classes": 9}, "--classes 9 contradicts")]
)
def test_flags_that_contradict_the_architecture(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load_generator(ROOT / "mimicry_cgan.pth", AuditConfig(**flags))


def normalized_layers() -> list[tuple[nn.Module, nn.Module]]:
    """(layer with weight or spectral norm, the layer without) for every API and kind of layer."""
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


def test_weight_norms_are_folded_into_the_weights() -> None:
    torch.manual_seed(0)
    for layer, plain in normalized_layers():
        x = torch.randn(2, 5) if isinstance(plain, nn.Linear) else torch.randn(2, plain.in_channels, 6, 6)
        layer.train()(x)  # a power iteration
        with torch.no_grad():
            expected = layer.eval()(x)
            plain.load_state_dict(
                fold_weight_norms(Weights({name: entry.detach() for name, entry in layer.state_dict().items()})).tensors
            )
            assert torch.allclose(plain(x), expected, atol=1e-6)


def test_check_loader_accepts_and_rejects_third_party_loaders() -> None:
    from gandiag.checkpoints.architectures import biggan_deep, mimicry
    from gandiag.errors import PluginError
    from gandiag.testing import check_loader

    name = "mimicry_cgan"
    known = {part: KNOWN.get(f"{name}.{part}") for part in ("z", "labels", "samples")}
    check_loader(mimicry.rebuild, str(ROOT / FAMILIES[name].file), **known)
    with pytest.raises(PluginError, match="the samples differ from the given ones"):
        check_loader(mimicry.rebuild, str(ROOT / FAMILIES[name].file), **{**known, "z": KNOWN[f"{name}.z"] + 1})
    with pytest.raises(PluginError, match="rebuild accepts weights with"):
        check_loader(lambda weights, config: mimicry.rebuild(OWN, config), str(ROOT / FAMILIES[name].file))
    with pytest.raises(Exception, match=r"^$"):  # key names of another architecture: no reason is given
        biggan_deep.rebuild(OWN, AuditConfig())


OWN = Weights(torch.load(ROOT / "mimicry_cgan.pth", weights_only=True)["model_state_dict"])


@pytest.mark.slow
def test_live_against_the_libraries(tmp_path: Path) -> None:
    """The recipes run against the packages in GANDIAG_FAMILY_LIBS give files that agree as the shipped ones do."""
    libs = os.environ.get("GANDIAG_FAMILY_LIBS")
    if libs is None:
        pytest.skip("GANDIAG_FAMILY_LIBS does not name a folder with the packages (see fixtures/families/make.py)")
    for name, family in FAMILIES.items():
        subprocess.run(
            [sys.executable, ROOT / "make.py", "--libs", libs, "--out", tmp_path, "--only", name],
            check=True,
            timeout=300,
        )
        network = load_generator(tmp_path / family.file, AuditConfig(**dict(family.flags)))
        known = load_file(tmp_path / "reference.safetensors")
        z = known[f"{name}.z"].reshape(-1, *network.latent.shape)
        samples = network.forward(z, known.get(f"{name}.labels"))
        assert torch.allclose(samples, known[f"{name}.samples"].reshape(samples.shape), atol=1e-4), name


@pytest.mark.parametrize(
    "keys, description",
    [
        (("pos_embed.0", "blocks.0.attn.qkv.weight"), "TransGAN"),
        (("init.init.0.weight", "feat_8.2.weight"), "FastGAN"),
        (("linear0.weight", "blocks.0.0.conv2d1.weight"), "StudioGAN"),
        (("output_layer.0.gain", "blocks.0.0.conv1.weight"), "BigGAN (ajbrock)"),
    ],
)
def test_known_but_unsupported_architectures_are_named(tmp_path: Path, keys: tuple[str, ...], description: str) -> None:
    torch.save({key: torch.zeros(8, 8) for key in keys}, tmp_path / "G.pth")
    with pytest.raises(LoadError) as caught:
        load_generator(tmp_path / "G.pth")
    assert description in caught.value.message and "does not rebuild" in caught.value.message
    assert "--model" in caught.value.hint


def test_a_vocoder_is_named(tmp_path: Path) -> None:
    keys = ("conv_pre.weight", "ups.0.weight", "resblocks.0.convs1.0.weight", "conv_post.weight")
    torch.save(
        {"generator": {key: torch.zeros(8, 8, 3) for key in keys} | {"x.weight": torch.zeros(4, 4)}}, tmp_path / "g"
    )
    with pytest.raises(LoadError, match="a vocoder in the layout of HiFi-GAN: it takes a spectrogram") as caught:
        load_generator(tmp_path / "g")
    assert "--group-by" in caught.value.hint


def test_tensorflow_files_are_refused_with_the_converter(tmp_path: Path) -> None:
    packed = b"\x80\x02(" + b"cdnnlib.tflib.network\nNetwork\n)\x81}X\x01\x00\x00\x00aK\x01sb" * 3 + b"t."
    (tmp_path / "stylegan2-ffhq.pkl").write_bytes(packed)
    with pytest.raises(LoadError, match="TensorFlow StyleGAN file") as caught:
        load_generator(tmp_path / "stylegan2-ffhq.pkl")
    assert "legacy.py" in caught.value.hint
