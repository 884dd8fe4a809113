"""Folders that hold one checkpoint. Torch-free.

Recognized by file names: Hugging Face, BigGAN, StudioGAN and accelerate folders, and folders with a single generator.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gandiag.checkpoints.file_type import (
    IMAGE_SUFFIXES,
    WEIGHT_SUFFIXES,
    FileInfo,
    detect_folder_kind,
    unsupported_file_error,
)
from gandiag.checkpoints.key_names import parse_role
from gandiag.checkpoints.metadata import read_checkpoint_config
from gandiag.errors import LoadError

HUB_WEIGHT_NAMES = (
    "model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
)
_UNET_WEIGHT_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_NUMBERED = re.compile(r"(model|pytorch_model)_\d+\.(safetensors|bin)")
_BIGGAN = re.compile(r"(?P<which>G_ema|G)(_(?!optim|ema)\w+)?\.pth")  # G.pth, G_ema_best0.pth; not G_optim.pth
_STUDIOGAN = re.compile(r"model=(?P<which>G_ema|G)-(?P<when>best|current)-weights-step=(?P<step>\d+)\.pth")
_REMOTE_CODE_KEYS = ("auto_map", "custom_pipeline", "custom_pipelines")


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """Files that may be the generator, likeliest first, and notes for the user."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def is_checkpoint_folder(path: Path) -> bool:
    """Whether a folder holds a checkpoint, not samples: known file names, or weights without images or subfolders."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    if detect_folder_kind(names):  # of another framework: open_checkpoint_folder names it
        return True
    if any(name.endswith((".safetensors.index.json", ".bin.index.json")) for name in names):
        return True
    if names & {"model_index.json", ".metadata", *HUB_WEIGHT_NAMES} or rank_training_checkpoints(names, "ema"):
        return True
    has_subfolder = any(entry.is_dir() for entry in path.iterdir())
    return bool(_list_files(path, WEIGHT_SUFFIXES)) and not has_subfolder and not _list_files(path, IMAGE_SUFFIXES)


def _list_files(path: Path, suffixes: Collection[str]) -> list[Path]:
    """Files with these suffixes by name, without hidden ones."""
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
    )


def open_checkpoint_folder(path: Path, prefer: str = "ema") -> CheckpointFolder:
    """Candidate files of a folder.

    `prefer`: "ema" or "raw", where training kept both. LoadError for unsupported folders.
    """
    names = {entry.name for entry in path.iterdir() if entry.is_file()}
    other_framework = detect_folder_kind(names)
    if other_framework:
        raise unsupported_file_error(FileInfo(path, other_framework, 0))
    reject_pipeline_part(path)
    if "model_index.json" in names:
        return CheckpointFolder((_find_unet(path),))
    _reject_split_models(path, names)
    remote_code = [key for key in _REMOTE_CODE_KEYS if key in read_checkpoint_config(path / "config.json")]
    notes: tuple[str, ...] = ()
    if remote_code:
        notes = (f"config.json refers to code ({', '.join(remote_code)}), which was neither downloaded nor run",)
    ranked = rank_training_checkpoints(names, prefer)
    if ranked:
        more = f"; the folder has {len(ranked) - 1} more of its kind" if len(ranked) > 1 else ""
        return CheckpointFolder((path / ranked[0],), (*notes, f"loaded {ranked[0]} from the folder{more}"))
    hub = [name for name in HUB_WEIGHT_NAMES if name in names]
    if hub:
        numbered = sorted(name for name in names if _NUMBERED.fullmatch(name))
        return CheckpointFolder(tuple(path / name for name in [hub[0], *numbered]), notes)
    return _choose_only_file(path)


def _reject_split_models(path: Path, names: set[str]) -> None:
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        raise LoadError(
            f"{path} is a distributed checkpoint, whose index can only be read by unpickling it",
            "if you trust it, convert it: "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
        )
    if any(name.endswith(".index.json") for name in names):
        raise LoadError(
            f"{path} holds a model split into several files",
            "save it as one file: save_pretrained(..., max_shard_size='100GB')",
        )


def _choose_only_file(path: Path) -> CheckpointFolder:
    """The only checkpoint of a folder, or the only one named as a generator. LoadError if several qualify."""
    files = _list_files(path, WEIGHT_SUFFIXES)
    generators = [file for file in files if parse_role(file.stem)[0] in ("generator", "average")]
    candidates = files if len(files) == 1 else generators
    if len(candidates) == 1:
        reason = (
            f"the only one of {len(files)} weight files that is named as a generator"
            if len(files) > 1
            else "its only weight file"
        )
        return CheckpointFolder((candidates[0],), (f"loaded {candidates[0].name} from the folder, {reason}",))
    listed = ", ".join(map(str, (generators or files)[:5])) + (", …" if len(generators or files) > 5 else "")
    raise LoadError(
        f"{path} is a folder of {len(files)} checkpoints",
        f"pass one of them: {listed}; or, if they are from one training run, all: gandiag audit --run {path}",
    )


def reject_pipeline_part(folder: Path) -> None:
    """LoadError for the UNet folder of a diffusers pipeline: how it samples is described in the parent folder."""
    if folder.name == "unet" and is_diffusers_pipeline(folder.parent):
        raise LoadError(
            f"{folder} holds the UNet of a diffusers pipeline, without its sampling settings",
            f"pass the pipeline's folder: {folder.parent}",
        )


def is_diffusers_pipeline(path: Path) -> bool:
    """Whether a folder is a diffusers pipeline: several networks and how they sample together."""
    return (path / "model_index.json").is_file()


def _find_unet(path: Path) -> Path:
    weights = [file for name in _UNET_WEIGHT_NAMES if (file := path / "unet" / name).is_file()]
    if not weights:
        raise LoadError(
            f"{path} is a diffusers pipeline without unet/{_UNET_WEIGHT_NAMES[0]}",
            "pass a pipeline with a UNet2DModel, or audit a folder of its samples",
        )
    return weights[0]


def rank_training_checkpoints(names: set[str], prefer: str) -> list[str]:
    """Generators saved by BigGAN's or StudioGAN's training: preferred kind first, then the best, then the latest."""
    matches = [(match, name) for name in names if (match := _BIGGAN.fullmatch(name) or _STUDIOGAN.fullmatch(name))]

    def rank(entry: tuple[re.Match[str], str]) -> tuple[bool, bool, int, str]:
        match, name = entry
        parts = match.groupdict()
        return (
            (parts["which"] == "G_ema") != (prefer == "ema"),
            parts.get("when") == "current",
            -int(parts.get("step") or 0),
            name,
        )

    return [name for _, name in sorted(matches, key=rank)]
