"""Data: scenes and batches are as stated, the cache changes nothing, errors say what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from image_files import NAMES, numbered, numbers, write_parquet
from torch import Tensor

from foveate.data import ImageSet, augment, backgrounds, load_data, rows, scenes
from foveate.data import loading as data_module
from foveate.data.scenes import compose_scenes


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FOVEATE_CACHE", str(folder))
    return folder


# Scenes.


def test_scenes_are_the_same_for_the_same_seed_and_differ_for_another():
    first, again, other = (compose_scenes("train", 50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.corner_px, again.corner_px)
    assert not torch.equal(first.images, other.images)


def test_scenes_hold_one_bright_object_at_the_stated_place():
    made = compose_scenes("test", 300)
    assert made.images.shape == (300, 1, 32, 32)
    assert made.images.dtype == torch.uint8
    assert made.corner_px.min() == 0
    assert made.corner_px.max() == 18
    inside = torch.zeros(300, 32, 32, dtype=torch.bool)
    for scene, (top, left) in enumerate(made.corner_px.tolist()):
        inside[scene, top : top + 14, left : left + 14] = True
    pixels = made.images[:, 0].float()
    squares = (pixels - pixels.mean(dim=(1, 2), keepdim=True)).square()
    # A fifth of the area carries more than half of the variance, in every scene.
    assert ((squares * inside).sum(dim=(1, 2)) / squares.sum(dim=(1, 2))).min() > 0.5


def test_scene_classes_take_turns_and_labels_belong_to_the_objects():
    made = compose_scenes("train", 40)
    assert made.labels.unflatten(0, (4, 10)).sort(dim=1).values.tolist() == [list(range(10))] * 4
    assert made.class_names[9] == "Ankle boot"
    objects, labels, _ = scenes._objects("train")
    value, opacity = scenes._resized(objects, 14)
    for scene, (top, left) in enumerate(made.corner_px.tolist()):
        crop = made.images[scene, 0, top : top + 14, left : left + 14].numpy() / 255
        misfit = (np.abs(crop - value) * (opacity == 1)).max(axis=(1, 2))
        fitting = np.flatnonzero(misfit < 0.01)
        largest = fitting[(opacity[fitting] == 1).sum(axis=(1, 2)).argmax()]
        assert labels[largest] == made.labels[scene]


def test_scene_splits_share_neither_objects_nor_photo_regions():
    objects = [{image.tobytes() for image in scenes._objects(split)[0]} for split in scenes.SPLITS]
    assert [len(unique) for unique in objects] == [4500, 500, 1000]
    assert len(set.union(*objects)) == 6000
    sizes = np.array(
        [[part.size for part in backgrounds.regions_of(split, False)] for split in scenes.SPLITS]
    )
    whole = [getattr(skimage.data, photo)().shape[:2] for photo in backgrounds._PHOTOS]
    assert sizes.sum(axis=0).tolist() == [height * width for height, width in whole]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("dev", 3), "train, val, test"),
        (("train", 0), "num_scenes"),
        (("train", 3, {"object_px": 40}), r"1\.\.size_px"),
        (("train", 3, {"size_px": 900}), "size_px 900"),
    ],
)
def test_wrong_scene_options_are_named(arguments, says):
    split, count, *options = arguments
    with pytest.raises(ValueError, match=says):
        compose_scenes(split, count, **(options[0] if options else {}))


def test_scenes_load_by_default_and_at_another_size(monkeypatch):
    monkeypatch.setattr(scenes, "NUM_SCENES", {"train": 30, "val": 20, "test": 20})
    loaded = load_data()
    assert (loaded.name, loaded.image_shape, len(loaded)) == ("scenes", (1, 32, 32), 30)
    assert torch.equal(loaded.images, compose_scenes("train", 30).images)
    assert load_data("scenes", "val", image_size=48).image_shape == (1, 48, 48)


def test_scenes_in_color_show_the_gray_ones_in_random_hues(monkeypatch):
    monkeypatch.setattr(scenes, "NUM_SCENES", dict.fromkeys(scenes.SPLITS, 40))
    gray, color = load_data("scenes", "test"), load_data("scenes_rgb", "test")
    assert (color.name, color.image_shape) == ("scenes_rgb", (3, 32, 32))
    for name in ("labels", "boxes_px"):
        assert torch.equal(getattr(gray, name), getattr(color, name))
    assert gray.captions == color.captions
    hues = set()
    for image, (top, left, height, width) in zip(color.images, color.boxes_px, strict=True):
        box = image[:, top : top + height, left : left + width].flatten(1)
        pixel = box[:, box.sum(0).argmax()]
        assert pixel.max() > 2 * pixel.min()
        hues.add(int(pixel.argmax()))
    assert hues == {0, 1, 2}


def test_large_scenes_have_all_splits_and_smooth_objects():
    """Of 96 pixels, on photographs that are not shrunk. Enlarged objects have no blocks."""
    for split in scenes.SPLITS:
        made = compose_scenes(split, 6, size_px=96, object_px=42, in_color=True)
        assert made.images.shape == (6, 3, 96, 96)
    value, _ = scenes._resized(
        np.linspace(0, 1, 28, dtype=np.float32)[None, None].repeat(28, 1), 42
    )
    assert (np.diff(value[0, 21, 6:-1]) > 0).all()


# The cache.


def test_cached_set_is_the_same_and_is_not_decoded_again(tmp_path, cache, monkeypatch):
    images = [numbered(n, "RGB") for n in range(20)]
    write_parquet(tmp_path / "set.parquet", images, NAMES, label=[0, 1] * 10)
    first = load_data(str(tmp_path / "set.parquet"))
    (stored,) = cache.iterdir()
    assert stored.suffix == ".npz"
    with monkeypatch.context() as patch:
        patch.setattr(rows, "decode", lambda *_: pytest.fail("decoded again"))
        again = load_data(str(tmp_path / "set.parquet"))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert (first.name, first.class_names) == (again.name, again.class_names)
    stored.write_bytes(stored.read_bytes()[:100])
    assert torch.equal(load_data(str(tmp_path / "set.parquet")).images, first.images)
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(50, 80)])
    assert min(numbers(load_data(str(tmp_path / "set.parquet")))) >= 50


@pytest.mark.parametrize("module", [data_module, rows, scenes])
def test_cached_set_of_other_code_is_not_used(tmp_path, cache, monkeypatch, module):
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(20)])
    load_data(str(tmp_path / "set.parquet"))
    (tmp_path / "other.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "other.py"))
    load_data(str(tmp_path / "set.parquet"))
    assert len(list(cache.iterdir())) == 2


def test_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "file"))
    write_parquet(tmp_path / "set.parquet", [numbered(n) for n in range(20)])
    loaded = [load_data(str(tmp_path / "set.parquet"), split) for split in scenes.SPLITS]
    assert sum(map(len, loaded)) == 20


# Errors.


def test_unknown_data_is_answered_with_the_closest_name():
    with pytest.raises(ValueError, match="no data 'CIFAR11': did you mean 'CIFAR10'"):
        load_data("CIFAR11")
    with pytest.raises(ValueError, match="no data 'nowhere/at/all'"):
        load_data("nowhere/at/all")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "dev"}, "train, val, test"),
        ({"limit": 0}, "limit"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_wrong_options_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        load_data("scenes", **options)


# Batches.


def test_batch_is_float_in_the_unit_range_and_follows_the_index():
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    made = ImageSet(images, torch.arange(256), (), "ramp")
    batch = made.batch(torch.tensor([255, 0, 51]))
    assert batch.dtype == torch.float32
    assert batch.flatten().tolist() == pytest.approx([1, 0, 0.2])
    assert len(made.subset(9)) == 9
    assert made.to("meta").labels.device.type == "meta"
    with pytest.raises(ValueError, match="limit"):
        made.subset(0)


def test_augment_depends_on_the_generator_alone_and_only_moves_pixels():
    images = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    first, again, other = (
        augment(images, generator=torch.Generator().manual_seed(seed), shift_px=2)
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    windows = padded.unfold(2, 12, 1).unfold(3, 12, 1).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    windows = torch.cat([windows, windows.flip(-1)], dim=1)
    misfit = (windows - first.unsqueeze(1)).abs().amax(dim=(2, 3, 4))
    assert misfit.amin(dim=1).max() < 1e-6
    assert len(set(misfit.argmin(dim=1).tolist())) > 4


def test_a_crop_is_a_part_of_the_image_as_large_as_the_image():
    across = torch.linspace(0, 1, 24).expand(64, 1, 24, 24)
    images = torch.cat([across, across.transpose(2, 3)], dim=1)
    cropped = augment(images, generator=torch.Generator().manual_seed(0), crop_scale=0.25)
    wide, high = (cropped[:, 0, 12].diff().mean(1).abs(), cropped[:, 1, :, 12].diff().mean(1))
    shares = wide * high * 23 * 23  # What is seen, of the pixels between the first and the last.
    assert 0.2 < shares.min() < 0.35
    assert 0.85 < shares.max() <= 1.001
    # 3/4 to 4/3, in whole pixels.
    assert 0.65 < (wide / high).min() < 1 < (wide / high).max() < 1.5
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="crop_scale must lie in"):
            augment(images, generator=torch.Generator(), crop_scale=share)


@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_colors_change_within_their_bounds_and_hue_stays(num_channels: int):
    # Whole images of one color, dark enough that nothing is clipped.
    flat = 0.2 + 0.2 * torch.rand(
        32, num_channels, 1, 1, generator=torch.Generator().manual_seed(0)
    )
    images = flat.expand(-1, -1, 8, 8)

    def changed(strength: float) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return augment(images, generator=generator, shift_px=0, color_jitter=strength)

    assert torch.equal(changed(0.0), images)
    assert torch.equal(changed(0.3), changed(0.3))
    colors = changed(0.3)[:, :, 0, 0]
    share = colors.mean(1) / flat.mean((1, 2, 3))
    assert 0.7**2 <= share.min() < 0.9 < 1.1 < share.max() <= 1.3**2
    if num_channels == 3:
        assert torch.equal(colors.argsort(1), flat[:, :, 0, 0].argsort(1))
    for strength in (-0.1, 1.0):
        with pytest.raises(ValueError, match="color_jitter must lie in"):
            changed(strength)


def test_augment_without_shift_only_mirrors_and_too_large_a_shift_is_refused():
    images = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    mirrored = augment(images, generator=torch.Generator().manual_seed(0), shift_px=0)
    same = (mirrored == images).flatten(1).all(1)
    flipped = (mirrored == images.flip(-1)).flatten(1).all(1)
    assert (same ^ flipped).all()
    with pytest.raises(ValueError, match=r"0\.\.5, got 6"):
        augment(images, generator=torch.Generator(), shift_px=6)
