"""--model pkg.mod:factory: the user's own code builds the network, the file fills it, strictly."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gandiag.checkpoints.state_dict import Weights
from gandiag.errors import ConfigError, LoadError

_SHOWN = 5


def build_model(model: str, init_args: tuple[str, ...]) -> nn.Module:
    """Import `pkg.mod:factory` (or `file.py:factory`) and call it with the k=v arguments. The folder gandiag runs in counts."""
    factory = _import(model)
    arguments = parse_init_args(init_args)
    try:
        module = factory(**arguments)
    except TypeError as wrong:
        raise LoadError(
            f"{model} cannot be called with {', '.join(init_args) or 'no arguments'}: {wrong}",
            "pass its arguments: --init k=v, one each",
        ) from None
    except Exception as broken:
        raise LoadError(
            f"{model} failed: {type(broken).__name__}: {broken}", "check the factory and its --init arguments"
        ) from broken
    if not isinstance(module, nn.Module):
        raise LoadError(
            f"{model} returned {type(module).__name__}, not a torch.nn.Module",
            "name the network's class, or a function that returns it",
        )
    return module


def parse_init_args(init_args: tuple[str, ...]) -> dict[str, Any]:
    """("nz=100", "act=relu") -> {"nz": 100, "act": "relu"}: Python literals, else text."""
    found: dict[str, Any] = {}
    for entry in init_args:
        name, equals, text = entry.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"--init is {entry!r}", "write it as name=value: --init nz=100")
        try:
            found[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            found[name.strip()] = text.strip()
    return found


def load_weights(module: nn.Module, weights: Weights, name: str) -> None:
    """Load the weights into the module, every key used and every shape equal. LoadError lists at most five of each fault."""
    state = _aligned(weights.tensors, list(module.state_dict()))
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    wrong = [
        f"{key} is {tuple(state[key].shape)} in the file and {tuple(own[key].shape)} in the model"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    faults = [_list("missing", missing), _list("unexpected", unexpected), _list("wrong shape", wrong)]
    if any(faults):
        said = "; ".join(fault for fault in faults if fault)
        raise LoadError(
            f"{name} does not fit the model: {said}", "check --model and --init, or choose other weights with --key"
        )
    module.load_state_dict(state, strict=False)


def _aligned(tensors: Mapping[str, Tensor], own: list[str]) -> dict[str, Tensor]:
    """The file's names as the model has them: a leading part that was taken for a wrapper is put back."""
    names = set(own)
    if names & set(tensors) or not tensors:
        return dict(tensors)
    first = next(iter(tensors))
    for candidate in own:
        if candidate.endswith("." + first):
            head = candidate.removesuffix(first)
            return {head + key: tensor for key, tensor in tensors.items()}
    return dict(tensors)


def _list(what: str, entries: list[str]) -> str:
    if not entries:
        return ""
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return f"{len(entries)} {what} ({', '.join(entries[:_SHOWN])}{more})"


def _import(model: str) -> Any:
    place, colon, attribute = model.rpartition(":")
    if not colon or not place or not attribute:
        raise ConfigError(f"--model is {model!r}", "write it as pkg.mod:factory, or file.py:factory")
    try:
        found: Any = _from_file(place) if place.endswith(".py") else _from_path(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, FileNotFoundError) as missing:
        raise LoadError(
            f"{model} cannot be imported: {missing}",
            "check the spelling, and run gandiag where the module is importable",
        ) from None
    return found


def _from_path(place: str) -> Any:
    here = str(Path.cwd())
    if here in sys.path:
        return importlib.import_module(place)
    sys.path.append(here)
    try:
        return importlib.import_module(place)
    finally:
        sys.path.remove(here)


def _from_file(place: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    if spec is None or spec.loader is None or not Path(place).is_file():
        raise FileNotFoundError(f"there is no file {place}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    return module
