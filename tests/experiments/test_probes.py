"""Frozen features and their probes: right on known problems, and never chosen on test data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from experiments import runs
from experiments.evaluation.probe import evaluate as probing
from experiments.evaluation.probe.result import ProbeResult
from experiments.probe import ProbeConfig, main
from experiments.runs import Run
from experiments.training.build import build
from experiments.training.config import TrainConfig
from foveate.config import ModelConfig
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes import attentive as probe_attentive
from foveate.probes import (
    extract_features,
    hold_out,
    knn_classes,
    knn_probe,
    knn_probes,
    linear_probe,
    pixel_features,
    query_features,
    start_features,
    wilson_interval,
)
from foveate.probes import heads as probe_heads
from foveate.probes.attentive import AttentiveHead, attentive_probe
from foveate.probes.finetuning import FineTuneConfig
from foveate.probes.heads import sgd_probe


@pytest.fixture
def separable() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    center = 4 * random.normal(size=(3, 8))
    labels = random.integers(0, 3, 600)
    x = (center[labels] + random.normal(size=(600, 8))).astype(np.float32)
    return x[:400], labels[:400], x[400:], labels[400:]


def test_every_probe_solves_a_separable_problem(separable: tuple[np.ndarray, ...]) -> None:
    assert linear_probe(*separable, seed=0).accuracy > 0.95
    assert sgd_probe(*separable, seed=0, epochs=20).accuracy > 0.95
    assert knn_probe(*separable).accuracy > 0.95


def test_shuffled_labels_give_chance(separable: tuple[np.ndarray, ...]) -> None:
    train_x, train_y, test_x, test_y = separable
    shuffled = np.random.default_rng(1).permutation(train_y)
    assert linear_probe(train_x, shuffled, test_x, test_y, seed=0).accuracy < 0.5
    assert sgd_probe(train_x, shuffled, test_x, test_y, seed=0, epochs=10).accuracy < 0.5


def test_the_regularization_is_not_chosen_on_test(separable: tuple[np.ndarray, ...]) -> None:
    train_x, train_y, test_x, test_y = separable
    right = linear_probe(train_x, train_y, test_x, test_y, seed=0)
    wrong = linear_probe(train_x, train_y, test_x, (test_y + 1) % 3, seed=0)
    assert (right.regularization, right.validation_accuracy) == (
        wrong.regularization,
        wrong.validation_accuracy,
    )
    assert right.accuracy != wrong.accuracy


def test_the_learning_rate_is_not_chosen_on_test(separable: tuple[np.ndarray, ...]) -> None:
    train_x, train_y, test_x, test_y = separable
    right = sgd_probe(train_x, train_y, test_x, test_y, seed=0, epochs=2)
    wrong = sgd_probe(train_x, train_y, test_x, (test_y + 1) % 3, seed=0, epochs=2)
    assert right.learning_rate == wrong.learning_rate
    assert right.validation_accuracy == wrong.validation_accuracy
    assert right.accuracy > 0.9
    assert wrong.accuracy < 0.1


def test_one_neighbor_agrees_with_scikit_learn(separable: tuple[np.ndarray, ...]) -> None:
    train_x, train_y, test_x, test_y = separable
    reference = KNeighborsClassifier(1, metric="cosine").fit(train_x - train_x.mean(0), train_y)
    expected = reference.score(test_x - train_x.mean(0), test_y)
    assert knn_probe(*separable, neighbors=1).accuracy == pytest.approx(expected)


def test_neighbors_vote_by_their_similarity() -> None:
    """One that is near outweighs two that are far, as by weights exp(similarity / 0.07)."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 6)).astype(np.float32), random.integers(0, 3, 300)
    data = x[:200], y[:200], x[200:], y[200:]
    classifier = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    center = x[:200].mean(0)
    expected = classifier.fit(x[:200] - center, y[:200]).predict(x[200:] - center)
    found = knn_classes(*data[:3], neighbors=(20,))[20]
    assert (found == expected).mean() > 0.98
    double = knn_classes(x[:200].astype(float), y[:200], x[200:].astype(float), neighbors=(20,))
    assert (double[20] == found).all()
    uniform = KNeighborsClassifier(20, metric="cosine").fit(x[:200] - center, y[:200])
    assert (uniform.predict(x[200:] - center) == expected).mean() < 0.95


def test_what_is_held_out_is_not_fitted() -> None:
    """Labels are drawn by lot, and features are more than images: what is fitted is all right."""
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 300)).astype(np.float32)
    y = random.integers(0, 2, 120)
    for probe in (linear_probe, sgd_probe):
        found = [probe(x, y, x, y, seed=seed) for seed in range(4)]
        assert np.mean([each.validation_accuracy for each in found]) < 0.75


def test_several_numbers_of_neighbors_are_those_one_by_one() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 8)).astype(np.float32), random.integers(0, 3, 300)
    data = x[:200], y[:200], x[200:], y[200:]
    both = knn_probes(*data, neighbors=(20, 10))
    assert both == {k: knn_probe(*data, neighbors=k) for k in (20, 10)}
    assert both[20] != both[10]


def test_wilson_interval_by_hand() -> None:
    low, high = wilson_interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_features_are_means_over_patches(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = ModelConfig(image_size=(8, 8), patch_size=4, embed_dim=16, depth=3, num_heads=2)
    model = AnyOrderTransformer(config).train()
    pixels = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    data = ImageSet(pixels, torch.zeros(7, dtype=torch.long), ("a",), "toy")
    monkeypatch.setattr("foveate.probes.features.IMAGES_AT_ONCE", 3)
    features = extract_features(model, data, attention=attention)  # type: ignore[arg-type]
    assert model.training
    expected = model.eval().features(pixels.float() / 255, attention)[1].mean(1)  # type: ignore[arg-type]
    np.testing.assert_allclose(features[1], expected.detach().numpy(), atol=1e-5)
    assert sorted(features) == [0, 1, 2]
    assert pixel_features(data).shape == (7, 64)


def test_start_features_are_class_tokens_of_timm() -> None:
    torch.manual_seed(0)
    config = ModelConfig(image_size=(8, 8), patch_size=4, embed_dim=16, depth=2, num_heads=2)
    model, images = AnyOrderTransformer(config).eval(), torch.rand(3, 1, 8, 8)
    expected = model.encoder.forward_features(model.normalize(images))[:, 0]
    first, last = start_features(model, images)
    torch.testing.assert_close(last, expected)
    assert first.shape == (3, 16)


@pytest.mark.parametrize("attention", ["full", "causal"])
def test_queries_see_every_patch(
    model: AnyOrderTransformer, images: Tensor, attention: str
) -> None:
    before = query_features(model, images, attention)  # type: ignore[arg-type]
    for row, col in ((0, 0), (4, 6)):
        changed = images.clone()
        changed[:, :, row : row + 2, col : col + 2] += 0.5
        after = query_features(model, changed, attention)  # type: ignore[arg-type]
        assert bool((after != before).any(-1).all())


def test_queries_read_a_memory_of_the_attention_asked_for(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    order = torch.arange(model.num_patches).expand(len(images), -1)
    causal = model.encode(images, order, order + 1)
    expected = model.decode(causal, order, torch.full_like(order, model.num_patches)).states
    torch.testing.assert_close(query_features(model, images, "causal"), expected)
    assert not torch.allclose(query_features(model, images, "full"), expected, atol=1e-3)


def test_the_query_stream_has_one_layer(
    model: AnyOrderTransformer, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = (images * 255).to(torch.uint8)
    data = ImageSet(pixels, torch.zeros(5, dtype=torch.long), ("a",), "toy")
    monkeypatch.setattr("foveate.probes.features.IMAGES_AT_ONCE", 3)
    features = extract_features(model, data, states="query")
    expected = query_features(model, pixels.float() / 255).mean(1)
    assert sorted(features) == [0]
    np.testing.assert_allclose(features[0], expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1] * 10 + [-1], "1 of 21 training images have no label"),
        ([2] * 20, "all 20 training images are of class 2"),
        ([0, 1] * 10 + [3], "class 3 has a single training image"),
        ([0, 1, 2] * 6, "18 training images of 3 classes are too few .* at least 21"),
    ],
)
def test_what_cannot_be_held_out_is_refused(labels: list[int], message: str) -> None:
    x, y = np.zeros((len(labels), 2), dtype=np.float32), np.array(labels)
    tokens = torch.zeros(len(labels), 1, 2).__getitem__
    for probe in (
        lambda: linear_probe(x, y, x, y, seed=0),
        lambda: sgd_probe(x, y, x, y, seed=0),
        lambda: attentive_probe(tokens, y, tokens, y, num_heads=1, seed=0),
    ):
        with pytest.raises(ValueError, match=message):
            probe()


@pytest.mark.parametrize("num_images", [21, 25, 200])
def test_every_class_is_held_out(num_images: int) -> None:
    labels = np.arange(num_images) % 3
    fit, held = hold_out(labels, seed=0)
    assert sorted([*fit, *held]) == list(range(num_images))
    assert {*labels[fit]} == {*labels[held]} == {0, 1, 2}


def test_what_has_no_meaning_is_refused(model: AnyOrderTransformer, images: Tensor) -> None:
    data = ImageSet((images * 255).to(torch.uint8), torch.arange(5), (), "toy")
    with pytest.raises(ValueError, match="needs full attention and content states"):
        extract_features(model, data, pooling="cls", attention="causal")
    model.config = replace(model.config, queries="own", decoder_depth=0)
    with pytest.raises(ValueError, match="without a decoder has no query states"):
        query_features(model, images)
    with pytest.raises(ValueError, match="no multiple of num_heads"):
        AttentiveHead(8, 2, num_heads=3)
    for options, message in (
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rates": ()}, "learning_rates"),
        ({"layer_decay": 0.0}, "layer_decay must lie"),
        ({"generative_weight": -1.0}, "generative_weight must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            FineTuneConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": ()}, "probes needs at least one"),
        ({"finetune_epochs": 2}, "finetune_epochs has no effect without finetune"),
        ({"probes": ("finetune",), "pooling": ("cls",)}, "pooling has no effect"),
        ({"pooling": ("cls",), "attention": ("causal",)}, "pooling cls needs attention full"),
        ({"pooling": ("cls",), "stream": ("query",)}, "pooling cls needs attention full"),
        ({"concat_layers": (1, 2)}, "concat_layers has no effect without pooling concat"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, tuple[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeConfig(run=Path("run"), **options)  # type: ignore[arg-type]


def test_concatenated_layers_are_the_last_ones_or_those_named() -> None:
    assert probing.layers_to_concat((3,), 4) == [1, 2, 3]
    assert probing.layers_to_concat((1, 4), 4) == [0, 3]
    for wrong in ((5,), (0,), (1, 1), (1, 5), ()):
        with pytest.raises(ValueError, match=r"in 1\.\.4"):
            probing.layers_to_concat(wrong, 4)


@pytest.mark.slow
def test_all_that_can_be_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    train = TrainConfig().replace(
        data="cue", patch_size=2, embed_dim=16, depth=2, num_heads=2, decoder_depth=1, budget=4
    )
    model, policy = build(train, (1, 8, 8))
    run = Run(tmp_path, train, model.eval(), policy.eval(), train.total_iterations)
    monkeypatch.setattr(runs, "load_run", lambda *_: run)
    monkeypatch.setattr(probe_heads, "SGD_RATES", (0.1,))
    monkeypatch.setattr(probe_attentive, "ATTENTIVE_RATES", (0.01,))
    config = ProbeConfig(
        run=tmp_path,
        probes=("linear", "knn", "sgd", "attentive", "finetune"),
        stream=("content", "query"),
        pooling=("concat", "cls", "mean"),
        concat_layers=(2,),
        finetune_epochs=1,
        generative_weight=1.0,
        train_limit=50,
        test_limit=30,
    )
    main(config)
    result = json.loads((tmp_path / "probe.json").read_text())
    layers = {"layer_1", "layer_2", "query"}
    tokens = layers | {f"{source}_{n}" for n in layers for source in ("causal", "random_weights")}
    start = {f"{source}cls_layer_{n}" for n in (1, 2) for source in ("", "random_weights_")}
    vectors = tokens | start | {"concat", "causal_concat", "random_weights_concat", "pixels"}
    assert {*result["attentive"]} == tokens
    for probe in ("linear", "sgd", "knn", "knn_10"):
        assert {*result[probe]} == vectors
    assert {*result["finetune"]} == {"full", "causal", "random_weights"}
    for best in ("best", "best_sgd", "best_attentive"):
        assert result[best]["layer"] in {"layer_1", "layer_2"}
    assert result["concat_layers"] == [1, 2]
    assert result["finetune"]["full"]["generative_budget"] == train.scan.budget
    shown = capsys.readouterr().out
    assert "no better than the commonest class" in shown
    assert "tokens of a layer in float16" in shown
    assert ProbeResult.read(tmp_path / "probe.json").to_text() in shown


def test_only_what_a_record_shows_is_called_probe_json() -> None:
    run = Path("run")
    assert ProbeConfig(run=run).output == run / "probe.json"
    assert ProbeConfig(run=run, probes=("knn", "linear", "sgd")).output == run / "probe.json"
    assert ProbeConfig(run=run, probes=("sgd", "knn")).output == run / "probe_sgd_knn.json"
    assert ProbeConfig(run=run, attention=("full",)).output == run / "probe_linear_knn.json"
