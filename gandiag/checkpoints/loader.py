"""Loads a generator from a path, a folder, a Hub repository or a live module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from gandiag.checkpoints.folders import (
    is_checkpoint_folder,
    is_diffusers_pipeline,
    open_checkpoint_folder,
    reject_pipeline_part,
)
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.checkpoints.generator_builder import build_from_contents, build_from_module, build_from_program
from gandiag.checkpoints.hub import download_checkpoint, is_hub_reference
from gandiag.checkpoints.inference.sequential import format_module_strides
from gandiag.checkpoints.key_names import clean_text
from gandiag.checkpoints.loading_spec import LoadingSpec, read_loading_spec, resolve_settings, write_loading_spec
from gandiag.checkpoints.metadata import parse_metadata, read_file_metadata
from gandiag.checkpoints.module_adapter import frozen_copy
from gandiag.checkpoints.readers import read_checkpoint
from gandiag.checkpoints.stored_settings import apply_settings, attribute_settings
from gandiag.config import AuditConfig, assumption_options
from gandiag.errors import LoadError

# Sources that --strict accepts: the user, the file, gandiag's documented choices. Others are assumptions.
_STATED_SOURCES = ("flag", "spec", "gandiag", "hub", "file", "metadata", "shapes", "module", "attribute")


def load_generator(
    path: str | os.PathLike[str], config: AuditConfig | None = None, *, inspect_only: bool = False
) -> LoadedGenerator:
    """Load the generator in a file, folder or Hub repository. No code in it runs unless `config.trust`.

    Weights are rebuilt from their shapes, or loaded into what `config.model` builds. `inspect_only`: the generator
    will not be sampled; the file is not hashed, and its weights are not copied, so it must not change meanwhile.

    Raises LoadError, with what was found and what to do, for everything that cannot be read, identified or rebuilt;
    under `config.strict` also for every assumption that neither the file nor a flag supports.
    """
    config = config or AuditConfig()
    try:
        spec = LoadingSpec()
        if config.spec and os.path.lexists(config.spec):
            spec = read_loading_spec(config.spec)
        generator = _load_path(path, spec.apply_to(config), inspect_only=inspect_only)
        generator = replace(
            generator, assumptions=attribute_settings(generator.assumptions, spec.settings, config, "spec")
        )
        if config.strict:
            _require_no_assumptions(generator, Path(path).name)
        if config.spec and not spec.settings and not inspect_only:
            _write_spec(generator, config, config.spec)
    except LoadError as error:
        raise LoadError(clean_text(error.message), clean_text(error.hint)) from None
    if spec.sha256 and generator.subject["sha256"] not in (None, spec.sha256):
        note = f"loaded with the settings of {config.spec}, which was written for another file"
        return replace(generator, notes=(*generator.notes, note))
    return generator


def wrap_module(module: nn.Module, config: AuditConfig | None = None) -> LoadedGenerator:
    """A live module as a generator. A frozen copy is used; the caller's module is unchanged."""
    config = config or AuditConfig()
    subject = {"path": None, "sha256": None, "loader": "module", "weights": "the module's own"}
    generator = build_from_module(frozen_copy(module), config, subject)
    if config.strict:
        _require_no_assumptions(generator, type(module).__name__)
    return generator


def _load_path(path: str | os.PathLike[str], config: AuditConfig, *, inspect_only: bool) -> LoadedGenerator:
    if is_hub_reference(os.fspath(path)):
        return _load_from_hub(os.fspath(path), config, inspect_only=inspect_only)
    folder = Path(path)
    if not is_checkpoint_folder(folder):
        if config.model is None:
            reject_pipeline_part(folder.parent)
        return _load_file(os.fspath(path), config, inspect_only=inspect_only)
    if is_diffusers_pipeline(folder):
        return _load_pipeline(folder, config, inspect_only=inspect_only)
    return _load_folder(folder, config, inspect_only=inspect_only)


def _load_from_hub(reference: str, config: AuditConfig, *, inspect_only: bool) -> LoadedGenerator:
    download = download_checkpoint(reference, config.weights)
    generator = _load_path(download.path, config, inspect_only=inspect_only)
    return replace(
        generator,
        subject={**generator.subject, "path": reference},
        assumptions=(download.revision, *generator.assumptions),
        notes=(*generator.notes, *download.notes),
    )


def _load_folder(path: Path, config: AuditConfig, *, inspect_only: bool) -> LoadedGenerator:
    """The one file in a folder that holds a generator. LoadError if several do, or none."""
    folder = open_checkpoint_folder(path, config.weights)
    several = len(folder.files) > 1
    generators, errors = [], []
    for file in folder.files:
        try:
            generators.append(_load_file(os.fspath(file), config, inspect_only=inspect_only or several))
        except LoadError as error:
            errors.append(error)
    if not generators:
        raise errors[0]
    paths = [str(generator.subject["path"]) for generator in generators]
    names = [Path(file).name for file in paths]
    if len(generators) > 1:
        raise LoadError(
            f"{path} holds several networks that could be the generator: {', '.join(names[:5])}",
            f"pass one of them: {paths[0]}",
        )
    generator, notes = generators[0], folder.notes
    if several:
        if not inspect_only:
            generator = _load_file(paths[0], config, inspect_only=False)
        listed = ", ".join(file.name for file in folder.files)
        notes = (*notes, f"of {listed}, only {names[0]} has the shapes of a generator")
    return replace(generator, notes=(*generator.notes, *notes))


def _load_pipeline(folder: Path, config: AuditConfig, *, inspect_only: bool) -> LoadedGenerator:
    from gandiag.checkpoints.diffusers_pipeline import read_diffusers_pipeline

    weights = open_checkpoint_folder(folder, config.weights).files[0]
    contents = read_diffusers_pipeline(folder, weights, compute_hash=not inspect_only)
    subject = {
        "path": os.fspath(folder),
        "sha256": contents.sha256 or None,
        "loader": contents.loader,
        "weights": f"unet/{weights.name}",
    }
    return build_from_program(contents.tree, contents.notes, subject, config, inspect_only=inspect_only)


def _load_file(path: str, config: AuditConfig, *, inspect_only: bool) -> LoadedGenerator:
    contents = read_checkpoint(path, trust=config.trust, compute_hash=not inspect_only)
    metadata = read_file_metadata(Path(path))
    if isinstance(contents.tree, Mapping) and "gandiag" in contents.tree:
        metadata = parse_metadata(contents.tree["gandiag"])
    settings = metadata.audit_settings
    generator = build_from_contents(contents, apply_settings(config, settings), path, inspect_only=inspect_only)
    return replace(
        generator,
        trained_scale=metadata.trained_scale,
        assumptions=attribute_settings(generator.assumptions, settings, config, "file"),
    )


def _write_spec(generator: LoadedGenerator, config: AuditConfig, path: str) -> None:
    facts = (generator.latent, generator.output, generator.classes, generator.condition)
    strides = format_module_strides(generator.module)
    settings = resolve_settings(config, generator.assumptions, facts, strides)
    write_loading_spec(path, settings, generator.subject)


def _require_no_assumptions(generator: LoadedGenerator, name: str) -> None:
    """--strict: LoadError for assumptions that neither file nor flag supports, with the options to give."""
    assumed = [entry for entry in generator.assumptions if entry.source not in _STATED_SOURCES]
    if not assumed:
        return
    listed = "; ".join(f"{entry.setting.replace('_', ' ')}: {entry.value} ({entry.source})" for entry in assumed)
    options = list(dict.fromkeys(option for entry in assumed for option in assumption_options(entry.setting)))
    hint = "put the training settings beside the file (config.json), or leave --strict out"
    if options:
        hint = f"give {', '.join(options)}"
    raise LoadError(f"{name} does not state all settings, and --strict allows no assumptions: {listed}", hint)
