"""Folders that stand for one checkpoint: Hugging Face's, BigGAN's, accelerate's, by the names in them. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gandiag.errors import LoadError
from gandiag.load.companions import companion

_HUB = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
_NUMBERED = re.compile(r"(model|pytorch_model)_\d+\.(safetensors|bin)")
_REMOTE = ("auto_map", "custom_pipeline", "custom_pipelines")


@dataclass(frozen=True, slots=True)
class Folder:
    """The files that may be the generator, the likeliest first, and what a reader should know."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def holds_checkpoint(path: Path) -> bool:
    """Whether a folder is one checkpoint by the names in it, rather than samples."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    return bool(names & {"model_index.json", ".metadata", *_HUB}) or any(name.startswith("G_ema") and name.endswith(".pth") for name in names)


def open_folder(path: Path) -> Folder:
    """The candidates in a folder. LoadError for the kinds that cannot be read, with the way that works."""
    names = {entry.name for entry in path.iterdir() if entry.is_file()}
    if "model_index.json" in names:
        raise LoadError(f"{path} is a diffusers pipeline, which samples by many steps and not by one network", "audit a folder of its samples instead")
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        raise LoadError(f"{path} is a distributed checkpoint, whose index only unpickling can read",
                        "convert it where you trust it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt")
    if any(name.endswith(".index.json") for name in names):
        raise LoadError(f"{path} holds a model in several pieces", "save it as one file: save_pretrained(..., max_shard_size='100GB')")
    remote = [key for key in _REMOTE if key in companion(path / "config.json")]
    notes = (f"config.json names code elsewhere ({', '.join(remote)}), which was neither fetched nor run",) if remote else ()
    ranked = sorted(name for name in names if name.startswith("G_ema") and name.endswith(".pth"))
    hub = [name for name in _HUB if name in names]
    numbered = sorted(name for name in names if _NUMBERED.fullmatch(name))
    if ranked:
        return Folder(tuple(path / name for name in ranked[:1]), notes)
    if hub:
        return Folder(tuple(path / name for name in [hub[0], *numbered]), notes)
    raise LoadError(f"{path} is a folder, not a checkpoint", "pass the checkpoint file")
