"""hf:owner/name[/FILE][@REVISION]: downloads a checkpoint from the Hugging Face Hub, only when asked for by name.

Torch-free.

Only weights and their settings (.json) are downloaded, never code. The revision is resolved to a commit first, and
every file comes from that commit. The client is huggingface_hub, with its cache, endpoint (HF_ENDPOINT) and progress
bars.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.folders import HUB_WEIGHT_NAMES, rank_training_checkpoints
from gandiag.checkpoints.key_names import clean_text, first_line, parse_role
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

HUB_PREFIX = "hf:"
_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(/(?P<file>[^@]+))?(@(?P<revision>[\w./-]+))?")
_SUFFIXES = (*WEIGHT_SUFFIXES, ".onnx", ".onnx.data")
_CONFIGS = ("config.json", ".config.json")
_PIPELINE_CONFIGS = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
_UNET_WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin")
_TIMEOUT = 10.0  # seconds
_USE_COPY = "pass the path of a copy on this machine"


@dataclass(frozen=True, slots=True)
class HubDownload:
    """A downloaded file, or folder that holds one checkpoint, and the commit it comes from."""

    path: Path
    revision: Assumption
    notes: tuple[str, ...] = ()


def is_hub_reference(path: str) -> bool:
    """Whether a path is written hf:…"""
    return path.startswith(HUB_PREFIX)


def download_checkpoint(reference: str, prefer: str = "ema") -> HubDownload:
    """Download a repository's weights and settings; cached files are reused. LoadError for every failure."""
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise LoadError(
            f"{reference} does not name a repository of the Hub",
            "write it as hf:owner/name, hf:owner/name@revision or hf:owner/name/file.pt",
        )
    repo, file, revision = parts["repo"], parts["file"], parts["revision"]
    client = _import_client()
    info = _ask_hub(reference, lambda: client.HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT))
    names = [name for entry in info.siblings or () if _is_safe_path(name := str(entry.rfilename))]
    commit = str(info.sha)

    def download(name: str) -> Path:
        options = {"revision": commit, "etag_timeout": _TIMEOUT}
        return Path(_ask_hub(reference, lambda: client.hf_hub_download(repo, name, **options)))

    wanted, whole_folder = choose_files(names, file, reference, prefer)
    path = [download(name) for name in wanted][-1]
    for _ in range(wanted[-1].count("/") + 1 if whole_folder else 0):
        path = path.parent
    code = [name for name in names if name.endswith(".py")]
    notes: tuple[str, ...] = ()
    if code:
        notes = (f"the repository contains code ({', '.join(code[:3])}), which was neither downloaded nor run",)
    note = "" if revision == commit else "pin it with hf:owner/name@REVISION"
    return HubDownload(path, Assumption("revision", commit, "flag" if revision == commit else "hub", note=note), notes)


def choose_files(file_names: list[str], file: str | None, reference: str, prefer: str) -> tuple[list[str], bool]:
    """(files to download, weights last; whether their folder is the checkpoint).

    LoadError if the choice is ambiguous.
    """
    if file is not None:
        return _choose_named_file(file_names, file, reference), False
    if "model_index.json" in file_names:
        unet = [name for name in _UNET_WEIGHTS if name in file_names][:1]
        return [*(name for name in _PIPELINE_CONFIGS if name in file_names), *unet], True
    if any(name.endswith(".index.json") for name in file_names):
        raise LoadError(
            f"{reference} splits its model into several files",
            "download it, and save it as one file: save_pretrained(..., max_shard_size='100GB')",
        )
    top_level = [name for name in _weight_files(file_names) if "/" not in name]
    configs = [name for name in _CONFIGS if name in file_names]
    if known := [name for name in HUB_WEIGHT_NAMES if name in top_level]:
        return [*configs, known[0]], True
    candidates = rank_training_checkpoints(set(top_level), prefer)[:1] or _by_role(top_level, prefer)
    if len(candidates) != 1:
        raise _ambiguous_error(reference, candidates, _weight_files(file_names))
    return [*configs, candidates[0]], False


def _choose_named_file(file_names: list[str], file: str, reference: str) -> list[str]:
    """The file with the settings in its folder."""
    if file not in file_names or not file.endswith(_SUFFIXES):
        problem = "is not a weights file" if file in file_names else "is not in the repository"
        available = ", ".join(map(clean_text, _weight_files(file_names)[:6]))
        raise LoadError(
            f"{reference}: {file} {problem}",
            f"choose from: {available}" if available else "choose another repository: this one holds no weights",
        )
    folder = file.rpartition("/")[0]
    configs = [(folder, name) for name in _CONFIGS]
    return [*(name for name in file_names if name.rpartition("/")[::2] in configs), file]


def _by_role(names: list[str], prefer: str) -> list[str]:
    """The files named as averaged or raw generators, in order of preference; all of them if none is."""
    roles = {name: parse_role(Path(name).stem)[0] for name in names}
    order = ("average", "generator") if prefer == "ema" else ("generator", "average")
    return next(([name for name in names if roles[name] == role] for role in order if role in roles.values()), names)


def _ambiguous_error(reference: str, candidates: list[str], weights: list[str]) -> LoadError:
    listed = ", ".join(map(clean_text, candidates[:6] or weights[:6]))
    problem = f"{reference} has no weights at its top level"
    if candidates:
        problem = f"{reference} holds {len(candidates)} files that could be the generator: {listed}"
    if not listed:
        return LoadError(problem, f"choose a repository with weights: {', '.join(_SUFFIXES[:-1])}")
    first = clean_text((candidates or weights)[0])
    return LoadError(problem, f"choose one: {reference.partition('@')[0]}/{first}")


def _weight_files(names: list[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(_SUFFIXES))


def _is_safe_path(name: str) -> bool:
    """A path inside the repository: a server may answer anything."""
    return (
        bool(name)
        and name.isprintable()
        and "\\" not in name
        and not name.startswith("/")
        and ".." not in name.split("/")
    )


def _import_client() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise LoadError("hf: needs huggingface_hub, which is not installed", "pip install 'gandiag[hub]'") from None
    return huggingface_hub


def _ask_hub(reference: str, request: Callable[[], Any]) -> Any:
    """The client's answer; its many exceptions as a LoadError each."""
    try:
        return request()
    except Exception as error:
        raise _hub_error(reference, error) from None


def _hub_error(reference: str, error: Exception) -> LoadError:
    classes = {cls.__name__ for cls in type(error).__mro__}
    if "GatedRepoError" in classes:
        return LoadError(
            f"{reference} is gated: its owner requires an agreement first",
            "accept it on the repository's page, then run: hf auth login",
        )
    if "RepositoryNotFoundError" in classes:
        return LoadError(
            f"{reference}: there is no such repository, or it is private",
            "check the name; for a private repository, run: hf auth login",
        )
    if "RevisionNotFoundError" in classes:
        return LoadError(
            f"{reference}: the repository has no such revision",
            "name one of its branches, tags or commits, or leave @revision out",
        )
    if "EntryNotFoundError" in classes:
        return LoadError(
            f"{reference}: a file that the repository lists is missing",
            "try again later, or name another file: hf:owner/name/file",
        )
    if "OfflineModeIsEnabled" in classes:
        return LoadError(f"{reference} cannot be downloaded: HF_HUB_OFFLINE is set", f"unset it, or {_USE_COPY}")
    if "HFValidationError" in classes:
        return LoadError(f"{reference} does not name a repository of the Hub", "write it as hf:owner/name")
    if classes & {"TimeoutException", "Timeout", "TimeoutError"}:
        return LoadError(
            f"{reference} cannot be downloaded: the Hub did not answer within {_TIMEOUT:g} s",
            f"try again later, or {_USE_COPY}",
        )
    detail = clean_text(first_line(error))
    if classes & {"OSError", "TransportError", "RequestError", "ConnectError"} and "HfHubHTTPError" not in classes:
        return LoadError(
            f"{reference} cannot be downloaded: the Hub cannot be reached ({detail})",
            f"check the network, or {_USE_COPY}",
        )
    return LoadError(f"{reference} cannot be downloaded: {detail}", f"try again later, or {_USE_COPY}")
