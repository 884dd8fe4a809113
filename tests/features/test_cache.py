"""The cache of real features: the same features at a lower cost, and never a reason to fail."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from gandiag.features.cache import CachedRealFeatures, FeatureCache, cache_key
from gandiag.features.views import FeatureView, make_views
from gandiag.interfaces import OutputSpec
from gandiag.sampling.sources import open_samples

FIT = OutputSpec("image", (3, 16, 16), (-1.0, 1.0))


class CountingExtractor:
    """Block means, and the number of samples they were computed for."""

    name, dim, fingerprint = "counting", 12, "counting:1"

    def __init__(self):
        self.n_embedded = 0

    def __call__(self, samples, output):
        self.n_embedded += len(samples)
        return torch.nn.functional.adaptive_avg_pool2d(samples, 2).flatten(1)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(
                tmp_path / "photos" / name / f"{index}.png"
            )
    return tmp_path / "photos"


def walk(folder, cache, *, limit=None, raw=True, batch_size=3, level=0):
    extractor = CountingExtractor()
    views = (FeatureView("counting", extractor, level), *make_views(["pixels"], FIT))[: 2 if raw else 1]
    batches = list(
        CachedRealFeatures(open_samples(folder), views, FIT, limit, cache).batches(batch_size, with_samples=raw)
    )
    return extractor.n_embedded, torch.cat([batch.features["counting"] for batch in batches]), batches


@pytest.mark.parametrize("level", [0, 1])
def test_second_pass_computes_nothing_and_gives_the_same(folder, tmp_path, level):
    cache = FeatureCache(tmp_path / "cache")
    first = walk(folder, cache, level=level)
    second = walk(folder, cache, batch_size=4, level=level)
    assert (first[0], second[0]) == (10, 0) and torch.equal(first[1], second[1]) and not cache.notes
    assert all("pixels" in batch.features and batch.samples.shape[1:] == (3, 16, 16) for batch in second[2])


def test_samples_are_not_converted_when_they_are_not_needed(folder, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    first, second = walk(folder, cache), walk(folder, cache, raw=False)
    assert torch.equal(first[1], second[1]) and all(batch.samples.shape[1] == 0 for batch in second[2])
    for name in ("labels", "indices"):
        parts = [torch.cat([getattr(batch, name) for batch in found[2]]) for found in (first, second)]
        assert torch.equal(*parts)
    assert torch.cat([batch.labels for batch in second[2]]).bincount().tolist() == [5, 5]


def test_everything_that_changes_features_changes_the_key(folder, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    walk(folder, cache)
    assert walk(folder, cache, limit=4)[0] == 4
    Image.new("RGB", (16, 20)).save(folder / "a" / "0.png")
    assert walk(folder, cache)[0] == 10
    view = FeatureView("counting", CountingExtractor())
    keys = {
        cache_key(*parts)
        for parts in [
            ("x", view, FIT, None),
            ("y", view, FIT, None),
            ("x", FeatureView("counting", view.extractor, 1), FIT, None),
            ("x", view, FIT, 5),
            ("x", view, OutputSpec("image", (3, 16, 16), (0.0, 1.0)), None),
            ("x", view, OutputSpec("image", (3, 8, 8), (-1.0, 1.0)), None),
        ]
    }
    assert len(keys) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"junk" * 50,
        lambda data: data[: len(data) // 2],
        lambda data: data[:-3] + b"abc",
        lambda data: (2**60).to_bytes(8, "little") + data[8:],
    ],
)
def test_damaged_entries_are_ignored_and_rewritten(folder, tmp_path, damage):
    cache = FeatureCache(tmp_path / "cache")
    original = walk(folder, cache)[1]
    (entry,) = (tmp_path / "cache").glob("*.safetensors")
    entry.write_bytes(damage(entry.read_bytes()))
    n_embedded, result, _ = walk(folder, cache)
    assert n_embedded == 10 and torch.equal(result, original) and len(cache.notes) == 1
    n_embedded, result, _ = walk(folder, cache)
    assert n_embedded == 0 and torch.equal(result, original) and len(cache.notes) == 1


def test_interrupted_pass_stores_nothing(folder, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    stream = CachedRealFeatures(
        open_samples(folder), (FeatureView("counting", CountingExtractor()),), FIT, None, cache
    ).batches(3)
    next(stream)
    stream.close()
    assert not (tmp_path / "cache").exists()


def test_unwritable_folder_gives_a_note(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache(tmp_path / "file" / "below")
    assert walk(folder, cache)[0] == 10 and walk(folder, cache)[0] == 10
    assert cache.notes and all("cached" in note for note in cache.notes)


def test_folder_stays_under_its_limit_and_evicts_the_least_recently_used(tmp_path):
    features = torch.randn(100, 10)
    cache = FeatureCache(tmp_path, max_bytes=3 * 4400)
    for number in range(5):
        cache.put(f"k{number}", features)
        os.utime(tmp_path / f"k{number}.safetensors", (number, number)) if number < 4 else None
        if number == 2:
            assert cache.get("k0", (100, 10)) is not None  # used more recently now than k1 and k2
    remaining = {path.stem for path in tmp_path.glob("*.safetensors")}
    assert (
        "k0" in remaining
        and "k4" in remaining
        and "k1" not in remaining
        and sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.max_bytes
    )
    cache.put("huge", torch.zeros(10_000, 10))
    assert (
        cache.get("huge", (10_000, 10)) is None and {path.stem for path in tmp_path.glob("*.safetensors")} == remaining
    )


def test_abandoned_files_are_removed(tmp_path):
    for name, age in ((".old.part", 0), (".new.part", None)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (age, age)) if age is not None else None
    FeatureCache(tmp_path).put("k", torch.zeros(2, 2))
    assert {path.name for path in tmp_path.iterdir()} == {".new.part", "k.safetensors"}


def test_concurrent_writers_leave_complete_entries(tmp_path):
    values = [torch.full((50, 20), float(number)) for number in range(8)]
    cache = FeatureCache(tmp_path)
    threads = [
        threading.Thread(target=lambda value=value: [cache.put("k", value) for _ in range(10)]) for value in values
    ]
    for thread in threads:
        thread.start()
    for _ in range(50):
        result = cache.get("k", (50, 20))
        assert result is None or float(result.std()) == 0
    for thread in threads:
        thread.join()
    assert cache.get("k", (50, 20)) is not None and not cache.notes


def test_cache_location(tmp_path):
    assert FeatureCache.default({"GANDIAG_CACHE": "off", "XDG_CACHE_HOME": "/x"}).root is None
    assert str(FeatureCache.default({"GANDIAG_CACHE": "/y", "XDG_CACHE_HOME": "/x"}).root) == "/y"
    assert str(FeatureCache.default({"XDG_CACHE_HOME": "/x"}).root) == "/x/gandiag"
    assert FeatureCache.default({}).root.parts[-2:] == (".cache", "gandiag")


def test_another_shape_under_the_same_key_is_not_used(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put("k", torch.zeros(3, 2))
    assert cache.get("k", (3, 2)) is not None and cache.get("k", (2, 3)) is None
