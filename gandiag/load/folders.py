"""Folders that stand for one checkpoint: Hugging Face's, BigGAN's, StudioGAN's, accelerate's, by the names in them. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gandiag.errors import LoadError
from gandiag.load.companions import companion

HUB_NAMES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
_UNET = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_NUMBERED = re.compile(r"(model|pytorch_model)_\d+\.(safetensors|bin)")
_BIGGAN = re.compile(r"(?P<which>G_ema|G)(_(?!optim|ema)\w+)?\.pth")  # G.pth, G_ema_best0.pth; not G_optim.pth
_STUDIO = re.compile(r"model=(?P<which>G_ema|G)-(?P<when>best|current)-weights-step=(?P<step>\d+)\.pth")
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
    in_pieces = any(name.endswith((".safetensors.index.json", ".bin.index.json")) for name in names)
    return in_pieces or bool(names & {"model_index.json", ".metadata", *HUB_NAMES}) or bool(of_training(names, "ema"))


def open_folder(path: Path, prefer: str = "ema") -> Folder:
    """The candidates in a folder; `prefer`: "ema" or "raw", where a training kept both. LoadError for kinds that cannot be read."""
    names = {entry.name for entry in path.iterdir() if entry.is_file()}
    if "model_index.json" in names:
        return Folder((_unet_of(path),))
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        raise LoadError(f"{path} is a distributed checkpoint, whose index only unpickling can read",
                        "convert it where you trust it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt")
    if any(name.endswith(".index.json") for name in names):
        raise LoadError(f"{path} holds a model in several pieces", "save it as one file: save_pretrained(..., max_shard_size='100GB')")
    remote = [key for key in _REMOTE if key in companion(path / "config.json")]
    notes = (f"config.json names code elsewhere ({', '.join(remote)}), which was neither fetched nor run",) if remote else ()
    ranked = of_training(names, prefer)
    hub = [name for name in HUB_NAMES if name in names]
    numbered = sorted(name for name in names if _NUMBERED.fullmatch(name))
    if ranked:
        others = f"; {len(ranked) - 1} more of its kind beside it" if len(ranked) > 1 else ""
        return Folder((path / ranked[0],), (*notes, f"{ranked[0]} was taken out of the folder{others}"))
    if hub:
        return Folder(tuple(path / name for name in [hub[0], *numbered]), notes)
    raise LoadError(f"{path} is a folder, not a checkpoint", "pass the checkpoint file")


def is_pipeline(path: Path) -> bool:
    """Whether a folder is a diffusers pipeline: several networks, and how they sample together."""
    return (path / "model_index.json").is_file()


def _unet_of(path: Path) -> Path:
    found = [file for name in _UNET if (file := path / "unet" / name).is_file()]
    if not found:
        raise LoadError(f"{path} is a diffusers pipeline without unet/{_UNET[0]}", "pass a pipeline with a UNet2DModel, or audit a folder of its samples")
    return found[0]


def of_training(names: set[str], prefer: str) -> list[str]:
    """The generators that BigGAN's or StudioGAN's training left behind: the wanted kind first, then the best, then the latest."""
    found = [(match, name) for name in names if (match := _BIGGAN.fullmatch(name) or _STUDIO.fullmatch(name))]

    def rank(entry: tuple[re.Match[str], str]) -> tuple[bool, bool, int, str]:
        match, name = entry
        parts = match.groupdict()
        return (parts["which"] == "G_ema") != (prefer == "ema"), parts.get("when") == "current", -int(parts.get("step") or 0), name

    return [name for _, name in sorted(found, key=rank)]
