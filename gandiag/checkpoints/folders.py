"""Folders that stand for one checkpoint: Hugging Face's, BigGAN's, StudioGAN's, accelerate's, by the names in them, and those
that hold no other one, or no other generator. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gandiag.checkpoints.file_type import IMAGE_SUFFIXES, WEIGHT_SUFFIXES
from gandiag.checkpoints.key_names import parse_role
from gandiag.checkpoints.sidecar_config import read_checkpoint_config
from gandiag.errors import LoadError

HUB_WEIGHT_NAMES = (
    "model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
)
_UNET = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_NUMBERED = re.compile(r"(model|pytorch_model)_\d+\.(safetensors|bin)")
_BIGGAN = re.compile(r"(?P<which>G_ema|G)(_(?!optim|ema)\w+)?\.pth")  # G.pth, G_ema_best0.pth; not G_optim.pth
_STUDIO = re.compile(r"model=(?P<which>G_ema|G)-(?P<when>best|current)-weights-step=(?P<step>\d+)\.pth")
_REMOTE = ("auto_map", "custom_pipeline", "custom_pipelines")


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The files that may be the generator, the likeliest first, and what a reader should know."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def is_checkpoint_folder(path: Path) -> bool:
    """Whether a folder is one checkpoint by the names in it, or holds some and no picture, rather than samples."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    in_pieces = any(name.endswith((".safetensors.index.json", ".bin.index.json")) for name in names)
    if (
        in_pieces
        or names & {"model_index.json", ".metadata", *HUB_WEIGHT_NAMES}
        or rank_training_checkpoints(names, "ema")
    ):
        return True
    return (
        bool(_files(path, WEIGHT_SUFFIXES))
        and not any(entry.is_dir() for entry in path.iterdir())
        and not _files(path, IMAGE_SUFFIXES)
    )


def _files(path: Path, suffixes: Collection[str]) -> list[Path]:
    """By name; hidden ones are left out."""
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
    )


def open_checkpoint_folder(path: Path, prefer: str = "ema") -> CheckpointFolder:
    """The candidates in a folder; `prefer`: "ema" or "raw", where a training kept both. LoadError for kinds that cannot be read."""
    names = {entry.name for entry in path.iterdir() if entry.is_file()}
    reject_pipeline_part(path)
    if "model_index.json" in names:
        return CheckpointFolder((_unet_of(path),))
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        raise LoadError(
            f"{path} is a distributed checkpoint, whose index only unpickling can read",
            "convert it where you trust it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
        )
    if any(name.endswith(".index.json") for name in names):
        raise LoadError(
            f"{path} holds a model in several pieces",
            "save it as one file: save_pretrained(..., max_shard_size='100GB')",
        )
    remote = [key for key in _REMOTE if key in read_checkpoint_config(path / "config.json")]
    notes = (
        (f"config.json names code elsewhere ({', '.join(remote)}), which was neither fetched nor run",)
        if remote
        else ()
    )
    ranked = rank_training_checkpoints(names, prefer)
    hub = [name for name in HUB_WEIGHT_NAMES if name in names]
    numbered = sorted(name for name in names if _NUMBERED.fullmatch(name))
    if ranked:
        others = f"; {len(ranked) - 1} more of its kind beside it" if len(ranked) > 1 else ""
        return CheckpointFolder((path / ranked[0],), (*notes, f"{ranked[0]} was taken out of the folder{others}"))
    if hub:
        return CheckpointFolder(tuple(path / name for name in [hub[0], *numbered]), notes)
    return _only(path)


def _only(path: Path) -> CheckpointFolder:
    """The one checkpoint of a folder, or the one that its name calls a generator. LoadError where several would do."""
    files = _files(path, WEIGHT_SUFFIXES)
    named = [file for file in files if parse_role(file.stem)[0] in ("generator", "average")]
    chosen = files if len(files) == 1 else named
    if len(chosen) == 1:
        beside = (
            f", of {len(files)} files of weights the one that is called a generator"
            if len(files) > 1
            else ", which holds no other weights"
        )
        return CheckpointFolder((chosen[0],), (f"{chosen[0].name} was taken out of the folder{beside}",))
    listed = ", ".join(str(file) for file in (named or files)[:5]) + (", …" if len(named or files) > 5 else "")
    raise LoadError(
        f"{path} is a folder of {len(files)} checkpoints",
        f"pass one of them: {listed}; or all, if they are of one training: gandiag audit --run {path}",
    )


def reject_pipeline_part(folder: Path) -> None:
    """LoadError for the part of a diffusers pipeline that holds its UNet: how it samples stands in the folder above."""
    if folder.name == "unet" and is_diffusers_pipeline(folder.parent):
        raise LoadError(
            f"{folder} holds the UNet of a diffusers pipeline, which does not say how it samples",
            f"pass the pipeline's folder: {folder.parent}",
        )


def is_diffusers_pipeline(path: Path) -> bool:
    """Whether a folder is a diffusers pipeline: several networks, and how they sample together."""
    return (path / "model_index.json").is_file()


def _unet_of(path: Path) -> Path:
    found = [file for name in _UNET if (file := path / "unet" / name).is_file()]
    if not found:
        raise LoadError(
            f"{path} is a diffusers pipeline without unet/{_UNET[0]}",
            "pass a pipeline with a UNet2DModel, or audit a folder of its samples",
        )
    return found[0]


def rank_training_checkpoints(names: set[str], prefer: str) -> list[str]:
    """The generators that BigGAN's or StudioGAN's training left behind: the wanted kind first, then the best, then the latest."""
    found = [(match, name) for name in names if (match := _BIGGAN.fullmatch(name) or _STUDIO.fullmatch(name))]

    def rank(entry: tuple[re.Match[str], str]) -> tuple[bool, bool, int, str]:
        match, name = entry
        parts = match.groupdict()
        return (
            (parts["which"] == "G_ema") != (prefer == "ema"),
            parts.get("when") == "current",
            -int(parts.get("step") or 0),
            name,
        )

    return [name for _, name in sorted(found, key=rank)]
