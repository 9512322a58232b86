"""Fine-tuning by fixations: what has been seen decides, and nothing else."""

from __future__ import annotations

import pytest
import torch
from telling import TELLING, telling_set

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.probes.finetuning import FineTuneConfig
from foveate.probes.recognizer import Recognizer, fine_tune_by_fixations, named_classes

HOW = FineTuneConfig(epochs=12, learning_rates=(0.01,), batch_size=32)


@pytest.fixture
def blind() -> AnyOrderTransformer:
    torch.manual_seed(0)
    config = ModelConfig(
        image_size=(6, 8), in_chans=1, patch_size=2, embed_dim=16, depth=1, num_heads=2, periphery=0
    )
    return AnyOrderTransformer(config).eval()


def test_the_class_is_known_from_the_fixation_on_that_shows_it(
    blind: AnyOrderTransformer,
) -> None:
    """The second of three; chance is a half. The model itself stays as it is."""
    train, test = telling_set(400, 0), telling_set(200, 1)
    order = torch.tensor([[0, TELLING, 9]])
    before = {name: weight.clone() for name, weight in blind.state_dict().items()}
    result = fine_tune_by_fixations(
        blind, train, test, order.expand(400, -1), order.expand(200, -1), (0, 1, 2, 3), HOW, 0
    )
    assert list(result) == [0, 1, 2, 3]
    assert result[0].accuracy == 0.5, "before the first fixation there is nothing to go by"
    assert result[1].ci95 is not None
    assert result[1].ci95[0] < 0.5 < result[1].ci95[1]
    assert min(result[2].accuracy, result[3].accuracy) > 0.95
    assert result[2].validation_accuracy > 0.9
    assert result[2].learning_rate == 0.01
    assert all(torch.equal(before[name], weight) for name, weight in blind.state_dict().items())


def test_each_number_of_fixations_reads_its_own_prefix(blind: AnyOrderTransformer) -> None:
    """Of patches and of segments: a longer scan changes no earlier answer."""
    torch.manual_seed(0)
    recognizer = Recognizer(blind, 3, (1, 2))
    images = torch.rand(4, 1, 6, 8)
    order = torch.rand(4, 12).argsort(1)
    for scan in (order[:, :3], order.view(4, 6, 2)[:, :3]):
        both = recognizer(images, scan)
        recognizer.after = (1,)
        torch.testing.assert_close(recognizer(images, scan[:, :1]), both[:, :1])
        recognizer.after = (1, 2)
    both[:, 1].sum().backward()
    assert any(w.grad is not None and w.grad.any() for w in blind.encoder.blocks.parameters())
    assert named_classes(recognizer, telling_set(4, 0), order).shape == (4, 2)


@pytest.mark.parametrize(
    ("after", "how", "message"),
    [
        ((1, 4), HOW, r"fixations must lie in 0\.\.3, the length of the scans, got 1 4"),
        ((), HOW, "got none"),
        ((1,), FineTuneConfig(generative_weight=1.0), "leave it out"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(
    after: tuple[int, ...], how: FineTuneConfig, message: str, blind: AnyOrderTransformer
) -> None:
    data, order = telling_set(40, 0), torch.tensor([[0, 1, 2]] * 40)
    with pytest.raises(ValueError, match=message):
        fine_tune_by_fixations(blind, data, data, order, order, after, how, 0)
