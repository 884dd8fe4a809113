"""Functions, tar files, sounds, mixed sizes and broken images as samples, opened by the one opener, within bounds."""

from __future__ import annotations

import io
import sys
import tarfile
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, OutputError, SourceError
from gandiag.features.log_mel import LogMelExtractor, mel_filters
from gandiag.interfaces import OutputSpec
from gandiag.pipeline.real_size import open_subject_of_size
from gandiag.pipeline.session import open_session
from gandiag.pipeline.subject import is_sample_path, open_subject
from gandiag.sampling import audio_files, tar_files
from gandiag.sampling.sample_function import draw_samples
from gandiag.sampling.sources import contains_samples, open_samples

RATE = 8_000


def draw(n: int, seed: int) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


class Foreign:
    """An array of another framework."""

    def __init__(self, rows: np.ndarray[Any, Any]) -> None:
        self._rows = rows

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return self._rows


@pytest.mark.parametrize(
    "function",
    [
        draw,
        lambda n, seed: draw(n, seed).numpy(),
        lambda n, seed: Foreign(draw(n, seed).numpy()),
        lambda n, seed: list(draw(n, seed).numpy()),
    ],
)
def test_a_function_is_sampled_in_blocks_with_their_own_seeds(function: Callable[[int, int], Any]) -> None:
    samples = next(draw_samples(function, 150, seed=3).read_rows(torch.arange(150), 200)).samples
    assert torch.equal(samples, torch.cat([draw(50, 3), draw(50, 4), draw(50, 5)]))


@pytest.mark.parametrize(("n", "sizes"), [(64, [64]), (65, [33, 33]), (200, [50] * 4), (2, [2])])
def test_every_call_asks_for_the_same_number(n: int, sizes: list[int]) -> None:
    asked: list[int] = []
    samples = draw_samples(lambda count, seed: (asked.append(count), draw(count, seed))[1], n)
    assert asked == sizes and samples.n == n


def test_images_of_a_function_may_be_pil() -> None:
    samples = draw_samples(lambda n, seed: [Image.new("RGB", (4, 4), (seed, i, 0)) for i in range(n)], 6, block=4)
    assert samples.output == OutputSpec("image", (3, 4, 4), (-1.0, 1.0))


@pytest.mark.parametrize(
    ("function", "problem", "message"),
    [
        (lambda n: draw(n, 0), ConfigError, "fn(n, seed)"),
        (lambda n, seed: draw(n - 1, seed), OutputError, "returned 49 samples"),
        (lambda n, seed: draw(n, 0), OutputError, "the same samples for the seeds 0 and 1"),
        (lambda n, seed: 1 / 0, OutputError, "ZeroDivisionError"),
        (lambda n, seed: None, OutputError, "returned a NoneType"),
        (lambda n, seed: {"a": 1}, OutputError, "returned a dict"),
        (lambda n, seed: sys.exit(0), OutputError, "failed: SystemExit: 0"),
        (lambda n, seed: draw(n, seed)[:, : 2 - seed % 2], OutputError, "several shapes, such as (2,) and (1,)"),
    ],
)
def test_a_function_that_does_not_fit_gets_one_sentence(function: Any, problem: type[Exception], message: str) -> None:
    with pytest.raises(problem) as caught:
        draw_samples(function, 150)
    assert message in str(caught.value)


def test_a_collapsed_function_is_no_misuse() -> None:
    assert draw_samples(lambda n, seed: torch.zeros(n, 3), 150).n == 150


def test_a_function_is_asked_for_no_more_than_is_compared() -> None:
    asked: list[int] = []

    def count(n: int, seed: int) -> Tensor:
        asked.append(n)
        return draw(n, seed)

    subject = open_subject_of_size(count, AuditConfig(), draw(300, 9))
    assert sum(asked) == 150 and subject.facts["loader"] == "function" and "count" in subject.facts["family"]


def write_images(folder: Path, sizes: dict[str, tuple[int, int]]) -> None:
    for index, (name, size) in enumerate(sizes.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size[1], size[0], 3), 10 * index, dtype=np.uint8)).save(path)


def test_mixed_sizes_need_an_image_size(tmp_path: Path) -> None:
    write_images(tmp_path, {"a.png": (16, 16), "b.png": (20, 12), "c.png": (16, 16)})
    with pytest.raises(SourceError, match="--image-size N"):
        open_subject(tmp_path, AuditConfig())
    subject = open_subject(tmp_path, AuditConfig(image_size=8))
    assert subject.output.shape == (3, 8, 8) and subject.samples is not None
    from gandiag.interfaces import SampleSource

    assert next(subject.batches(SampleSource("fake", n=3), 8)).samples.shape == (3, 3, 8, 8)


@pytest.mark.parametrize("archive", [False, True])
def test_broken_images_are_left_out_by_name_or_refused(tmp_path: Path, archive: bool) -> None:
    write_images(tmp_path / "x", {name: (16, 16) for name in ("a.png", "b.png", "c.png", "d.png")})
    whole = (tmp_path / "x" / "b.png").read_bytes()
    (tmp_path / "x" / "b.png").write_bytes(whole[: len(whole) * 2 // 3])  # its header is whole
    (tmp_path / "x" / "d.png").write_bytes(b"not an image")
    source = tmp_path / "x"
    if archive:
        source = tmp_path / "x.zip"
        with zipfile.ZipFile(source, "w") as file:
            for name in ("a", "b", "c", "d"):
                file.write(tmp_path / "x" / f"{name}.png", f"{name}.png")
    with pytest.raises(SourceError) as caught:
        open_samples(source)
    assert "d.png" in str(caught.value) and "--skip-broken" in str(caught.value)
    samples = open_samples(source, skip_broken=True)
    assert samples.n == 2
    assert samples.remarks == ("2 images could not be read and were left out: b.png, d.png",)
    assert "left out" in str(open_subject(source, AuditConfig(skip_broken=True)).notes)


def test_nothing_readable_is_refused_even_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(SourceError, match="none of 1 images"):
        open_samples(tmp_path, skip_broken=True)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_webdataset_shard_has_images_and_classes(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for i in range(12):
        members |= {f"{i:03}.png": png(20 * i), f"{i:03}.cls": str(i % 3).encode(), f"{i:03}.json": b"{}"}
    path = write_tar(tmp_path / "000.tar", members)
    assert contains_samples(path) and is_sample_path(path)
    samples = open_samples(path)
    assert samples.n == 12 and samples.class_names == ("0", "1", "2")
    batch = next(samples.read_rows(torch.arange(12), 12))
    assert batch.labels is not None and batch.labels.tolist() == [i % 3 for i in range(12)]
    assert batch.samples[2].mean().item() == pytest.approx(40 / 127.5 - 1, abs=1e-6)


def test_folders_of_shards_and_class_folders_in_a_tar(tmp_path: Path) -> None:
    for shard in range(2):
        write_tar(tmp_path / f"{shard}.tar", {f"{i}.png": png(i) for i in range(4)})
    assert contains_samples(tmp_path) and open_samples(tmp_path).n == 8
    labeled = write_tar(tmp_path / "labeled.tar", {f"{c}/{i}.png": png(i) for c in ("cat", "dog") for i in range(3)})
    assert open_samples(labeled).class_names == ("cat", "dog")


def test_tar_files_made_to_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links and devices are passed over, names lead nowhere, and no header may claim a gigabyte."""
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "a.png"), (tarfile.CHRTYPE, "b.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("../../up.png", "/root.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(1))
            archive.addfile(info, io.BytesIO(png(1)))
    assert open_samples(path).n == 2 and not (tmp_path.parent / "up.png").exists()
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.XHDTYPE, (1 << 33) - 1
    (tmp_path / "huge.tar").write_bytes(huge.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(SourceError, match="claims"):
        open_samples(tmp_path / "huge.tar")
    with pytest.raises(SourceError, match="gunzip"):
        open_samples(write_tar(tmp_path / "x.tar.gz", {"a.png": png(1)}, "w:gz"))
    with pytest.raises(SourceError, match="no images"):
        open_samples(write_tar(tmp_path / "text.tar", {"a.txt": b"x"}))
    assert not contains_samples(tmp_path / "text.tar")  # an old checkpoint may be a tar file
    monkeypatch.setattr(tar_files, "MAX_MEMBERS", 3)
    with pytest.raises(SourceError, match="more than 3 images"):
        open_samples(write_tar(tmp_path / "many.tar", {f"{i}.png": png(i) for i in range(5)}))


def write_wav(path: Path, sound: np.ndarray[Any, Any], rate: int = RATE, width: int = 2, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.repeat(sound[:, None], channels, 1)
    data = (values * 32767).astype("<i2") if width == 2 else (values * 127 + 128).astype("u1")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data.tobytes())


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray[Any, Any]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def test_sounds_are_series_of_one_rate_and_length(tmp_path: Path) -> None:
    write_wav(tmp_path / "a" / "1.wav", tone(440))
    write_wav(tmp_path / "a" / "2.wav", tone(440), width=1, channels=2)
    write_wav(tmp_path / "b" / "3.wav", tone(440, seconds=0.8))
    write_wav(tmp_path / "b" / "4.wav", tone(440, rate=16_000), rate=16_000)
    assert contains_samples(tmp_path)
    samples = open_samples(tmp_path)
    assert samples.output == OutputSpec("series", (1, 4000)) and samples.class_names == ("a", "b")
    rows = next(samples.read_rows(torch.arange(4), 4)).samples[:, 0]  # (4, 4000)
    truth = torch.from_numpy(tone(440)).float()
    assert (rows[:3] - truth).abs().max() < 0.016 and (rows[3, 50:-50] - truth[50:-50]).abs().max() < 0.02
    assert any("cut or padded to 0.50 s" in text for text in samples.remarks)
    assert any("resampled to 8,000 Hz" in text for text in samples.remarks)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x00\x00\x00\x00WAVEfmt \xff\xff\xff\x7f", bytes(200)])
def test_broken_sounds_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.wav cannot be read as a sound"):
        open_samples(tmp_path)


@pytest.mark.parametrize(("at", "width"), [(22, 2), (34, 2), (22, 0)])
def test_a_sound_without_channels_or_bits_says_so(tmp_path: Path, at: int, width: int) -> None:
    write_wav(tmp_path / "a.wav", tone(440))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[at : at + width] = bytes(width)
    content[28:34] = bytes(6)  # bytes a second and bytes a frame
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read as a sound") as caught:
        open_samples(tmp_path)
    assert "modulo" not in str(caught.value) and "division" not in str(caught.value)


def test_a_tar_member_larger_than_any_file_is_damage(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x.png")
    member.size = 1 << 60
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(SourceError, match="cannot be read") as caught:
        open_samples(tmp_path / "x.tar")
    assert caught.value.hint == "create it again"


def test_flac_needs_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(SourceError, match="soundfile") as caught:
        open_samples(tmp_path)
    assert "gandiag[audio]" in str(caught.value)


def test_flac_is_read_like_wav(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    for index, hertz in enumerate((440, 880)):
        soundfile.write(tmp_path / f"{index}.flac", tone(hertz), RATE)
    rows = next(open_samples(tmp_path).read_rows(torch.arange(2), 2)).samples[:, 0]
    assert (rows[0] - torch.from_numpy(tone(440)).float()).abs().max() < 0.001


def test_log_mel_sees_pitch_and_loudness_not_phase() -> None:
    output = OutputSpec("series", (1, 4000))
    extractor = LogMelExtractor(output, RATE)
    time = torch.arange(4000) / RATE
    sounds = torch.stack(
        [torch.sin(2 * torch.pi * hertz * time + phase) for hertz, phase in ((440.0, 0.0), (440.0, 1.5), (1500.0, 0.0))]
    )[:, None]  # (3, 1, 4000)
    features = extractor(sounds, output)
    assert features.shape == (3, extractor.dim)
    other_phase, other_pitch = ((features[0] - features[i]).norm() for i in (1, 2))
    assert other_pitch > 10 * other_phase
    assert (extractor(0.1 * sounds, output) - features).norm() > other_phase
    band = features[0].reshape(40, -1).mean(1).argmax()  # the band that holds 440 Hz
    center = (mel_filters(2001, RATE)[band] * torch.linspace(0, RATE / 2, 2001)).sum()
    assert 380 < center < 500


@pytest.mark.parametrize(("n_bins", "rate"), [(9, 100), (201, 16_000), (601, 48_000), (17, 384_000)])
def test_every_mel_band_averages_some_bins(n_bins: int, rate: int) -> None:
    filters = mel_filters(n_bins, rate)
    assert torch.allclose(filters.sum(1), torch.ones(40)) and (filters >= 0).all()


def test_sounds_of_two_rates_are_not_compared(tmp_path: Path) -> None:
    for folder, rate in (("x", 8_000), ("y", 4_000)):
        for index in range(4):
            write_wav(
                tmp_path / folder / f"{index}.wav", tone(300 + index, seconds=0.1 * 8_000 / rate, rate=rate), rate
            )
    session = open_session(tmp_path / "x", AuditConfig(n=2), real=tmp_path / "x")
    assert session.plan.context.view == "logmel@8000"
    with pytest.raises(SourceError, match="4,000 and 8,000 Hz"):
        open_session(tmp_path / "x", AuditConfig(n=2), real=tmp_path / "y")


def test_a_sound_may_not_be_larger_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "a.wav", tone(440))
    monkeypatch.setattr(audio_files, "MAX_FILE_BYTES", 1 << 10)
    with pytest.raises(SourceError, match=r"a\.wav"):
        open_samples(tmp_path)
