"""Infers roles (generator, average, discriminator …) and wrapper prefixes from a checkpoint's key names. Torch-free.

Also cleans text that comes from files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

NetworkRole = Literal["average", "generator", "discriminator", "optimizer", "other"]

_IGNORED_WORDS = {
    *("state", "dict", "sd", "model", "models", "net", "network", "params", "weights"),
    *("module", "online", "copy", "best", "last"),
}
_AVERAGE = {"ema", "avg", "averaged", "average", "smooth", "shadow", "swa", "running", "ge", "se"}
_GENERATOR = {"g", "gen", "generator", "netg", "gs", "gnet", "gmodel", "modelg", "decoder"}
_DISCRIMINATOR = {"d", "disc", "discriminator", "netd", "dnet", "dis", "critic", "dmodel", "modeld", "encoder"}
_OPTIMIZER = re.compile(r"opt(im|imi[sz]er)?s?|sched(uler)?s?|scaler|optimizer\w*|optim\w*")
# Removed one at a time, leading only, and only if all keys share it: PGAN's layers really are called "*.module.weight".
_WRAPPERS = (
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "ema_model.",
    "online_model.",
)
_WRAPPER_COUNTERS = {"n_averaged", "initted", "step"}  # kept by averaging wrappers beside the weights


def parse_role(path: str) -> tuple[NetworkRole, str]:
    """The role that an entry's path names, and the rest of the name ("netG_A" -> generator, "a")."""
    all_words = [word for word in re.split(r"[^a-z0-9]+", _split_camel_case(path).lower()) if word]
    words = [word for word in all_words if word not in _IGNORED_WORDS]
    if not words and "online" in all_words:  # ema_pytorch's network in training
        return "generator", ""
    if any(_OPTIMIZER.fullmatch(word) for word in words):
        return "optimizer", ""
    if words == ["generator", "test"]:  # GAN_stability's moving average
        return "average", ""
    averaged = any(word in _AVERAGE or word.startswith("avg") for word in words)
    words = [word.removeprefix("avg") if word.startswith("avg") and word != "avg" else word for word in words]
    rest = ".".join(word for word in words if word not in _AVERAGE | _GENERATOR | _DISCRIMINATOR)
    if any(word in _DISCRIMINATOR or re.fullmatch(r"(net)?d\d", word) for word in words):
        return "discriminator", rest
    if any(word in _GENERATOR or re.fullmatch(r"(net)?g\d|generator\d", word) for word in words):
        return ("average" if averaged else "generator"), rest
    return ("average" if averaged else "other"), rest


def _split_camel_case(path: str) -> str:
    """netG -> net_G, avgG -> avg_G, netG_A2B -> net_G_A2B; GAN and G stay whole."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path)


def strip_wrapper_prefixes(keys: Iterable[str]) -> dict[str, str]:
    """Old key -> new key without wrapper prefixes, removed until none is left; a wrapper's counters are dropped.

    `_orig_mod.` is removed anywhere (compiled submodules); the others only at the front, and only if all keys share
    them.
    """
    names = {key: re.sub(r"(^|(?<=\.))_orig_mod\.", "", key) for key in keys}
    while True:
        weights = {old: new for old, new in names.items() if new not in _WRAPPER_COUNTERS}
        shared = next(
            (prefix for prefix in _WRAPPERS if weights and all(new.startswith(prefix) for new in weights.values())),
            None,
        )
        if shared is None:
            wrapped = any(old != new for old, new in weights.items())
            return weights if wrapped else names
        names = {
            old: new.removeprefix(shared)
            for old, new in names.items()
            if new.startswith(shared) or new in _WRAPPER_COUNTERS
        }


def numeric_sort_key(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts main.2 before main.10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split(".")]


# text from files


def clean_text(text: str) -> str:
    """The text with unprintable characters replaced: names in a checkpoint may hold terminal escape codes."""
    return "".join(character if character.isprintable() else "?" for character in text)


def first_line(error: Exception, limit: int = 160) -> str:
    """The first line of an error's message, cut at `limit` characters; its class name if there is no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
