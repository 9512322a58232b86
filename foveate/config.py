"""Model sizes as plain data.

No torch here, so that scripts can show their help before the heavy imports.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of an :class:`foveate.model.AnyOrderTransformer`."""

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
    decoder_depth: int = 2
    """Cross-attention blocks."""
    decoder_mlp_ratio: float = 2.0
    """Hidden width of a decoder MLP over D."""
    periphery: int = 0
    """Side, in patches, of the thumbnail of the image that every order sees first; 0 = blind."""
    num_targets: int = 12
    """Random unseen patches predicted from each prefix in training."""
    error_loss_weight: float = 0.05
    """Weight of the loss that teaches the model to predict its own squared error."""

    def __post_init__(self) -> None:
        for name in (
            "patch_size",
            "embed_dim",
            "depth",
            "num_heads",
            "decoder_depth",
            "num_targets",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
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
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}"
            )
        if not 0 <= self.periphery <= min(self.grid):
            raise ValueError(
                f"periphery must lie in 0..{min(self.grid)} patches, got {self.periphery}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches per image, N."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_dim(self) -> int:
        """Pixel values per patch, P."""
        return self.patch_size**2 * self.in_chans
