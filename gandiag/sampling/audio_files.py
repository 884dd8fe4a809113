"""Reads folders and .zip files of .wav and .flac sounds as series: mono, one rate, one length.

.wav is read by scipy; .flac, .ogg and .aiff need soundfile (pip install "gandiag[audio]").
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import gcd
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import OutputSpec, SampleKind
from gandiag.sampling.image_folders import ImageFiles, labels_from_folders

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".aiff"})
MAX_FILE_BYTES = 1 << 27
MAX_LENGTH = 1 << 18  # samples of one sound that are compared: 5.5 s at 48 kHz; the rest is cut
MAX_FRAMES = 1 << 26  # of one file
MAX_RATE = 384_000
_MAX_HEADERS = 500  # sounds that determine rate and length
_MIN_LENGTH = 64

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class AudioReader:
    """Sounds by index, (1, length) float32 in [-1, 1] each, at `sample_rate` Hz."""

    files: ImageFiles
    name: str
    sample_rate: int
    length: int
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()
    kind: SampleKind = "series"

    @property
    def n(self) -> int:
        return len(self.files.names)

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.length)

    def match_output(self, output: OutputSpec) -> AudioReader:
        """The same sounds, cut or padded to the length of a generator's output."""
        if output.kind != "series" or output.shape[-1] != np.prod(output.shape):
            return self
        return replace(self, length=output.shape[-1])

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 1, length) float32."""
        rows = [self._read_sound(self.files.names[index]) for index in indices.tolist()]
        return torch.from_numpy(np.stack(rows))[:, None], None if self.labels is None else self.labels[indices]

    def fingerprint(self, indices: Tensor) -> str:
        """A hash of the names and sizes of all files and the contents of `indices`."""
        digest = hashlib.blake2b(f"audio|{self.sample_rate}|{self.length}".encode(), digest_size=16)
        for name in self.files.names:
            digest.update(f"{name}|{self.files.file_size(name)}\n".encode("utf-8", "surrogateescape"))
        for index in indices.tolist():
            name = self.files.names[index]
            with _report_unreadable(name), self.files.open(name) as file:
                digest.update(hashlib.blake2b(file.read(MAX_FILE_BYTES)).digest())
        return digest.hexdigest()

    def _read_sound(self, name: str) -> Array:
        rate, sound = read_sound(self.files, name)
        if rate != self.sample_rate:
            divisor = gcd(rate, self.sample_rate)
            needed = int(self.length * rate / self.sample_rate) + rate // 10  # no more than is kept
            sound = resample_poly(sound[:needed], self.sample_rate // divisor, rate // divisor).astype(np.float32)
        row = np.zeros(self.length, dtype=np.float32)
        kept = sound[: self.length]
        row[: len(kept)] = kept
        return row


def is_audio_name(name: str) -> bool:
    """Whether a file is a sound by its suffix, and neither hidden nor a system file."""
    path = PurePosixPath(name)
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts


def open_audio_files(files: ImageFiles, name: str) -> AudioReader:
    """Rate and length are the most frequent ones of up to 500 sounds; class subfolders become labels."""
    step = max(1, -(-len(files.names) // _MAX_HEADERS))
    rates: Counter[int] = Counter()
    seconds: Counter[float] = Counter()
    for file_name in files.names[::step]:
        rate, sound = read_sound(files, file_name)
        rates[rate] += 1
        seconds[round(len(sound) / rate, 3)] += 1
    rate, duration = rates.most_common(1)[0][0], seconds.most_common(1)[0][0]
    length = max(_MIN_LENGTH, min(MAX_LENGTH, round(rate * duration)))
    remarks = []
    if len(seconds) > 1 or length < round(rate * duration):
        remarks.append(f"the sounds in {name} were cut or padded to {length / rate:.2f} s")
    if len(rates) > 1:
        remarks.append(f"the sounds in {name} were resampled to {rate:,} Hz")
    labels, class_names = labels_from_folders(files.names)
    return AudioReader(files, name, rate, length, labels, class_names, tuple(remarks))


def read_sound(files: ImageFiles, name: str) -> tuple[int, Array]:
    """The rate of a sound and its samples, channels averaged, (T,) float32 in [-1, 1]. SourceError where unreadable."""
    with _report_unreadable(name):
        if files.file_size(name) > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
        with files.open(name) as file:
            content = file.read(MAX_FILE_BYTES)
        rate, values = _decode_wav(content) if name.lower().endswith(".wav") else _decode_other(content, name)
        if not 1 <= rate <= MAX_RATE:
            raise ValueError(f"its rate is {rate:,} Hz")
        if not values.size:
            raise ValueError("it is empty")
        mono = values.mean(1) if values.ndim == 2 else values
        if not np.isfinite(mono).all():
            raise ValueError("it contains NaN or infinity")
        return rate, np.ascontiguousarray(mono, dtype=np.float32)


def _decode_wav(content: bytes) -> tuple[int, Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # chunks that scipy does not know
        try:
            rate, values = wavfile.read(io.BytesIO(content))
        except ZeroDivisionError:
            raise ValueError("its header states no channels, or samples of 0 bits") from None
    if values.dtype == np.uint8:
        return int(rate), (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return int(rate), values.astype(np.float32) / float(-np.iinfo(values.dtype).min)
    return int(rate), values.astype(np.float32)


def _decode_other(content: bytes, name: str) -> tuple[int, Array]:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package without its library
        raise SourceError(
            f"{name}: only .wav can be read without soundfile", 'pip install "gandiag[audio]", or convert it to .wav'
        ) from None
    with soundfile.SoundFile(io.BytesIO(content)) as sound:
        frames = min(int(sound.frames), MAX_FRAMES // max(1, sound.channels), 4 * MAX_LENGTH)
        return int(sound.samplerate), np.asarray(sound.read(frames, dtype="float32"))


@contextmanager
def _report_unreadable(name: str) -> Iterator[None]:
    """Turn any exception of a decoder into a SourceError that names the file."""
    try:
        yield
    except SourceError:
        raise
    except Exception as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise SourceError(
            f"{name} cannot be read as a sound: {reason or type(problem).__name__}", "remove it or save it again"
        ) from problem
