"""The any-order autoregressive vision transformer.

A timm VisionTransformer encodes the patches seen so far, causally in rank order. A light decoder of
position queries cross-attends to what has been revealed and predicts the pixels of any position, so
one encoder pass supervises many predictions. An order enters only as ``rank``:
``rank = ordering(images); loss = model(images, rank)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from foveate.attention import CrossAttentionBlock, prefix_may_attend
from foveate.config import ModelConfig
from foveate.orders import check_rank, order_to_rank, rank_to_order

# Fixed, not per data set: a checkpoint needs nothing but its weights to read images in [0, 1].
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25


@dataclass(frozen=True)
class Prediction:
    """What the decoder says of Q positions."""

    pixels: Float[Tensor, "B Q P"]
    """Predicted pixels, normalized by PIXEL_MEAN and PIXEL_STD."""
    log_error: Float[Tensor, "B Q"]
    """Log of the mean squared error that the model expects of its prediction: its uncertainty."""
    states: Float[Tensor, "B Q D"]
    """Final decoder states of the queries."""


class AnyOrderTransformer(nn.Module):
    """Predict any patch from any set of patches revealed before it.

    ``encoder`` is a plain timm VisionTransformer whose class token serves as the start token: it is
    visible to every token and sees only itself, so that no attention row is empty. Its weights load
    strictly into timm.

    Reference: SAIM (Qi et al. 2023, arXiv 2303.07338) for image prediction in any order; ARPG
    (hp-l33/ARPG) for queries that attend to content only. Differs: queries read the encoder's last
    layer, and every prefix predicts several unseen patches instead of the next one alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            in_chans=config.in_chans,
            num_classes=0,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
        )
        self.periphery_position = nn.Parameter(
            0.02 * torch.randn(config.periphery**2, config.embed_dim)
        )
        # Sine-cosine starts: with timm's own (std 0.02) the first hundred steps go into
        # telling patches apart.
        position = build_sincos2d_pos_embed(list(config.grid), config.embed_dim, temperature=100.0)
        _, learned = self.start_and_position()
        learned.data[0, 1:] = position
        self.query_position = nn.Parameter(position.clone())
        self.decoder = nn.ModuleList(
            CrossAttentionBlock(config.embed_dim, config.num_heads, config.decoder_mlp_ratio)
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(config.embed_dim)
        self.pixel_head = nn.Linear(config.embed_dim, config.patch_dim)
        self.error_head = nn.Linear(config.embed_dim, 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.config.grid

    @property
    def num_patches(self) -> int:
        """Patches per image, N."""
        return self.config.num_patches

    @property
    def num_always(self) -> int:
        """Always-visible tokens that stand before the patches: start and periphery."""
        return 1 + self.config.periphery**2

    # --- parts of encoder and decoder, typed

    def start_and_position(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the encoder's start token and positions; other encoders of timm may have none."""
        start, position = self.encoder.cls_token, self.encoder.pos_embed
        assert start is not None
        assert position is not None
        return start, position

    def encoder_blocks(self) -> list[Block]:
        """Return the encoder's blocks."""
        return cast("list[Block]", list(self.encoder.blocks))

    def decoder_blocks(self) -> list[CrossAttentionBlock]:
        """Return the decoder's blocks."""
        return cast("list[CrossAttentionBlock]", list(self.decoder))

    # --- pixels and tokens

    def patchify(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N P"]:
        """Cut images into patches in raster order; a patch lists rows, columns, then channels."""
        size, (rows, cols) = self.config.patch_size, self.grid
        tiles = images.unflatten(2, (rows, size)).unflatten(4, (cols, size))
        return tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def unpatchify(self, patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B C H W"]:
        """Put patches together again; the inverse of :meth:`patchify`."""
        size, chans, (rows, cols) = self.config.patch_size, self.config.in_chans, self.grid
        tiles = patches.reshape(-1, rows, cols, size, size, chans)
        return tiles.permute(0, 5, 1, 3, 2, 4).reshape(-1, chans, rows * size, cols * size)

    def normalize(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scale images in [0, 1] to the units that the model reads and predicts."""
        if images.shape[1:] != (self.config.in_chans, *self.config.image_size):
            wanted = (self.config.in_chans, *self.config.image_size)
            raise ValueError(
                f"the model takes images of shape {wanted}, got {tuple(images.shape[1:])}"
            )
        return (images - PIXEL_MEAN) / PIXEL_STD

    def embed(
        self, images: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B A D"], Float[Tensor, "B N D"]]:
        """Embed each token from its own pixels and position alone.

        Returns:
            The always-visible tokens (start, then periphery) and the patches in raster order.
        """
        pixels = self.normalize(images)
        token, position = self.start_and_position()
        start = (token + position[:, :1]).expand(len(images), -1, -1)
        patches = self.encoder.patch_embed(pixels) + position[:, 1:]
        if self.config.periphery:
            side = self.config.periphery * self.config.patch_size
            thumbnail = F.interpolate(pixels, (side, side), mode="area")
            glance = self.encoder.patch_embed.proj(thumbnail).flatten(2).transpose(1, 2)
            start = torch.cat([start, glance + self.periphery_position], dim=1)
        return start, patches

    # --- encoder and decoder

    def encode(
        self,
        images: Float[Tensor, "B C H W"],
        order: Int[Tensor, "B L"],
        counts: Int[Tensor, "B L"],
    ) -> Float[Tensor, "B S D"]:
        """Encode the always-visible tokens and the first L patches in rank order, S = A + L.

        Args:
            images: pixels in [0, 1].
            order: the patch at each sorted place.
            counts: how many sorted patches each of them may attend to, itself and
                its ties included.
        """
        always, patches = self.embed(images)
        index = order.unsqueeze(-1).expand(-1, -1, patches.shape[-1])
        tokens = torch.cat([always, patches.gather(1, index)], dim=1)
        length = order.shape[1]
        if bool((counts == torch.arange(1, length + 1, device=counts.device)).all()):
            for block in self.encoder.blocks:
                tokens = block(tokens, is_causal=True)
        else:
            rows = prefix_may_attend(counts, length, self.num_always)
            causal = torch.ones(
                tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device
            )
            may_attend = causal.tril().repeat(len(rows), 1, 1, 1)
            may_attend[:, :, self.num_always :] = rows
            for block in self.encoder.blocks:
                tokens = block(tokens, attn_mask=may_attend)
        return self.encoder.norm(tokens)

    def decode(
        self,
        memory: Float[Tensor, "B S D"],
        positions: Int[Tensor, "B Q"],
        counts: Int[Tensor, "B Q"],
    ) -> Prediction:
        """Predict the patches at ``positions``, each from the first ``counts`` sorted patches."""
        may_attend = prefix_may_attend(counts, memory.shape[1] - self.num_always, self.num_always)
        queries = self.query_position[positions]
        for block in self.decoder_blocks():
            queries = block(queries, *block.keys_values(memory), may_attend)
        return self.read_out(queries)

    def read_out(self, queries: Float[Tensor, "B Q D"]) -> Prediction:
        """Turn decoder states into predicted pixels and expected error."""
        states = self.decoder_norm(queries)
        return Prediction(self.pixel_head(states), self.error_head(states).squeeze(-1), states)

    # --- training

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        rank: Int[Tensor, "B N"],
        *,
        num_steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss of predicting random unseen patches after every step of the order.

        After step t the patches of rank < t are visible and random others are predicted. Patches of
        a row's highest rank are never revealed, so ``rank.clamp(max=T)`` makes a scan of T steps.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0; patches of equal rank are revealed together.
            num_steps: steps supervised per image, drawn at random; None = all, from the
                empty prefix on.
            generator: randomness of steps and targets, on the CPU.

        Raises:
            ValueError: rank has another shape than (B, N) or negative entries.
        """
        check_rank(rank, self.num_patches)
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        last = sorted_rank[:, -1:]
        steps = torch.arange(int(last.max()) + 1, device=rank.device).expand(len(rank), -1)
        if num_steps is not None and num_steps < steps.shape[1]:
            noise = torch.rand(steps.shape, generator=generator)
            steps = noise.topk(num_steps, dim=1).indices.to(rank.device)
        # Whatever the ties, what is visible after t steps is a prefix of the patches in rank order.
        counts = torch.searchsorted(sorted_rank, torch.minimum(steps, last))
        positions = order.gather(1, self._unseen_places(counts, generator).flatten(1))

        memory = self._encode_first(images, order, sorted_rank, int(counts.max()))
        prediction = self.decode(
            memory, positions, counts.repeat_interleave(self.config.num_targets, dim=1)
        )
        return self.loss(prediction, self.targets(images, positions))

    def _encode_first(
        self,
        images: Float[Tensor, "B C H W"],
        order: Int[Tensor, "B N"],
        sorted_rank: Int[Tensor, "B N"],
        length: int,
    ) -> Float[Tensor, "B S D"]:
        """Encode the first ``length`` patches in rank order, ties seeing one another."""
        counts = torch.searchsorted(sorted_rank, sorted_rank[:, :length].contiguous(), right=True)
        return self.encode(images, order[:, :length], counts.clamp(max=length))

    def _unseen_places(
        self, counts: Int[Tensor, "B S"], generator: torch.Generator | None
    ) -> Int[Tensor, "B S M"]:
        """Draw M of the sorted places that follow the first ``counts``.

        They are spread evenly, with one random shift for all M.
        """
        shift = torch.rand(*counts.shape, 1, generator=generator).to(counts.device)
        spacing = (
            torch.arange(self.config.num_targets, device=counts.device) / self.config.num_targets
        )
        unseen = (self.num_patches - counts).unsqueeze(-1)
        offset = ((shift + spacing) % 1 * unseen).long()
        return counts.unsqueeze(-1) + torch.minimum(offset, unseen - 1)

    def targets(
        self, images: Float[Tensor, "B C H W"], positions: Int[Tensor, "B Q"]
    ) -> Float[Tensor, "B Q P"]:
        """Return the true pixels at ``positions``, in normalized units."""
        patches = self.patchify(self.normalize(images))
        return patches.gather(1, positions.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))

    def loss(self, prediction: Prediction, targets: Float[Tensor, "B Q P"]) -> Float[Tensor, ""]:
        """Squared error of the pixels, and its likelihood under the predicted uncertainty.

        ``mean(e) + w * mean(e.detach() * exp(-s) + s)``: the second term is smallest at
        s = log E[e], the expected error itself (an exponential likelihood), and leaves the pixels'
        gradient alone.
        """
        error = (prediction.pixels - targets).square().mean(-1)
        log_error = prediction.log_error.clamp(min=-8.0)
        calibration = (error.detach() * (-log_error).exp() + log_error).mean()
        return error.mean() + self.config.error_loss_weight * calibration

    # --- evaluation

    def predict_scan(
        self, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"], num_steps: int
    ) -> Float[Tensor, "B S N P"]:
        """Predict every patch after each of the first steps of an order, in one parallel pass.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0.
            num_steps: steps taken, S = num_steps + 1.

        Returns:
            Normalized pixels; entry t has seen the patches of rank < t.
        """
        check_rank(rank, self.num_patches)
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        steps = torch.arange(num_steps + 1, device=rank.device).repeat(len(rank), 1)
        counts = torch.searchsorted(sorted_rank, steps)
        memory = self._encode_first(images, order, sorted_rank, int(counts.max()))
        positions = torch.arange(self.num_patches, device=rank.device).repeat(num_steps + 1)
        pixels = self.decode(
            memory,
            positions.expand(len(rank), -1),
            counts.repeat_interleave(self.num_patches, dim=1),
        ).pixels
        return pixels.unflatten(1, (num_steps + 1, self.num_patches))

    @torch.no_grad()
    def error_curve(
        self, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B S"]:
        """Error of what is still unseen after 0..T fixations, over that before the first one.

        Squared raw-pixel error summed over the unseen patches: the error of the canvas that shows
        true pixels where the scan has been and the prediction elsewhere. Entry 0 is 1.
        """
        rank, num_steps = order_to_rank(order, self.num_patches), order.shape[1]
        targets = self.patchify(self.normalize(images)).unsqueeze(1)
        error = (self.predict_scan(images, rank, num_steps) - targets).square().mean(-1)
        remaining = (error * ~self._seen(rank, num_steps)).sum(-1)
        return remaining / remaining[:, :1].clamp_min(1e-12)

    @staticmethod
    def _seen(rank: Int[Tensor, "B N"], num_steps: int) -> Bool[Tensor, "B S N"]:
        """Which patches have been seen after 0..num_steps steps (True = seen)."""
        steps = torch.arange(num_steps + 1, device=rank.device).view(1, -1, 1)
        return rank.unsqueeze(1) < steps

    @torch.no_grad()
    def reconstructions(
        self, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B S C H W"]:
        """Draw the canvas after 0..T fixations, in [0, 1]: the truth where seen, else predicted."""
        rank, num_steps = order_to_rank(order, self.num_patches), order.shape[1]
        predicted = self.predict_scan(images, rank, num_steps) * PIXEL_STD + PIXEL_MEAN
        seen = self._seen(rank, num_steps).unsqueeze(-1)
        canvas = torch.where(seen, self.patchify(images).unsqueeze(1), predicted.clamp(0, 1))
        return self.unpatchify(canvas.flatten(0, 1)).unflatten(0, canvas.shape[:2])

    def features(
        self,
        images: Float[Tensor, "B C H W"],
        attention: Literal["full", "causal"] = "full",
        rank: Int[Tensor, "B N"] | None = None,
    ) -> tuple[Float[Tensor, "B N D"], ...]:
        """Patch tokens after every encoder block, in raster order, all patches visible.

        Those of the last block are normalized.

        Args:
            images: pixels in [0, 1].
            attention: ``full`` lets every token see every other, as timm does;
                ``causal`` follows ``rank``.
            rank: the order of causal attention, without ties; raster when None.
        """
        always, tokens = self.embed(images)
        if rank is None:
            rank = torch.arange(self.num_patches, device=images.device).expand(len(images), -1)
        check_rank(rank, self.num_patches)

        def sort(patches: Tensor, index: Tensor) -> Tensor:
            return patches.gather(1, index.unsqueeze(-1).expand_as(patches))

        tokens = torch.cat([always, sort(tokens, rank_to_order(rank))], dim=1)
        outputs = []
        for block in self.encoder.blocks:
            tokens = block(tokens, is_causal=attention == "causal")
            outputs.append(tokens)
        outputs[-1] = self.encoder.norm(tokens)
        place = rank_to_order(rank_to_order(rank))
        return tuple(sort(tokens[:, self.num_always :], place) for tokens in outputs)
