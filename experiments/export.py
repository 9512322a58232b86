"""Write a trained run in a form that other people's code loads.

    python -m experiments.export --run runs/demo --to timm
    python -m experiments.export --run runs/demo --to timm --image-size 64 --out encoder_64

timm: the encoder as a folder of weights, config.json and a model card, which is the Hugging Face
Hub's layout as well: ``timm.create_model("local-dir:FOLDER", pretrained=True)``. hf: such a folder
that ``transformers.AutoModel`` reads too. safetensors: the whole model, for
``foveate.load_model(FOLDER)``. pt2 and onnx: the encoder as a graph of torch.export or ONNX, from
images in [0, 1] to patch tokens.

No timm model reads a periphery: register tokens stand for it, of the mean over training images.
What that changes is measured on test images, printed, and said in the model card; ``--probe`` adds
a linear probe of the run and of the export.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.cli import main_with_options
from experiments.evaluation.options import EvaluationOptions
from experiments.training.image_sizes import ImageSizeOption
from foveate.sizes import check_at_least

FOR_TIMM = ("timm", "hf")
"""Exports that timm loads; only these have other image sizes, and no periphery."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(EvaluationOptions):
    """Options of the export."""

    to: Literal["timm", "hf", "safetensors", "pt2", "onnx"] = "timm"
    """Form of the export; hf is a folder of timm's that transformers reads too."""
    out: Path | None = None
    """Folder to write; None = NAME_timm and so on in the run folder, NAME being its own."""
    image_size: ImageSizeOption = None
    """Images that the timm model reads, SIDE or HxW pixels, to which positions are interpolated;
    None = the run's."""
    periphery_images: int = 1000
    """Training images whose mean periphery stands for that of every image (timm, hf); 0 = a gray
    image, which needs no data."""
    probe: bool = False
    """Compare a linear probe of the export, loaded by timm alone, with one of the run's encoder
    that sees the same, and say what each image's own periphery adds (timm, hf); a minute."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "periphery_images")
        for name in ("image_size", "periphery_images", "probe"):
            if self.to not in FOR_TIMM and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} has no effect with --to {self.to}; leave it out")
        if self.probe and self.image_size is not None:
            raise ValueError("probe needs images of the run's size; leave out image_size")

    @property
    def folder(self) -> Path:
        """Folder that is written."""
        if self.out is not None:
            return self.out
        return self.run / f"{self.run.resolve().name}_{self.to}"


def main(config: ExportConfig) -> None:
    """Export as configured, and say how the result is loaded."""
    from foveate import export
    from foveate.forms import ONNX, PROGRAM

    run, folder = config.load(writes=config.out is None), config.folder
    match config.to:
        case "safetensors":
            export.export_safetensors(run.model, folder)
            load = f"foveate.load_model({str(folder)!r})"
        case "pt2":
            export.export_program(run.model, folder)
            load = f"torch.export.load({str(folder / PROGRAM)!r}).module()"
        case "onnx":
            export.export_onnx(run.model, folder)
            load = f"onnxruntime.InferenceSession({str(folder / ONNX)!r})"
        case _:
            from experiments.evaluation.exported import export_run

            size = config.image_size
            about = export_run(
                run,
                folder,
                image_size=(size, size) if isinstance(size, int) else size,
                periphery_images=config.periphery_images,
                probe=config.probe,
                for_transformers=config.to == "hf",
            )
            print("\n".join(about))
            load = f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"
            if config.to == "hf":
                load += f", or transformers.AutoModel.from_pretrained({str(folder)!r})"
    print(f"written: {folder}\nload it with: {load}")


if __name__ == "__main__":
    main_with_options(main, ExportConfig)
