"""The encoder: embedded patches in rank order through a plain timm VisionTransformer.

Sorted by rank, whatever a token may see is a prefix of the sequence; orders without ties are plain
causal attention.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from foveate.choices import check_choice
from foveate.config import ModelConfig
from foveate.model.attention import (
    SelfAttention,
    prefix_block_mask,
    prefix_may_attend,
    shared_counts,
)
from foveate.model.flex import takes_flex
from foveate.orders import check_rank, rank_to_order
from foveate.patches import check_readable, patchify, unpatchify
from foveate.targets import Colors, make_target, move_palette


def take(tokens: Float[Tensor, "B N D"], index: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
    """Gather the tokens at ``index`` along the sequence."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class PatchEncoder(nn.Module):
    """Pixels to tokens to causal states.

    ``encoder`` is a plain timm VisionTransformer whose class token serves as the start token: it is
    visible to every token and, in a causal stream, sees only itself, so that no attention row is
    empty. ``foveate.model.to_timm`` makes a timm model of it, with the same features.
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
            attn_layer=SelfAttention,
        )
        self.periphery_position = nn.Parameter(
            0.02 * torch.randn(config.periphery**2, config.embed_dim)
        )
        # Sine-cosine starts: with timm's own (std 0.02) the first hundred steps go into
        # telling patches apart.
        position = build_sincos2d_pos_embed(list(config.grid), config.embed_dim, temperature=100.0)
        _, learned = self.start_and_position()
        learned.data[0, 1:] = position
        if config.stream == "causal" and config.decoder_depth == 0:
            # Without a decoder each token is told the place of the patch that it is to predict.
            self.next_position = nn.Parameter(position.clone())
        if config.stream == "masked":
            self.mask_token = nn.Parameter(torch.zeros(config.embed_dim))
        self.target = make_target(config)
        if config.reads_colors:
            entries = config.patch_size**2 * config.num_colors
            self.color_embed = nn.Embedding(entries, config.embed_dim)
            nn.init.normal_(self.color_embed.weight, std=0.02)
            self.encoder.patch_embed.requires_grad_(False)  # Ids are read instead of pixels.
        nn.Module.register_load_state_dict_pre_hook(self, move_palette)

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
        return self.config.num_always

    def start_and_position(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Return the encoder's start token and positions."""
        start, position = self.encoder.cls_token, self.encoder.pos_embed
        assert start is not None, "the encoder is made with a start token"
        assert position is not None, "the encoder is made with positions"
        return start, position

    def encoder_blocks(self) -> list[Block]:
        """Return the encoder's blocks."""
        return cast("list[Block]", list(self.encoder.blocks))

    # --- pixels and tokens

    def patchify(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N P"]:
        """Cut images into patches in raster order; a patch lists rows, columns, then channels."""
        return patchify(images, self.config.patch_size)

    def unpatchify(self, patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B C H W"]:
        """Put patches together again; the inverse of :meth:`patchify`."""
        return unpatchify(patches, self.config.patch_size, self.grid)

    def normalize(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scale images in [0, 1] to the units that the model reads and predicts."""
        shape = (self.config.in_chans, *self.config.image_size)
        check_readable(images, shape, next(self.encoder.parameters()).dtype)
        return self.target.pixel_scale.normalize(images)

    def denormalize(self, patches: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """Scale patches from the units that the model predicts back to pixels in [0, 1]."""
        return self.target.pixel_scale.denormalize(patches)

    def embed(
        self, images: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B A D"], Float[Tensor, "B N D"]]:
        """Embed each token from its own pixels and position alone.

        Returns:
            The always-visible tokens (start, then periphery) and the patches in raster order.
        """
        pixels = self.normalize(images)
        token, position = self.start_and_position()
        start = (token + position[:, :1]).expand(images.shape[0], -1, -1)
        if self.config.reads_colors:
            content = self.embed_colors(self.color_ids(images))
        else:
            content = self.encoder.patch_embed(pixels)
        patches = content + position[:, 1:]
        if self.config.periphery:
            side = self.config.periphery * self.config.patch_size
            thumbnail = F.interpolate(pixels, (side, side), mode="area")
            glance = self.encoder.patch_embed.proj(thumbnail).flatten(2).transpose(1, 2)
            start = torch.cat([start, glance + self.periphery_position], dim=1)
        return start, patches

    def embed_colors(self, ids: Int[Tensor, "B M S"]) -> Float[Tensor, "B M D"]:
        """Embed palette entries of the S pixels of M patches; positions are not added."""
        first = self.config.num_colors * torch.arange(ids.shape[-1], device=ids.device)
        embedded: Tensor = self.color_embed(ids + first).sum(2)
        return embedded

    @property
    def colors(self) -> Colors:
        """The target of a model that reads and predicts palette entries.

        Raises:
            ValueError: the model has another target.
        """
        if not isinstance(self.target, Colors):
            raise ValueError(f"target={self.config.target!r} has no palette; target='colors' has")
        return self.target

    @property
    def palette(self) -> Float[Tensor, "K C"]:
        """Colors in [0, 1] (target="colors"); NaN until a palette is fitted and copied here."""
        return self.colors.palette

    def color_ids(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B N S"]:
        """Return the palette entry of each of the S pixels of every patch."""
        return self.colors.of(images)

    # --- streams

    def tell(
        self, tokens: Float[Tensor, "B S D"], order: Int[Tensor, "B M"]
    ) -> Float[Tensor, "B S D"]:
        """Tell each token, where no decoder follows, which patch it is to predict.

        The start token predicts the first of ``order``, each patch the one behind it.

        Reference: RAR (Yu et al. 2024, bytedance/1d-tokenizer), target-aware positions. iGPT adds
        its positions after the shift, hence those of the targets alone; here both are added.
        """
        if self.config.stream == "masked" or self.config.decoder_depth > 0:
            return tokens
        first = self.num_always - 1
        told = self.next_position[order[:, : tokens.shape[1] - first]]
        return tokens + F.pad(told, (0, 0, first, tokens.shape[1] - first - told.shape[1]))

    def encode(
        self,
        images: Float[Tensor, "B C H W"],
        order: Int[Tensor, "B M"],
        counts: Int[Tensor, "B L"],
        ties: bool | None = None,
    ) -> tuple[Float[Tensor, "B S D"], ...]:
        """Encode the always-visible tokens and the first L patches in rank order, S = A + L.

        Args:
            images: pixels in [0, 1].
            order: the patch at each sorted place; M may exceed L.
            counts: how many sorted patches each of them may attend to, itself and
                its ties included.
            ties: whether a patch may attend to others behind it. False takes the kernel of plain
                causal attention; None = look, for which the host waits for the device.

        Returns:
            The outputs of all blocks; those of the last are normalized.
        """
        return self.encode_tokens(*self.embed(images), order, counts, ties)

    def encode_tokens(
        self,
        always: Float[Tensor, "B A D"],
        patches: Float[Tensor, "B N D"],
        order: Int[Tensor, "B M"],
        counts: Int[Tensor, "B L"],
        ties: bool | None = None,
    ) -> tuple[Float[Tensor, "B S D"], ...]:
        """Do as :meth:`encode` does, from embedded tokens."""
        length = counts.shape[1]
        tokens = self.tell(torch.cat([always, take(patches, order[:, :length])], dim=1), order)
        causal_counts = torch.arange(1, length + 1, device=counts.device)
        if ties is False or (ties is None and bool((counts == causal_counts).all())):
            return self.run_blocks(tokens, None, is_causal=True)
        if takes_flex(tokens.device, self.config.embed_dim // self.config.num_heads):
            return self.run_blocks(tokens, prefix_block_mask(counts, self.num_always))
        counts = shared_counts(counts, None if ties is None else False)
        rows = prefix_may_attend(counts, length, self.num_always)
        causal = torch.ones(
            tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device
        )
        may_attend = causal.tril().repeat(len(rows), 1, 1, 1)
        may_attend[:, :, self.num_always :] = rows
        return self.run_blocks(tokens, may_attend)

    def run_blocks(
        self,
        tokens: Float[Tensor, "B S D"],
        may_attend: Bool[Tensor, "#B 1 S S"] | BlockMask | None,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "B S D"], ...]:
        """Run all encoder blocks and return their outputs, the last ones normalized."""
        layers = []
        for block in self.encoder.blocks:
            tokens = block(tokens, attn_mask=may_attend, is_causal=is_causal)
            layers.append(tokens)
        layers[-1] = self.encoder.norm(tokens)
        return tuple(layers)

    def all_layers(
        self,
        images: Float[Tensor, "B C H W"],
        attention: Literal["full", "causal"] = "full",
        rank: Int[Tensor, "B N"] | None = None,
    ) -> tuple[Float[Tensor, "B S D"], ...]:
        """Tokens after every encoder block, all patches visible: the always-visible ones first.

        Patches follow in raster order. Tokens of the last block are normalized.

        Args:
            images: pixels in [0, 1].
            attention: ``full`` lets every token see every other, as timm does;
                ``causal`` follows ``rank``.
            rank: the order of the stream, without ties; raster when None.

        Raises:
            ValueError: patches tie, or there is no such attention.
        """
        check_choice("attention", attention, ("full", "causal"))
        always, patches = self.embed(images)
        if rank is None:
            order = torch.arange(self.num_patches, device=images.device).expand(len(images), -1)
        else:
            check_rank(rank, self.num_patches)
            order = rank_to_order(rank)
            if bool((rank.gather(1, order).diff(dim=1) == 0).any()):
                raise ValueError("rank must not hold ties: features are of one patch per step")
        tokens = self.tell(torch.cat([always, take(patches, order)], dim=1), order)
        layers = self.run_blocks(tokens, None, is_causal=attention == "causal")
        first = torch.arange(self.num_always, device=order.device).expand(len(order), -1)
        place = torch.cat([first, rank_to_order(order) + self.num_always], dim=1)
        return tuple(take(tokens, place) for tokens in layers)

    def features(
        self,
        images: Float[Tensor, "B C H W"],
        attention: Literal["full", "causal"] = "full",
        rank: Int[Tensor, "B N"] | None = None,
    ) -> tuple[Float[Tensor, "B N D"], ...]:
        """Patch tokens of :meth:`all_layers`."""
        layers = self.all_layers(images, attention, rank)
        return tuple(tokens[:, self.num_always :] for tokens in layers)
