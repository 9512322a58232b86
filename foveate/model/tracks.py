"""Words at fixation points: many short autoregressive tracks on one image.

The image is a bidirectional prefix of the encoder; each track starts at a patch, reads the image
and its own words, and no other track. Anchored at a policy's fixations, tracks read out what the
policy looked at.

Reference: GiT (Wang et al. 2024, arXiv 2403.09394), Haiyang-W/GiT. Differs: tracks start at patches
instead of points between them, so that the local feature needs no interpolation; the words are
learned, not BERT's, and those of a name are not merged; one task, so that nothing is matched or
prompted; background is a word like any other, and points with objects are not drawn first; the
start of a track is embedded once, by the position of its first word (GiT's by its point's position
in the image, which is added again in every layer), while the local feature, the patch's state in
that layer, is added again before every block, and its token, not one of the task, writes the first
word; a LayerNorm before the product with the word embeddings, none on the embeddings themselves;
all words can be written at every place; tracks read the image in every layer; full instead of
windowed attention. GiT's captions (one track, no local feature, beam search) are not here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from foveate.model.encoder import PatchEncoder, take


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
