"""hf:owner/name[/FILE][@REVISION]: a repository of the Hugging Face Hub, fetched because somebody typed its name. Torch-free.

Only weights and their settings (.json) are fetched, never code; the revision is resolved to a commit first and everything comes
from that commit. The client is huggingface_hub, with its cache, its endpoint (HF_ENDPOINT) and its progress bars.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.folders import HUB_WEIGHT_NAMES, rank_training_checkpoints
from gandiag.checkpoints.key_names import clean_text, parse_role
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

HUB_PREFIX = "hf:"
_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(/(?P<file>[^@]+))?(@(?P<revision>[\w./-]+))?")
_SUFFIXES = (*WEIGHT_SUFFIXES, ".onnx", ".onnx.data")
_SETTINGS = ("config.json", ".config.json")
_PIPELINE = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
_UNET = ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin")
_TIMEOUT = 10.0
_COPY = "pass the path of a copy on this machine"


@dataclass(frozen=True, slots=True)
class HubDownload:
    """What came: a file, or a folder that stands for one checkpoint; and the commit that it is of."""

    path: Path
    revision: Assumption
    notes: tuple[str, ...] = ()


def is_hub_reference(path: str) -> bool:
    return path.startswith(HUB_PREFIX)


def download_checkpoint(reference: str, prefer: str = "ema") -> HubDownload:
    """The repository's weights and settings, from the cache where they are there already. LoadError in one sentence for everything else."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise LoadError(
            f"{reference} names no repository of the Hub",
            "write it as hf:owner/name, hf:owner/name@revision or hf:owner/name/file.pt",
        )
    repo, file, revision = found["repo"], found["file"], found["revision"]
    hub = _client()
    info = _asked(reference, lambda: hub.HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT))
    names = [name for entry in info.siblings or () if _plain(name := str(entry.rfilename))]
    commit = str(info.sha)
    wanted, whole = choose_files(names, file, reference, prefer)
    placed = {
        name: Path(
            _asked(reference, lambda name=name: hub.hf_hub_download(repo, name, revision=commit, etag_timeout=_TIMEOUT))
        )
        for name in wanted
    }  # type: ignore[misc]
    path = placed[wanted[-1]]
    for _ in range(wanted[-1].count("/") + 1 if whole else 0):
        path = path.parent
    code = [name for name in names if name.endswith(".py")]
    notes = (f"the repository holds code ({', '.join(code[:3])}), which was neither fetched nor run",) if code else ()
    said = Assumption("revision (hf:owner/name@REVISION)", commit, "flag" if revision == commit else "hub")
    return HubDownload(path, said, notes)


def choose_files(file_names: list[str], file: str | None, reference: str, prefer: str) -> tuple[list[str], bool]:
    """(files to fetch, the weights last; whether their folder stands for the checkpoint). LoadError where that cannot be told."""
    if file is not None:
        if file not in file_names or not file.endswith(_SUFFIXES):
            what = (
                f"{reference} is no weights file of that repository"
                if file in file_names
                else f"{reference}: the repository has no such file"
            )
            raise LoadError(
                what,
                f"choose from: {', '.join(map(clean_text, _weights(file_names)[:6])) or 'nothing; it holds no weights'}",
            )
        folder = file.rpartition("/")[0]
        return [
            *(name for name in file_names if name.rpartition("/")[::2] in [(folder, setting) for setting in _SETTINGS]),
            file,
        ], False
    if "model_index.json" in file_names:
        unet = [name for name in _UNET if name in file_names][:1]
        return [*(name for name in _PIPELINE if name in file_names), *unet], True
    top = [name for name in _weights(file_names) if "/" not in name]
    settings = [name for name in _SETTINGS if name in file_names]
    if any(name.endswith(".index.json") for name in file_names):
        raise LoadError(
            f"{reference} keeps its model in several pieces",
            "fetch it, and save it as one file: save_pretrained(..., max_shard_size='100GB')",
        )
    if known := [name for name in HUB_WEIGHT_NAMES if name in top]:
        return [*settings, known[0]], True
    roles = {name: parse_role(Path(name).stem)[0] for name in top}
    order = ("average", "generator") if prefer == "ema" else ("generator", "average")
    fitting = rank_training_checkpoints(set(top), prefer)[:1] or next(
        ([name for name in top if roles[name] == kind] for kind in order if kind in roles.values()), top
    )
    if len(fitting) != 1:
        listed = ", ".join(map(clean_text, fitting[:6] or _weights(file_names)[:6]))
        what = (
            f"{reference} holds {len(fitting)} files that could be the generator: {listed}"
            if fitting
            else f"{reference} holds no weights at its top"
        )
        first = clean_text((fitting or _weights(file_names) or ["FILE"])[0])
        raise LoadError(
            what,
            f"choose one: {reference.partition('@')[0]}/{first}"
            if listed
            else f"gandiag reads {', '.join(_SUFFIXES[:-1])}",
        )
    return [*settings, fitting[0]], False


def _weights(names: list[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(_SUFFIXES))


def _plain(name: str) -> bool:
    """A path inside the repository and nothing else: a server may answer anything."""
    return (
        bool(name)
        and name.isprintable()
        and "\\" not in name
        and not name.startswith("/")
        and ".." not in name.split("/")
    )


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise LoadError("hf: needs huggingface_hub, which is not installed", "pip install 'gandiag[hub]'") from None
    return huggingface_hub


def _asked(reference: str, ask: Callable[[], Any]) -> Any:
    """What the client answers, its many errors as one sentence each."""
    try:
        return ask()
    except Exception as problem:
        raise _told(reference, problem) from None


def _told(reference: str, problem: Exception) -> LoadError:
    kinds = {kind.__name__ for kind in type(problem).__mro__}
    first = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]
    if "GatedRepoError" in kinds:
        return LoadError(
            f"{reference} is gated: its owner wants an agreement first",
            "accept it on the repository's page, then: hf auth login",
        )
    if "RepositoryNotFoundError" in kinds:
        return LoadError(
            f"{reference}: there is no such repository, or it is private",
            "check the name; for a private one: hf auth login",
        )
    if "RevisionNotFoundError" in kinds:
        return LoadError(
            f"{reference}: the repository has no such revision",
            "name a branch, a tag or a commit of it, or leave @revision out",
        )
    if "EntryNotFoundError" in kinds:
        return LoadError(
            f"{reference}: a file that the repository lists is not there",
            "try again later, or name another file: hf:owner/name/file",
        )
    if kinds & {"OfflineModeIsEnabled"}:
        return LoadError(f"{reference} cannot be fetched: HF_HUB_OFFLINE is set", f"unset it, or {_COPY}")
    if kinds & {"HFValidationError"}:
        return LoadError(f"{reference} names no repository of the Hub", "write it as hf:owner/name")
    if kinds & {"TimeoutException", "Timeout", "TimeoutError"}:
        return LoadError(
            f"{reference} cannot be fetched: the Hub did not answer within {_TIMEOUT:g} s",
            f"try again later, or {_COPY}",
        )
    if kinds & {"OSError", "TransportError", "RequestError", "ConnectError"} and not kinds & {"HfHubHTTPError"}:
        return LoadError(
            f"{reference} cannot be fetched: the Hub cannot be reached ({clean_text(first)})",
            f"check the network, or {_COPY}",
        )
    return LoadError(f"{reference} cannot be fetched: {clean_text(first)}", f"try again later, or {_COPY}")
