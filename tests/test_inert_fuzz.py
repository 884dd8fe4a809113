"""Valid files with damage that fits no plan: whatever a file holds, it is read, or refused in a sentence."""

from __future__ import annotations

import io
import pickle
import tempfile
import time
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.load.generator import load_network
from gandiag.load.survey import survey


def seeds() -> dict[str, bytes]:
    """Small files of every container, with everything in them that the reader treats specially."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    extras = {"args": Namespace(nz=2), "loss": np.float64(1.5), "curve": np.arange(3.0), "d": defaultdict(list), "o": OrderedDict(a=torch.Size([2]))}
    content = {"epoch": 3, "netG": net.state_dict(), "optimizer": torch.optim.Adam(net.parameters()).state_dict(), **extras}
    found = {}
    for name, zipped in (("zip", True), ("legacy", False)):
        for kind, whole in (("dict", content), ("module", net)):
            stream = io.BytesIO()
            torch.save(whole, stream, _use_new_zipfile_serialization=zipped)
            found[f"{name} {kind}"] = stream.getvalue()
    for protocol in (0, 2, 4):
        found[f"pickle {protocol}"] = pickle.dumps({"G": net, **content}, protocol)
    from safetensors.torch import save

    return {**found, "safetensors": save(net.state_dict())}


SEEDS = seeds()
SMALL = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], derandomize=True)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A seed with a few bytes replaced, pieces cut out, doubled, or moved in from another seed."""
    whole = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, max(0, len(whole) - 1))), draw(st.integers(1, 24))
        kind = draw(st.sampled_from(["set", "cut", "double", "graft", "opcode"]))
        if kind == "set":
            whole[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "cut":
            del whole[at : at + length]
        elif kind == "double":
            whole[at:at] = whole[at : at + length]
        elif kind == "opcode":
            whole[at : at + 1] = draw(st.sampled_from([*(bytes([code]) for code in b"Rbsut\x85\x9302(}]NQ\x81"), b"h\x00"]))
        else:
            other = SEEDS[draw(st.sampled_from(sorted(SEEDS)))]
            start = draw(st.integers(0, len(other) - 1))
            whole[at : at + length] = other[start : start + length]
    return bytes(whole)


def look(content: bytes, folder: Path) -> None:
    """Survey and load. Only LoadError may come out, in a sentence, and soon."""
    path = folder / "fuzzed.pt"
    path.write_bytes(content)
    start = time.process_time()
    for way in (lambda: survey(str(path)), lambda: load_network(path, AuditConfig())):
        try:
            way()
        except LoadError as problem:
            assert problem.what and problem.hint and "\n" not in problem.what
    assert time.process_time() - start < 5


def hunt(examples: int, seconds: float, folder: Path) -> int:
    """Try mutations until the time or the number of examples is spent."""
    tried, end = 0, time.monotonic() + seconds

    @settings(SMALL, max_examples=examples)
    @given(damaged())
    def one(content: bytes) -> None:
        nonlocal tried
        if time.monotonic() < end:
            tried += 1
            look(content, folder)

    one()
    return tried


def test_twenty_seconds_of_damage(tmp_path: Path) -> None:
    assert hunt(2_000, 20, tmp_path) > 30


@pytest.mark.slow
def test_ten_minutes_of_damage() -> None:
    end, tried, salt = time.monotonic() + 600, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            salt += 1
            rng = np.random.default_rng(salt)
            for _ in range(50):
                look(scrambled(rng), Path(folder))
                tried += 1
    assert tried > 1_000


def scrambled(rng: np.random.Generator) -> bytes:
    """As `damaged`, drawn faster."""
    names: list[str] = sorted(SEEDS)
    whole = bytearray(SEEDS[names[rng.integers(len(names))]])
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(len(whole) or 1)), int(rng.integers(1, 24))
        other: Any = SEEDS[names[rng.integers(len(names))]]
        start = int(rng.integers(len(other)))
        piece = [rng.bytes(1), b"", bytes(whole[at : at + length]) * 2, other[start : start + length]][int(rng.integers(4))]
        whole[at : at + (1 if len(piece) == 1 else length)] = piece
    return bytes(whole)
