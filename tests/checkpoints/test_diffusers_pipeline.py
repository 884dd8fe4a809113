"""Unconditional diffusers folders: the image is a function of the initial noise, as by the library's own DDIM."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from assumption_lookup import find_assumption
from safetensors.torch import load_file, save_file

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.loader import load_generator
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.pipeline.subject import is_sample_path

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "families" / "ddpm"
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
imports_diffusers = pytest.mark.filterwarnings("ignore")  # those of the library at import


def load_folder(folder: Path = FOLDER, **flags: Any) -> LoadedGenerator:
    return load_generator(folder, AuditConfig(init=("steps=5",), **flags))


@needs_diffusers
@imports_diffusers
def test_outputs_match_the_library() -> None:
    reference, network = load_file(FOLDER / "reference.safetensors"), load_folder()
    assert (network.latent.shape, network.latent.prior, network.output.shape, network.output.range) == (
        (3, 8, 8),
        "normal",
        (3, 8, 8),
        (-1.0, 1.0),
    )
    assert network.subject["family"] == "diffusers UNet2DModel, by DDIM" and len(network.subject["sha256"]) == 64
    with torch.no_grad():
        samples = network.forward(reference["z"])
    assert samples.std() > 0.05
    assert torch.allclose(samples, reference["samples"], atol=1e-4)
    again = network.forward(reference["z"][1:2])
    assert torch.allclose(again, samples[1:2], atol=1e-5)  # no randomness, no dependence on the batch
    assert find_assumption(network, "sampler").source == "flag"


@needs_diffusers
@imports_diffusers
def test_steps_and_flags() -> None:
    sampler = find_assumption(load_generator(FOLDER), "sampler")
    assert (sampler.value, sampler.source) == ("DDIM", "default") and "eta 0, 50 steps" in sampler.note
    for init, message in ((("steps=0",), "from 1 to 1000"), (("nz=3",), "takes steps=N")):
        with pytest.raises(LoadError, match=message):
            load_generator(FOLDER, AuditConfig(init=init))
    with pytest.raises(LoadError, match="--prior uniform was given"):
        load_folder(prior="uniform")


@needs_diffusers
@imports_diffusers
def test_attention_layers_with_old_names(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "old")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(folder / WEIGHTS)
    renamed = {}
    for name, entry in tensors.items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = entry
    assert renamed.keys() != tensors.keys()
    save_file(renamed, folder / WEIGHTS)
    z = torch.randn(2, 3, 8, 8)
    assert torch.equal(load_folder(folder).forward(z), load_folder().forward(z))


@needs_diffusers
@imports_diffusers
def test_inspect_describes_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    from gandiag.cli.main import run_command_line

    assert run_command_line(["inspect", str(FOLDER)]) == 0
    output = capsys.readouterr().out
    for part in (
        "diffusers UNet2DModel, by DDIM",
        "the initial noise, 3x8x8",
        "eta 0, 50 steps",
        "unet/diffusion_pytorch_model.safetensors",
    ):
        assert part in output


def edit_folder(tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    folder = shutil.copytree(FOLDER, tmp_path / "edited")
    settings = json.loads((folder / name).read_text())
    change(settings)
    (folder / name).write_text(json.dumps(settings))
    return Path(folder)


def test_the_folder_is_not_taken_for_samples() -> None:
    assert not is_sample_path(FOLDER)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"_class_name": "StableDiffusionPipeline"}, "StableDiffusionPipeline with"),
        ({"unet": ["pipeline", "Evil"]}, "samples unconditional ones"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, "samples unconditional ones"),
        ({"scheduler": ["diffusers", "PNDMScheduler"]}, "samples unconditional ones"),
        ({"_class_name": ["my_code", "DDPMPipeline"]}, "samples unconditional ones"),
    ],
)
def test_other_pipelines_are_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadError, match=reason) as caught:
        load_generator(edit_folder(tmp_path, "model_index.json", lambda settings: settings.update(change)))
    assert "folder of its samples" in caught.value.hint


@needs_diffusers
@imports_diffusers
@pytest.mark.parametrize(
    "name, change, reason",
    [
        ("unet/config.json", {"block_out_channels": [8, 8]}, "do not agree"),
        ("unet/config.json", {"layers_per_block": 10**9}, "implausibly large"),
        ("unet/config.json", {"out_channels": 6}, "from 3 to 6 channels"),
        ("unet/config.json", {"sample_size": None}, "does not state its image size"),
        ("unet/config.json", {"down_block_types": ["Evil", "Evil"]}, "do not agree"),
        ("unet/config.json", {"block_out_channels": [10**12, 8]}, "implausibly large"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "num_train_timesteps"),
    ],
)
def test_inconsistent_settings_are_refused(tmp_path: Path, name: str, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        load_generator(edit_folder(tmp_path, name, lambda settings: settings.update(change)))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "cut")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(LoadError, match=r"has no scheduler/scheduler_config.json"):
        load_generator(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(LoadError, match=r"without unet/diffusion_pytorch_model\.safetensors"):
        load_generator(folder)
