"""--model pkg.mod:factory: the user's code builds the network, and the file's weights are loaded into it strictly."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from gandiag.checkpoints.state_dict import Weights
from gandiag.errors import ConfigError, GandiagError, LoadError

_MAX_LISTED = 5


def build_model(model: str, init_args: tuple[str, ...]) -> nn.Module:
    """Import `pkg.mod:factory` (or `file.py:factory`) and call it with name=value arguments.

    Searches the current folder too.
    """
    factory = _import_factory(model)
    arguments = parse_init_args(init_args)
    try:
        module = factory(**arguments)
    except TypeError as error:
        raise LoadError(
            f"{model} cannot be called with {', '.join(init_args) or 'no arguments'}: {error}",
            "pass its arguments as --init name=value, one option each",
        ) from None
    except (Exception, SystemExit) as error:  # its exit code would pass for a verdict
        raise LoadError(
            f"{model} failed: {type(error).__name__}: {error}", "check the factory and its --init arguments"
        ) from error
    if not isinstance(module, nn.Module):
        raise LoadError(
            f"{model} returned {type(module).__name__}, not a torch.nn.Module",
            "name the network's class, or a function that returns it",
        )
    return module


def import_function(model: str, init_args: tuple[str, ...]) -> Callable[[int, int], Any]:
    """Import `pkg.mod:fn` (or `file.py:fn`), a function fn(n, seed) that returns n samples.

    `init_args` become its other arguments. ConfigError for a network, which needs the weights of a file.
    """
    function = _import_factory(model)
    if isinstance(function, nn.Module) or (isinstance(function, type) and issubclass(function, nn.Module)):
        raise ConfigError(
            f"{model} is a network, and there are no weights for it",
            "give its checkpoint too: gandiag audit ckpt.pt --model …",
        )
    if isinstance(function, type) or not callable(function):
        raise ConfigError(
            f"{model} is of type {type(function).__name__}", "name a function fn(n, seed) that returns n samples"
        )
    arguments = parse_init_args(init_args)
    bound: Callable[[int, int], Any] = functools.partial(function, **arguments) if arguments else function
    return bound


def parse_init_args(init_args: tuple[str, ...]) -> dict[str, Any]:
    """("nz=100", "act=relu") -> {"nz": 100, "act": "relu"}: Python literals, else text."""
    arguments: dict[str, Any] = {}
    for entry in init_args:
        name, equals, text = entry.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"--init is {entry!r}", "write it as name=value: --init nz=100")
        try:
            arguments[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            arguments[name.strip()] = text.strip()
    return arguments


def load_weights(module: nn.Module, weights: Weights, name: str) -> None:
    """Load the weights into the module; every key must be used and every shape equal.

    LoadError lists at most five of each.
    """
    expected = module.state_dict()
    tensors = _restore_prefix(weights.tensors, list(expected))
    missing = [key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in tensors if key not in expected]
    mismatched = [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(expected[key].shape)} in the model"
        for key in expected
        if key in tensors and tensors[key].shape != expected[key].shape
    ]
    problems = [
        _count_and_list("missing", missing),
        _count_and_list("unexpected", unexpected),
        _count_and_list("wrong shape", mismatched),
    ]
    if any(problems):
        raise LoadError(
            f"{name} does not fit the model: {'; '.join(filter(None, problems))}",
            "check --model and --init, or choose other weights with --key",
        )
    module.load_state_dict(tensors, strict=False)


def _restore_prefix(tensors: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """The file's tensors under the model's names: a prefix that was mistaken for a wrapper's is put back."""
    if set(expected) & set(tensors) or not tensors:
        return dict(tensors)
    first = next(iter(tensors))
    for key in expected:
        if key.endswith("." + first):
            prefix = key.removesuffix(first)
            return {prefix + name: tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _count_and_list(label: str, entries: list[str]) -> str:
    if not entries:
        return ""
    more = f" and {len(entries) - _MAX_LISTED} more" if len(entries) > _MAX_LISTED else ""
    return f"{len(entries)} {label} ({', '.join(entries[:_MAX_LISTED])}{more})"


def _import_factory(model: str) -> Any:
    location, _, attribute = model.rpartition(":")
    if not location or not attribute:
        raise ConfigError(f"--model is {model!r}", "write it as pkg.mod:factory, or file.py:factory")
    try:
        target: Any = _import_file(location) if location.endswith(".py") else _import_module(location)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, FileNotFoundError) as error:
        raise LoadError(
            f"{model} cannot be imported: {error}",
            "check the spelling, and run gandiag where the module is importable",
        ) from None
    except GandiagError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends itself: its exit code would pass for a verdict
        raise LoadError(
            f"{model} cannot be imported: {type(error).__name__}: {error}",
            'put what runs at import under `if __name__ == "__main__"`',
        ) from error
    return target


def _import_module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder in sys.path:
        return importlib.import_module(name)
    sys.path.append(folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def _import_file(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    return module
