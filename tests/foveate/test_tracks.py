"""Tracks of words: none sees another, each sees the image and its own past; they learn to read."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from foveate.config import ModelConfig
from foveate.data import load_data
from foveate.data.captions import Vocabulary, box_captions, class_captions
from foveate.model import AnyOrderTransformer
from foveate.model.tracks import TrackReader
from foveate.recipes import RECIPES

NAMES = ("a photo of a cat", "a photo of a dog")


@pytest.fixture
def pair() -> tuple[AnyOrderTransformer, TrackReader]:
    torch.manual_seed(0)
    model = AnyOrderTransformer(
        ModelConfig(image_size=(8, 8), patch_size=2, embed_dim=16, depth=2, num_heads=2)
    )
    return model, TrackReader(16, len(Vocabulary.of(NAMES).words), 6)


def caption_model(**parts: object) -> AnyOrderTransformer:
    torch.manual_seed(0)
    sizes = {"image_size": (8, 8), "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
    words = {"vocabulary": tuple("abcde"), "max_words": 4}
    return AnyOrderTransformer(RECIPES["caption"].model_config(**{**sizes, **words, **parts}))


def test_sentences_survive_the_vocabulary() -> None:
    vocabulary = Vocabulary.of([*NAMES, "dog"])
    numbers = vocabulary.encode([*NAMES, "dog"])
    assert [vocabulary.decode(row) for row in numbers] == [*NAMES, "dog"]
    assert numbers[2].tolist()[2:] == [-1] * 4
    with pytest.raises(ValueError, match="not in the vocabulary: fox"):
        vocabulary.encode(["a photo of a fox"])


def test_a_word_depends_on_the_image_and_its_own_tracks_past_alone(
    pair: tuple[AnyOrderTransformer, TrackReader],
) -> None:
    model, reader = pair
    images, anchors = torch.rand(1, 1, 8, 8).requires_grad_(), torch.tensor([[3, 9]])
    words = torch.randint(6, (1, 2, 6))
    logits = reader(model, images, anchors, words)
    for track in range(2):
        for at in range(6):
            (gradient,) = torch.autograd.grad(
                logits[0, track, at].square().sum(), images, retain_graph=True
            )
            assert bool((model.patchify(gradient).abs().sum(-1) > 0).all())
            for other in range(2):
                for changed in range(6):
                    moved = words.clone()
                    moved[0, other, changed] = (moved[0, other, changed] + 1) % 6
                    differs = reader(model, images, anchors, moved)[0, track, at]
                    depends = not torch.allclose(differs, logits[0, track, at], atol=1e-6)
                    assert depends == (other == track and changed < at)


def test_the_anchor_changes_what_is_read(pair: tuple[AnyOrderTransformer, TrackReader]) -> None:
    model, reader = pair
    images, words = torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 6, dtype=torch.long)
    here, there = (reader(model, images, torch.tensor([[p]]), words) for p in (3, 9))
    assert not torch.allclose(here, there, atol=1e-4)


@pytest.mark.slow
def test_tracks_learn_to_name_what_is_at_their_anchor(
    pair: tuple[AnyOrderTransformer, TrackReader],
) -> None:
    """Bright patches are cats, dark ones dogs; chance would name all right once in 2^-64."""
    model, reader = pair
    vocabulary = Vocabulary.of(NAMES)
    sentences = vocabulary.encode(NAMES)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([*model.parameters(), *reader.parameters()], lr=5e-3)

    def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bright = torch.rand(32, 16, 1, generator=generator) < 0.5
        images = model.unpatchify(bright.float().expand(-1, -1, 4))
        anchors = torch.randint(16, (32, 2), generator=generator)
        kind = 1 - bright.squeeze(-1).long().gather(1, anchors)
        return images, anchors, sentences[kind]

    for _ in range(400):
        loss = reader.loss(model, *batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, anchors, expected = batch()
    assert torch.equal(reader.read(model, images, anchors), expected)


def test_scenes_say_what_is_where() -> None:
    """Object and place agree with the labels and with where the picture is bright."""
    images = load_data("scenes", "test", limit=60)
    captions = box_captions(load_data("scenes", "test"), (8, 8))
    number = captions.number[:60]
    on_object = number > 0
    assert 5 <= int(on_object.sum(1).min()) <= int(on_object.sum(1).max()) <= 16
    for image in range(60):
        sentence = captions.sentences[int(number[image].max())]
        assert sentence.startswith(images.class_names[int(images.labels[image])].lower())
    patches = images.images.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-2, -1)).flatten(1)
    inside, outside = patches[on_object].mean(), patches[~on_object].mean()
    assert inside > 1.2 * outside


def test_class_captions_need_labels() -> None:
    images = load_data("scenes", "test", limit=20)
    captions = class_captions(images, 64)
    words = captions.words(torch.tensor([3, 7]), torch.tensor([[0, 5], [9, 1]]))
    said = Vocabulary.of(captions.sentences).decode(words[1, 0])
    assert said == f"a photo of a {images.class_names[int(images.labels[7])].lower()}"
    with pytest.raises(ValueError, match="without a label"):
        class_captions(dataclasses.replace(images, class_names=()), 64)


def test_a_caption_can_be_asked_for_after_any_number_of_steps() -> None:
    """What is hidden does not count, what is visible does; all padding teaches nothing."""
    model = caption_model()
    images, words = torch.rand(3, 1, 8, 8), torch.tensor([[[1, 2, 0, -1]], [[-1] * 4], [[3] * 4]])
    rank = torch.rand(3, 16).argsort(1)
    steps = torch.tensor([4, 16, -1])
    each = model.reader.cross_entropy(model, images, None, words, rank, steps)
    assert bool((each[words < 0] == 0).all())
    shown = torch.where((rank < steps.unsqueeze(1)).unsqueeze(-1), model.patchify(images), 0.3)
    hidden = model.unpatchify(shown)
    same = model.reader.cross_entropy(model, hidden, None, words, rank, steps)
    assert torch.allclose(each, same, atol=1e-6)
    fewer = model.reader.cross_entropy(model, images, None, words, rank, steps - 1)
    assert float((fewer - each)[0].detach().abs().max()) > 1e-4
    alone = [
        model.reader.cross_entropy(
            model, images[b : b + 1], None, words[b : b + 1], rank[b : b + 1]
        )
        for b in range(3)
    ]
    assert torch.allclose(alone[1], each[1:2], atol=1e-6)
    loss = model.reader.loss(model, images[1:2], None, words[1:2])
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("word", "image"), [(0.0, 1.0), (1.0, 0.0), (0.5, 2.0)])
def test_the_loss_weighs_words_and_image(word: float, image: float) -> None:
    images, rank = torch.rand(2, 1, 8, 8), torch.rand(2, 16).argsort(1)
    asked = {"words": torch.tensor([[[1, 0]], [[2, 0]]]), "word_steps": torch.tensor([3, 5])}

    def loss(word: float, image: float) -> torch.Tensor:
        model = caption_model(word_weight=word, image_weight=image)
        generator = torch.Generator().manual_seed(0)
        return model(images, rank, num_steps=4, generator=generator, **asked)

    expected = word * loss(1.0, 0.0) + image * loss(0.0, 1.0)
    assert torch.allclose(loss(word, image), expected)


def test_what_all_captions_read_alike_is_read_once_and_teaches_the_same() -> None:
    model, images, rank = caption_model(), torch.rand(2, 1, 8, 8), torch.rand(2, 16).argsort(1)
    words = torch.tensor([[[1, 2, 0], [2, 0, -1]], [[1, 0, -1], [-1, -1, -1]]])
    nothing = torch.full_like(words, -1)
    steps = torch.tensor([3, 16])
    losses = [
        model.reader.loss(model, images, None, words, rank, steps, read)
        for read in (nothing, nothing[:, :1], words)
    ]
    assert torch.allclose(losses[0], losses[1])
    assert not torch.allclose(losses[1], losses[2])


def test_anchors_need_an_image_that_is_all_visible() -> None:
    model, images = caption_model(), torch.rand(1, 1, 8, 8)
    words, anchors = torch.zeros(1, 1, 2, dtype=torch.long), torch.tensor([[3]])
    rank, steps = torch.arange(16).unsqueeze(0), torch.tensor([3])
    with pytest.raises(ValueError, match="anchors need a bidirectional prefix"):
        model(images, rank, anchors=anchors, words=words, word_steps=steps)
    with pytest.raises(ValueError, match="anchors, word_steps and words_read need words"):
        model(images, rank, anchors=anchors)
