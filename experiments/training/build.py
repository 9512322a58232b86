"""What a training run needs before its first step: data, device, model, policy, optimizers."""

from __future__ import annotations

import os
import sys
import time

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies import PointerPolicy, PolicyConfig
from envs.toy import cue_set
from experiments.run_folder import goes_on
from experiments.training.config import TrainConfig
from experiments.training.groups import PolicyTraining
from foveate.checkpoint import read_newest
from foveate.data import ImageSet, load_data
from foveate.data.captions import Captions, patch_captions
from foveate.data.first_images import first_images
from foveate.data.pieces import open_source
from foveate.data.subwords import Subwords
from foveate.data.texts import ImageTexts, captions_in
from foveate.data.wander import wandered
from foveate.model import AnyOrderTransformer
from foveate.model.teachers import (
    Teacher,
    attach_teacher,
    make_teacher,
    teacher_dim,
)
from foveate.optim import Muon
from foveate.orders.segments import Fixations

STREAM_EVALUATED = 10_000
"""Images of a streamed split that are evaluated on, unless a number is asked for."""


def load_split(config: TrainConfig, split: str, limit: int | None = None) -> ImageSet:
    """Load one split of a run's data; images that wander are at their fixed places.

    All else is as of :func:`load_stored`.
    """
    images, factor = load_stored(config, split, limit), config.data.wander
    return images if factor is None else wandered(images, factor, config.model.patch_size)


def load_stored(config: TrainConfig, split: str, limit: int | None = None) -> ImageSet:
    """Load one split of a run's data as it is; ``cue`` is the toy world of ``envs.toy``.

    Of streamed data it is the first images: STREAM_EVALUATED of them unless limit says otherwise.
    """
    options = config.data
    if options.stream:
        assert options.image_size is not None, "DataConfig requires it of streams"
        return first_images(
            options.data,
            split,
            image_size=options.image_size,
            image_column=options.image_column,
            channels=options.channels or 3,
            limit=STREAM_EVALUATED if limit is None else limit,
            split_column=options.split_column,
            caption_column=options.caption_column,
            skip_damaged=options.skip_damaged,
        )
    if options.data == "cue":
        images = cue_set(split)
        return images if limit is None else images.subset(limit)
    return load_data(
        options.data,
        split,
        image_size=options.image_size,
        image_column=options.image_column,
        limit=limit,
        root=options.data_root,
        split_column=options.split_column,
        caption_column=options.caption_column,
    )


def check_stream(config: TrainConfig, split: str) -> None:
    """Raise ValueError unless a run's streamed data have the split."""
    options = config.data
    open_source(
        options.data,
        split,
        image_column=options.image_column,
        split_column=options.split_column,
        caption_column=options.caption_column,
        skip_damaged=options.skip_damaged,
    )


def captions_of(config: TrainConfig, images: ImageSet) -> Captions:
    """Say what is at each patch, as far as the data set knows."""
    rows, cols = (side // config.model.patch_size for side in images.image_shape[1:])
    return patch_captions(images, (rows, cols))


def texts_of(config: TrainConfig, images: ImageSet) -> ImageTexts:
    """Turn captions into subwords, and say what is left out.

    They are learned from the captions; a run that goes on has those of its checkpoint, so that a
    number means the same, whatever was changed in the captions.

    Raises:
        ValueError: there are none, the package tokenizers is missing, or all checkpoints are
            damaged.
    """
    captions = captions_in(images)
    if goes_on(config):
        saved = read_newest(config.run.out).state["model_config"]
        if vocabulary := tuple(saved.get("vocabulary", ())):
            kept = Subwords(vocabulary, tuple(saved.get("merges", ())))
            return ImageTexts.of(captions, kept, config.model.max_subwords)
    sentences = (text for own in captions for text in own)
    subwords = Subwords.learned(sentences, config.model.num_subwords)
    return ImageTexts.of(captions, subwords, config.model.max_subwords)


def set_threads(threads: int | None) -> None:
    """Set torch's CPU threads; None leaves them as they are.

    Raises:
        ValueError: less than one, or more than a machine starts without failing.
    """
    if threads is None:
        return
    most = max(256, os.cpu_count() or 1)
    if not 1 <= threads <= most:
        bound = "at least 1" if threads < 1 else f"at most {most}"
        raise ValueError(f"threads must be {bound}, got {threads}")
    torch.set_num_threads(threads)


def multiplies_bfloat16() -> bool:
    """Measure whether this processor is less than four times slower in bfloat16 than in float32.

    Without instructions for it torch is hundreds of times slower, with them faster; that there are
    some, torch tells of few processors.
    """

    def fastest(dtype: torch.dtype) -> float:
        matrix, taken = torch.ones(256, 256, dtype=dtype), []
        for _ in range(6):
            started = time.perf_counter()
            matrix @ matrix
            taken.append(time.perf_counter() - started)
        return min(taken)

    return fastest(torch.bfloat16) < 4 * fastest(torch.float32)


def check_precision(config: TrainConfig) -> None:
    """Warn if this processor is no good at the precision."""
    on_cpu = torch.device(config.run.device).type == "cpu"
    if config.optimization.precision == "bf16" and on_cpu and not multiplies_bfloat16():
        print(
            "warning: this processor has no arithmetic for bfloat16; --precision fp32 is many "
            "times faster here",
            file=sys.stderr,
        )


def build(
    config: TrainConfig,
    image_shape: tuple[int, int, int],
    vocabulary: tuple[str, ...] = (),
    max_words: int = 0,
    merges: tuple[str, ...] = (),
) -> tuple[AnyOrderTransformer, PointerPolicy]:
    """Build model and policy for images of shape (C, H, W), and words of a recipe with words."""
    parts = config.parts
    feature_dim = None
    if parts.takes_features:
        feature_dim = teacher_dim(config.model.teacher, config.model.embed_dim)
    model = AnyOrderTransformer(
        parts.model_config(
            image_size=image_shape[1:],
            in_chans=image_shape[0],
            patch_size=config.model.patch_size,
            embed_dim=config.model.embed_dim,
            depth=config.model.depth,
            num_heads=config.model.num_heads,
            periphery=config.model.periphery,
            num_targets=config.model.num_targets,
            feature_dim=feature_dim,
            learns_error=config.teaching.needs_error and not parts.expects_error,
            vocabulary=vocabulary,
            max_words=max_words,
            merges=merges,
        )
    ).to(config.run.device)
    if config.policy is not None and not model.config.scannable:
        raise ValueError(
            "the policy needs a causal stream whose decoder predicts raw pixels, or unseen "
            "patches' features, without lateral attention, which recipe "
            f"{config.model.recipe} is not with these options; "
            "add --iterations 0, or for saim and semaim --target pixels or pixels_features"
        )
    check_scans(config, model)
    policy = PointerPolicy(config.model.embed_dim, policy_config(config.policy))
    return model, policy.to(config.run.device)


def build_teacher(
    config: TrainConfig,
    model: AnyOrderTransformer,
    reference: Float[Tensor, "R C H W"] | None = None,
) -> Teacher | None:
    """Build the teacher of a model of features, and attach it; None of all other models.

    Args:
        config: it names the teacher.
        model: the student.
        reference: images by which features are standardized in scans; None = a state says it.
    """
    if not model.config.takes_features:
        return None
    teacher = make_teacher(config.model.teacher, model, config.run.device, reference)
    attach_teacher(model, teacher)
    return teacher


def policy_config(options: PolicyTraining | None) -> PolicyConfig:
    """Return the policy's sizes and start; one that never learns is uniformly random."""
    if options is None or options.schedule == "frozen":
        return PolicyConfig(doubt=0.0)
    return PolicyConfig(
        doubt=options.doubt, depth=options.policy_depth, saccade_cost=options.saccade_cost
    )


def policy_has_learned(config: TrainConfig, iteration: int) -> bool:
    """Whether the policy of a run is another than the one that it started as."""
    options, warmup = config.policy, config.optimization.warmup_iterations
    return options is not None and options.schedule != "frozen" and iteration > warmup


def check_scans(config: TrainConfig, model: AnyOrderTransformer) -> None:
    """Raise ValueError unless an image has enough fixations for the budget and the candidates."""
    fixations = Fixations.squares(model.grid, config.scan.fixation_size)
    available = len(fixations)
    candidates = None if config.policy is None else config.policy.num_candidates
    if candidates is not None and candidates >= available:
        what = "patches" if fixations.is_single else "fixations"
        raise ValueError(
            f"num_candidates must be less than the {available} {what} of an image, "
            f"got {candidates}; leave it out for all"
        )
    if model.config.scannable and not 1 <= config.scan.budget < available:
        raise ValueError(
            f"budget must lie in 1..{available - 1} fixations for this grid, "
            f"got {config.scan.budget}; choose another --budget"
        )


def build_optimizers(
    config: TrainConfig, model: AnyOrderTransformer
) -> list[torch.optim.Optimizer]:
    """Build the optimizers of a model: one of its hidden matrices, one of all else."""
    decoders = [model.decoder, *([model.visible_decoder] if model.config.visible_decoder else [])]
    stacks = [model.encoder.blocks, *(decoder.blocks for decoder in decoders)]
    hidden = [p for stack in stacks for p in stack.parameters() if p.ndim == 2]
    learned = [p for p in model.parameters() if p.requires_grad]
    others = [p for p in learned if not any(p is matrix for matrix in hidden)]
    options = config.optimization
    rate, decay, betas = options.model_lr, options.weight_decay, (0.9, 0.95)
    hidden_optimizer: torch.optim.Optimizer
    if options.model_optimizer == "muon":
        # Jordan et al. 2024: at equal steps far ahead of AdamW here.
        hidden_optimizer = Muon(hidden, lr=rate, weight_decay=decay)
    else:
        hidden_optimizer = torch.optim.AdamW(hidden, lr=rate, betas=betas, weight_decay=decay)
    # BEiT's skip list spares positions and tokens, MAE's fine-tuning too (its pre-training decays
    # tokens, as SAIM, SemAIM and D-iGPT do); here every embedding and head is spared.
    return [
        hidden_optimizer,
        torch.optim.AdamW(others, lr=rate, betas=betas, weight_decay=0.0),
    ]
