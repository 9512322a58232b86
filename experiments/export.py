"""Write a trained run in a form that other people's code loads.

    python -m experiments.export --run runs/demo --to timm
    python -m experiments.export --run runs/demo --to timm --image-size 64 --out encoder_64

timm and hf: the encoder as a folder of weights, config.json and a model card, which is the Hugging
Face Hub's layout as well: ``timm.create_model("local-dir:FOLDER", pretrained=True)``, or
``transformers.AutoModel``. safetensors: the whole model, for ``foveate.load_model(FOLDER)``. pt2
and onnx: the encoder as a graph of torch.export or ONNX, from images in [0, 1] to patch tokens.

No timm model reads a periphery: register tokens stand for it, of the mean over training images.
What that changes is measured on test images, printed, and said in the model card.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions
from experiments.training.image_sizes import ImageSizeOption

if TYPE_CHECKING:
    from experiments.runs import Run

FOR_TIMM = ("timm", "hf")
"""Exports that timm loads; only these have other image sizes, and no periphery."""
MEASURED = 256
"""Test images on which it is measured what a periphery was worth."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(EvaluationOptions):
    """Options of the export."""

    to: Literal["timm", "hf", "safetensors", "pt2", "onnx"] = "timm"
    """Form of the export; hf is the folder of timm, which the Hub and transformers read."""
    out: Path | None = None
    """Folder to write; None = NAME_timm and so on in the run folder, NAME being its own."""
    image_size: ImageSizeOption = None
    """Images that the timm model reads, SIDE or HxW pixels, to which positions are interpolated;
    None = the run's."""
    periphery_images: int = 1000
    """Training images whose mean periphery stands for that of every image (timm, hf); 0 = a gray
    image, which needs no data."""

    def __post_init__(self) -> None:
        if self.periphery_images < 0:
            raise ValueError(f"periphery_images must be at least 0, got {self.periphery_images}")
        if self.image_size is not None and self.to not in FOR_TIMM:
            raise ValueError(f"image_size has no effect with --to {self.to}; leave it out")

    @property
    def folder(self) -> Path:
        """Folder that is written."""
        if self.out is not None:
            return self.out
        return self.run / f"{self.run.resolve().name}_{self.to}"


def main(config: ExportConfig) -> None:
    """Export as configured, and say how the result is loaded."""
    from foveate import export

    run, folder = config.load(), config.folder
    match config.to:
        case "safetensors":
            export.export_safetensors(run.model, folder)
            load = f"foveate.load_model({str(folder)!r})"
        case "pt2":
            export.export_program(run.model, folder)
            load = f"torch.export.load({str(folder / export.PROGRAM)!r}).module()"
        case "onnx":
            export.export_onnx(run.model, folder)
            load = f"onnxruntime.InferenceSession({str(folder / export.ONNX)!r})"
        case _:
            export_for_timm(run, config)
            load = f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"
    print(f"written: {folder}\nload it with: {load}")


def export_for_timm(run: Run, config: ExportConfig) -> None:
    """Write the folder that timm loads, and say what it lacks."""
    import torch

    from foveate.export import export_timm, feature_error
    from foveate.model import to_timm

    about = [f"Trained by foveate on {run.data}, {run.iteration} iterations."]
    mean_of = None
    if run.model.config.periphery and config.periphery_images:
        train = run.split("train", config.periphery_images)
        mean_of = train.batch(torch.arange(len(train)), device=torch.device(run.device))
        test = run.split("test", MEASURED)
        images = test.batch(torch.arange(len(test)), device=torch.device(run.device))
        error = feature_error(run.model, to_timm(run.model, mean_of), images)
        about.append(
            f"Without the image's own periphery, patch features are {error:.1%} of their standard "
            f"deviation from those of the run ({len(test)} test images)."
        )
    size = config.image_size
    sides = (size, size) if isinstance(size, int) else size
    export_timm(run.model, config.folder, image_size=sides, periphery_of=mean_of, about=about)
    if run.model.config.periphery:
        print(about[-1] if mean_of is not None else "the periphery of a gray image stands for all")


if __name__ == "__main__":
    main_with_options(main, ExportConfig)
