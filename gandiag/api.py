"""The two public verbs, load() and audit(): the only place where measuring and judging meet."""

from __future__ import annotations

import os
from typing import Any

from gandiag.checkpoints.loader import load_generator
from gandiag.config import resolve_config
from gandiag.pipeline.engine import ProgressCallback, no_progress
from gandiag.pipeline.run_audit import MessageCallback, audit_with_config
from gandiag.pipeline.subject import make_sampler
from gandiag.record import Record
from gandiag.sampling.sampler import Sampler


def load(path: str | os.PathLike[str], **settings: Any) -> Sampler:
    """A generator from a checkpoint: `.sample(n, seed=0, scale=1.0, labels=None)` gives a CPU tensor (n, …) in data units.

    `settings`: the fields of AuditConfig that say how to read the file (latent_dim, classes, model, trust …). Nothing in the
    file is executed without `trust=True`. Raises LoadError with what is missing.
    """
    config = resolve_config(settings).config
    return make_sampler(load_generator(path, config), config)


def audit(
    x: Any,
    real: Any = None,
    *,
    progress: ProgressCallback = no_progress,
    on_message: MessageCallback | None = None,
    **settings: Any,
) -> Record:
    """Has this generator collapsed? The judged Record; `print(record)` shows it.

    x, real: path, Generator, nn.Module (with latent_dim=…), array, tensor or Dataset. `settings`: fields of AuditConfig.
    Cost: one pass over n generated and 2n real samples through the features, then distances, O(n² D).
    Raises LoadError, SourceError, OutputError or FeatureError when it cannot be audited; the model is left as it was.
    """
    if isinstance(real, (str, os.PathLike)):
        settings["real"], real = str(real), None
    return audit_with_config(x, resolve_config(settings), real=real, progress=progress, on_message=on_message)
