"""Builds a LoadedGenerator from the contents of a file.

The contents are a program, a trusted module, weights for --model, or weights whose network is rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gandiag.checkpoints.architectures.registry import RebuildResult, rebuild_generator
from gandiag.checkpoints.architectures.sampling_controls import configure_sampling
from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.generator import LoadedGenerator, OpenReadings, Reading
from gandiag.checkpoints.key_names import clean_text, parse_role
from gandiag.checkpoints.metadata import read_checkpoint_config
from gandiag.checkpoints.model_factory import build_model, load_weights
from gandiag.checkpoints.module_adapter import frozen_copy, infer_call_signature
from gandiag.checkpoints.network_kind import reject_non_generator, reject_recurrent, reject_vocoder
from gandiag.checkpoints.readers import FileContents, GeneratorProgram
from gandiag.checkpoints.state_dict import Weights, cast_to_float32, find_generator_weights
from gandiag.checkpoints.tensor_checks import iter_tensors
from gandiag.config import AuditConfig, option_name
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_WEIGHT_SETTINGS = ("model", "key", "strides", "class_place")  # settings about weights, meaningless for a program


def build_from_contents(
    contents: FileContents, config: AuditConfig, path: str, *, inspect_only: bool
) -> LoadedGenerator:
    """The generator in a file's contents. `inspect_only`: share memory with the file, and skip what takes seconds."""
    name = Path(path).name
    subject = {"path": path, "sha256": contents.sha256 or None, "loader": contents.loader}
    if isinstance(contents.tree, GeneratorProgram):
        return build_from_program(contents.tree, contents.notes, subject, config, inspect_only=inspect_only)
    module_and_key = _find_module(contents.tree, config, name) if config.model is None else None
    if module_and_key is not None:
        module, key = module_and_key
        for parameter in module.parameters():  # TorchScript modules have no requires_grad_
            parameter.requires_grad = False
        return build_from_module(module.eval(), config, {**subject, "weights": key}, contents.notes)
    weights = cast_to_float32(_find_weights(contents, config, path), share_memory=inspect_only)
    subject |= {"weights": clean_text(weights.selection_reason)}
    notes = tuple(map(clean_text, (*contents.notes, *weights.notes)))
    if config.model is not None:
        module = build_model(config.model, config.init)
        load_weights(module, weights, name)
        return build_from_module(frozen_copy(module), config, {**subject, "family": config.model}, notes)
    reject_recurrent(weights.tensors, weights.tensors, name)
    reject_vocoder(weights.tensors, name)
    reject_non_generator(weights.tensors, name, _list_generator_files(path))
    settings = {**read_checkpoint_config(Path(path)), **_extra_settings(contents.tree, weights.path)}
    rebuilt = rebuild_generator(
        replace(weights, extra_settings=settings), config, name, inspect_only=inspect_only and not config.strict
    )
    assumptions = (*rebuilt.assumptions, *configure_sampling(rebuilt.module, config, name))
    generator = LoadedGenerator(
        rebuilt.module,
        rebuilt.latent,
        rebuilt.output,
        rebuilt.input_layout.classes,
        rebuilt.condition,
        {**subject, "family": rebuilt.family, "parameters": weights.n_parameters},
        _clean_assumptions(assumptions),
        notes,
        rebuilt.input_layout.labels_first,
    )
    return replace(generator, open_readings=_list_open_readings(generator, rebuilt))


def _list_open_readings(generator: LoadedGenerator, rebuilt: RebuildResult) -> OpenReadings | None:
    """The other readings of a sequential network; None where the file and the flags settle everything."""
    inferred = rebuilt.inferred
    if inferred is None or not (inferred.open_settings or rebuilt.variants):
        return None

    def make() -> Iterator[Reading]:
        for texts, other in rebuilt.iter_alternatives():
            layout = other.input_layout
            yield Reading(
                texts,
                replace(
                    generator,
                    classes=layout.classes,
                    condition=other.condition,
                    module=other.module,
                    latent=other.latent,
                    output=other.output,
                    labels_first=layout.labels_first,
                ),
            )

    structure = next((str(entry.value) for entry in rebuilt.assumptions if entry.setting == "structure"), "as declared")
    taken = {"structure": structure} if rebuilt.variants else {}
    return OpenReadings({**taken, **inferred.describe_open()}, make, rebuilt.count_alternatives())


def build_from_program(
    program: GeneratorProgram,
    notes: tuple[str, ...],
    subject: Mapping[str, Any],
    config: AuditConfig,
    *,
    inspect_only: bool,
) -> LoadedGenerator:
    """A generator that needs no rebuilding: the file holds its whole computation, and only arithmetic."""
    name = Path(subject["path"]).name
    option = next((option_name(field) for field in _WEIGHT_SETTINGS if getattr(config, field) is not None), None)
    if option is not None:
        raise LoadError(f"{option} was given, but {name} is a complete program", f"leave {option} out")
    generator = program.build_generator(config, name, inspect_only=inspect_only)
    assumptions = (*generator.assumptions, *configure_sampling(generator.module, config, name))
    facts = {"weights": "the whole file", **subject, "family": generator.family, "parameters": program.n_parameters}
    return LoadedGenerator(
        generator.module,
        generator.latent,
        generator.output,
        generator.classes,
        generator.condition,
        facts,
        _clean_assumptions(assumptions),
        tuple(map(clean_text, notes)),
    )


def build_from_module(
    module: nn.Module, config: AuditConfig, subject: Mapping[str, Any], notes: tuple[str, ...] = ()
) -> LoadedGenerator:
    """A module of unknown architecture, called as a trial run shows."""
    name = type(module).__name__
    signature = infer_call_signature(module, config)
    assumptions = (*signature.assumptions, *configure_sampling(module, config, name))
    position = config.class_place
    if signature.condition == "concat":
        label_position = Assumption("class_place", position or "after", "flag" if position else "default")
        assumptions = (*assumptions, label_position)
    if position is not None and (signature.condition != "concat" or position not in ("before", "after")):
        takes = "no class" if signature.condition is None else f"its class as --condition {signature.condition}"
        raise LoadError(f"--class-place {position} was given, but {name} takes {takes}", "leave --class-place out")
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    return LoadedGenerator(
        module,
        signature.latent,
        signature.output,
        signature.classes,
        signature.condition,
        {"family": name, "parameters": n_parameters, **subject},
        assumptions,
        notes,
        position == "before",
    )


def _find_weights(contents: FileContents, config: AuditConfig, path: str) -> Weights:
    """The generator's weights. The error lists generators in other files of the folder."""
    name = Path(path).name
    try:
        return find_generator_weights(
            contents.tree, key=config.key, prefer=config.weights, keys_ordered=contents.keys_ordered, name=name
        )
    except LoadError as error:
        reject_recurrent((key for key, _ in iter_tensors(contents.tree)), dict(iter_tensors(contents.tree)), name)
        others = [file for file in _list_generator_files(path) if file != name]
        if not others:
            raise
        hint = f"{error.hint}; generators in the same folder: {', '.join(others[:5])}"
        raise LoadError(error.message, hint) from None


def _find_module(tree: Any, config: AuditConfig, name: str) -> tuple[nn.Module, str] | None:
    """The module of a trusted file and its key: the file itself, or the generator among a training dict's modules."""
    if isinstance(tree, nn.Module):
        return tree, "the whole file"
    if not isinstance(tree, Mapping):
        return None
    modules = {str(key): entry for key, entry in tree.items() if isinstance(entry, nn.Module)}
    if config.key in modules:
        return modules[str(config.key)], f"{config.key} (by --key)"
    order = ("average", "generator") if config.weights == "ema" else ("generator", "average")
    for role in order:
        keys = [key for key in modules if parse_role(key)[0] == role]
        if len(keys) > 1:
            raise LoadError(f"{name} holds several generators: {', '.join(keys[:5])}", f"choose one: --key {keys[0]}")
        if keys:
            return modules[keys[0]], keys[0]
    return None


def _extra_settings(tree: Any, weights_path: str) -> dict[str, Any]:
    """What stands beside the weights and beside every object around them: settings, vectors such as a mean style."""
    settings: dict[str, Any] = {}
    for part in weights_path.split("."):
        if not isinstance(tree, Mapping):
            break
        settings |= {str(key): entry for key, entry in tree.items() if not isinstance(entry, Tensor) or entry.ndim == 1}
        tree = tree.get(part)
    return settings


def _clean_assumptions(assumptions: tuple[Assumption, ...]) -> tuple[Assumption, ...]:
    """The assumptions without unprintable text from the file."""
    return tuple(
        replace(
            entry,
            value=clean_text(entry.value) if isinstance(entry.value, str) else entry.value,
            origin=clean_text(entry.origin),
            note=clean_text(entry.note),
        )
        for entry in assumptions
    )


def _list_generator_files(path: str) -> list[str]:
    """Files in the same folder that are named as generators."""
    files = (entry.name for entry in Path(path).resolve().parent.iterdir() if entry.suffix in WEIGHT_SUFFIXES)
    return sorted(name for name in files if parse_role(Path(name).stem)[0] in ("generator", "average"))
