"""The size of the real data as evidence for a generator's image size, where its file leaves that open."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Any

from gandiag.checkpoints.inference.gap_norms import RESIZING_LAYERS
from gandiag.config import AuditConfig
from gandiag.errors import GandiagError, LoadError, SourceError
from gandiag.interfaces import UNDECIDED, Assumption, OutputSpec
from gandiag.pipeline.subject import AuditSubject, open_real_data, open_subject
from gandiag.sampling.sample_function import is_sample_function

_SIZE_SETTINGS = ("strides", "upsampling", "image_shape", "structure", "before_last_layer", "hidden_norm")
_CREDITED = _SIZE_SETTINGS[:3]
_GUESSES = ("default", UNDECIDED)
_CLOSED_BY_SIZE = _SIZE_SETTINGS[4:]  # left out of a file that is read at a given size


def open_subject_of_size(x: Any, config: AuditConfig, real: Any) -> AuditSubject:
    """The subject; where its file leaves the image size open, read at the size of the real data if that fits.

    LoadError as without real data where neither works.
    """
    size = None if real is None or not _may_be_open(x, config) else _real_size(real, config)
    if size is None:
        n_real = open_real_data(real, config).n if real is not None and is_sample_function(x) else None
        return open_subject(x, config, n_real=n_real)
    try:
        subject = open_subject(x, config)
    except LoadError as error:
        try:
            return _credit_real_data(open_subject(x, replace(config, image_size=size[-1])))
        except GandiagError:
            raise error from None
    if subject.output.shape == size:
        return _credit_real_data(_close_last_gap(x, config, subject))
    if not any(entry.setting in _SIZE_SETTINGS and entry.source in _GUESSES for entry in subject.assumptions):
        return subject
    resized = _read_resized(x, config, subject, size)
    if resized is not None:
        return resized
    try:
        other = open_subject(x, replace(config, image_size=size[-1]))
    except GandiagError:
        return subject
    is_open = any(entry.setting in _SIZE_SETTINGS and entry.source == UNDECIDED for entry in other.assumptions)
    return subject if is_open or other.output.shape != size else _credit_real_data(other)


def _close_last_gap(x: Any, config: AuditConfig, subject: AuditSubject) -> AuditSubject:
    """The subject read at its own size, where pooling or upsampling before the last layer is open."""
    if not any(entry.setting in _CLOSED_BY_SIZE and entry.source in _GUESSES for entry in subject.assumptions):
        return subject
    try:
        other = open_subject(x, replace(config, image_size=subject.output.shape[-1]))
    except GandiagError:
        return subject
    is_closed = not any(entry.setting in _CLOSED_BY_SIZE for entry in other.assumptions)
    return other if is_closed and other.output.shape == subject.output.shape else subject


def _read_resized(x: Any, config: AuditConfig, subject: AuditSubject, size: tuple[int, ...]) -> AuditSubject | None:
    """The subject with pooling or upsampling before the last layer, where that is open and leads to the real size.

    Undecided where both poolings do. None where nothing does.
    """
    is_open = any(entry.setting == "hidden_norm" and entry.source in _GUESSES for entry in subject.assumptions)
    if not is_open or subject.output.shape[-1] not in (2 * size[-1], size[-1] // 2):
        return None
    found: list[AuditSubject] = []
    for name in RESIZING_LAYERS:
        with contextlib.suppress(GandiagError):
            found.append(open_subject(x, replace(config, hidden_norm=name)))
    found = [entry for entry in found if entry.output.shape == size]
    if not found:
        return None
    source = "real" if len(found) == 1 else UNDECIDED
    note = "" if len(found) == 1 else "another pooling leads to the size of the real data too"

    def credit(entry: Assumption) -> Assumption:
        return replace(entry, source=source, note=note) if entry.setting == "hidden_norm" else entry

    return replace(found[0], assumptions=tuple(map(credit, found[0].assumptions)))


def _may_be_open(x: Any, config: AuditConfig) -> bool:
    """Whether the subject is a file whose size no flag gives."""
    is_path = isinstance(x, (str, os.PathLike))
    return is_path and config.image_size is None and config.strides is None and config.model is None


def _real_size(real: Any, config: AuditConfig) -> tuple[int, ...] | None:
    """The shape (C, H, W) of square real images; None for other data, and for mixed sizes."""
    try:
        output: OutputSpec = open_real_data(real, config).output
    except SourceError:
        return None
    is_square = output.kind == "image" and output.shape[-1] == output.shape[-2]
    return output.shape if is_square else None


def _credit_real_data(subject: AuditSubject) -> AuditSubject:
    """The subject with its size credited to the real data wherever it was a guess."""

    def credit(entry: Assumption) -> Assumption:
        guessed = entry.source in ("flag", UNDECIDED) and (entry.fit is None or entry.source == "flag")
        return replace(entry, source="real") if entry.setting in _CREDITED and guessed else entry

    return replace(subject, assumptions=tuple(map(credit, subject.assumptions)))
