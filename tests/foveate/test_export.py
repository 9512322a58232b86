"""What is exported gives the features of the model to other people's loaders, and comes back."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from foveate import load_model
from foveate.export import (
    PatchTokens,
    export_onnx,
    export_program,
    export_safetensors,
    export_timm,
    feature_error,
    prepared,
    to_program,
)
from foveate.model import AnyOrderTransformer, to_timm
from foveate.model.timm_import import read_timm, start_from_timm
from foveate.recipes import RECIPES

SIZES = {"image_size": (6, 8), "in_chans": 3, "patch_size": 2, "embed_dim": 16, "num_heads": 2}


def made(recipe: str = "foveate", **options: object) -> AnyOrderTransformer:
    """A small model whose weights are far from zero."""
    torch.manual_seed(0)
    config = RECIPES[recipe].model_config(depth=2, **{**SIZES, **options})
    model = AnyOrderTransformer(config).eval()
    for weight in model.encoder.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return model


def by_timm(vit: torch.nn.Module, images: Tensor) -> Tensor:
    """Patch tokens of what timm loaded, by nothing but what timm knows of it."""
    assert isinstance(vit, VisionTransformer)
    read_as = timm.data.resolve_model_data_config(vit)
    mean, deviation = (torch.tensor(read_as[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return vit.forward_features((images - mean) / deviation)[:, vit.num_prefix_tokens :]


def from_config(folder: Path) -> torch.nn.Module:
    config = json.loads((folder / "config.json").read_text())
    return timm.create_model(
        config["architecture"],
        checkpoint_path=folder / "model.safetensors",
        pretrained_cfg=config["pretrained_cfg"],
        **config["model_args"],
    )


@pytest.mark.parametrize("units", ["centered", "imagenet"])
@pytest.mark.parametrize("recipe", ["foveate", "igpt_patch"])
def test_timm_alone_gives_the_features(recipe: str, units: str, tmp_path: Path) -> None:
    model, images = made(recipe, pixel_units=units), torch.rand(2, 3, 6, 8)
    export_timm(model, tmp_path / "encoder")
    expected = model.features(images)[-1]
    for vit in (
        timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True),
        from_config(tmp_path / "encoder"),
    ):
        torch.testing.assert_close(by_timm(vit.eval(), images), expected, atol=1e-5, rtol=0)
        pooled = vit(model.normalize(images))
        torch.testing.assert_close(pooled, expected.mean(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("recipe", ["foveate", "igpt_patch"])
def test_a_periphery_is_exact_where_the_image_has_the_exported_one(recipe: str) -> None:
    model, images = made(recipe, periphery=2), torch.rand(2, 3, 6, 8)
    vit = to_timm(model, images[:1])
    own = model.features(images)[-1]
    torch.testing.assert_close(by_timm(vit, images)[:1], own[:1], atol=1e-5, rtol=0)
    assert feature_error(model, vit, images[:1]) < 1e-5
    assert 1e-3 < feature_error(model, vit, images[1:]) < 1
    alike = PatchTokens(model, images[:1])(images)
    torch.testing.assert_close(by_timm(vit, images), alike, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_error_of_pooled_features_is_over_the_spread_between_images() -> None:
    model, images = made(periphery=2), torch.rand(4, 3, 6, 8)
    vit = to_timm(model, images[:1])
    own, exported = model.features(images)[-1].mean(1), by_timm(vit, images).mean(1)
    spread = (own - own.mean(0)).square().mean()
    expected = ((own - exported).square().mean() / spread).sqrt()
    assert feature_error(model, vit, images, pooled=True) == pytest.approx(float(expected), 1e-4)
    assert feature_error(model, vit, images, pooled=True) > feature_error(model, vit, images)


def test_a_head_and_another_image_size_are_timms_affair(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    export_timm(made(periphery=2), folder)
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5, img_size=(12, 8))
    assert vit(torch.rand(1, 3, 12, 8)).shape == (1, 5)


def test_a_folder_for_transformers_is_one_for_timm_too(tmp_path: Path) -> None:
    """transformers' TimmWrapperModel gives timm the number of classes, and model_args."""
    model, folder, images = made(periphery=2), tmp_path / "encoder", torch.rand(2, 3, 6, 8)
    vit = export_timm(model, folder, for_transformers=True)
    config = json.loads((folder / "config.json").read_text())
    wrapped = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
    wrapped.load_state_dict(load_file(folder / "model.safetensors"))
    again = timm.create_model(f"local-dir:{folder}", pretrained=True)
    for each in (wrapped, again):
        torch.testing.assert_close(each.eval()(images), vit(images), atol=1e-6, rtol=0)
    transformers = pytest.importorskip("transformers")
    found = transformers.AutoModel.from_pretrained(folder)(images)
    torch.testing.assert_close(found.pooler_output, vit(images), atol=1e-6, rtol=0)


def test_positions_are_interpolated_as_timm_does_it(tmp_path: Path) -> None:
    model, small, large = made(), tmp_path / "small", tmp_path / "large"
    export_timm(model, small)
    export_timm(model, large, image_size=(12, 20))
    by_us = timm.create_model(f"local-dir:{large}", pretrained=True)
    by_them = timm.create_model(f"local-dir:{small}", pretrained=True, img_size=(12, 20))
    assert by_us.pretrained_cfg["input_size"] == (3, 12, 20)
    torch.testing.assert_close(by_us.state_dict(), by_them.state_dict(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="multiples of the patch size 2, got 12x19"):
        export_timm(model, large, image_size=(12, 19))


def test_timms_own_transforms_read_pictures_as_the_model_does(
    tmp_path: Path,
) -> None:
    model = made(pixel_units="imagenet")
    pixels = torch.randint(256, (6, 8, 3), dtype=torch.uint8)
    export_timm(model, tmp_path / "encoder")
    vit = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True).eval()
    read = timm.data.create_transform(**timm.data.resolve_model_data_config(vit))
    pooled = vit(read(Image.fromarray(pixels.numpy()))[None])
    images = pixels.permute(2, 0, 1)[None] / 255
    expected = model.features(images)[-1].mean(1)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_on_the_model_card_runs(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "red").save("photo.jpg")
    export_timm(made(in_chans=channels, periphery=1), "encoder", about=["Trained on dogs."])
    card = Path("encoder/README.md").read_text()
    assert "Trained on dogs." in card
    assert "periphery of 1x1" in card
    scope: dict[str, Tensor] = {}
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(block, scope)
    assert scope["pooled"].shape == (1, 16)
    torch.testing.assert_close(scope["tokens"].mean(1), scope["pooled"])


def test_safetensors_come_back_whole(tmp_path: Path) -> None:
    model = made(periphery=2)
    export_safetensors(model, tmp_path / "whole")
    again = load_model(tmp_path / "whole")
    assert again.config == model.config
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)


def test_a_whole_model_may_lie_beside_a_graph_of_its_encoder(tmp_path: Path) -> None:
    export_safetensors(made(), tmp_path)
    (tmp_path / "encoder.pt2").touch()
    assert load_model(tmp_path).config == made().config


def test_what_a_killed_export_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "encoder.pt2.partial").touch()
    assert prepared(tmp_path) == tmp_path


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no export of foveate; choose another"):
        export_timm(made(), tmp_path)
    assert (tmp_path / "config.json").read_text() == "{}"
    for export in (export_timm, export_safetensors, export_timm):
        export(made(), tmp_path / "twice")


@pytest.mark.parametrize("recipe", ["foveate", "igpt_patch", "mae"])
def test_a_program_takes_any_batch(recipe: str, tmp_path: Path) -> None:
    model = made(recipe, periphery=2 * (recipe == "foveate"))
    export_program(model, tmp_path)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for number in (1, 5):
        images = torch.rand(number, 3, 6, 8)
        expected = model.features(images)[-1]
        torch.testing.assert_close(program(images), expected, atol=1e-4, rtol=0)


def test_onnx_takes_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = made(periphery=2)
    export_onnx(model, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    for number in (1, 5):
        images = torch.rand(number, 3, 6, 8)
        (tokens,) = session.run(["tokens"], {"images": images.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(tokens), model.features(images)[-1].detach(), atol=1e-4, rtol=0
        )


def test_a_palette_is_refused() -> None:
    model = made("igpt")
    with pytest.raises(ValueError, match="palette entries, for which there is no graph"):
        to_program(model)


@pytest.mark.parametrize("place", ["", "encoder.pt2"])
def test_a_graph_is_called_one_and_says_what_loads_it(place: str, tmp_path: Path) -> None:
    export_program(made(), tmp_path)
    loaded_by = re.escape(f"torch.export.load('{tmp_path / 'encoder.pt2'}').module()")
    with pytest.raises(ValueError, match=f"as a graph of torch.export, for {loaded_by}.*--to safe"):
        load_model(tmp_path / place)


def test_an_encoder_of_timm_is_called_one_and_says_what_loads_it(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    export_timm(made(), folder)
    for path in (folder, folder / "model.safetensors"):
        with pytest.raises(ValueError, match=r"for timm, for timm\.create_model\('local-dir:"):
            load_model(path)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"weights of timm's, for .*checkpoint_path"):
        load_model(folder / "model.safetensors")


def test_a_path_to_nothing_is_called_so() -> None:
    with pytest.raises(
        ValueError, match=r"nowhere: the path does not exist; .*that ships .scenes, "
    ):
        load_model("nowhere")


# --- and back


@pytest.mark.parametrize(
    ("recipe", "periphery"), [("foveate", 0), ("foveate", 2), ("igpt_patch", 0), ("igpt_patch", 2)]
)
def test_an_exported_encoder_comes_back(recipe: str, periphery: int, tmp_path: Path) -> None:
    model = made(recipe, periphery=periphery)
    export_timm(model, tmp_path / "encoder")
    torch.manual_seed(1)
    other = AnyOrderTransformer(model.config).eval()
    start_from_timm(other, read_timm(tmp_path / "encoder"), "encoder")
    images = torch.rand(2, 3, 6, 8)
    torch.testing.assert_close(
        other.features(images)[-1], model.features(images)[-1], atol=1e-5, rtol=0
    )


def test_pixel_units_of_others_are_rescaled(tmp_path: Path) -> None:
    model, images = made(pixel_units="imagenet"), torch.rand(2, 3, 6, 8)
    export_timm(model, tmp_path / "encoder")
    other = AnyOrderTransformer(replace(model.config, pixel_units="centered")).eval()
    start_from_timm(other, read_timm(tmp_path / "encoder" / "model.safetensors"), "encoder")
    torch.testing.assert_close(
        other.features(images)[-1], model.features(images)[-1], atol=1e-5, rtol=0
    )


def test_an_encoder_of_another_activation_is_refused(tmp_path: Path) -> None:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    other = {**sizes, "act_layer": "relu"}
    vit = timm.create_model("vit_tiny_patch16_224", **other)
    timm.models.save_for_hf(vit, tmp_path, model_args=other)
    with pytest.raises(ValueError, match="MLPs with ReLU; foveate's have exact GELU"):
        read_timm(tmp_path)


def test_a_graph_has_the_precision_of_its_model() -> None:
    model, images = (
        made().double(),
        torch.rand(3, made().config.in_chans, *made().config.image_size).double(),
    )
    found = to_program(model).module()(images)
    torch.testing.assert_close(found, model.features(images)[-1])


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    export_timm(made(), tmp_path / "encoder")
    found = read_timm(tmp_path / "encoder")
    for changed, complaint in (
        ({"embed_dim": 32}, r"cls_token of 1x1x16, not 1x1x32.*--embed-dim"),
        ({"depth": 3}, r"no blocks\.2\.norm1\.weight"),
        ({"num_heads": 4}, "2 attention heads, not 4"),
        ({"periphery": 1}, "0 register tokens, the model has a periphery of 1"),
        ({"image_size": (16, 4)}, "3 x 4 patches, not 8 x 2"),
    ):
        config = replace(made().config, **changed)
        with pytest.raises(ValueError, match=complaint):
            start_from_timm(AnyOrderTransformer(config), found, "encoder")


def test_an_export_that_was_cut_off_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ValueError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("foveate.export.model_card", full)
        patched.setattr("foveate.export.save_model", full)
        for export in (export_timm, export_safetensors):
            with pytest.raises(ValueError, match="the disk is full"):
                export(made(), tmp_path / export.__name__)
    export_timm(made(), tmp_path / "export_timm")
    export_safetensors(made(), tmp_path / "export_safetensors")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="no export of foveate; choose another"):
        export_safetensors(made(), tmp_path)
