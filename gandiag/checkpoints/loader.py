"""What a checkpoint became: a network that maps latents (and labels) to samples, and everything that had to be assumed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.registry import rebuild_generator
from gandiag.checkpoints.architectures.sampling_controls import configure_sampling
from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.checkpoints.folders import (
    is_checkpoint_folder,
    is_diffusers_pipeline,
    open_checkpoint_folder,
    reject_pipeline_part,
)
from gandiag.checkpoints.hub import download_checkpoint, is_hub_reference
from gandiag.checkpoints.inference.conditioning import LABEL_POSITION_SETTING
from gandiag.checkpoints.inference.sequential import format_module_strides
from gandiag.checkpoints.key_names import clean_text, parse_role
from gandiag.checkpoints.loading_spec import LoadingSpec, read_loading_spec, resolve_settings, write_loading_spec
from gandiag.checkpoints.metadata import read_file_metadata
from gandiag.checkpoints.model_factory import build_model, load_weights
from gandiag.checkpoints.module_adapter import call_generator, extract_samples, frozen_copy, infer_call_signature
from gandiag.checkpoints.network_kind import reject_non_generator
from gandiag.checkpoints.programs import GeneratorProgram
from gandiag.checkpoints.readers import FileContents, read_checkpoint
from gandiag.checkpoints.sidecar_config import read_checkpoint_config
from gandiag.checkpoints.state_dict import cast_to_float32, find_generator_weights
from gandiag.config import AuditConfig, option_name
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LabelEncoding, LatentSpec, OutputSpec

_OF_WEIGHTS = ("model", "key", "strides", "class_place")  # settings that a program leaves no room for
_KNOWN_SOURCES = ("flag", "spec", "gandiag", "hub", "file", "metadata", "shapes", "module", "attribute")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedGenerator:
    """A generator on the CPU, in eval mode, without gradients.

    `subject`: path as typed, sha256, loader, family, parameters, weights. `assumptions`: what the file does not say, who
    said it, and the flag that overrides it. `notes`: what a reader should know of the file. `labels_first`: with
    condition "concat", one-hot labels stand before the latents. `trained_scale`: the file's own word, in units of the prior.
    """

    module: nn.Module
    latent: LatentSpec
    output: OutputSpec
    classes: int | None = None
    condition: LabelEncoding | None = None
    subject: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()
    labels_first: bool = False
    trained_scale: float | None = None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples (B, *output.shape) float32 for latents z (B, *latent.shape) and, of a conditional generator, labels (B,) int64.

        Lists, tuples and dicts give their largest tensor; flat images are reshaped. LoadError for labels that are missing,
        and for outputs of another size.
        """
        if (labels is None) != (self.condition is None):
            need = f"needs labels: it has {self.classes} classes" if labels is None else "takes no labels"
            raise LoadError(f"the generator {need}", "pass labels (B,) int64 to conditional generators only")
        made = extract_samples(
            call_generator(self.module, z, labels, (self.condition, self.classes), labels_first=self.labels_first)
        )
        try:
            return made.reshape(len(z), *self.output.shape).float()  # (B, *shape)
        except RuntimeError:
            raise LoadError(
                f"the generator returned {tuple(made.shape)} for {len(z)} latents, not {self.output.shape} each",
                "check --latent-dim",
            ) from None


def load_generator(
    path: str | os.PathLike[str], config: AuditConfig | None = None, *, inspect_only: bool = False
) -> LoadedGenerator:
    """The generator in a file. Nothing in it runs unless `config.trust`; weights are rebuilt from their shapes, or filled
    into what `config.model` builds.

    Raises LoadError, with what was found and what to do, for everything that cannot be read, told apart or rebuilt; under
    `config.strict` also for every assumption that neither the file nor a flag backs. `glance`: to look and not to sample;
    the file is not hashed, and its weights are read where they stand, so that it must not change meanwhile.
    """
    config = config or AuditConfig()
    try:
        noted = read_loading_spec(config.spec) if config.spec and Path(config.spec).exists() else LoadingSpec()
        network = _read(path, noted.apply_to(config), glance=inspect_only)
        network = replace(
            network, assumptions=tuple(noted.attribute_source(entry, config) for entry in network.assumptions)
        )
        if config.strict:
            _refuse_assumptions(network, Path(path).name)
        if config.spec and not noted.settings and not inspect_only:
            made = (network.latent, network.output, network.classes, network.condition)
            write_loading_spec(
                config.spec,
                resolve_settings(config, network.assumptions, made, format_module_strides(network.module)),
                network.subject,
            )
    except LoadError as problem:
        raise LoadError(clean_text(problem.message), clean_text(problem.hint)) from None
    if noted.sha256 and network.subject["sha256"] not in (None, noted.sha256):
        return replace(
            network, notes=(*network.notes, f"read as {config.spec} says, which was written for another file")
        )
    return network


def _read(path: str | os.PathLike[str], config: AuditConfig, *, glance: bool) -> LoadedGenerator:
    """The network of a file, of the one file in a folder that holds a generator, or of a repository of the Hub."""
    if is_hub_reference(os.fspath(path)):
        return _fetched(os.fspath(path), config, glance=glance)
    if not is_checkpoint_folder(Path(path)):
        if config.model is None:
            reject_pipeline_part(Path(path).parent)
        return _one(os.fspath(path), config, glance=glance)
    folder, found, reasons = open_checkpoint_folder(Path(path), config.weights), [], []
    if is_diffusers_pipeline(Path(path)):
        return _pipeline(os.fspath(path), folder.files[0], config, glance=glance)
    for file in folder.files:
        try:
            found.append(_one(os.fspath(file), config, glance=glance or len(folder.files) > 1))
        except LoadError as problem:
            reasons.append(problem)
    if not found:
        raise reasons[0]
    names = [Path(network.subject["path"]).name for network in found]
    if len(found) > 1:
        raise LoadError(
            f"{path} holds several networks that could be the generator: {', '.join(names[:5])}",
            f"pass one of them: {found[0].subject['path']}",
        )
    unnamed = (
        (f"{', '.join(file.name for file in folder.files)} are unnamed; {names[0]} looks like the generator",)
        if len(folder.files) > 1
        else ()
    )
    network = found[0] if len(folder.files) == 1 or glance else _one(found[0].subject["path"], config, glance=False)
    return replace(network, notes=(*network.notes, *folder.notes, *unnamed))


def _fetched(reference: str, config: AuditConfig, *, glance: bool) -> LoadedGenerator:
    came = download_checkpoint(reference, config.weights)
    network = _read(came.path, config, glance=glance)
    facts = {**network.subject, "path": reference}
    return replace(
        network, subject=facts, assumptions=(came.revision, *network.assumptions), notes=(*network.notes, *came.notes)
    )


def _pipeline(path: str, weights: Path, config: AuditConfig, *, glance: bool) -> LoadedGenerator:
    from gandiag.checkpoints.diffusers_pipeline import read_diffusers_pipeline

    content = read_diffusers_pipeline(Path(path), weights, compute_hash=not glance)
    subject = {
        "path": path,
        "sha256": content.sha256 or None,
        "loader": content.loader,
        "weights": f"unet/{weights.name}",
    }
    return _of_program(content.tree, content.notes, subject, config, look=glance)


def _one(path: str, config: AuditConfig, *, glance: bool) -> LoadedGenerator:
    content = read_checkpoint(path, trust=config.trust, compute_hash=not glance)
    told = read_file_metadata(Path(path))
    network = _from_content(content, told.apply_to(config), path, borrow=glance)
    return replace(
        network,
        trained_scale=told.trained_scale,
        assumptions=tuple(told.attribute_source(entry, config) for entry in network.assumptions),
    )


def wrap_module(module: nn.Module, config: AuditConfig | None = None) -> LoadedGenerator:
    """A live module as a generator: a frozen copy is used, the caller's module is not touched."""
    config = config or AuditConfig()
    network = _adapted(
        frozen_copy(module),
        config,
        {"path": None, "sha256": None, "loader": "module", "weights": "the module's own"},
        (),
    )
    if config.strict:
        _refuse_assumptions(network, type(module).__name__)
    return network


def _from_content(content: FileContents, config: AuditConfig, path: str, *, borrow: bool) -> LoadedGenerator:
    name = Path(path).name
    subject = {"path": path, "sha256": content.sha256 or None, "loader": content.loader}
    if isinstance(content.tree, GeneratorProgram):
        return _of_program(content.tree, content.notes, subject, config, look=borrow)
    whole = _whole_module(content.tree, config, name)
    if whole is not None and config.model is None:
        module, used = whole
        for entry in module.parameters():  # TorchScript modules have no requires_grad_
            entry.requires_grad = False
        return _adapted(module.eval(), config, {**subject, "weights": used}, content.notes)
    try:
        found = find_generator_weights(
            content.tree, key=config.key, prefer=config.weights, keys_ordered=content.keys_ordered, name=name
        )
    except LoadError as problem:
        others = [entry for entry in _siblings(path) if entry != name]
        raise (
            LoadError(problem.message, f"{problem.hint}; beside it: {', '.join(others[:5])}") if others else problem
        ) from None
    weights = cast_to_float32(found, share_memory=borrow)
    subject |= {"weights": clean_text(weights.selection_reason)}
    notes = tuple(map(clean_text, (*content.notes, *weights.notes)))
    if config.model is not None:
        module = build_model(config.model, config.init)
        load_weights(module, weights, name)
        return _adapted(frozen_copy(module), config, {**subject, "family": config.model}, notes)
    reject_non_generator(weights.tensors, name, _siblings(path))
    made = rebuild_generator(
        replace(weights, extra_settings={**read_checkpoint_config(Path(path)), **_settings(content.tree)}),
        config,
        name,
        inspect_only=borrow and not config.strict,
    )
    facts = {**subject, "family": made.family, "parameters": weights.n_parameters}
    classes, first = made.input_layout.classes, made.input_layout.labels_first
    said = (*made.assumptions, *configure_sampling(made.module, config, name))
    return LoadedGenerator(
        made.module, made.latent, made.output, classes, made.condition, facts, _shown(said), notes, first
    )


def _of_program(
    program: GeneratorProgram, notes: tuple[str, ...], subject: Mapping[str, Any], config: AuditConfig, *, look: bool
) -> LoadedGenerator:
    """A generator that needs no rebuilding: its computation is in the file, and only arithmetic."""
    name = Path(subject["path"]).name
    given = next((option_name(setting) for setting in _OF_WEIGHTS if getattr(config, setting) is not None), None)
    if given is not None:
        raise LoadError(f"{given} was given, and {name} is a whole program", f"leave {given} out")
    made = program.build_generator(config, name, inspect_only=look)
    facts = {"weights": "the whole file", **subject, "family": made.family, "parameters": program.n_parameters}
    said = (*made.assumptions, *configure_sampling(made.module, config, name))
    return LoadedGenerator(
        made.module,
        made.latent,
        made.output,
        made.classes,
        made.condition,
        facts,
        _shown(said),
        tuple(map(clean_text, notes)),
    )


def _settings(tree: Any) -> Mapping[str, Any]:
    """What a file holds beside its weights, by name: settings, and vectors such as a mean style."""
    return (
        {str(key): entry for key, entry in tree.items() if not isinstance(entry, Tensor) or entry.ndim == 1}
        if isinstance(tree, Mapping)
        else {}
    )


def _adapted(
    module: nn.Module, config: AuditConfig, subject: Mapping[str, Any], notes: tuple[str, ...]
) -> LoadedGenerator:
    found = infer_call_signature(module, config)
    said = (*found.assumptions, *configure_sampling(module, config, type(module).__name__))
    if found.condition == "concat":
        said = (
            *said,
            Assumption(
                LABEL_POSITION_SETTING,
                f"{config.class_place or 'after'} the latents",
                "flag" if config.class_place else "default",
            ),
        )
    facts = {
        "family": type(module).__name__,
        "parameters": sum(entry.numel() for entry in module.parameters()),
        **subject,
    }
    if config.class_place is not None and (
        found.condition != "concat" or config.class_place not in ("before", "after")
    ):
        takes = "no class" if found.condition is None else f"its class as --condition {found.condition}"
        raise LoadError(
            f"--class-place {config.class_place} was given, and {type(module).__name__} takes {takes}",
            "leave --class-place out",
        )
    return LoadedGenerator(
        module,
        found.latent,
        found.output,
        found.classes,
        found.condition,
        facts,
        said,
        notes,
        config.class_place == "before",
    )


def _whole_module(tree: Any, config: AuditConfig, name: str) -> tuple[nn.Module, str] | None:
    """The module of a trusted file: the file itself, or the generator among the modules of a training dict."""
    if isinstance(tree, nn.Module):
        return tree, "the whole file"
    if not isinstance(tree, Mapping):
        return None
    modules = {str(key): entry for key, entry in tree.items() if isinstance(entry, nn.Module)}
    if config.key in modules:
        return modules[str(config.key)], f"{config.key} (by --key)"
    wanted = ("average", "generator") if config.weights == "ema" else ("generator", "average")
    for kind in wanted:
        fitting = [key for key in modules if parse_role(key)[0] == kind]
        if len(fitting) > 1:
            raise LoadError(
                f"{name} holds several generators: {', '.join(fitting[:5])}", f"choose one: --key {fitting[0]}"
            )
        if fitting:
            return modules[fitting[0]], fitting[0]
    return None


def _shown(assumptions: tuple[Assumption, ...]) -> tuple[Assumption, ...]:
    return tuple(Assumption(entry.what, clean_text(entry.value), entry.source) for entry in assumptions)


def _siblings(path: str) -> list[str]:
    folder = Path(path).resolve().parent
    files = (entry.name for entry in folder.iterdir() if entry.suffix in WEIGHT_SUFFIXES)
    return sorted(entry for entry in files if parse_role(Path(entry).stem)[0] in ("generator", "average"))


def _refuse_assumptions(network: LoadedGenerator, name: str) -> None:
    """--strict: an assumption that neither file nor flag backs is an error that names the flags to give."""
    open_ones = [entry for entry in network.assumptions if not entry.source.startswith(_KNOWN_SOURCES)]
    if not open_ones:
        return
    flags = list(
        dict.fromkeys(flag for entry in open_ones for flag in re.findall(r"--[a-z-]+(?: or --[a-z-]+)*", entry.what))
    )
    said = "; ".join(
        f"{entry.what.split(' (')[0]}: {entry.value.split(' (')[0]} ({entry.source})" for entry in open_ones
    )
    hint = (
        f"give {', '.join(flags)}"
        if flags
        else "put the settings of its training beside the file (config.json), or leave --strict out"
    )
    raise LoadError(f"{name} does not say everything, and --strict takes no assumptions: {said}", hint)


def cycle_labels(generator: LoadedGenerator, n: int) -> Tensor | None:
    """Classes in turn, (n,) int64; None for a generator that takes none."""
    return None if generator.condition is None else torch.arange(n) % (generator.classes or 1)
