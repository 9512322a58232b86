"""Words about an image: short autoregressive tracks behind the patches that are visible.

The visible patches are a prefix of the encoder's sequence; each track reads them and its own words,
and no other track. Two uses:

* Tracks anchored at patches read the whole image and, in every layer, the state of their patch. At
  a policy's fixations they read out what the policy looked at.
* Captions have no anchor. They read the patches that an order has shown after some steps, also
  none. The prefix is bidirectional or causal (``words_prefix``). AIMv2's patches (Fini et al. 2024,
  arXiv 2411.14402, Sec. 3) come in raster order, a random part bidirectional and the rest causal.

Reference: GiT (Wang et al. 2024, arXiv 2403.09394), Haiyang-W/GiT. Differs: tracks start at patches
instead of points between them, so that the local feature needs no interpolation; the words are
learned, not BERT's, have no dropout, and those of a name are not merged; one task, so that nothing
is matched or prompted; background is a word like any other, and points with objects are not drawn
first; the start of a track is embedded once, by the position of its first word (GiT's by its task
and by its point's position in the image, both added again in every layer), while the local feature,
the patch's state in that layer, is added again before every block, and its token, not one of the
task, writes the first word; a LayerNorm before the product with the word embeddings, none on the
embeddings themselves; all words can be written at every place; tracks read the image in every
layer; full attention without relative positions instead of windows; random first weights (GiT's are
SAM's). GiT's captions (one track, no local feature, beam search) are not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foveate.model.attention import BehindPrefix
from foveate.model.encoder import PatchEncoder, take
from foveate.orders import rank_to_order

NOTHING = -1
"""As a number of steps: not even the periphery is visible."""


@dataclass(frozen=True)
class Prefix:
    """The tokens of an image that words are read from."""

    tokens: Float[Tensor, "B P D"]
    """The always-visible ones, then patches in rank order, at least those that are visible."""
    may_attend: Bool[Tensor, "#B 1 P P"]
    """Among them (True = may attend)."""
    visible: Bool[Tensor, "#B P"]
    """Which of them words may attend to (True = may attend)."""

    @classmethod
    def of(
        cls,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        rank: Int[Tensor, "B N"],
        steps: Int[Tensor, "B"],
    ) -> Prefix:
        """Return the prefix of the patches of rank < steps; NOTHING = the start token alone."""
        always, patches = model.embed(images)
        num_always = always.shape[1]
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        counts = (sorted_rank < steps.unsqueeze(1)).sum(1)
        length = int(counts.max())
        tokens = torch.cat([always, take(patches, order[:, :length])], dim=1)
        num_visible = torch.where(steps == NOTHING, 1, counts + num_always).unsqueeze(1)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        reach = num_visible.expand(-1, len(place))
        if model.config.words_prefix == "causal":
            sorted_rank = sorted_rank[:, :length].contiguous()
            through = torch.searchsorted(sorted_rank, sorted_rank, right=True) + num_always
            first = place[:num_always].expand(len(images), -1) + 1
            reach = torch.minimum(torch.cat([first, through], dim=1), num_visible)
        if bool((reach == reach[:1]).all()) and bool((num_visible == num_visible[:1]).all()):
            reach, num_visible = reach[:1], num_visible[:1]  # One mask serves all images.
        return cls(tokens, (place < reach.unsqueeze(2)).unsqueeze(1), place < num_visible)


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
        anchors: Int[Tensor, "B K"] | None,
        words: Int[Tensor, "B K L"],
        rank: Int[Tensor, "B N"] | None = None,
        steps: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B K L V"]:
        """Return logits of each track's words: word l from what is visible and words < l.

        The local feature of an anchor is added to the start of its track again before every block.
        Logits are products with the word embeddings.

        Args:
            model: encoder, whose blocks run on image and tracks together.
            images: pixels in [0, 1].
            anchors: the patch at which each track starts; None = the tracks have no place.
            words: teacher forcing; -1 = padding, whose logits mean nothing.
            rank: decoding step of every patch; None = raster order.
            steps: the patches of rank < steps are visible; NOTHING = not even the periphery; None =
                all patches are.

        Raises:
            ValueError: anchors on an image that is not all visible at once.
        """
        if anchors is not None:
            if not (steps is None and model.config.words_prefix == "bidirectional"):
                raise ValueError(
                    "anchors need a bidirectional prefix of the whole image; leave out steps and "
                    "words_prefix"
                )
            states = self._at_anchors(model, images, anchors, words)
        else:
            every = torch.arange(words.numel(), device=words.device)
            prefix = Prefix.of(model, images, *_whole(model, images, rank, steps))
            states = self._behind(model, prefix, words, every).view(*words.shape, -1)
        return self._logits(states)

    def loss(
        self,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        anchors: Int[Tensor, "B K"] | None,
        words: Int[Tensor, "B K L"],
        rank: Int[Tensor, "B N"] | None = None,
        steps: Int[Tensor, "B"] | None = None,
        read: Int[Tensor, "B R L"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the words that are no padding, nats; 0 if all are.

        Arguments as of :meth:`forward`. Captions may read other words than they write, ``read``, of
        which -1 = nothing; None = the same. R is K, or 1 = all captions of an image read the same.
        """
        logits, targets, _ = self._read(model, images, anchors, words, rank, steps, read)
        total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
        return total / (words >= 0).sum().clamp_min(1)

    def cross_entropy(
        self,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        anchors: Int[Tensor, "B K"] | None,
        words: Int[Tensor, "B K L"],
        rank: Int[Tensor, "B N"] | None = None,
        steps: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B K L"]:
        """Cross-entropy of every word, nats; 0 of padding. Arguments as of :meth:`forward`."""
        logits, targets, kept = self._read(model, images, anchors, words, rank, steps)
        loss = F.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="none")
        return loss.new_zeros(words.numel()).index_copy(0, kept, loss).view(words.shape)

    def _read(
        self,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        anchors: Int[Tensor, "B K"] | None,
        words: Int[Tensor, "B K L"],
        rank: Int[Tensor, "B N"] | None,
        steps: Int[Tensor, "B"] | None,
        read: Int[Tensor, "B R L"] | None = None,
    ) -> tuple[Float[Tensor, "M V"], Int[Tensor, " M"], Int[Tensor, " M"]]:
        """Return logits, words, and their places among all; of captions without padding."""
        targets = words.flatten()
        if anchors is not None:
            logits = self(model, images, anchors, words, rank, steps).flatten(0, 2)
            return logits, targets, torch.arange(len(targets), device=words.device)
        kept = (targets >= 0).nonzero().squeeze(1)
        prefix = Prefix.of(model, images, *_whole(model, images, rank, steps))
        read = words if read is None else read
        if read.shape[1] == words.shape[1]:
            return self._logits(self._behind(model, prefix, read, kept)), targets[kept], kept
        num_tracks, length = words.shape[1:]
        image, place = kept // (num_tracks * length), kept % length
        shared, row = torch.unique(image * length + place, return_inverse=True)
        logits = self._logits(self._behind(model, prefix, read, shared))
        return logits[row], targets[kept], kept

    def _starts(self, words: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L D"]:
        """Embed what each word of a track is read from: the word before it, or its start."""
        earlier = words[:, :, :-1]
        previous = self.word(earlier.clamp_min(0)).masked_fill((earlier < 0).unsqueeze(3), 0)
        start = self.start.expand(*words.shape[:2], 1, -1)
        return torch.cat([start, previous], dim=2) + self.place[: words.shape[2]]

    def _logits(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        logits: Tensor = self.norm(states) @ self.word.weight.T
        return logits

    def _behind(
        self,
        model: PatchEncoder,
        prefix: Prefix,
        words: Int[Tensor, "B K L"],
        kept: Int[Tensor, " M"],
    ) -> Float[Tensor, "M D"]:
        """Return the states of the kept places of tracks, which share the prefix of their image."""
        tracks = self._starts(words).flatten(0, 2).index_select(0, kept)
        tokens = torch.cat([prefix.tokens.flatten(0, 1), tracks]).unsqueeze(0)
        visible = prefix.visible.expand(len(words), -1)
        # What is padding in all of them has no place in the attention either.
        num_tracks, length = words.shape[1:]
        longest = int((kept % length).max()) + 1 if len(kept) else 1
        kept = kept // length * longest + kept % length
        may_attend = BehindPrefix(prefix.may_attend, visible, kept, num_tracks, longest)
        for block in model.encoder_blocks():
            tokens = block(tokens, attn_mask=may_attend)
        return tokens[0, len(tokens[0]) - len(kept) :]

    def _at_anchors(
        self,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        anchors: Int[Tensor, "B K"],
        words: Int[Tensor, "B K L"],
    ) -> Float[Tensor, "B K L D"]:
        """Return the states of tracks that read the whole image and, again and again, a patch."""
        num_tracks, length = words.shape[1:]
        tracks = self._starts(words).flatten(1, 2)
        tokens = torch.cat([*model.embed(images), tracks], dim=1)
        num_image = tokens.shape[1] - tracks.shape[1]
        may_attend = track_may_attend(num_image, num_tracks, length, tokens.device)
        starts = num_image + length * torch.arange(num_tracks, device=tokens.device)
        for block in model.encoder_blocks():
            local = take(tokens, (anchors + model.num_always).long())
            tokens = block(tokens.index_add(1, starts, local), attn_mask=may_attend)
        return tokens[:, num_image:].unflatten(1, (num_tracks, length))

    @torch.no_grad()
    def read(
        self,
        model: PatchEncoder,
        images: Float[Tensor, "B C H W"],
        anchors: Int[Tensor, "B K"] | None,
        rank: Int[Tensor, "B N"] | None = None,
        steps: Int[Tensor, "B"] | None = None,
    ) -> Int[Tensor, "B K L"]:
        """Write the most probable words at each anchor, all tracks in step; K = 1 without anchors.

        One pass per word, without a cache.
        """
        num_tracks = 1 if anchors is None else anchors.shape[1]
        shape = len(images), num_tracks, self.max_length
        words = torch.full(shape, -1, dtype=torch.long, device=images.device)
        for at in range(self.max_length):
            logits = self(model, images, anchors, words[:, :, : at + 1], rank, steps)
            words[:, :, at] = logits[:, :, at].argmax(-1)
        return words


def _whole(
    model: PatchEncoder,
    images: Float[Tensor, "B C H W"],
    rank: Int[Tensor, "B N"] | None,
    steps: Int[Tensor, "B"] | None,
) -> tuple[Int[Tensor, "B N"], Int[Tensor, "B"]]:
    """Return ranks and steps; where there are none, raster order and all patches."""
    num_rows, device = len(images), images.device
    if rank is None:
        rank = torch.arange(model.num_patches, device=device).expand(num_rows, -1)
    if steps is None:
        steps = torch.full((num_rows,), model.num_patches, device=device)
    return rank, steps


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
