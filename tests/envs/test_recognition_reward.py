"""The reward of classes: its numbers by hand, its features, and what it refuses."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from envs.episode import Episode
from envs.probing import known_in_scans
from envs.recognition import RecognitionProbe, probe_of
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations
from foveate.probes.seen import seen_means

LABELS = torch.tensor([0, 1, 2, -1, 1])


@pytest.fixture
def probe() -> RecognitionProbe:
    torch.manual_seed(0)
    probe = RecognitionProbe(16, 3)
    torch.nn.init.normal_(probe.linear.weight)
    return probe


def test_cross_entropy_by_hand() -> None:
    """Features of unit variance are their own layer norm; logits are 2, 0 and 0."""
    probe = RecognitionProbe(2, 3)
    assert probe.cross_entropy(torch.rand(1, 2), torch.tensor([2])).item() == pytest.approx(
        math.log(3)
    )
    with torch.no_grad():
        probe.linear.weight[0, 0] = 2.0
    features = torch.tensor([[1.0, -1.0]]).repeat(3, 1)
    loss = probe.cross_entropy(features, torch.tensor([0, 1, -1]))
    total = math.log(math.exp(2) + 2)
    torch.testing.assert_close(loss, torch.tensor([total - 2, total, 0.0]), atol=1e-4, rtol=1e-4)


def test_the_probe_is_fitted_to_random_scans_and_to_chosen_ones() -> None:
    """About half of the rows fixate where the error that is expected is largest: here the cue."""
    env = envs.ImageScanVectorEnv(1, model="cue", data="cue", limit=200)
    images = env.images.batch(torch.arange(200))
    known = known_in_scans(env.model, images, env.fixations, 2)
    episode = Episode(env.model, images, budget=1)
    episode.step(episode.observe().log_error.argmax(1))
    is_chosen = torch.isclose(known[:, 1], episode.scan.mean_content, atol=1e-5).all(1)
    assert known.shape[:2] == (200, 3)
    assert 0.4 < is_chosen.float().mean() < 0.7


@pytest.mark.parametrize("side", [1, 2])
def test_it_pays_the_fall_of_the_cross_entropy_on_what_has_been_seen(
    side: int, model: AnyOrderTransformer, images: Tensor, probe: RecognitionProbe
) -> None:
    """As the parallel pass finds it, of patches and of squares; 0 without a label."""
    squares = Fixations.squares(model.grid, side)
    episode = Episode(
        model,
        images,
        budget=3,
        reward="recognition",
        group=2,
        fixations=squares,
        labels=LABELS,
        probe=probe,
    )
    fixation = torch.rand(10, len(squares)).argsort(1)[:, :3]
    rewards = torch.stack([episode.step(episode.opens(fixation[:, t])) for t in range(3)], 1)
    labels = LABELS.repeat_interleave(2)
    features = seen_means(model, images.repeat_interleave(2, dim=0), episode.order)
    torch.testing.assert_close(features[:, -1], episode.scan.mean_content, atol=1e-5, rtol=1e-4)
    fall = -probe.cross_entropy(features, labels.unsqueeze(1).expand(-1, 4)).diff(dim=1)
    torch.testing.assert_close(rewards, fall, atol=1e-5, rtol=1e-4)
    assert rewards[labels < 0].eq(0).all()
    assert rewards[labels >= 0].abs().min() > 0


def test_seen_means_are_means_of_the_tokens_seen(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    order = torch.tensor([[3, 0, 11], [1, 2, 3], [5, 11, 0], [7, 4, 1], [9, 8, 2]])
    means = seen_means(model, images, order)
    rest = torch.tensor([[n for n in range(12) if n not in row] for row in order.tolist()])
    rank = torch.cat([order, rest], 1).argsort(1)
    tokens = model.all_layers(images, "causal", rank)[-1]
    always, patches = tokens[:, 1 : model.num_always], tokens[:, model.num_always :]
    for seen in range(4):
        chosen = patches.gather(1, order[:, :seen, None].expand(-1, -1, 16))
        shown = torch.cat([always, chosen], 1)
        # A blind model has seen nothing yet: its start token stands in.
        expected = shown.mean(1) if shown.shape[1] else tokens[:, 0]
        torch.testing.assert_close(means[:, seen], expected, atol=1e-5, rtol=1e-4)


def test_what_is_unseen_is_not_in_the_features(images: Tensor, model: AnyOrderTransformer) -> None:
    if model.config.periphery:
        pytest.skip("the periphery sees all patches")
    order = torch.tensor([[3, 0, 11]] * 5)
    patches = model.patchify(images)
    patches[:, [1, 11]] = 0.5
    changed = model.unpatchify(patches)
    before, after = (seen_means(model, world, order) for world in (images, changed))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def test_restarted_rows_take_their_own_labels_and_forget_what_was_seen(
    model: AnyOrderTransformer, images: Tensor, probe: RecognitionProbe
) -> None:
    again = torch.tensor([False, True, False, False, True])

    def new(images: Tensor, labels: Tensor) -> Episode:
        return Episode(model, images, budget=2, reward="recognition", labels=labels, probe=probe)

    episode, fresh = new(images, LABELS), new(images[:2], LABELS[1:3])
    episode.step(torch.arange(5))
    episode.restart(again, images[:2], LABELS[1:3])
    reward = episode.step(torch.full((5,), 7))
    torch.testing.assert_close(reward[again], fresh.step(torch.full((2,), 7)))


def test_no_gradient_reaches_the_features(probe: RecognitionProbe) -> None:
    features = torch.rand(5, 16, requires_grad=True)
    probe.cross_entropy(features, LABELS).sum().backward()
    assert features.grad is None
    assert probe.linear.weight.grad is not None


def test_a_reward_of_ones_own_uses_labels(
    model: AnyOrderTransformer,
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "class_rewards.py").write_text(
        "def label(fixation):\n    return fixation.labels.float()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "class_rewards", raising=False)
    for labels, paid in ((LABELS, [0, 1, 2, -1, 1]), (None, [-1] * 5)):
        episode = Episode(model, images, budget=2, reward="class_rewards:label", labels=labels)
        assert episode.step(torch.arange(5)).tolist() == paid
    data = ImageSet((255 * images).to(torch.uint8), LABELS, (), "five")
    env = envs.ImageScanVectorEnv(5, model=model, data=data, budget=2, reward="class_rewards:label")
    env.reset(seed=0, options={"index": np.arange(5)})
    assert env.step(np.zeros(5, int))[1].tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1] * 5, "needs labels of two classes or more, and five has no labels"),
        ([2, -1, 2, 2, 2], "five has labels of class 2 alone"),
        ([0, 1, 2, 3, 1], r"knows classes 0..2, and five has class 3"),
    ],
)
def test_images_that_tell_no_classes_are_refused(
    labels: list[int],
    message: str,
    model: AnyOrderTransformer,
    images: Tensor,
    probe: RecognitionProbe,
) -> None:
    from envs.checks import check_world

    data = ImageSet((255 * images).to(torch.uint8), torch.tensor(labels), (), "five")
    with pytest.raises(ValueError, match=message):
        check_world(model, data, "recognition", probe)


def test_without_its_probe_it_is_refused_in_one_line(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    data = ImageSet((255 * images).to(torch.uint8), LABELS, (), "five")
    wanted = "needs a probe that knows the classes; give as model the folder of a run"
    with pytest.raises(ValueError, match=re.escape(wanted)) as refusal:
        envs.ImageScanEnv(model=model, data=data, budget=2, reward="recognition")
    assert "\n" not in str(refusal.value)


def test_a_probe_is_built_from_its_weights(probe: RecognitionProbe) -> None:
    again = probe_of(probe.state_dict())
    features = torch.rand(4, 16)
    assert torch.equal(again(features), probe(features))
    assert not any(weight.requires_grad for weight in again.parameters())


def test_a_probe_draws_no_random_number() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    probe = RecognitionProbe(16, 3)
    assert torch.equal(torch.rand(1), expected)
    assert not probe.linear.weight.any()
    assert not probe.linear.bias.any()
