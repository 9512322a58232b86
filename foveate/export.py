"""A trained model in forms that other people's code loads.

:func:`export_timm` writes the encoder as a folder for timm and the Hugging Face Hub,
:func:`export_safetensors` the whole model, :func:`export_program` and :func:`export_onnx` the
encoder as a graph that needs none of our code.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from foveate.checkpoint import save_model
from foveate.files import replacing
from foveate.forms import CONFIG, ONNX, PROGRAM, WEIGHTS
from foveate.model import AnyOrderTransformer, to_timm
from foveate.model.encoder import PatchEncoder
from foveate.model.timm_export import ARCHITECTURE, pretrained_cfg, timm_arguments
from foveate.model.untaught import copy_untaught
from foveate.model_card import model_card

CARD = "README.md"
"""The model card, by the name that the Hub looks for."""
MARK = "exported_by"
"""Key of an exported config that says that it is ours, so that it may be written again."""


def export_timm(
    model: AnyOrderTransformer,
    folder: Path | str,
    *,
    image_size: tuple[int, int] | None = None,
    periphery_of: Float[Tensor, "B C H W"] | None = None,
    about: Sequence[str] = (),
    for_transformers: bool = False,
) -> VisionTransformer:
    """Write the encoder as a folder that timm loads: weights, config.json and a model card.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it, and ``"hf-hub:USER/NAME"``
    once it is uploaded. The weights alone are what ``timm.create_model(..., checkpoint_path=...)``
    takes, as the card shows.

    Args:
        model: whose encoder is written.
        folder: where to; made if it is missing.
        image_size: height and width that the timm model reads, pixels; positions are interpolated
            (bicubic, timm's ``resample_abs_pos_embed``). None = those of the model.
        periphery_of: images in [0, 1] whose mean periphery stands for that of every image. None =
            a gray image, the zero of the model's units.
        about: sentences for the model card, such as what the model was trained on.
        for_transformers: whether ``transformers.AutoModel.from_pretrained`` reads the folder too.
            It gives timm the number of classes itself, which is then left out of ``model_args``.

    Returns:
        The model that was written, as timm loads it.

    Raises:
        ValueError: the encoder reads palette entries, patches do not divide the image size, or the
            folder cannot be written or holds files that are no earlier export.
    """
    config = model.config
    vit = to_timm(model, gray_image(model) if periphery_of is None else periphery_of)
    arguments = timm_arguments(config)
    if image_size is not None:
        check_divides(config.patch_size, image_size)
        vit.set_input_size(image_size)
        arguments["img_size"] = image_size
    reads = {**pretrained_cfg(model), "input_size": (config.in_chans, *vit.patch_embed.img_size)}
    object.__setattr__(vit, "pretrained_cfg", reads)
    written = {
        MARK: "foveate",
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": config.embed_dim,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": reads,
    }
    if for_transformers:
        del arguments["num_classes"]
    folder = _marked(Path(folder))
    _write(folder / WEIGHTS, safetensors.torch.save(_weights(vit), {"format": "pt"}))
    _write_json(folder / CONFIG, written)
    _write(folder / CARD, model_card(folder.name, reads, config, about).encode())
    return vit


def gray_image(model: PatchEncoder) -> Float[Tensor, "1 C H W"]:
    """Return the image that is zero in the units of a model."""
    mean = model.target.pixel_scale.mean
    return mean.view(1, -1, 1, 1).expand(-1, -1, *model.config.image_size)


def export_safetensors(model: AnyOrderTransformer, folder: Path | str) -> None:
    """Write the whole model, decoder and all, for :func:`foveate.load_model` of the folder.

    Raises:
        ValueError: the folder cannot be written, or holds files that are no earlier export.
    """
    folder = _marked(Path(folder))
    (folder / CARD).unlink(missing_ok=True)  # It would tell of timm.
    save_model(model, folder / WEIGHTS)
    _write_json(folder / CONFIG, {MARK: "foveate", "model_config": asdict(model.config)})


class PatchTokens(nn.Module):
    """From images in [0, 1] to the patch tokens of an encoder, all patches visible.

    Args:
        model: whose encoder it is.
        periphery_of: images whose mean periphery every image has in place of its own, as a timm
            export of the encoder has it; None = its own.
    """

    def __init__(
        self, model: PatchEncoder, periphery_of: Float[Tensor, "B C H W"] | None = None
    ) -> None:
        super().__init__()
        self.model, self.always = model, None
        if periphery_of is not None:
            with torch.no_grad():
                self.always = model.embed(periphery_of)[0].mean(0, keepdim=True)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """Return ``model.features(images)[-1]``, by operations that all graphs have."""
        model = self.model
        always, patches = model.embed(images)
        if self.always is not None:
            always = self.always.expand(images.shape[0], -1, -1)
        tokens = torch.cat([always, patches], dim=1)
        raster = torch.arange(model.num_patches, device=images.device)
        tokens = model.tell(tokens, raster.expand(images.shape[0], -1))
        return model.run_blocks(tokens, None)[-1][:, model.num_always :]


def to_program(model: AnyOrderTransformer) -> torch.export.ExportedProgram:
    """Return the encoder as a graph of torch.export, for batches of any number of images.

    It takes images in [0, 1], (B, C, H, W), and returns ``model.features(images)[-1]``. A periphery
    is kept.

    Raises:
        ValueError: the encoder reads palette entries.
    """
    config = model.config
    if config.reads_colors:
        raise ValueError(
            "the encoder reads palette entries, for which there is no graph; "
            "use model.features(images), or export safetensors"
        )
    # A graph keeps the device on which it was traced.
    traced = PatchTokens(copy_untaught(model).cpu()).eval()
    two = traced.model.periphery_position.new_zeros(2, config.in_chans, *config.image_size)
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(traced, (two,), dynamic_shapes={"images": {0: batch}})


def export_program(model: AnyOrderTransformer, folder: Path | str) -> None:
    """Write :func:`to_program` for ``torch.export.load``.

    Raises:
        ValueError: as of :func:`to_program`, or the folder cannot be written.
    """
    program = to_program(model)
    with replacing(prepared(Path(folder)) / PROGRAM) as file:
        torch.export.save(program, file)


def export_onnx(model: AnyOrderTransformer, folder: Path | str) -> None:
    """Write :func:`to_program` as ONNX: input ``images``, output ``tokens``.

    Raises:
        ValueError: as of :func:`to_program`, onnx or onnxscript is not installed, or the folder
            cannot be written.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"ONNX needs {' and '.join(missing)}, not installed; pip install onnx onnxscript"
        )
    path = prepared(Path(folder)) / ONNX
    program = torch.onnx.export(
        to_program(model),
        input_names=["images"],
        output_names=["tokens"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "an export by dynamo is a program"
    with replacing(path) as file:
        program.save(file.name)


@torch.no_grad()
def feature_error(
    model: AnyOrderTransformer,
    vit: VisionTransformer,
    images: Float[Tensor, "B C H W"],
    *,
    pooled: bool = False,
) -> float:
    """Return how far the patch tokens of an exported encoder are from the model's.

    Root mean square of the difference over the standard deviation of the model's tokens; 0 = equal,
    1 = as far as the mean of all tokens.

    Args:
        model: whose encoder was exported.
        vit: the export.
        images: pixels in [0, 1].
        pooled: measure the mean over the patches of each image, as a probe reads it. Its deviation
            is that between images alone, and much smaller: patches differ above all by place.
    """
    own = model.features(images)[-1]
    exported = vit.forward_features(model.normalize(images))[:, vit.num_prefix_tokens :]
    if pooled:
        own, exported = own.mean(1, keepdim=True), exported.mean(1, keepdim=True)
    spread = (own - own.mean((0, 1))).square().mean()
    return float(((own - exported).square().mean() / spread).sqrt())


def check_divides(patch_size: int, image_size: tuple[int, int]) -> None:
    """Raise ValueError unless patches divide an image size."""
    if min(image_size) < patch_size or any(side % patch_size for side in image_size):
        height, width = image_size
        raise ValueError(
            f"image_size must be multiples of the patch size {patch_size}, got {height}x{width}"
        )


def prepared(folder: Path) -> Path:
    """Make a folder, or check that what it holds may be written over.

    Raises:
        ValueError: it cannot be made, or holds files that are no earlier export.
    """
    ours = folder / CONFIG
    names = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    # One that was killed left its part behind.
    graphs = {f"{name}{end}" for name in (PROGRAM, ONNX) for end in ("", ".partial")}
    if names - graphs and not (ours.is_file() and MARK in ours.read_text("utf-8", "replace")):
        raise ValueError(f"{folder} holds files that are no export of foveate; choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise ValueError(f"cannot write to {folder} ({reason.strerror})") from reason
    return folder


def _marked(folder: Path) -> Path:
    """Prepare a folder for weights; it is marked as ours before they are there.

    Else an export that is cut off after them would lock its folder.
    """
    if not (prepared(folder) / CONFIG).is_file():
        _write_json(folder / CONFIG, {MARK: "foveate"})
    return folder


def _weights(vit: VisionTransformer) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in vit.state_dict().items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
