"""Teachers: frozen or following, on the student's grid, with clear complaints."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan
from foveate.model.teachers import (
    AverageTeacher,
    TimmTeacher,
    attach_teacher,
    make_teacher,
    teacher_dim,
)
from foveate.model.untaught import copy_untaught


def student() -> AnyOrderTransformer:
    torch.manual_seed(0)
    return AnyOrderTransformer(
        ModelConfig(image_size=(8, 8), patch_size=2, embed_dim=16, depth=2, num_heads=2)
    )


def student_of_features() -> AnyOrderTransformer:
    return AnyOrderTransformer(replace(student().config, target="features", feature_dim=16))


def without_error_head(model: AnyOrderTransformer) -> dict[str, Tensor]:
    return {name: each for name, each in model.state_dict().items() if "error_head" not in name}


def test_the_average_follows_the_student_by_its_decay() -> None:
    model = student()
    teacher = AverageTeacher(model, decay=0.75)
    before = model.encoder.blocks[0].mlp.fc1.weight.detach().clone()
    teacher.update(model)  # The first update takes the student as it is.
    with torch.no_grad():
        model.encoder.blocks[0].mlp.fc1.weight.add_(1.0)
    teacher.update(model)
    averaged = teacher.state_dict()["module.encoder.blocks.0.mlp.fc1.weight"]
    torch.testing.assert_close(averaged, before + 0.25)


def test_own_features_are_those_of_the_weights_as_they_are() -> None:
    model, images = student(), torch.rand(4, 1, 8, 8)
    teacher = make_teacher("own", model)
    for _ in range(2):
        with torch.no_grad():
            model.encoder.blocks[0].mlp.fc1.weight.mul_(2.0)
        teacher.update(model)
    torch.testing.assert_close(teacher(images), make_teacher("own", model)(images))


def test_its_features_are_standardized_and_without_gradient() -> None:
    features = AverageTeacher(student())(torch.rand(4, 1, 8, 8))
    assert not features.requires_grad
    torch.testing.assert_close(features.mean((0, 1)), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std((0, 1)), torch.ones(16), atol=1e-3, rtol=0)


def test_in_scans_features_are_standardized_by_the_reference_of_the_weights_of_now() -> None:
    model, reference = student(), torch.rand(8, 1, 8, 8)
    teacher = AverageTeacher(model, decay=0.0, reference=reference)
    before = teacher.of_each(reference)
    torch.testing.assert_close(before, teacher(reference))
    torch.testing.assert_close(teacher.of_each(reference[:1]), before[:1])
    teacher(torch.zeros(2, 1, 8, 8))  # Training batches leave no trace.
    torch.testing.assert_close(teacher.of_each(reference[:1]), before[:1])
    for _ in range(2):
        with torch.no_grad():
            model.encoder.blocks[0].mlp.fc1.weight.mul_(3.0)
        teacher.update(model)
    torch.testing.assert_close(teacher.of_each(reference), teacher(reference))
    loaded = AverageTeacher(model)
    loaded.load_state_dict(teacher.state_dict())
    assert torch.equal(loaded.of_each(reference), teacher.of_each(reference))


def test_a_state_without_moments_loads_but_scans_nothing() -> None:
    images, teacher = torch.rand(2, 1, 8, 8), AverageTeacher(student())
    old = {name: value for name, value in teacher.average.state_dict().items()}
    teacher.load_state_dict(old)
    assert teacher.state_dict().keys() == old.keys()
    with pytest.raises(ValueError, match="knows no mean and deviation of its features"):
        teacher.of_each(images)


def test_a_teacher_is_attached_to_models_of_features_of_its_width() -> None:
    pixels = student()
    with pytest.raises(ValueError, match="target='pixels' has no teacher"):
        attach_teacher(pixels, AverageTeacher(pixels))
    model = AnyOrderTransformer(replace(pixels.config, target="features", feature_dim=8))
    with pytest.raises(ValueError, match="predicts 8 features, the teacher has 16"):
        attach_teacher(model, AverageTeacher(pixels))


def test_a_checkpoint_of_features_from_before_errors_were_expected_loads() -> None:
    """It expects the same error everywhere."""
    model = student_of_features()
    model.load_state_dict(without_error_head(model))
    log_error = Scan.start(model, torch.rand(2, 1, 8, 8), 3).predict().log_error
    assert log_error is not None
    assert log_error.eq(0).all()


def test_a_checkpoint_of_pixels_needs_its_error_head() -> None:
    model = student()
    with pytest.raises(RuntimeError, match="error_head"):
        model.load_state_dict(without_error_head(model))


def test_a_model_is_pickled_with_its_average_teacher() -> None:
    model, images = student_of_features(), torch.rand(4, 1, 8, 8)
    attach_teacher(model, AverageTeacher(model, decay=0.75, reference=images))
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.targets(images), model.targets(images))
    for each in (model, again):
        for _ in range(2):  # Its average goes on, and by the same decay.
            with torch.no_grad():
                each.encoder.blocks[0].mlp.fc1.weight.mul_(2.0)
            each.target.teacher.update(each)
    assert torch.equal(again.targets(images), model.targets(images))


class Module(nn.Module):
    """A teacher that is a module."""

    feature_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))

    def of_each(self, images: Tensor) -> Tensor:
        return self.weight.expand(len(images), 16, 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.of_each(images)

    def update(self, student: nn.Module) -> None:
        """Stay as it is."""


def test_a_teacher_is_no_part_of_the_model_nor_of_its_untaught_copies() -> None:
    model = student_of_features()
    before = model.state_dict().keys()
    teacher = Module()
    attach_teacher(model, teacher)
    assert model.state_dict().keys() == before
    assert copy_untaught(model).target.teacher is None
    assert AverageTeacher(model).average.module.target.teacher is None
    assert model.target.teacher is teacher
    attach_teacher(model, AverageTeacher(student()))
    assert not isinstance(model.target.teacher, Module)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_timm_models_teach_on_the_students_grid(name: str) -> None:
    teacher = TimmTeacher(name, (4, 4), pretrained=False)
    features = teacher(torch.rand(2, 1, 8, 8))
    assert features.shape == (2, 16, teacher_dim(name, 16))
    assert teacher.feature_dim == teacher_dim(name, 16)


def test_an_unknown_teacher_is_named() -> None:
    with pytest.raises(ValueError, match="timm has no model 'vit_none' to teach with"):
        make_teacher("vit_none", student())
    with pytest.raises(ValueError, match=r"no weights 'resnet18\.none'; there are"):
        teacher_dim("resnet18.none", 16)
    with pytest.raises(ValueError, match="'mixer_s32_224' cannot be laid out on a grid"):
        TimmTeacher("mixer_s32_224", (4, 4), pretrained=False)
    assert teacher_dim("average", 16) == 16


def test_weights_that_cannot_be_had_get_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(ValueError, match="no weights for the teacher 'resnet18'"):
        TimmTeacher("resnet18", (4, 4))
