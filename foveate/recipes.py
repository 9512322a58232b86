"""Published systems and our own, as rows of one machine.

A recipe is an order x a stream x a decoder x a target x a schedule of the learning rate (a cosine
to 5%, but for autonat, where it is constant). Each is a small part that others can be swapped for:
``dataclasses.replace(RECIPES["saim"], order="random_blobs")``.

================  =========================  ======  =====================  =======  ==========
recipe            order                      stream  decoder                queries  target
================  =========================  ======  =====================  =======  ==========
foveate           random, then the policy's  causal  2, last layer          unseen   pixels
igpt              raster                     causal  none                   own      colors
igpt_patch        raster                     causal  none                   own      patch_norm
igpt_bert         15% hidden                 masked  none                   own      colors
randsac           random squares, 16 to 4    causal  2, mixed, segments     own      patch_norm
saim              random                     causal  every layer            own      blurred
semaim            outward from most similar  causal  every layer            own      blurred
digpt             4 quarters at random       causal  2 x 2, taps, segments  own      features
autonat           Beta(12, 3) hidden         masked  none                   own      colors
git               as foveate's, then words   causal  2, last layer          unseen   pixels
caption           as foveate's, then words   causal  2, last layer          unseen   pixels
mae               75% hidden                 causal  2, joint               own      patch_norm
================  =========================  ======  =====================  =======  ==========

All rows differ from their papers in this: pixels are read and predicted as (x - 0.5) / 0.25 unless
``pixel_units`` says imagenet, encoder positions are learned from a sine-cosine start of temperature
100, the start token is visible to all and in a causal stream without words sees only itself,
decoder MLPs are twice as wide as the model, LayerNorms of decoders and memories have epsilon 1e-5
(the encoder's and those of a joint decoder's blocks 1e-6, as all of MAE's and SAIM's), memories
other than the last layer have LayerNorms of their own and take the last layer as the encoder's
final LayerNorm leaves it, hidden matrices are trained by Muon, gradients are clipped at norm 1,
rates fall to 5% instead of 0, and images are not cropped or flipped unless ``--augment`` says so.
Weights start as the public code's do where that is Xavier (``init``), and as timm's elsewhere. What
else differs is in the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from foveate.choices import check_choice, lookup
from foveate.config import ModelConfig, Parts, Queries, TargetKind

LearningRateSchedule = Literal["cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Parts):
    """What makes a system: the parts of its models, and how they learn; sizes are the user's."""

    reference: str
    """Paper, repository, and every known difference."""
    order: str = "random"
    """Name in foveate.orders or foveate.orders.semantic, or ``MODULE:NAME``."""
    order_options: Mapping[str, int | float] = field(default_factory=dict)
    """Options of the order, such as ``side`` of random_squares; see foveate.orders."""
    queries: Queries = "own"
    target: TargetKind = "patch_norm"
    tracks: bool = False
    """Words at fixation points, from the names of the data's classes (``foveate.model.tracks``)."""
    captions: bool = False
    """The images' own captions, after any number of steps of the order; of whole images too."""
    num_colors: int | None = None
    """Entries of the palette (target="colors"); None = 512, or 64 for gray images."""
    lr_schedule: LearningRateSchedule = "cosine"
    """How the model's learning rate goes on after its warm-up: down to 5%, or as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("lr_schedule", self.lr_schedule, get_args(LearningRateSchedule))
        if self.tracks and self.captions:
            raise ValueError("a recipe has tracks or captions, not both")
        if self.tracks and self.words_prefix != "bidirectional":
            raise ValueError("tracks at fixation points need words_prefix='bidirectional'")
        if not (self.tracks or self.captions) and (self.word_weight, self.image_weight) != (1, 1):
            raise ValueError("word_weight and image_weight need a recipe with words")

    def model_config(
        self, *, depth: int, feature_dim: int | None = None, in_chans: int = 1, **sizes: object
    ) -> ModelConfig:
        """Return the config of a model of this recipe.

        Args:
            depth: encoder blocks.
            feature_dim: width of the teacher's features, for target="features".
            in_chans: color channels.
            sizes: the other fields of ModelConfig.
        """
        parts = {each.name: getattr(self, each.name) for each in fields(Parts)}
        if self.decoder_depth is None:
            parts["decoder_depth"] = depth
        usual = 64 if in_chans == 1 else 512
        parts["num_colors"] = usual if self.num_colors is None else self.num_colors
        given = {"depth": depth, "feature_dim": feature_dim, "in_chans": in_chans, **sizes}
        return ModelConfig(**{**parts, **given})

    @property
    def takes_budget(self) -> bool:
        """Whether its models learn from scans of a length, or can be scanned."""
        return self.scannable or self.queries == "unseen"


RECIPES: dict[str, Recipe] = {
    "foveate": Recipe(
        reference="This project: any unseen patch from every prefix, in the policy's order.",
        queries="unseen",
        target="pixels",
    ),
    "igpt": Recipe(
        reference="iGPT (Chen et al. 2020, openai/image-gpt). One palette entry per pixel: take "
        "patch_size 1, or larger patches that predict all their pixels at once. Differs: timm's "
        "pre-norm blocks (LayerNorm, GELU, biases), k-means by mini-batches of the run's own "
        "images (iGPT: one palette for all data), a token carries its own position and its "
        "target's, each from a table of its own (iGPT's its target's alone), two LayerNorms in a "
        "row before the output head, which does not start at zero, weights start with deviation "
        "0.02 (iGPT's positions with 0.01), weight decay. The preset shrinks images to 16 x 16 "
        "(the paper: 32 x 32 and more).",
        order="raster",
        decoder_depth=0,
        target="colors",
    ),
    "igpt_patch": Recipe(
        reference="iGPT on patches, after the patch-raster baseline of SAIM, whose architecture "
        "was not found: a single stream and normalized pixels are our choice. RandSAC's is its "
        "own encoder and decoder in raster order.",
        order="raster",
        decoder_depth=0,
    ),
    "igpt_bert": Recipe(
        reference="iGPT's BERT objective, Sec. 2.1: 15% hidden. Differs as igpt does; the loss is "
        "averaged over the hidden patches of the batch, not per image; a learned mask token "
        "starts at zero; there is a start token.",
        order="bernoulli_subset",
        stream="masked",
        decoder_depth=0,
        target="colors",
    ),
    "randsac": Recipe(
        reference="RandSAC (Hua et al. 2023, arXiv 2203.12054), square segments, 16 to 4 on an 8 "
        "x 8 grid. No code is public. Differs: learned query positions that start as sine-cosine; "
        "queries of the first segment stay in the decoder, where they hold positions alone. Not "
        "found, hence ours: 2 decoder blocks, skip weights that start as the mean of all layers, "
        "of which the last has passed the encoder's final LayerNorm. The paper's ablation of "
        "orders (Sec. 3) has no skips and predicts raw pixels: memory='last', target='pixels'.",
        order="hierarchical",
        memory="mixed",
        lateral="segment",
        predict_first=False,
    ),
    "saim": Recipe(
        reference="SAIM (Qi et al. 2023, arXiv 2212.01610, qiy20/SAIM): a query stream beside "
        "every encoder layer. Differs: queries start at learned positions, the head is linear, "
        "one matrix projects to queries, keys and values (SAIM has three, whose Xavier start is "
        "larger by 1.4), and one in the query stream to keys and values (SAIM: two, larger by "
        "1.2). SAIM has one final LayerNorm, trained on the query stream, and probes the encoder "
        "through it; here the encoder's own is trained, as what the last query block reads.",
        decoder_depth=None,
        memory="layers",
        target="blurred",
        init="xavier",
    ),
    "semaim": Recipe(
        reference="SemAIM (Song et al. 2024, arXiv 2312.10457, skyoux/SemAIM), the order of its "
        "published commands (attention_center; the code's own default is stochastic). As SAIM, "
        "but SemAIM's encoder has one matrix of queries, keys and values too; similarity to the "
        "mean over patches, as its attention_type gap (not cls or self), by the weights that are "
        "trained (not their average over time). Features as targets are standardized over the "
        "batch. The order sees features through the encoder's own final LayerNorm, SemAIM's "
        "through that of its query stream. Of rings around a patch, the last row and column lie "
        "in the innermost window that reaches them (SemAIM's table leaves them out of all), and "
        "may be the random center. Its order costs one more encoder pass, a third of a training "
        "step's encoder work.",
        order="outward_from_most_similar",
        decoder_depth=None,
        memory="layers",
        target="blurred",
        init="xavier",
    ),
    "digpt": Recipe(
        reference="D-iGPT (Ren et al. 2024, arXiv 2312.02147, OliverRensu/D-iGPT): next and seen "
        "clusters. A distillation: compare it with its teacher, not with pixel recipes. Differs: "
        "the decoder is as wide as the encoder, the start token comes first and predicts nothing, "
        "queries are positions alone, those of the first cluster stay in the decoder, the start "
        "token is visible to all (D-iGPT's class token to itself and the third cluster), the "
        "teacher's map is resized instead of the prediction, each tap has a LayerNorm of its own "
        "(D-iGPT's four share one), no LayerNorm follows the projection of a tap, the last layer "
        "is tapped and probed through the encoder's final LayerNorm (D-iGPT's encoder has none "
        "until it is fine-tuned), and the teacher is any timm model, before its head (D-iGPT's: "
        "CLIP's tokens after its projection), or the encoder itself, its weights averaged over "
        "time or as they are, whose features are standardized over the batch. Taps are four from "
        "depth 6 on.",
        order="random_quadrants",
        memory="taps",
        lateral="segment",
        visible_decoder=True,
        predict_first=False,
        target="features",
        init="xavier",
    ),
    "autonat": Recipe(
        reference="AutoNAT (Ni et al. 2024, LeapLabTHU/ImprovedNAT): Beta(12, 3) hidden, label "
        "smoothing 0.1. Differs: palette entries instead of VQGAN codes, a plain ViT without long "
        "skips, no class condition (hence no guidance), logits not tied to embeddings, a mask "
        "token that starts at zero, no average of weights, weight decay 0.05 of hidden matrices "
        "(AutoNAT's of all weights) and Adam's betas (0.9, 0.95) here, no LayerNorm and dropout "
        "on embeddings, biases in attention, a linear head; the distribution of what is hidden is "
        "the published one, and not searched again; choice temperatures fall from MaskGIT's 4.5 "
        "(1 - 1 / T) in T passes, not from 1. Decoding: foveate.model.parallel_decoding.",
        order="beta_subset",
        stream="masked",
        decoder_depth=0,
        target="colors",
        label_smoothing=0.1,
        lr_schedule="constant",
    ),
    "git": Recipe(
        reference="GiT (Wang et al. 2024, arXiv 2403.09394, Haiyang-W/GiT): tracks of words at "
        "points of the image; here the points are the policy's fixations (random before it "
        "starts), and the image is learned jointly as by foveate. Differences: "
        "foveate.model.tracks.",
        queries="unseen",
        target="pixels",
        tracks=True,
    ),
    "caption": Recipe(
        reference="AIMv2 (Fini et al. 2024, arXiv 2411.14402): patches, then the caption, by one "
        "objective; here the patches come in any order (the policy's, once it starts), and the "
        "caption is learned after any number of them, none included. Differs: one transformer "
        "reads patches and words (AIMv2: an encoder of patches, then a decoder of both), which "
        "runs once for the image, as foveate's, and once for the words; the prefix of the words "
        "is what is visible, and bidirectional by default (AIMv2's: causal behind a random part); "
        "pixels are raw and weigh 1 (AIMv2's: patch-normalized, 0.4); subwords are learned from "
        "the training captions.",
        queries="unseen",
        target="pixels",
        captions=True,
    ),
    "mae": Recipe(
        reference="MAE (He et al. 2022, arXiv 2111.06377): the outside reference. Differs: the "
        "decoder is as wide as the encoder, with 2 blocks and no projection before it; visible "
        "tokens carry the encoder's positions alone, and hidden ones are asked for by learned "
        "positions, without a mask token. Patches are normalized over all their channels, as "
        "MAE's.",
        order="random_subset",
        lateral="joint",
        init="xavier",
    ),
}
"""Recipes by name; each is a command, ``python -m experiments.train NAME``."""


def recipe(name: str) -> Recipe:
    """Return a recipe by name, or one of your own, ``MODULE:NAME``.

    Raises:
        ValueError: there is none of this name.
    """
    return lookup("recipe", name, RECIPES, Recipe)
