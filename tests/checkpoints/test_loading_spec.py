"""--spec writes how a file was loaded and replays it; folders that hold one checkpoint; files without a generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from assumption_lookup import find_assumption
from safetensors.torch import save_file
from torch import nn
from toy_generators import DCGAN, calibrated, critic, mlp, normal, save, shuffled

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, GandiagError, LoadError
from gandiag.pipeline.subject import is_sample_path


def assert_same_outputs(network: LoadedGenerator, original: nn.Module) -> None:
    z = torch.randn(4, *network.latent.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.equal(network.forward(z), original.eval()(z).reshape(4, *network.output.shape))


def test_a_spec_is_written_and_replayed(tmp_path: Path) -> None:
    net = calibrated(DCGAN(act=lambda: nn.LeakyReLU(0.2)), normal(12))
    file, spec = save({"g": net.state_dict()}, tmp_path), str(tmp_path / "spec.json")
    first = load_generator(file, AuditConfig(spec=spec))
    written = json.loads(Path(spec).read_text())
    assert written["sha256"] == first.subject["sha256"] and written["settings"] == {
        "weights": "ema",
        "latent_dim": 12,
        "prior": "normal",
        "image_size": 32,
        "channels": 3,
        "activation": "leaky:0.2",
        "output_range": [-1.0, 1.0],
        "bn_eps": 1e-5,
        "strides": ["2/1", "2/1", "2/1"],
    }
    again = load_generator(file, AuditConfig(spec=spec, strict=True))  # without assumptions
    assert_same_outputs(again, net)
    assert {entry.source for entry in again.assumptions} <= {"spec", "shapes"}
    other = load_generator(save(shuffled(DCGAN()).state_dict(), tmp_path, "other.pth"), AuditConfig(spec=spec))
    assert other.notes[-1].endswith("which was written for another file")
    entry = find_assumption(other, "activation")
    assert (entry.value, entry.source) == ("leaky:0.2", "spec")
    # A flag overrides the spec, also where its strides imply another size.
    assert load_generator(file, AuditConfig(spec=spec, activation="relu")).assumptions != again.assumptions
    assert load_generator(file, AuditConfig(spec=spec, image_size=34)).output.shape == (3, 34, 34)
    assert load_generator(file, AuditConfig(spec=spec, strides=("2/1", "2/1", "1/1"))).output.shape == (3, 17, 17)


@pytest.mark.parametrize(
    "text, error, message",
    [
        ("{", LoadError, "cannot be read"),
        ("[]", LoadError, "is not a loading spec"),
        ('{"schema": "gandiag.spec/1", "settings": {"trust": true}}', ConfigError, "'trust'"),
        ('{"schema": "gandiag.spec/1", "settings": {"prior": "cauchy"}}', GandiagError, "--prior is 'cauchy'"),
        ('{"schema": "gandiag.spec/1", "settings": {"latent_dim": "many"}}', GandiagError, "wrong type"),
    ],
)
def test_invalid_specs(tmp_path: Path, text: str, error: type[GandiagError], message: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(error, match=message):
        load_generator(save(mlp().state_dict(), tmp_path), AuditConfig(spec=str(tmp_path / "s.json")))


def tensors(net: nn.Module) -> dict[str, Any]:
    return {name: entry.contiguous() for name, entry in net.state_dict().items()}


@pytest.mark.parametrize(
    "order", [("model.safetensors", "model_1.safetensors"), ("model_1.safetensors", "model.safetensors")]
)
def test_numbered_files_of_accelerate(tmp_path: Path, order: tuple[str, str]) -> None:
    net = calibrated(DCGAN(), normal(12))
    save_file(tensors(net), tmp_path / order[0])
    save_file(tensors(critic()), tmp_path / order[1])
    assert not is_sample_path(tmp_path)
    network = load_generator(tmp_path)
    assert network.subject["path"].endswith(order[0]) and network.subject["sha256"]
    note = f"of model.safetensors, model_1.safetensors, only {order[0]} has the shapes of a generator"
    assert network.notes[-1] == note
    assert_same_outputs(network, net)
    save_file(tensors(net), tmp_path / order[1])
    with pytest.raises(LoadError, match="several networks that could be the generator"):
        load_generator(tmp_path)


def test_folders_of_the_hub_and_of_biggan(tmp_path: Path) -> None:
    net = calibrated(DCGAN(), normal(12))
    hub = tmp_path / "hub"
    hub.mkdir()
    save_file(tensors(net), hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps({"latent_dim": 12, "auto_map": {"AutoModel": "owner/repo--net.Net"}}))
    network = load_generator(hub)
    assert network.notes == ("config.json refers to code (auto_map), which was neither downloaded nor run",)
    assert_same_outputs(network, net)
    training = tmp_path / "biggan"
    training.mkdir()
    save(net.state_dict(), training, "G_ema.pth")
    save(shuffled(DCGAN()).state_dict(), training, "G.pth")
    assert_same_outputs(load_generator(training), net)


@pytest.mark.parametrize(
    "names, message",
    [
        (["model_index.json"], "is a diffusers pipeline without unet"),
        ([".metadata", "__0_0.distcp"], "is a distributed checkpoint"),
        (["model.safetensors.index.json", "pytorch_model.bin"], "split into several files"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(LoadError, match=message) as caught:
        load_generator(tmp_path)
    assert caught.value.hint


def test_a_folder_with_one_generator_is_loaded(tmp_path: Path) -> None:
    net = calibrated(DCGAN(), normal(12))
    save(net.state_dict(), tmp_path, "weights.pt")
    (tmp_path / "options.json").write_text("{}")
    assert not is_sample_path(tmp_path)
    network = load_generator(tmp_path)
    assert_same_outputs(network, net)
    assert network.notes == ("loaded weights.pt from the folder, its only weight file",)
    (tmp_path / "weights.pt").rename(tmp_path / "netG.pt")
    save(critic().state_dict(), tmp_path, "netD.pt")
    assert "the only one of 2 weight files that is named as a generator" in load_generator(tmp_path).notes[-1]
    save(shuffled(DCGAN()).state_dict(), tmp_path, "netG_7.pt")
    with pytest.raises(LoadError, match="is a folder of 3 checkpoints") as caught:
        load_generator(tmp_path)
    assert (
        f"{tmp_path}/netG.pt, {tmp_path}/netG_7.pt; or, if they" in caught.value.hint
        and f"--run {tmp_path}" in caught.value.hint
    )


def test_files_that_only_describe_weights_name_their_folder(tmp_path: Path) -> None:
    pipeline = tmp_path / "ddpm {0}"  # braces must survive str.format
    (pipeline / "unet").mkdir(parents=True)
    for name in ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "unet/config.json"):
        (pipeline / name).write_text("{}")
    for path in (pipeline / "unet", pipeline / "unet" / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(LoadError, match="holds the UNet of a diffusers pipeline") as caught:
            load_generator(path)
        assert caught.value.hint == f"pass the pipeline's folder: {pipeline}"
    with pytest.raises(LoadError, match="describes a network and holds no weights") as caught:
        load_generator(pipeline / "model_index.json")
    assert caught.value.hint == f"pass its folder: {pipeline}"


def test_folders_of_samples_stay_samples(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert is_sample_path(tmp_path)
    save(shuffled(DCGAN()).state_dict(), tmp_path, "netG.pt")  # as a training run leaves it beside its images
    assert is_sample_path(tmp_path)
