"""The process in which an ONNX graph runs: `python -I child.py`, requests on stdin, answers on stdout.

A graph can loop without end and grow without bounds, and its runtime is native code: it runs where that hurts nobody.
The system ends this process at its limits on processor time and memory. Imports nothing of gandiag, and not torch.

    message = length of the header (4 bytes), header (JSON), then the bytes of its arrays, in order
"""

from __future__ import annotations

import json
import signal
import struct
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

CPU_EXIT = -getattr(signal, "SIGXCPU", signal.SIGTERM)  # return code after too much processor time


def write_message(stream: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a header and named arrays."""
    rows = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    encoded = json.dumps({**header, "arrays": rows}).encode()
    stream.write(struct.pack("<I", len(encoded)) + encoded)
    for array in arrays.values():
        stream.write(array.tobytes())
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A header and its arrays. EOFError where the other process has ended."""
    import numpy as np

    (length,) = struct.unpack("<I", _read(stream, 4))
    header = json.loads(_read(stream, length))
    arrays = {}
    for name, dtype, shape in header.pop("arrays"):
        kind = np.dtype(dtype)
        count = 1
        for size in shape:
            count *= size
        arrays[name] = np.frombuffer(_read(stream, count * kind.itemsize), kind).reshape(shape)
    return header, arrays


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def allow_cpu_seconds(seconds: float) -> None:
    """The processor time that may be used from now on; the system ends the process after that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard < 0 else min(limit, hard), hard))


def _limit_memory(extra_bytes: int) -> None:
    """What may be allocated beyond what the libraries take; no core files, no output files."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:  # the only file that is opened here
            pages = int(file.read(200).split()[0])
    except (ImportError, OSError, ValueError):
        return
    limit = pages * resource.getpagesize() + extra_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = limit if hard < 0 else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))


def _open_session(request: Mapping[str, Any]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.inter_op_num_threads, options.intra_op_num_threads = 1, request["threads"]
    options.enable_cpu_mem_arena = False  # an arena holds on to what it once took, and the limit is on all of it
    _limit_memory(request["memory"])
    allow_cpu_seconds(request["seconds"])
    return onnxruntime.InferenceSession(
        request["path"], options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Open the graph of the first request, then run it once for each further one, until the parent ends."""
    session = None
    while True:
        try:
            request, arrays = read_message(requests)
        except EOFError:
            return
        try:
            if session is None:
                sys.path[:] = request["sys_path"]
                session = _open_session(request)
                write_message(answers, {"output": session.get_outputs()[0].name}, {})
                continue
            allow_cpu_seconds(request["seconds"])
            start = time.process_time()
            output = session.run([session.get_outputs()[0].name], arrays)[0]
            import numpy as np

            used = time.process_time() - start
            write_message(
                answers, {"seconds": used}, {"output": np.ascontiguousarray(np.asarray(output, dtype=np.float32))}
            )
        except ImportError:
            write_message(answers, {"error": "missing"}, {})
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"[:2000]
            write_message(answers, {"error": text}, {})


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, whose end ends this process
    serve(sys.stdin.buffer, sys.stdout.buffer)
