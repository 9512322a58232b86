"""The measurements behind ``experiments.read``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from agents.baselines import scan_with
from experiments.evaluation.compare import mean_interval
from experiments.runs import git_commit, load_run, read_manifest, write_result
from experiments.training.build import load_captions, set_threads
from foveate.data.captions import BACKGROUND, Vocabulary
from foveate.orders import ordering, rank_to_order

if TYPE_CHECKING:
    from experiments.read import ReadConfig

SHOWN = 3
"""Images whose sentences are printed."""


def read(config: ReadConfig) -> dict[str, object]:
    """Write sentences at the policy's fixations and at random points; print and write read.json."""
    set_threads(config.threads)
    run, manifest = load_run(config.run, config.device), read_manifest(config.run)
    model = run.model
    if not model.config.vocabulary:
        raise ValueError(
            f"the model in {config.run} writes no words; train one with: "
            "python -m experiments.train git"
        )
    tracks = config.tracks
    if tracks >= model.num_patches:
        raise ValueError(
            f"tracks must be less than the {model.num_patches} patches of an image, got {tracks}"
        )
    test = run.split("test", config.limit)
    captions = load_captions(run.config, test, "test")
    vocabulary = Vocabulary(model.config.vocabulary)
    sentences = vocabulary.encode(captions.sentences)
    images = test.batch(torch.arange(len(test)), device=config.device)
    generator = torch.Generator().manual_seed(config.seed)
    random = rank_to_order(ordering("random", model.grid)(images, generator=generator))
    anchors = {
        "policy": scan_with(run.agent, model, images, tracks),
        "random": random[:, :tracks],
    }
    background = None
    if BACKGROUND in captions.sentences:
        background = captions.sentences.index(BACKGROUND)
    rows: dict[str, dict[str, object]] = {}
    print(f"{'points':<10}{'sentences right':>32}{'most of an image right':>32}")
    for name, points in anchors.items():
        number = captions.number.gather(1, points.cpu())
        wanted = sentences[number].to(points.device)
        parts = zip(images.split(100), points.split(100), strict=True)
        written = torch.cat([model.reader.read(model, part, at) for part, at in parts])
        right = same_sentence(written, wanted)
        about_image = number != background if background is not None else number >= 0
        named = right_in_most(right, about_image)
        row: dict[str, object] = {}
        cells = []
        for what, hits in (("sentences", right.float().mean(1)), ("images", named.float())):
            # Over images: the tracks of one image are not independent.
            share, (low, high) = mean_interval(hits.numpy())
            row |= {what: share, f"{what}_ci95": (low, high)}
            cells.append(f"{share:.3f} [{low:.3f}, {high:.3f}]")
        rows[name] = row
        print(f"{name:<10}{cells[0]:>32}{cells[1]:>32}")
        for image in range(min(SHOWN, len(test))):
            pairs = zip(written[image], wanted[image], strict=True)
            said = [f"{vocabulary.decode(w)} ({vocabulary.decode(t)})" for w, t in pairs]
            print(f"    image {image}: {'; '.join(said[:4])}")
    result: dict[str, object] = {
        "kind": "read",
        "points": rows,
        "tracks": tracks,
        "test_images": len(test),
        "train_seconds": manifest.get("train_seconds"),
        "data": Path(run.config.data.data).name,
        "seed": run.config.run.seed,
        "commit": git_commit(),
    }
    write_result(config.run / "read.json", result, run, config)
    print(f"written: {config.run / 'read.json'}")
    return result


def same_sentence(
    written: Int[Tensor, "B K L"], wanted: Int[Tensor, "B K M"]
) -> Bool[Tensor, "B K"]:
    """Whether all words up to the end of the wanted sentence were written."""
    length = wanted.shape[2]
    return ((written[:, :, :length] == wanted) | (wanted < 0)).all(-1)


def right_in_most(
    right: Bool[Tensor, "B K"], about_image: Bool[Tensor, "B K"]
) -> Bool[Tensor, "B"]:
    """Whether most tracks are right, of those that say something of the image (no background).

    An image none of whose tracks does is wrong.
    """
    return (right & about_image).sum(1) * 2 > about_image.sum(1)
