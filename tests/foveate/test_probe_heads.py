"""Probes by gradient descent, fine-tuning included: they learn, from their seed, in copies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations
from foveate.probes import knn_probe, linear_probe
from foveate.probes.attentive import (
    AttentiveHead,
    attentive_probe,
    frozen_tokens,
    token_bytes,
)
from foveate.probes.finetuning import (
    Classifier,
    FineTuneConfig,
    fine_tune,
    fine_tune_probe,
    layer_decay_groups,
)
from foveate.probes.heads import descend, sgd_probe


@pytest.fixture(scope="module")
def needle() -> tuple[Tensor, np.ndarray, Tensor, np.ndarray]:
    """Eight tokens: a marked one says the class, the others each say a random one."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (900, 8), generator=generator)
    place = torch.randint(0, 8, (900,), generator=generator)
    marked = F.one_hot(place, 8).unsqueeze(-1)
    noise = torch.randn(900, 8, 4, generator=generator)
    tokens = 2 * torch.cat([F.one_hot(classes, 3), marked], dim=-1) + 0.3 * noise
    labels = classes[torch.arange(900), place].numpy()
    return tokens[:600], labels[:600], tokens[600:], labels[600:]


def attend(
    train_x: Tensor, train_y: np.ndarray, test_x: Tensor, test_y: np.ndarray, epochs: int = 8
) -> float:
    read = train_x.__getitem__, test_x.__getitem__
    return attentive_probe(
        read[0], train_y, read[1], test_y, num_heads=2, seed=0, epochs=epochs
    ).accuracy


@pytest.fixture(scope="module")
def stripes() -> ImageSet:
    """Bright rows or bright columns, in noise: two classes of 6 x 8 pixels, two channels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    pixels = torch.randint(0, 100, (80, 2, 6, 8), generator=generator)
    pixels[labels == 0, :, ::2] += 150
    pixels[labels == 1, :, :, ::2] += 150
    return ImageSet(pixels.to(torch.uint8), labels, ("rows", "columns"), "stripes")


def test_attention_finds_the_token_that_carries_the_class(
    needle: tuple[Tensor, np.ndarray, Tensor, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.probes.heads.BATCH_SIZE", 64)  # More steps in as many epochs.
    train_x, train_y, test_x, test_y = needle
    assert attend(*needle) > 0.95
    pooled = linear_probe(train_x.mean(1).numpy(), train_y, test_x.mean(1).numpy(), test_y, seed=0)
    assert pooled.accuracy < 0.75
    shuffled = np.random.default_rng(1).permutation(train_y)
    assert attend(train_x, shuffled, test_x, test_y, epochs=4) < 0.5


def test_the_attentive_head_is_multi_head_attention_with_one_query() -> None:
    torch.manual_seed(0)
    head, tokens = AttentiveHead(8, 3, num_heads=2).eval(), torch.randn(5, 7, 8)
    torch.nn.init.normal_(head.query)
    head.norm.running_mean, head.norm.running_var = torch.randn(8), torch.rand(8) + 0.5
    normed = head.norm(tokens.flatten(0, 1)).view_as(tokens)
    keys, values = (
        part(normed).unflatten(-1, (2, 4)).transpose(1, 2) for part in (head.key, head.value)
    )
    query = head.query.view(1, 2, 1, 4).expand(5, -1, -1, -1)
    attended = F.scaled_dot_product_attention(query, keys, values).flatten(1)
    torch.testing.assert_close(head(tokens), head.linear(attended))


def test_tokens_are_the_same_kept_and_recomputed(
    model: AnyOrderTransformer, stripes: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.probes.attentive.IMAGES_AT_ONCE", 30)
    index = torch.tensor([71, 3, 3])
    kept = frozen_tokens(model, stripes, 0)(index)
    again = frozen_tokens(model, stripes, 0, max_bytes=0)(index)
    assert kept.dtype == again.dtype == torch.float16
    torch.testing.assert_close(kept, again, atol=2e-3, rtol=2e-3)
    expected = model.features(stripes.batch(index))[0]
    torch.testing.assert_close(kept.float(), expected, atol=2e-3, rtol=2e-3)
    assert token_bytes(model, 3) == kept.nbytes


def test_learning_rates_rise_and_fall_and_no_batch_is_of_one_image() -> None:
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=2.0)
    rates, sizes = [], []

    def loss(batch: Tensor) -> Tensor:
        rates.append(optimizer.param_groups[0]["lr"])
        sizes.append(len(batch))
        return weight.square()

    descend(optimizer, loss, torch.arange(9), epochs=10, batch_size=4, generator=torch.Generator())
    assert sizes == [3] * 30
    decay = [1 + math.cos(math.pi * step / 30) for step in range(30)]
    assert rates == pytest.approx([2 / 3, 4 / 3, *decay[2:]])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_layer_decay_by_hand(model: AnyOrderTransformer) -> None:
    classifier = Classifier(model, 3, "full")
    groups = layer_decay_groups(classifier, learning_rate=8.0, layer_decay=0.5, weight_decay=0.1)
    group_of = {id(p): group for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(classifier.parameters()))
    encoder, decoder = model.encoder, next(model.decoder.parameters())
    assert encoder.pos_embed is not None
    for parameter, rate, decay in (
        (classifier.head.weight, 8, 0.1),
        (classifier.head.bias, 8, 0),
        (decoder, 8, 0),
        (encoder.norm.weight, 8, 0),
        (model.encoder_blocks()[1].mlp.fc1.weight, 4, 0.1),
        (model.encoder_blocks()[0].mlp.fc1.weight, 2, 0.1),
        (encoder.patch_embed.proj.weight, 1, 0.1),
        (encoder.pos_embed, 1, 0),
        (model.periphery_position, 1, 0),
    ):
        group = group_of[id(parameter)]
        assert (group["lr"], group["weight_decay"]) == (rate, decay)


def test_fine_tuning_learns_in_a_copy(model: AnyOrderTransformer, stripes: ImageSet) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = FineTuneConfig(epochs=12, learning_rates=(1e-10, 1e-2), batch_size=16)
    tuned = fine_tune_probe(model, stripes, stripes, config, seed=0)
    assert tuned.learning_rate == 1e-2
    assert tuned.accuracy > 0.95
    others = replace(stripes, labels=1 - stripes.labels)
    wrong = fine_tune_probe(model, stripes, others, config, seed=0)
    assert (wrong.learning_rate, wrong.validation_accuracy) == (1e-2, tuned.validation_accuracy)
    assert wrong.accuracy == pytest.approx(1 - tuned.accuracy)
    classifier = fine_tune(model, stripes, FineTuneConfig(epochs=1), learning_rate=1e-2, seed=0)
    after = classifier.model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        moved = "decoder" not in name and value.numel() > 0
        assert torch.equal(value, after[name]) != moved, name


def test_the_generative_loss_takes_part(model: AnyOrderTransformer, stripes: ImageSet) -> None:
    def weights(weight: float) -> dict[str, Tensor]:
        config = FineTuneConfig(epochs=1, generative_weight=weight)
        return fine_tune(model, stripes, config, learning_rate=1e-3, seed=0).state_dict()

    without, with_it = weights(0.0), weights(1.0)
    start = {f"model.{name}": value for name, value in model.state_dict().items()}
    name = "model.encoder.blocks.0.attn.qkv.weight"
    assert not torch.equal(without[name], with_it[name])
    decoder = [name for name in without if name.startswith("model.decoder.")]
    assert all(torch.equal(without[name], start[name]) for name in decoder)
    assert any(not torch.equal(with_it[name], start[name]) for name in decoder)


def test_the_generative_loss_is_of_scans_as_long_as_in_training(
    model: AnyOrderTransformer, stripes: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = []
    forward = type(model).forward

    def seen(self: AnyOrderTransformer, images: Tensor, rank: Tensor, **options: Any) -> Tensor:
        longest.append(int(rank.max()))
        return forward(self, images, rank, **options)

    monkeypatch.setattr(type(model), "forward", seen)
    for budget, side in ((3, 1), (None, 1), (None, 2)):
        config = FineTuneConfig(
            epochs=1,
            generative_weight=1.0,
            generative_budget=budget,
            generative_fixation_size=side,
        )
        fine_tune(model, stripes, config, learning_rate=1e-3, seed=0)
        every = len(Fixations.squares(model.grid, side)) - 1
        assert {*longest} == {every if budget is None else budget}
        longest.clear()


def test_training_follows_from_the_seed_alone(
    needle: tuple[Tensor, np.ndarray, Tensor, np.ndarray],
    model: AnyOrderTransformer,
    stripes: ImageSet,
) -> None:
    config = FineTuneConfig(epochs=1, generative_weight=1.0)

    def results(seed: int) -> tuple[object, Tensor]:
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        train_x, train_y, test_x, test_y = needle
        probed = sgd_probe(
            train_x[:, 0].numpy(), train_y, test_x[:, 0].numpy(), test_y, seed=0, epochs=1
        )
        attended = attend(*needle, epochs=1)
        tuned = fine_tune(model, stripes, config, learning_rate=1e-3, seed=0)
        assert torch.equal(torch.get_rng_state(), state)
        return (probed, attended), tuned.head.weight

    (first, head), (second, same_head) = results(1), results(2)
    assert first == second
    assert torch.equal(head, same_head)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"test_y": [-1] * 60}, "60 of 60 test images have no label"),
        ({"test_y": [0]}, r"of each of the 60 test images, got int64 of shape \(1,\)"),
        ({"train_y": [0, 1]}, r"of each of the 60 training images, got int64 of shape \(2,\)"),
        ({"test_y": [0.5] * 60}, "takes an integer label of each"),
        ({"train_x": torch.zeros(60, 3)}, "training features as a NumPy array .* got Tensor"),
    ],
)
def test_what_no_probe_can_be_asked_is_refused(
    change: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a user, whose shapes nobody checks before.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    values, labels = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    given = {"train_x": values, "train_y": labels, "test_x": values, "test_y": labels}
    given |= {name: np.array(x) if isinstance(x, list) else x for name, x in change.items()}
    with pytest.raises(ValueError, match=complaint):
        linear_probe(**given, seed=0)
    with pytest.raises(ValueError, match=complaint):
        knn_probe(**given)
