"""Words at fixation points: many short autoregressive tracks on one image.

The image is a bidirectional prefix of the encoder; each track starts at a patch, reads the image
and its own words, and no other track. Anchored at a policy's fixations, tracks read out what the
policy looked at.

Reference: GiT (Wang et al. 2024, arXiv 2403.09394), Haiyang-W/GiT. Differs: tracks start at patches
instead of points between them, so that the local feature needs no interpolation; the words are
learned, not BERT's, and those of a name are not merged; one task, so that nothing is matched or
prompted; background is a word like any other, and points with objects are not drawn first; the
start of a track is embedded once, while the local feature, the patch's state in that layer, is
added again before every block, and its token, not one of the task, writes the first word; a
LayerNorm before the product with the word embeddings, none on the embeddings themselves; all words
can be written at every place; tracks read the image in every layer; full instead of windowed
attention. GiT's captions (one track, no local feature, beam search) are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foveate import scenes
from foveate.encoder import PatchEncoder, take

if TYPE_CHECKING:
    from foveate.data import ImageSet

BACKGROUND = "background"
"""What is written where there is no object."""
END = "."
"""The last word of every sentence."""


@dataclass(frozen=True)
class Vocabulary:
    """The different words of some sentences; numbers are places in ``words``."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Sequence[str]) -> Vocabulary:
        """Collect words, lower case, split at spaces."""
        return cls(tuple(sorted({word for s in sentences for word in s.lower().split()} | {END})))

    def encode(self, sentences: Sequence[str]) -> Int[Tensor, "M L"]:
        """Return word numbers, each sentence followed by its end and padded with -1.

        Raises:
            ValueError: a word that is not in the vocabulary.
        """
        numbers = {word: number for number, word in enumerate(self.words)}
        unknown = {w for s in sentences for w in s.lower().split()} - set(numbers)
        if unknown:
            raise ValueError(f"not in the vocabulary: {', '.join(sorted(unknown))}")
        rows = [[numbers[word] for word in [*s.lower().split(), END]] for s in sentences]
        length = max(map(len, rows), default=0)
        return torch.tensor([row + [-1] * (length - len(row)) for row in rows])

    def decode(self, numbers: Int[Tensor, "L"]) -> str:
        """Return the sentence up to its end."""
        words = [self.words[int(number)] for number in numbers if number >= 0]
        return " ".join(words[: words.index(END)] if END in words else words)


@dataclass(frozen=True)
class Captions:
    """What is to be written at each patch of each image."""

    sentences: tuple[str, ...]
    number: Int[Tensor, "M N"]
    """Which sentence belongs to patch n of image m."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of all sentences."""
        return Vocabulary.of(self.sentences)

    @cached_property
    def encoded(self) -> Int[Tensor, "S L"]:
        """Word numbers of all sentences."""
        return self.vocabulary.encode(self.sentences)

    def words(self, index: Int[Tensor, "B"], anchors: Int[Tensor, "B K"]) -> Int[Tensor, "B K L"]:
        """Return the words of tracks at ``anchors`` of the images ``index``."""
        chosen = self.number[index.cpu()].gather(1, anchors.cpu())
        return self.encoded[chosen].to(anchors.device)


def class_captions(images: ImageSet, num_patches: int) -> Captions:
    """Write ``a photo of a NAME``, wherever one looks.

    Raises:
        ValueError: an image without a label.
    """
    if not images.class_names or int(images.labels.min()) < 0:
        raise ValueError(f"{images.name} has images without a label, so that nothing can be named")
    sentences = tuple(f"a photo of a {name.lower()}" for name in images.class_names)
    return Captions(sentences, images.labels.cpu().unsqueeze(1).expand(-1, num_patches))


def scene_captions(split: str, size_px: int, grid: tuple[int, int]) -> Captions:
    """Write what is at a patch of the embedded scenes, and where: ``NAME row R column C``.

    Row and column are those of the patch that holds the object's center; elsewhere than in the
    object's box there is ``background``.
    """
    world, object_px = scenes.default_scenes(split, size_px), scenes.object_size_px(size_px)
    rows, cols = grid
    side = torch.tensor([size_px / rows, size_px / cols])
    center = ((world.corner_px + object_px / 2) / side).long()
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    middle = (torch.stack([y, x], -1).flatten(0, 1) + 0.5) * side
    away = middle - world.corner_px.unsqueeze(1)
    inside = ((away >= 0) & (away < object_px)).all(-1)
    sentences = [BACKGROUND]
    sentences += [
        f"{name.lower()} row {row} column {col}"
        for name in world.class_names
        for row in range(rows)
        for col in range(cols)
    ]
    number = 1 + (world.labels * rows + center[:, 0]) * cols + center[:, 1]
    return Captions(tuple(sentences), number.unsqueeze(1) * inside)


class TrackReader(nn.Module):
    """Word embeddings and track positions; the transformer blocks are the encoder's own.

    Args:
        embed_dim: width of the encoder.
        num_words: size of the vocabulary.
        max_length: words of a track, its end included.
    """

    def __init__(self, embed_dim: int, num_words: int, max_length: int) -> None:
        super().__init__()
        self.word = nn.Embedding(num_words, embed_dim)
        nn.init.normal_(self.word.weight, std=0.02)
        self.start = nn.Parameter(torch.zeros(embed_dim))
        self.place = nn.Parameter(0.02 * torch.randn(max_length, embed_dim))
        self.norm = nn.LayerNorm(embed_dim)

    @property
    def max_length(self) -> int:
        """Words of a track, its end included, L."""
        return len(self.place)

    def forward(
        self,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        anchors: Int[Tensor, "B K"],
        words: Int[Tensor, "B K L"],
    ) -> Float[Tensor, "B K L V"]:
        """Return logits of each track's words: word l from the image, its anchor and words < l.

        The local feature is added to the start of its track again before every block. Logits are
        products with the word embeddings.

        Args:
            model: encoder, whose blocks run on image and tracks together.
            images: pixels in [0, 1].
            anchors: the patch at which each track starts.
            words: teacher forcing; -1 = padding, whose logits mean nothing.
        """
        always, patches = model.embed(images)
        num_tracks, length = words.shape[1:]
        previous = self.word(words[:, :, :-1].clamp_min(0))
        start = self.start.expand(len(images), num_tracks, 1, -1)
        tracks = (torch.cat([start, previous], dim=2) + self.place[:length]).flatten(1, 2)
        tokens = torch.cat([always, patches, tracks], dim=1)
        num_image = tokens.shape[1] - tracks.shape[1]
        may_attend = track_may_attend(num_image, num_tracks, length, tokens.device)
        starts = num_image + length * torch.arange(num_tracks, device=tokens.device)
        place = (anchors + always.shape[1]).long()
        for block in model.encoder_blocks():
            local = take(tokens, place)
            tokens = tokens.index_add(1, starts, local)
            tokens = block(tokens, attn_mask=may_attend)
        states = self.norm(tokens[:, num_image:]).unflatten(1, (num_tracks, length))
        logits: Tensor = states @ self.word.weight.T
        return logits

    def loss(
        self,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        anchors: Int[Tensor, "B K"],
        words: Int[Tensor, "B K L"],
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the words that are no padding, nats."""
        logits = self(model, images, anchors, words)
        return F.cross_entropy(logits.flatten(0, 2), words.flatten(), ignore_index=-1)

    @torch.no_grad()
    def read(
        self, model: PatchEncoder, images: Float[Tensor, "B C H W"], anchors: Int[Tensor, "B K"]
    ) -> Int[Tensor, "B K L"]:
        """Write the most probable words at each anchor, all tracks in step.

        One pass per word, without a cache.
        """
        words = anchors.new_full((*anchors.shape, self.max_length), -1)
        for at in range(self.max_length):
            words[:, :, at] = self(model, images, anchors, words[:, :, : at + 1])[:, :, at].argmax(
                -1
            )
        return words


def track_may_attend(
    num_image: int, num_tracks: int, length: int, device: torch.device
) -> Bool[Tensor, "1 1 S S"]:
    """Image to image; tracks to the image and, causally, to themselves (True = may attend)."""
    track = torch.arange(num_tracks, device=device).repeat_interleave(length)
    place = torch.arange(length, device=device).repeat(num_tracks)
    own = (track.unsqueeze(1) == track) & (place.unsqueeze(1) >= place)
    size = num_image + len(track)
    may_attend = torch.zeros(size, size, dtype=torch.bool, device=device)
    may_attend[:, :num_image] = True
    may_attend[num_image:, num_image:] = own
    return may_attend[None, None]
