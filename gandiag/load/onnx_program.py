"""ONNX graphs as generators, by onnxruntime on the CPU: which input is z, which the class, what comes out and in which range.

Nothing but arithmetic is run: `onnx_graph.py` has refused foreign operators and numbers outside the folder. Constants are not
folded when the graph is loaded and the runtime's memory has a ceiling, so that a kilobyte that asks for a terabyte only fails.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gandiag.config import AuditConfig
from gandiag.contracts import Condition, Latent
from gandiag.errors import LoadError, OutputError
from gandiag.load.containers import Container
from gandiag.load.onnx_graph import Graph, read_graph
from gandiag.load.onnx_signature import FLOATS, INTEGERS, Feeds, classes_of, declared, demand_possible, feeds_of, latent_of, output_of, remarks
from gandiag.load.read import Content
from gandiag.load.rebuild.ready import Ready

_PATIENCE = 60.0  # seconds that two samples may take when the graph is tried
_TRIAL = 2


def read_onnx(container: Container, *, trust: bool, sha256: str) -> Content:
    """The graph as a program; it is run by nobody yet."""
    return Content(OnnxProgram(container.path, read_graph(container.path)), "onnx", sha256)


@dataclass(frozen=True, slots=True)
class OnnxProgram:
    """A graph on disk. See `Program`."""

    path: Path
    graph: Graph

    @property
    def numbers(self) -> int:
        return self.graph.numbers

    def ready(self, config: AuditConfig, name: str, *, look: bool) -> Ready:
        if not self.graph.outputs:
            raise LoadError(f"{name} is an ONNX graph without outputs", "check it with onnx.checker, or export it again")
        feeds = feeds_of(self.graph, name)
        latent, said = latent_of(feeds.latent, config, name)
        demand_possible((feeds.batch or 1, *latent.shape), "batches of latents", name)
        classes, condition, told = classes_of(self.graph, feeds, config, name)
        module = Graphed(_session(self.path, name), feeds, condition, classes)
        shape, span = declared(self.graph) if look else None, None
        if shape is None:
            made = _tried(module, latent, classes, name)
            shape, span = tuple(made.shape[1:]), (float(made.min()), float(made.max()))
        demand_possible(shape, "outputs", name)
        output, module.last_channels, module.divisor, shown = output_of(self.graph, shape, span, config)
        return Ready("ONNX graph", module, latent, output, classes, condition, (*said, *told, *shown, *remarks(self.graph, feeds)))


class Graphed(nn.Module):
    """forward(z, labels): the output as float32 on the CPU, channels first, in the batches that the graph takes."""

    def __init__(self, session: Any, feeds: Feeds, condition: Condition | None, classes: int | None) -> None:
        super().__init__()
        self.session, self.feeds, self.condition, self.classes = session, feeds, condition, classes
        self.output: str = session.get_outputs()[0].name
        self.last_channels, self.divisor = False, 1.0
        self.options: Any = None  # of one run; the first has a time limit

    def __deepcopy__(self, memo: dict[int, Any]) -> Graphed:
        return self  # a session cannot be copied, and has no state that sampling would change

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if z.requires_grad and torch.is_grad_enabled():
            raise OutputError("an ONNX graph has no gradients", "audit the state dict, where this measurement matters")
        step = self.feeds.batch or max(1, len(z))
        parts = [self._part(z[start : start + step], None if labels is None else labels[start : start + step], step) for start in range(0, len(z), step)]
        made = torch.cat(parts) if parts else torch.empty(0)
        made = made.movedim(-1, 1) if self.last_channels else made
        return made / self.divisor if self.divisor != 1 else made

    def _part(self, z: Tensor, labels: Tensor | None, step: int) -> Tensor:
        """One call; a last batch that is short is filled up with its first row."""
        rows = torch.arange(step) % len(z) if self.feeds.batch else torch.arange(len(z))
        feed = {self.feeds.latent.name: z.detach().cpu()[rows].numpy().astype(FLOATS[self.feeds.latent.dtype])}
        if self.feeds.label is not None and labels is not None:
            value = self.feeds.label
            given = labels.detach().cpu()[rows]
            feed[value.name] = given.numpy().astype(INTEGERS.get(value.dtype) or FLOATS[value.dtype])
            feed[value.name] = feed[value.name][:, None] if value.dtype in INTEGERS and len(value.dims) == 2 else feed[value.name]
        feed |= {value.name: np.ones([1] * len(value.dims), FLOATS[value.dtype]) for value in self.feeds.held}
        return torch.from_numpy(np.asarray(self.run(feed), dtype=np.float32))[: len(z)]

    def run(self, feed: dict[str, Any]) -> Any:
        """The bare runtime. OutputError with its complaint; MemoryError where it met the ceiling."""
        try:
            return self.session.run([self.output], feed, self.options)[0]
        except Exception as wrong:
            first = str(wrong).strip().splitlines()[0][:200]
            if "arena" in str(wrong) or "bad_alloc" in str(wrong) or "allocat" in str(wrong).lower():
                raise MemoryError(first) from None
            raise OutputError(f"the ONNX graph failed: {first}", "check that it runs where it was exported") from None


# the runtime

def _session(path: Path, name: str) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level, options.inter_op_num_threads, options.intra_op_num_threads = 4, 1, torch.get_num_threads()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"])
    except Exception as wrong:  # the runtime's own classes, each with a long text
        first = str(wrong).strip().splitlines()[0].rpartition(" : ")[2][:160] if str(wrong).strip() else type(wrong).__name__
        raise LoadError(f"{name} is an ONNX graph that onnxruntime does not take: {first}", "check it with onnx.checker, or export it again") from None


@cache
def _runtime() -> Any:
    """onnxruntime, with a ceiling of half the machine's memory for all graphs together."""
    try:
        import onnxruntime
    except ImportError:
        raise LoadError("an ONNX graph needs onnxruntime, which is not installed", "pip install 'gandiag[onnx]'") from None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 33
    place = onnxruntime.OrtMemoryInfo("Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
    with contextlib.suppress(Exception):  # somebody else in this process has set one already
        onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": memory // 2, "arena_extend_strategy": 1}))
    return onnxruntime


def _tried(module: Graphed, latent: Latent, classes: int | None, name: str) -> Tensor:
    """Two samples, within a minute. LoadError with the runtime's complaint."""
    z = torch.randn(_TRIAL, *latent.shape, generator=torch.Generator().manual_seed(3))
    labels = None if classes is None else torch.arange(_TRIAL) % classes
    labels = labels if module.condition != "onehot" or labels is None else torch.nn.functional.one_hot(labels, classes or -1)
    options = _runtime().RunOptions()
    timer = threading.Timer(_PATIENCE, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    module.options = options
    timer.start()
    try:
        with torch.no_grad():
            made: Tensor = module(z, labels)
    except MemoryError:
        what = f"{name} asks for more memory than half of this machine's for {_TRIAL} samples"
        raise LoadError(what, "run it on a larger machine, if you trust its size") from None
    except OutputError as wrong:
        late = " (it was stopped after a minute)" if options.terminate else ""
        raise LoadError(f"{name} does not run: {wrong.what}{late}", wrong.hint) from None
    finally:
        timer.cancel()
        module.options = None
    if made.ndim < 2 or len(made) != _TRIAL:
        raise LoadError(f"{name} gives {tuple(made.shape)} for {_TRIAL} latents, not one sample each", "export it with a batch axis first")
    return made
