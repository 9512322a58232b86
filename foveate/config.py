"""The parts of a model as plain data.

No torch here, so that scripts can show their help before the heavy imports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from foveate.choices import check_choice, check_name
from foveate.sizes import check_counts, check_sides

Stream = Literal["causal", "masked"]
Lateral = Literal["none", "segment", "joint"]
Queries = Literal["unseen", "own"]
Init = Literal["timm", "xavier"]
PixelUnits = Literal["centered", "imagenet"]
WordsPrefix = Literal["bidirectional", "causal"]
CHOICES = {
    "stream": Stream,
    "lateral": Lateral,
    "queries": Queries,
    "init": Init,
    "pixel_units": PixelUnits,
    "words_prefix": WordsPrefix,
}
"""What each part may be."""
SIZES = ("patch_size", "in_chans", "embed_dim", "depth", "num_heads", "num_targets")
LEAST = dict.fromkeys(SIZES, 1) | dict.fromkeys(("periphery", "decoder_depth", "max_words"), 0)
"""The least that each size may be."""

Memory: TypeAlias = str
"""A name of MEMORY_NAMES, or a class of one's own, ``MODULE:NAME``."""
TargetKind: TypeAlias = str
"""A name of TARGET_NAMES, or a class of one's own, ``MODULE:NAME``."""
MEMORY_NAMES = ("last", "layers", "mixed", "taps")
"""Names of ``foveate.model.memory.MEMORIES``."""
TARGET_NAMES = ("pixels", "patch_norm", "blurred", "colors", "features", "pixels_features")
"""Names of ``foveate.targets.TARGETS``."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a model is made of, whatever its sizes."""

    stream: Stream = "causal"
    """What the encoder reads. causal: the patches in rank order, each seeing its own and earlier
    ranks; masked: all places at once, a mask token where the rank is above 0."""
    decoder_depth: int | None = 2
    """Decoder blocks; None = one per encoder block; 0 = the encoder's own outputs predict (the next
    patch of a causal stream, the hidden ones of a masked stream)."""
    memory: Memory = "last"
    """What decoder block l reads. last: the encoder's output; layers: encoder layers at even
    distances, as the query stream of a two-stream model; mixed: a learned sum of all layers; taps:
    a projection of up to four of the upper half; or a subclass of one's own of
    ``foveate.model.memory.EncoderMemory``, MODULE:NAME."""
    lateral: Lateral = "none"
    """Whom queries attend to beside the memory. none; segment: queries of their own and earlier
    ranks; joint: one another and the memory, in plain self-attention."""
    visible_decoder: bool = False
    """A second decoder that predicts patches that are already visible."""

    queries: Queries = "unseen"
    """What is predicted in training. unseen: random unseen patches after every step; own: each
    patch once, from the ranks before its own."""
    predict_first: bool = True
    """Whether patches of rank 0, which nothing precedes, are predicted (queries="own")."""
    target: TargetKind = "pixels"
    """What is predicted of a patch. pixels: raw pixels; patch_norm: pixels normalized per patch;
    blurred: those of a blurred image; colors: the palette entry of every pixel, which the encoder
    then reads as well; features: features of a teacher; pixels_features: raw pixels and features;
    or a subclass of one's own of ``foveate.targets.Target``, MODULE:NAME."""
    label_smoothing: float = 0.0
    """Of the cross-entropy (target="colors")."""
    feature_weight: float = 1.0
    """Of the features' loss, added to the pixels' (target="pixels_features")."""

    init: Init = "timm"
    """How weights start. timm: the encoder as timm's (normal, deviation 0.02), decoders and heads
    as torch's layers; xavier: all matrices Xavier-uniform, biases zero, as MAE's public code."""
    pixel_units: PixelUnits = "centered"
    """Units of the pixels that are read and predicted. centered: (x - 0.5) / 0.25; imagenet: minus
    ImageNet's mean and over its deviation, per channel (of gray images, averaged over them)."""

    words_prefix: WordsPrefix = "bidirectional"
    """How the visible patches that words are read from see one another. bidirectional: all do;
    causal: each sees its own and earlier ranks."""
    word_weight: float = 1.0
    """Of the words' loss in the sum with that of the image; 0 = words are not learned."""
    image_weight: float = 1.0
    """Of the image's loss in that sum; 0 = words alone are learned."""

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            check_choice(name, getattr(self, name), get_args(kind))
        check_name("memory", self.memory, MEMORY_NAMES)
        check_name("target", self.target, TARGET_NAMES)
        weights = self.word_weight, self.image_weight
        if not (0 <= min(weights) <= max(weights) < math.inf and max(weights) > 0):
            raise ValueError(f"word_weight, image_weight: 0 or more, not both 0, got {weights}")

    @property
    def predicts_pixels(self) -> bool:
        """Whether raw pixels are predicted, alone or beside features; they can be drawn."""
        return self.target in ("pixels", "pixels_features")

    @property
    def reads_colors(self) -> bool:
        """Whether the encoder reads palette entries, which are predicted, instead of pixels."""
        return self.target == "colors"

    @property
    def takes_features(self) -> bool:
        """Whether features are predicted, which are a teacher's, or given with the images."""
        return self.target in ("features", "pixels_features")

    @property
    def expects_error(self) -> bool:
        """Whether the model learns how wrong its predictions will be.

        Of the normalized targets the error is noise where a patch is flat. Features that are
        predicted in turn (queries="own") are those of published recipes, which have no such head.
        """
        return self.predicts_pixels or (self.takes_features and self.queries == "unseen")

    @property
    def scannable(self) -> bool:
        """Whether any position can be predicted after any fixation, and how wrong it will be."""
        return (
            self.stream == "causal"
            and self.decoder_depth != 0
            and self.lateral == "none"
            and self.expects_error
        )

    @property
    def ranks(self) -> Literal["any", "untied", "two"]:
        """Which orders the parts take.

        Untied: one patch per step; two: of ranks 0 (visible) and 1 (hidden) alone.
        """
        if self.stream == "masked" or self.lateral == "joint":
            return "two"
        return "untied" if self.decoder_depth == 0 else "any"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Parts):
    """Sizes and parts of an :class:`foveate.model.AnyOrderTransformer`."""

    image_size: tuple[int, int] = (32, 32)
    """Height and width, pixels."""
    in_chans: int = 1
    """Color channels."""
    patch_size: int = 4
    """Side of a square patch, pixels."""
    embed_dim: int = 96
    """Width D of encoder and decoder."""
    depth: int = 4
    """Encoder blocks."""
    num_heads: int = 4
    """Attention heads, encoder and decoder."""
    periphery: int = 0
    """Side, in patches, of the thumbnail of the image that every order sees first; 0 = blind."""

    decoder_depth: int = 2
    """Decoder blocks, as of all parts; here always a number."""
    decoder_mlp_ratio: float = 2.0
    """Hidden width of a decoder MLP over D."""
    num_targets: int = 12
    """Random unseen patches predicted from each prefix (queries="unseen")."""
    num_colors: int = 512
    """Entries of the palette (target="colors")."""
    feature_dim: int | None = None
    """Width of a teacher's features (targets that hold features); None for all others."""
    error_loss_weight: float = 0.05
    """Weight of the loss that teaches the model to predict its own error."""
    learns_error: bool = False
    """Whether any target's error is predicted; False = where ``expects_error`` of it says so."""

    vocabulary: tuple[str, ...] = ()
    """Words or subwords that tracks write (``foveate.model.tracks``); none = no tracks."""
    max_words: int = 0
    """Words of a track, its end included."""
    merges: tuple[str, ...] = ()
    """Merges of subwords (``foveate.data.subwords``); none = the vocabulary is of whole words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, LEAST)
        check_sides(self.image_size)
        if bool(self.vocabulary) != (self.max_words > 0):
            raise ValueError("vocabulary and max_words go together")
        height, width = self.image_size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch size {self.patch_size} does not divide the image size {height}x{width}; "
                f"choose a patch size or an image size that fits"
            )
        if self.embed_dim % 4:
            raise ValueError(
                f"embed_dim must be a multiple of 4 (sine-cosine positions), got {self.embed_dim}"
            )
        if self.embed_dim % (heads := self.num_heads):
            raise ValueError(f"embed_dim {self.embed_dim} is no multiple of num_heads {heads}")
        if self.periphery > (side := min(self.grid)):
            raise ValueError(f"periphery must lie in 0..{side} patches, got {self.periphery}")
        if not 0 < self.decoder_mlp_ratio < math.inf:
            raise ValueError(f"decoder_mlp_ratio must be above 0, got {self.decoder_mlp_ratio}")
        self._check_target()
        self._check_parts()

    def _check_target(self) -> None:
        """Refuse numbers that the target does not take, and what does not go with it."""
        if self.reads_colors and not 2 <= self.num_colors <= 2**15:
            raise ValueError(f"num_colors must lie in 2..{2**15}, got {self.num_colors}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if self.takes_features and self.feature_dim is None:
            raise ValueError(
                f"target={self.target!r} needs feature_dim, the width of its teacher's features"
            )
        if not self.takes_features and self.feature_dim is not None:
            raise ValueError(
                "feature_dim goes with target='features' and 'pixels_features' alone, "
                f"got target={self.target!r}"
            )
        if not 0 < self.feature_weight < math.inf:
            raise ValueError(
                f"feature_weight must be a finite number above 0, got {self.feature_weight}"
            )
        if self.feature_weight != 1 and self.target != "pixels_features":
            raise ValueError(
                f"feature_weight has no effect with target={self.target!r}; leave it out, or use "
                "target='pixels_features'"
            )
        if self.target in ("patch_norm", "blurred") and self.patch_dim < 2:
            raise ValueError(
                f"target={self.target!r} normalizes the values of a patch, of which there is one; "
                "use larger patches or target='pixels'"
            )
        if self.pixel_units != "centered" and self.reads_colors:
            raise ValueError(
                "pixel_units has no effect with target='colors', whose model reads palette "
                "entries; leave it out"
            )
        if self.pixel_units == "imagenet" and self.in_chans not in (1, 3):
            raise ValueError(
                f"pixel_units='imagenet' needs 1 or 3 channels, got {self.in_chans}; use 'centered'"
            )
        if self.reads_colors and self.periphery:
            raise ValueError("a palette has no thumbnail: target='colors' needs periphery=0")

    def _check_parts(self) -> None:
        """Refuse combinations of parts that mean nothing."""
        if self.queries == "unseen" and (self.visible_decoder or not self.predict_first):
            raise ValueError("visible_decoder and predict_first=False need queries='own'")
        if self.queries == "unseen" and (self.ranks != "any" or self.lateral != "none"):
            raise ValueError(
                "queries='unseen', the default, needs a causal stream and a decoder "
                "(decoder_depth above 0) without lateral attention; use queries='own'"
            )
        if self.stream == "masked" and self.decoder_depth > 0:
            raise ValueError("a masked stream predicts in place: decoder_depth must be 0")
        if self.decoder_depth == 0 and (
            self.memory != "last" or self.lateral != "none" or self.visible_decoder
        ):
            raise ValueError(
                "without a decoder, memory, lateral and visible_decoder have no effect"
            )
        if self.memory == "layers" and self.depth % max(1, self.decoder_depth):
            raise ValueError(
                f"memory='layers' needs a decoder_depth that divides depth {self.depth}, "
                f"got {self.decoder_depth}"
            )
        if self.lateral == "joint" and self.memory != "last":
            raise ValueError("lateral='joint' reads the last layer: memory must be 'last'")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches per image, N."""
        return self.grid[0] * self.grid[1]

    @property
    def num_always(self) -> int:
        """Always-visible tokens that stand before the patches: start and periphery."""
        return 1 + self.periphery**2

    @property
    def patch_dim(self) -> int:
        """Pixel values per patch, P."""
        return self.patch_size**2 * self.in_chans
