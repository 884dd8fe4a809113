"""Runs an ONNX graph in a process of its own, with limits on processor time and memory. Torch-free."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gandiag.checkpoints.key_names import first_line
from gandiag.checkpoints.onnx import child
from gandiag.errors import LoadError, OutputError

_MIB = 2**20
_FREE_BYTES = 2**30  # memory beyond the libraries, and
_BYTES_PER_BYTE = 4  # for every byte of the graph's files
_THREAD_BYTES = 80 * _MIB  # address space of a thread
_MIN_SECONDS, _SECONDS_PER_MIB = 5.0, 5.0  # of processor time, to open the graph, and again for its first batch
_FACTOR = 20  # times as long as the first batch, for each sample, may the others take
_WAIT_FACTOR = 30  # a process that uses no processor time is ended after so many times its limit
_EXPORT_AGAIN = "check it with onnx.checker, or export it again"


class GraphProcess:
    """A graph opened in a child process. LoadError where onnxruntime is missing or cannot open the graph."""

    def __init__(self, path: Path, name: str, *, n_bytes: int, threads: int) -> None:
        self.name = name
        self.seconds = _MIN_SECONDS + _SECONDS_PER_MIB * n_bytes / _MIB
        self._sample_seconds = 0.0
        environ = {**os.environ, "MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", child.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=os.path.dirname(child.__file__),
            env=environ,
        )
        weakref.finalize(self, _end, self._process)
        request = {
            "path": os.fspath(path.absolute()),
            "threads": threads,
            "seconds": self.seconds,
            "memory": _FREE_BYTES + _BYTES_PER_BYTE * n_bytes + _THREAD_BYTES * threads,
            "sys_path": sys.path,
        }
        try:
            self._ask(request, {}, self.seconds)
        except MemoryError:
            raise LoadError(f"{name} needs more memory than its size allows", "export it again, smaller") from None
        except OutputError as error:
            raise LoadError(error.message, error.hint) from None

    def run(self, arrays: Mapping[str, Any], n_samples: int) -> Any:
        """The output for one batch, float32.

        OutputError with the runtime's message, or where a limit on time ended it; MemoryError at the limit on memory.
        """
        seconds = max(self.seconds, _FACTOR * self._sample_seconds * n_samples)
        answer, output = self._ask({"seconds": seconds}, arrays, seconds)
        self._sample_seconds = max(self._sample_seconds, answer["seconds"] / max(1, n_samples))
        return output["output"]

    def _ask(
        self, request: Mapping[str, Any], arrays: Mapping[str, Any], seconds: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        try:
            child.write_message(requests, request, arrays)
            if not select.select([answers], [], [], _WAIT_FACTOR * seconds)[0]:
                self._process.kill()
            answer, output = child.read_message(answers)
        except (EOFError, OSError):
            raise self._explain_end(seconds) from None
        if "error" in answer:
            raise _explain(answer["error"], self.name)
        return answer, output

    def _explain_end(self, seconds: float) -> OutputError | MemoryError:
        code = self._process.wait()
        if code in (child.CPU_EXIT, -9):
            return OutputError(
                f"the graph of {self.name} was stopped after {seconds:.0f} s of computing", "export a graph that ends"
            )
        return MemoryError(f"the process that ran it ended with code {code}")


def _explain(text: str, name: str) -> Exception:
    if text == "missing":
        return LoadError("an ONNX graph needs onnxruntime, which is not installed", "pip install 'gandiag[onnx]'")
    if "bad_alloc" in text or "alloc" in text.lower() or text.startswith("MemoryError"):
        return MemoryError(first_line(ValueError(text), 200))
    message = first_line(ValueError(text), 10_000).rpartition(" : ")[2][:160]
    return OutputError(f"onnxruntime cannot run the ONNX graph {name}: {message}", _EXPORT_AGAIN)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the child and take its exit status."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                continue
    process.wait()
