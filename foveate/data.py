"""Data sets as uint8 tensors in memory: embedded scenes, torchvision's sets, folders, parquet.

Every source answers the same questions (rows, labels and class names of each stored split); split
rules, decoding and the cache are shared. Batches become float images in [0, 1] only when asked for.

Splits never overlap. A set's own splits are used where it has them. Without a val split, a tenth of
train, drawn by a fixed shuffle, is val and no longer train. Without a test split, the set's val
split is the test split (and val is held out of train); with neither, another tenth of train is.
Rows are dealt round-robin over the classes, so that any prefix is class-balanced.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from foveate import scenes

if TYPE_CHECKING:
    import pyarrow

TORCHVISION_SETS = ("FashionMNIST", "CIFAR10", "CIFAR100", "STL10")

_Encoded: TypeAlias = bytes | Path | np.ndarray
"""File contents, a file, or pixels (H, W) or (H, W, 3)."""

_SPLIT_ALIASES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}
_SPLIT_IN_NAME = re.compile(
    r"(?<![a-z])(train|training|val|valid|validation|dev|test|testing)(?![a-z])"
)
_IMAGE_SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set, whole in memory."""

    images: UInt8[Tensor, "M C H W"]
    labels: Int64[Tensor, " M"]
    """Class of each image; -1 where the set does not say."""
    class_names: tuple[str, ...]
    """Name of each label; empty for a set without labels."""
    name: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batch(
        self, index: Int[Tensor, " B"], device: torch.device | str | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Return the chosen images in [0, 1], on ``device`` (None: where the set lies)."""
        chosen = self.images[index.to(self.images.device)]
        return chosen.to(device or self.images.device).float() / 255

    def subset(self, limit: int) -> ImageSet:
        """Return the first ``limit`` images, or all if there are fewer.

        Raises:
            ValueError: limit is less than 1.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1 image, got {limit}")
        return replace(self, images=self.images[:limit], labels=self.labels[:limit])

    def to(self, device: torch.device | str) -> ImageSet:
        """Return the set with its tensors on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def load_data(
    data: str = "scenes",
    split: str = "train",
    *,
    image_size: int | None = None,
    limit: int | None = None,
    root: Path = Path("data"),
) -> ImageSet:
    """Load one split of a data set; see the module for the split rules.

    Decoded sets are cached in ``$FOVEATE_CACHE`` (else ``~/.cache/foveate``) until a file changes.

    Args:
        data: "scenes", a torchvision name (FashionMNIST, CIFAR10, CIFAR100, STL10), a parquet file,
            a folder of parquet files, or a folder of class folders, with or without train, val and
            test folders above them.
        split: train, val or test.
        image_size: Height and width in pixels: the shorter side is resized, the center kept; scenes
            are composed at this size. None: as stored.
        limit: Keep only the first so many images. None: all.
        root: Where torchvision keeps its files, and downloads them to if they are missing.

    Raises:
        ValueError: Unknown data or split, no rows for the split, an image that is unreadable or of
            another size than the rest, or an option out of range.
    """
    if split not in scenes.SPLITS:
        raise ValueError(f"split must be one of {', '.join(scenes.SPLITS)}, got {split!r}")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 image, got {limit}")
    path = Path(data).expanduser()
    if data == "scenes":
        loaded = _cached(["scenes", split, image_size], lambda: _load_scenes(split, image_size))
    elif data in TORCHVISION_SETS:
        loaded = _decode(_torchvision_rows(data, Path(root)), split, image_size)
    elif path.exists():
        rows, files = _find_rows(path.resolve())
        state = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        loaded = _cached(
            [data, split, image_size, *state], lambda: _decode(rows(), split, image_size)
        )
    else:
        close = difflib.get_close_matches(data, ["scenes", *TORCHVISION_SETS], n=1, cutoff=0.6)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"no data {data!r}: {hint}give 'scenes', one of {', '.join(TORCHVISION_SETS)}, "
            "or the path of a parquet file or image folder that exists"
        )
    return loaded if limit is None else loaded.subset(limit)


def augment(
    images: Float[Tensor, "B C H W"], *, generator: torch.Generator, shift_px: int = 4
) -> Float[Tensor, "B C H W"]:
    """Mirror half of the images and shift each by up to ``shift_px`` pixels, edges reflected.

    The same generator state gives the same result; torch's global random state is left as it was.

    Raises:
        ValueError: shift_px is negative or not smaller than the image.
    """
    # kornia takes seconds to import, which --help and evaluation need not wait for.
    import kornia.augmentation as K

    height, width = images.shape[-2:]
    if not 0 <= shift_px < min(height, width):
        raise ValueError(f"shift_px must lie in 0..{min(height, width) - 1}, got {shift_px}")
    pipeline = torch.nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomCrop((height, width), padding=shift_px, padding_mode="reflect"),
    )
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # kornia draws from the global CPU generator whatever the images' device.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        augmented: Tensor = pipeline(images)
    return augmented


# Sources: the rows of every stored split, still encoded.


@dataclass(frozen=True)
class _Rows:
    """What a source holds, before any image is decoded."""

    name: str
    encoded: dict[str, list[_Encoded]]
    labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]


def _load_scenes(split: str, image_size: int | None) -> ImageSet:
    """Compose the default scenes; another image_size scales the scene and the object alike."""
    size_px = image_size or 32
    composed = scenes.compose_scenes(
        split, scenes.NUM_SCENES[split], size_px=size_px, object_px=max(1, round(size_px * 14 / 32))
    )
    return ImageSet(composed.images, composed.labels, composed.class_names, "scenes")


def _torchvision_rows(name: str, root: Path) -> _Rows:
    from torchvision import datasets

    encoded, labels, class_names = {}, {}, ()
    for split in ("train", "test"):
        chosen = {"split": split} if name == "STL10" else {"train": split == "train"}
        try:
            try:
                source = getattr(datasets, name)(root, **chosen)
            except RuntimeError:
                source = getattr(datasets, name)(root, download=True, **chosen)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} is not in {root} and cannot be downloaded ({reason}); run "
                f"torchvision.datasets.{name}({str(root)!r}, download=True) where there is a "
                "network, or give its root, a parquet file or an image folder"
            ) from error
        pixels = np.asarray(source.data)
        encoded[split] = list(pixels.transpose(0, 2, 3, 1) if name == "STL10" else pixels)
        labels[split] = np.asarray(source.labels if name == "STL10" else source.targets, np.int64)
        class_names = tuple(source.classes)
    return _Rows(name, encoded, labels, class_names)


def _find_rows(path: Path) -> tuple[Callable[[], _Rows], list[Path]]:
    """Return how to read the rows under ``path`` and the files they come from."""
    if path.is_file():
        if path.suffix != ".parquet":
            raise ValueError(f"{path} is neither a parquet file nor a folder; give one of these")
        return lambda: _parquet_rows(path.parent, [path]), [path]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in files if "/." not in f"/{file.relative_to(path).as_posix()}"]
    parquet = [file for file in files if file.suffix == ".parquet"]
    if parquet:
        return lambda: _parquet_rows(path, parquet), parquet
    images = [file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES]
    return lambda: _folder_rows(path, images), images


def _folder_rows(folder: Path, files: list[Path]) -> _Rows:
    """Sort files by the class folder, and where there is one the split folder, they lie in."""
    parents = [file.relative_to(folder).parts[:-1] for file in files]
    # A folder "train" that holds images itself is a class of vehicles, not a split.
    has_splits = any(len(parts) > 1 and _split_name(parts[0]) in scenes.SPLITS for parts in parents)
    found: list[tuple[str, str, Path]] = []
    for file, parts in zip(files, parents, strict=True):
        split = _split_name(parts[0]) if has_splits and parts else "train"
        below = parts[1:] if has_splits else parts
        if below and split in scenes.SPLITS:
            found.append((split, below[0], file))
    if not found:
        raise ValueError(
            f"no images in {folder}; expected class/image, split/class/image or parquet files"
        )
    class_names = tuple(sorted({name for _, name, _ in found}))
    number = {name: label for label, name in enumerate(class_names)}
    encoded: dict[str, list[_Encoded]] = {}
    labels: dict[str, list[int]] = {}
    for split, name, file in found:
        encoded.setdefault(split, []).append(file)
        labels.setdefault(split, []).append(number[name])
    arrays = {split: np.array(values, np.int64) for split, values in labels.items()}
    return _Rows(folder.name, encoded, arrays, class_names)


def _parquet_rows(folder: Path, files: list[Path]) -> _Rows:
    """Read image bytes, labels and splits; a split column wins over a split in the file's name."""
    import pyarrow.parquet

    encoded: dict[str, list[_Encoded]] = {}
    labels: dict[str, list[int]] = {}
    class_names: tuple[str, ...] = ()
    for file in files:
        try:
            schema = pyarrow.parquet.read_schema(file)
            image = _image_column(file, schema)
            columns = [image, *(name for name in ("label", "split") if name in schema.names)]
            table = pyarrow.parquet.read_table(file, columns=columns, partitioning=None)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"cannot read {file} as parquet ({error}); write it again") from error
        class_names = class_names or _parquet_class_names(schema)
        contents: list[bytes | None] = []
        for chunk in table[image].chunks:
            contents += chunk.field("bytes").to_pylist()
        if None in contents:
            raise ValueError(
                f"{file}: row {contents.index(None)} has no image bytes; embed the images"
            )
        if "label" in schema.names and not pyarrow.types.is_integer(schema.field("label").type):
            raise ValueError(
                f"{file}: label must be an integer column, got {schema.field('label').type}"
            )
        numbers = table["label"].to_pylist() if "label" in schema.names else [-1] * len(contents)
        named = _SPLIT_IN_NAME.findall(str(file.relative_to(folder)).lower())
        default = _split_name(named[-1]) if named else "train"
        splits = (
            table["split"].to_pylist() if "split" in schema.names else [default] * len(contents)
        )
        for content, number, split in zip(contents, numbers, splits, strict=True):
            where = _split_name(str(split))
            encoded.setdefault(where, []).append(content or b"")
            labels.setdefault(where, []).append(-1 if number is None else number)
    arrays = {split: np.array(values, np.int64) for split, values in labels.items()}
    highest = max((int(values.max()) for values in arrays.values()), default=-1)
    if class_names and highest >= len(class_names):
        raise ValueError(
            f"{files[0]}: label {highest} has no name; class_names lists {len(class_names)}"
        )
    names = () if highest < 0 else class_names or tuple(str(label) for label in range(highest + 1))
    return _Rows(files[0].stem if len(files) == 1 else folder.name, encoded, arrays, names)


def _image_column(file: Path, schema: pyarrow.Schema) -> str:
    """Return the first column of type struct{bytes, path}."""
    for field in schema:
        if str(field.type).startswith("struct<bytes: binary"):
            return str(field.name)
    raise ValueError(
        f"{file} has no image column of type struct{{bytes, path}}; its columns: {schema.names}"
    )


def _parquet_class_names(schema: pyarrow.Schema) -> tuple[str, ...]:
    """Return the metadata's ``class_names``, else Hugging Face's ClassLabel names, else none."""
    metadata = schema.metadata or {}
    if b"class_names" in metadata:
        return tuple(json.loads(metadata[b"class_names"]))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return tuple(features.get("label", {}).get("names") or ())


def _split_name(name: str) -> str:
    return _SPLIT_ALIASES.get(name.lower(), name.lower())


# From stored rows to one split's tensors.


def _choose_rows(labels: dict[str, np.ndarray], split: str, name: str) -> tuple[str, np.ndarray]:
    """Return the stored split to read and which of its rows; the module states the rules."""
    stored_as = {own: own for own in scenes.SPLITS if own in labels}
    if "test" not in stored_as and "val" in stored_as:
        stored_as["test"] = stored_as.pop("val")
    source = stored_as.get(split, "train")
    if source not in labels:
        raise ValueError(
            f"{name} has no {split} split, nor train to hold it out of; it has {sorted(labels)}"
        )
    chosen = np.arange(len(labels[source]))
    if source == "train":
        num_held_out = max(1, round(len(chosen) / 10))
        shuffled = np.random.default_rng(0).permutation(len(chosen))
        for part in ("val", "test"):
            if part in stored_as:
                continue
            shuffled, held_out = shuffled[:-num_held_out], shuffled[-num_held_out:]
            if part == split:
                chosen = np.sort(held_out)
        if split == "train":
            chosen = np.sort(shuffled)
    if len(chosen) == 0:
        raise ValueError(
            f"{name} has too few images for its {split} split: {len(labels[source])} in {source}"
        )
    return source, chosen[np.argsort(scenes.turn(labels[source][chosen]), kind="stable")]


def _decode(rows: _Rows, split: str, image_size: int | None) -> ImageSet:
    source, chosen = _choose_rows(rows.labels, split, rows.name)
    # Headers of every split are read, so that all splits agree on channels whichever is loaded.
    modes, sizes = set(), set()
    for stored, encoded in rows.encoded.items():
        for number, item in enumerate(encoded):
            with _open(item, f"image {number} of {stored} in {rows.name}") as image:
                modes.add(image.mode)
                sizes.add(image.size)
    deep = sorted(mode for mode in modes if mode[0] in "IF")
    if deep:
        raise ValueError(
            f"{rows.name} has images of more than 8 bits (mode {deep[0]}); convert them to 8 bits"
        )
    if image_size is None and len(sizes) > 1:
        smallest, largest = (f"{width}x{height}" for width, height in (min(sizes), max(sizes)))
        raise ValueError(
            f"{rows.name} has images of {len(sizes)} sizes, {smallest} to {largest} pixels; "
            "pass image_size to bring them to one"
        )
    mode = "L" if modes == {"L"} else "RGB"
    width, height = (image_size, image_size) if image_size else sizes.pop()
    pixels = np.empty((len(chosen), 1 if mode == "L" else 3, height, width), np.uint8)
    for row, number in enumerate(chosen):
        where = f"image {number} of {source} in {rows.name}"
        with _open(rows.encoded[source][number], where) as image:
            try:
                converted = image.convert(mode)
            except _UNREADABLE as error:
                raise _unreadable(rows.encoded[source][number], where, error) from error
        if converted.size != (width, height):
            converted = ImageOps.fit(converted, (width, height), Image.Resampling.BICUBIC)
        pixels[row] = np.asarray(converted).reshape(height, width, -1).transpose(2, 0, 1)
    labels = rows.labels[source][chosen]
    return ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), rows.class_names, rows.name)


def _open(item: _Encoded, where: str) -> Image.Image:
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    try:
        return Image.open(item if isinstance(item, Path) else io.BytesIO(item))
    except _UNREADABLE as error:
        raise _unreadable(item, where, error) from error


def _unreadable(item: _Encoded, where: str, error: Exception) -> ValueError:
    place = f" ({item})" if isinstance(item, Path) else ""
    return ValueError(f"cannot read {where}{place}; replace or remove it [{type(error).__name__}]")


# The cache of decoded sets.


def _cached(key: Iterable[object], build: Callable[[], ImageSet]) -> ImageSet:
    """Return the set stored under ``key``; if none can be read, build and store it."""
    digest = hashlib.sha256(repr(list(key)).encode())
    for code in (__file__, scenes.__file__):
        digest.update(Path(code).read_bytes())
    folder = Path(os.environ.get("FOVEATE_CACHE") or "~/.cache/foveate").expanduser()
    path = folder / f"{digest.hexdigest()[:32]}.npz"
    try:
        # Opened here, since np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as stored:
            return ImageSet(
                torch.from_numpy(stored["images"]),
                torch.from_numpy(stored["labels"]),
                tuple(stored["class_names"].tolist()),
                str(stored["name"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        built = build()
    try:
        _store(path, built)
    except OSError:
        pass  # A read-only or full disk costs the next call its time, not this one its result.
    return built


def _store(path: Path, built: ImageSet) -> None:
    """Write the set beside its final place, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name
        np.savez(
            partial,
            images=built.images.numpy(),
            labels=built.labels.numpy(),
            class_names=np.array(built.class_names, dtype=np.str_),
            name=np.array(built.name),
        )
        partial.replace(path)
