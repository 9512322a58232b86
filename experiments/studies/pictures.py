"""Scans of a few test images as a page shows them: the image, what was opened, what was predicted.

Predictions after 0, 1, ... T fixations lie side by side in one picture, of which a page shows a
window.
"""

from __future__ import annotations

import base64
from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from experiments.evaluation.draw import names_of
from experiments.evaluation.recognition.paths import scan_of
from experiments.runs import Run
from experiments.studies.answers import Picture
from foveate.orders.ranks import as_segments


def pictures_of(run: Run, number: int) -> list[Picture]:
    """Scan the first test images, by the policy if one learned and else at random.

    Args:
        run: its model can be scanned.
        number: of images.
    """
    test = run.split("test", number)
    images = test.batch(torch.arange(len(test)), device=torch.device(run.device))
    order = "policy" if run.policy_has_learned else "random"
    path = scan_of(run, order)(images)
    errors = run.model.error_curve(images, path).tolist()
    draws = run.model.config.predicts_pixels
    canvas = run.model.reconstructions(images, path).cpu() if draws else [None] * len(images)
    segments = as_segments(path)
    names = names_of(test) or [""] * len(images)
    return [
        Picture(
            label=names[row],
            order=order,
            size=(images.shape[2], images.shape[3]),
            patch_px=run.model.config.patch_size,
            opened=[[p for p in step if p >= 0] for step in segments[row].tolist()],
            errors=[round(error, 4) for error in errors[row]],
            image=data_uri(images[row].cpu()),
            predictions=None if (drawn := canvas[row]) is None else data_uri(side_by_side(drawn)),
        )
        for row in range(len(images))
    ]


def side_by_side(pictures: Float[Tensor, "S C H W"]) -> Float[Tensor, "C H SW"]:
    """Lay pictures side by side."""
    return torch.cat(list(pictures), dim=2)


def data_uri(pixels: Float[Tensor, "C H W"]) -> str:
    """Write pixels in [0, 1] as a PNG in a data URI: in color if there are three channels."""
    channels = pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)
    values = (channels.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8)
    file = BytesIO()
    Image.fromarray(values.numpy()).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
