"""What the keys of a checkpoint say: which entry is the generator, which is its average, which prefix is a wrapper's. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

NetworkRole = Literal["average", "generator", "discriminator", "optimizer", "other"]

_FILLER = {
    "state",
    "dict",
    "sd",
    "model",
    "models",
    "net",
    "network",
    "params",
    "weights",
    "module",
    "online",
    "copy",
    "best",
    "last",
}
_AVERAGE = {"ema", "avg", "averaged", "average", "smooth", "shadow", "swa", "running", "ge", "se"}
_GENERATOR = {"g", "gen", "generator", "netg", "gs", "gnet", "gmodel", "modelg", "decoder"}
_DISCRIMINATOR = {"d", "disc", "discriminator", "netd", "dnet", "dis", "critic", "dmodel", "modeld", "encoder"}
_OPTIMIZER = re.compile(r"opt(im|imi[sz]er)?s?|sched(uler)?s?|scaler|optimizer\w*|optim\w*")
# One prefix at a time, leading only, and only when all keys share it: PGAN's layers really are called "*.module.weight".
_WRAPPERS = (
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "ema_model.",
    "online_model.",
)
_LOOSE = {"n_averaged", "initted", "step"}  # counters that averaging wrappers keep beside the weights


def parse_role(path: str) -> tuple[NetworkRole, str]:
    """The role of an entry by the words of its path, and what is left of the name ("netG_A" -> generator, "a")."""
    every = [word for word in re.split(r"[^a-z0-9]+", _split_camel(path).lower()) if word]
    words = [word for word in every if word not in _FILLER]
    if not words and "online" in every:  # ema_pytorch's copy in training
        return "generator", ""
    if any(_OPTIMIZER.fullmatch(word) for word in words):
        return "optimizer", ""
    averaged = any(word in _AVERAGE or word.startswith("avg") for word in words)
    words = [word.removeprefix("avg") if word.startswith("avg") and word != "avg" else word for word in words]
    rest = ".".join(word for word in words if word not in _AVERAGE | _GENERATOR | _DISCRIMINATOR)
    if any(word in _DISCRIMINATOR or re.fullmatch(r"(net)?d\d", word) for word in words):
        return "discriminator", rest
    if any(word in _GENERATOR or re.fullmatch(r"(net)?g\d|generator\d", word) for word in words):
        return ("average" if averaged else "generator"), rest
    return ("average" if averaged else "other"), rest


def _split_camel(path: str) -> str:
    """netG -> net_G, avgG -> avg_G, netG_A2B -> net_G_A2B; GAN and G stay whole."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path)


def strip_wrapper_prefixes(keys: Iterable[str]) -> dict[str, str]:
    """Old key -> new key, with wrappers' prefixes taken off to a fixed point; a wrapper's loose counters are dropped.

    `_orig_mod.` goes wherever it stands (compiled submodules); everything else only at the front and only from all keys.
    """
    names = {key: re.sub(r"(^|(?<=\.))_orig_mod\.", "", key) for key in keys}
    while True:
        weights = {old: new for old, new in names.items() if new not in _LOOSE}
        shared = next(
            (prefix for prefix in _WRAPPERS if weights and all(new.startswith(prefix) for new in weights.values())),
            None,
        )
        if shared is None:
            return names if len(weights) == len(names) or not _was_wrapped(weights) else weights
        names = {old: new.removeprefix(shared) for old, new in names.items() if new.startswith(shared) or new in _LOOSE}


def _was_wrapped(weights: dict[str, str]) -> bool:
    return any(old != new for old, new in weights.items())


def clean_text(text: str) -> str:
    """Text from a file without what a terminal would obey: names in checkpoints are an attacker's text."""
    return "".join(character if character.isprintable() else "?" for character in text)


def numeric_sort_key(name: str) -> list[tuple[int, int, str]]:
    """A sort key in which main.2 stands before main.10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]
