"""Captions: what is measured is what the model says; a run learns, resumes and is asked."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import encoded
from PIL import Image

from envs.episode import Episode
from envs.vector import ImageScanVectorEnv
from experiments.evaluation.caption.asking import CaptionAsking
from experiments.evaluation.caption.evaluate import CaptionExample, caption
from experiments.evaluation.caption.likelihood import (
    bits_per_word,
    nats_of_own,
    nats_of_pairs,
)
from experiments.evaluation.caption.picture import draw_captions, lines_of
from experiments.evaluation.caption.result import CaptionResult, Written
from experiments.evaluation.caption.retrieval import (
    Scores,
    chances,
    estimated,
    ranks_of_right,
    scores,
)
from experiments.evaluation.equal_compute import short_trainer
from experiments.run_folder import read_manifest
from experiments.runs import load_run
from experiments.studies.transfer import imagenette
from experiments.training.batches import TrainingImages
from experiments.training.build import build
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import train
from experiments.training.model_learner import ALONE_SHARE, WHOLE_SHARE
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.data.subwords import Subwords
from foveate.data.texts import ImageTexts
from foveate.model import AnyOrderTransformer
from foveate.model.tracks import NOTHING
from foveate.orders import order_to_rank
from foveate.recipes import RECIPES

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def colored(path: Path, number: int = 36) -> None:
    """Images of one color each, whose captions name it; the first of each split has none."""
    names = [list(COLORS)[n % 3] for n in range(number)]
    images = [encoded(Image.new("RGB", (8, 8), COLORS[name])) for name in names]
    split = ["train", "train", "val", "test"] * (number // 4)
    told = [[f"all {name}", f"the {name} one"] if n > 3 else [] for n, name in enumerate(names)]
    pq.write_table(pa.table({"image": images, "told": told, "split": split}), path)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    colored(tmp_path / "colors.parquet")
    sizes = {"patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_depth": 1}
    words = {"recipe": "caption", "num_subwords": 300, "max_subwords": 8}
    steps = {"warmup_iterations": 3, "iterations": 3, "batch_size": 2, "warmup_batch_size": 4}
    return TrainConfig().replace(
        data=str(tmp_path / "colors.parquet"),
        caption_column="told",
        out=tmp_path / "run",
        budget=3,
        periphery=1,
        reward="caption",
        policy_every=1,
        log_every=1,
        save_every=3,
        evaluate_every=3,
        **sizes,
        **words,
        **steps,
    )


@pytest.fixture
def writer() -> AnyOrderTransformer:
    torch.manual_seed(0)
    sizes = {"image_size": (8, 8), "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
    words = {"vocabulary": tuple("abcde"), "max_words": 4}
    return AnyOrderTransformer(RECIPES["caption"].model_config(**sizes, **words)).eval()


@pytest.fixture
def texts() -> ImageTexts:
    """Two captions of the first image, one of the second, none of the third."""
    return ImageTexts(
        subwords=Subwords(tuple("abcde"), ()),
        tokens=torch.tensor([[1, 2, 0, -1], [3, 0, -1, -1], [4, 3, 2, 0]]),
        first=torch.tensor([0, 2, 3, 3]),
        num_words=torch.tensor([3, 2, 3]),
        num_empty=0,
        num_cut=0,
    )


def test_captions_cost_what_their_words_cost_in_any_batch(
    writer: AnyOrderTransformer, texts: ImageTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, rank = torch.rand(3, 1, 8, 8), torch.rand(3, 16).argsort(1)
    own = nats_of_own(writer, images, texts, rank, 5)
    for number, image in enumerate((0, 0, 1)):
        words = texts.tokens[number].view(1, 1, 4)
        steps, part = torch.tensor([5]), slice(image, image + 1)
        logits = writer.reader(writer, images[part], None, words, rank[part], steps)
        log_probs = logits[0, 0].log_softmax(-1)
        expected = -sum(log_probs[at, word] for at, word in enumerate(words[0, 0]) if word >= 0)
        torch.testing.assert_close(own[number], expected.detach())
    for tokens in (1, 10**6):
        monkeypatch.setattr("experiments.evaluation.caption.likelihood.TOKENS", tokens)
        every = nats_of_pairs(writer, images, texts, rank, 5, torch.ones(3, 3).bool())
        torch.testing.assert_close(every[texts.owner, torch.arange(3)], own)
        wanted = torch.tensor([[True, False, True], [False] * 3, [False, True, False]])
        some = nats_of_pairs(writer, images, texts, rank, 5, wanted)
        torch.testing.assert_close(some, every * wanted)
        torch.testing.assert_close(nats_of_own(writer, images, texts, rank, 5), own)


def test_bits_per_word_by_hand(texts: ImageTexts) -> None:
    nats = torch.tensor([2.0, 3.0, 6.0]) * math.log(2)
    few = texts.among(2)
    assert bits_per_word(nats, few) == pytest.approx(np.array([5 / 5, 6 / 3]))


def test_what_is_retrieved_by_hand() -> None:
    """Two captions of image 0, one of image 1; a tie is no hit."""
    score = torch.tensor([[1.0, 4.0, 3.0], [2.0, 5.0, 3.0]])
    owner = torch.tensor([0, 0, 1])
    of_image, of_caption = ranks_of_right(Scores(score, score, 6), owner)
    assert of_image.tolist() == [0, 1]
    assert of_caption.tolist() == [1, 1, 1]
    none = torch.tensor([[-math.inf] * 2 + [3.0], [2.0, -math.inf, -math.inf]])
    of_image, of_caption = ranks_of_right(Scores(none, none, 2), owner)
    assert of_image.tolist() == [1, 2], "what is no candidate comes after all others"
    assert of_caption.tolist() == [1, 1, 1]


def test_the_chance_of_a_recall_by_hand(texts: ImageTexts) -> None:
    """Three captions: two of the first image, one of the second; ten are all of them."""
    of_image, of_caption = chances(texts.among(2))
    assert of_image == pytest.approx({1: (2 / 3 + 1 / 3) / 2, 5: 1, 10: 1})
    assert of_caption == pytest.approx({1: 1 / 2, 5: 1, 10: 1})


def test_pairs_are_ranked_by_what_the_image_adds(config: TrainConfig) -> None:
    """The right answers are those whose likelihood rises most over that of text alone."""
    train(config.replace(iterations=0))
    asking = CaptionAsking.of(load_run(config.run.out), 8)
    patches = asking.run.model.num_patches
    path = torch.arange(patches).expand(len(asking.test), -1)
    told = asking.told({"policy": path}, (0,), len(asking.test), 0, 0)
    every = torch.ones(len(asking.test), len(asking.texts.tokens), dtype=torch.bool)
    added = asking.own(path, NOTHING) - asking.pairs(path, patches, every)
    ranks = ranks_of_right(Scores(added, added, added.numel()), asking.texts.owner)
    assert told.retrieved is not None
    assert told.retrieved.image_to_text[1].tolist() == (ranks[0] < 1).double().tolist()
    own = [hits.double().mean() for hits in (ranks[1] < 5).split(asking.texts.count.tolist())]
    assert told.retrieved.text_to_image[5].tolist() == pytest.approx([float(each) for each in own])


def test_few_pairs_tell_the_scores_of_all_where_these_have_few_dimensions() -> None:
    """What is then asked about in full is what the best answers are among."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(120, 3, generator=generator) @ torch.randn(3, 300, generator=generator)
    row, column = torch.arange(20), torch.arange(100, 140)
    guess = estimated(truth[row], truth[:, column], column)
    torch.testing.assert_close(guess, truth, atol=0.05, rtol=0)
    asked = torch.zeros(120, 300)

    def ask(wanted: torch.Tensor) -> torch.Tensor:
        asked.add_(wanted)
        return truth.where(wanted, torch.nan)

    found = scores(ask, 120, 300, 12, generator)
    assert float(asked.max()) == 1, "no pair is asked about twice"
    assert found.num_pairs == int(asked.sum()) < 0.5 * asked.numel()
    best = truth.topk(5, dim=1)
    torch.testing.assert_close(found.of_image.topk(5, dim=1).values, best.values)
    best = truth.topk(5, dim=0)
    torch.testing.assert_close(found.of_caption.topk(5, dim=0).values, best.values)
    assert bool((found.of_image.isfinite().sum(1) == 12).all())
    for candidates in (0, 75):
        every = scores(ask, 120, 300, candidates, generator)
        assert torch.equal(every.of_image, truth)


def test_the_reward_of_words_is_the_fall_of_their_surprise(writer: AnyOrderTransformer) -> None:
    """It telescopes; an image without a caption pays nothing."""
    images, words = torch.rand(2, 1, 8, 8), torch.tensor([[1, 2, 0], [-1, -1, -1]])
    episode = Episode(writer, images, budget=3, reward="caption", group=2, words=words)
    order = torch.tensor([[3, 7, 1], [0, 1, 2], [4, 5, 6], [9, 8, 7]])
    paid = torch.stack([episode.step(order[:, step]) for step in range(3)], 1)
    rank = torch.full((4, 16), 3).scatter(1, order, torch.arange(3).expand(4, -1))

    def nats(steps: int) -> torch.Tensor:
        visible, both = torch.full((4,), steps), words.repeat_interleave(2, 0).unsqueeze(1)
        pixels = images.repeat_interleave(2, 0)
        each = writer.reader.cross_entropy(writer, pixels, None, both, rank, visible)
        return each.sum((1, 2)) / 3

    for step in range(3):
        torch.testing.assert_close(paid[:, step], (nats(step) - nats(step + 1)).detach())
    assert float(paid[:2].abs().min()) > 0
    assert bool((paid[2:] == 0).all())
    with pytest.raises(ValueError, match="reward 'caption' needs captions as a model writes them"):
        Episode(writer, images, budget=3, reward="caption")


def test_rows_that_restart_are_paid_for_their_new_captions(writer: AnyOrderTransformer) -> None:
    images, words = torch.rand(2, 1, 8, 8), torch.tensor([[1, 2, 0], [2, 1, 0]])
    other = torch.tensor([[3, 3, 0]])
    episode = Episode(writer, images, budget=3, reward="caption", words=words)
    episode.step(torch.tensor([5, 6]))
    again = torch.tensor([False, True])
    for wrong in (None, other[:, :2]):
        with pytest.raises(ValueError, match="the episode has 1 captions of 3 subwords for each"):
            episode.restart(again, images[:1], words=wrong)
    episode.restart(again, images[:1], words=other)
    fresh = Episode(writer, images[:1], budget=3, reward="caption", words=other)
    paid = episode.step(torch.tensor([4, 7]))
    torch.testing.assert_close(paid[1:], fresh.step(torch.tensor([7])), atol=1e-5, rtol=1e-4)
    silent = Episode(writer, images, budget=3)
    with pytest.raises(ValueError, match="the episode has none"):
        silent.restart(again, images[:1], words=other)


def test_a_run_learns_captions_resumes_and_is_asked(config: TrainConfig, tmp_path: Path) -> None:
    trained = train(config)
    half = config.replace(out=tmp_path / "half")
    train(half.replace(stop_after=3))
    again = train(half.replace(resume=True))
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    run = load_run(config.run.out)
    assert run.model.config.merges
    lines = (config.run.out / "metrics.jsonl").read_text().splitlines()
    assert {"validation_words", "validation_words_alone"} <= set(json.loads(lines[-1]))
    result, examples = caption(
        run, fixations=(0, 2, 9), orders=("random", "other_image", "best_fixed"), examples=2
    )
    assert result.test_images == 8
    assert (result.without_captions, result.captions) == (1, 16)
    assert set(result.orders) == {"policy", "random", "other_image", "best_fixed"}
    assert all(set(row) == {0, 2} for row in result.orders.values())
    assert result.orders["random"][0].minus_policy == 0
    told = (result.alone.bits_per_word - result.whole.bits_per_word) * math.log(2)
    assert result.image_nats_per_word == pytest.approx(told)
    assert result.image_to_text is not None
    assert result.image_to_text.recall[10] <= 1
    assert [each.image for each in result.written] == [0, 1]
    result.write(tmp_path / "caption.json")
    assert CaptionResult.read(tmp_path / "caption.json") == result
    assert json.loads((tmp_path / "caption.json").read_text())["kind"] == "caption"
    assert "no image, text alone" in result.to_text()
    assert "After 0 fixations the thumbnail alone is seen." in result.to_text()
    assert (result.periphery, result.without_policy, result.start_seconds) == (1, None, None)
    draw_captions(examples, tmp_path / "caption.png")
    with Image.open(tmp_path / "caption.png") as drawn:
        assert drawn.width > 300


def test_an_environment_pays_for_the_captions_of_a_run(config: TrainConfig) -> None:
    """All captions of an image count alike; rows that end get those of their new images."""
    train(config.replace(warmup_iterations=1, iterations=0))
    data, out = config.data.data, config.run.out
    batch = ImageScanVectorEnv(3, model=out, data=data, reward="caption", budget=2)
    model, texts = batch.model, batch.world.texts
    assert texts is not None
    batch.reset(options={"index": [0, 5, 6]})
    for round_ in range(2):
        index = torch.from_numpy(batch.index.copy())
        nats = []
        order = torch.tensor([[3, 1], [0, 1], [7, 2]])
        rank = order_to_rank(order, model.num_patches)
        words, pixels = texts.of_images(index), batch.images.batch(index)
        for steps in range(3):
            visible = torch.full((3,), steps)
            each = model.reader.cross_entropy(model, pixels, None, words, rank, visible)
            nats.append(each.sum((1, 2)) / (words >= 0).sum((1, 2)).clamp_min(1))
        for step in range(2):
            _, paid, *_ = batch.step(order[:, step].numpy())
            told = (nats[step] - nats[step + 1]).detach().double().numpy()
            np.testing.assert_allclose(paid, told, atol=1e-5, err_msg=f"round {round_}")
    single = gym.make("foveate.ids:foveate/ImageScan-v0", model=out, data=data, reward="caption")
    single.reset(seed=0)
    assert np.isfinite(single.step(3)[1])


def test_a_model_of_captions_is_probed_on_images_that_have_classes(
    config: TrainConfig, tmp_path: Path
) -> None:
    train(config.replace(warmup_iterations=1, iterations=0))
    run = load_run(config.run.out)
    with pytest.raises(ValueError, match=r"no file .*imagenette96.parquet; put it beside"):
        imagenette(run, "test", 9)
    file = tmp_path / "imagenette96.parquet"
    colored(file, 120)
    with pytest.raises(ValueError, match="imagenette96 has no labels, so that nothing"):
        imagenette(run, "test", 9)
    labeled = pq.read_table(file).append_column("label", pa.array([n % 3 for n in range(120)]))
    pq.write_table(labeled, file)
    values = imagenette(run, "test", 9)
    probed = [values[f"{probe}, full, Imagenette"] for probe in ("linear", "k-NN")]
    assert all(each.mean() == 1 for each in probed), "colors are told apart"
    assert set(values) - {"linear, full, Imagenette", "k-NN, full, Imagenette"} == {
        "RankMe, full, Imagenette",
        "LiDAR, full, Imagenette",
    }


def test_a_world_without_words_is_refused_in_a_line(writer: AnyOrderTransformer) -> None:
    with pytest.raises(ValueError, match="reward 'caption' needs captions as a model writes them"):
        ImageScanVectorEnv(model="scenes", reward="caption")
    speaks = replace(writer.config, vocabulary=("<end>", "a"))
    images = np.zeros((2, 1, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="data has no captions: give a table with a column"):
        ImageScanVectorEnv(model=AnyOrderTransformer(speaks), data=images, reward="caption")


def test_captions_of_any_kind_are_learned_from_and_asked_about(config: TrainConfig) -> None:
    """Empty, missing, of no letter, longer than anything, and in any script."""
    table = pq.read_table(config.data.data)
    odd = [None, [], [""], [" \n"], [None], ["a " * 5000], ["דוגמה", "狗在跑", "🐕‍🦺"], ["...", ""]]
    told = pa.array([odd[n % len(odd)] for n in range(len(table))], pa.list_(pa.string()))
    at = table.column_names.index("told")
    pq.write_table(table.set_column(at, "told", told), config.data.data)
    trained = train(config.replace(num_captions=3, word_dropout=0.5))
    assert math.isfinite(trained.measured["loss"])
    result, _ = caption(load_run(config.run.out), fixations=(0, 2), orders=("random",), examples=1)
    assert (result.test_images, result.without_captions) == (1 + 3, 5)
    assert math.isfinite(result.whole.bits_per_word)


def test_what_is_written_moves_no_picture(tmp_path: Path) -> None:
    """Of any length and script, also of letters that no font has."""

    def drawn(text: str) -> np.ndarray:
        written = Written(image=0, captions=(text,), after={0: text}, whole=text)
        example = CaptionExample(
            torch.rand(3, 8, 8).mul(0).add(0.3), torch.tensor([5]), (4, 4), written
        )
        draw_captions([example], tmp_path / "caption.png")
        with Image.open(tmp_path / "caption.png") as picture:
            return np.asarray(picture.convert("L"))

    none = drawn("")
    pictures = np.flatnonzero((none < 250).any(1))[-1] + 1
    for text in ("word " * 999, "狗在跑" * 50, "$x^ \ufffd 🐕‍🦺 שלום"):
        other = drawn(text)
        np.testing.assert_array_equal(other[:pictures], none[:pictures])
        assert (other[pictures:] < 250).any(), "and is written below them"
        assert (other[-3:] > 250).all(), "within the sheet"


def test_lines_are_as_long_as_there_is_room() -> None:
    assert lines_of("a " * 20) == ["a " * 13 + "a", "a " * 5 + "a"]
    assert lines_of("狗" * 20) == ["狗" * 14, "狗" * 6]
    assert lines_of("") == []
    assert len(lines_of("word " * 999)) == 7


def test_too_few_test_images_with_captions_are_counted(config: TrainConfig) -> None:
    train(config.replace(warmup_iterations=1, iterations=0))
    run = load_run(config.run.out, data_changed_ok=True)
    table = pq.read_table(config.data.data)
    split, told = (table[name].to_pylist() for name in ("split", "told"))
    kept = split.index("test", 4)
    for number in (0, 1):
        few = [
            own if part != "test" or (place == kept and number) else []
            for place, (part, own) in enumerate(zip(split, told, strict=True))
        ]
        at = table.column_names.index("told")
        pq.write_table(table.set_column(at, "told", pa.array(few)), config.data.data)
        with pytest.raises(ValueError, match=f"{number} of 9 test images have a caption, 2 are"):
            caption(run)


def test_captions_can_be_learned_by_a_model_that_learned_of_images_alone(
    config: TrainConfig, tmp_path: Path
) -> None:
    alone = {"word_weight": 0.0, "warmup_iterations": 1, "iterations": 1, "reward": "auc"}
    first = train(config.replace(**alone, out=tmp_path / "images"))
    start = {name: each.clone() for name, each in first.model.state_dict().items()}
    then = Trainer(config.replace(start_from=str(tmp_path / "images")), Processes.started("cpu"))
    torch.testing.assert_close(then.model.state_dict(), start, rtol=0, atol=0)


def test_the_time_of_what_a_run_starts_from_is_told(config: TrainConfig, tmp_path: Path) -> None:
    train(config.replace(iterations=0, out=tmp_path / "first"))
    for start, out in (("first", "second"), ("second", "third")):
        train(
            config.replace(iterations=0, start_from=str(tmp_path / start), out=tmp_path / out),
        )
    first, second, third = (read_manifest(tmp_path / n) for n in ("first", "second", "third"))
    assert first["start_seconds"] is None
    assert second["start_seconds"] == first["train_seconds"]
    assert third["start_seconds"] == first["train_seconds"] + second["train_seconds"]
    result, _ = caption(load_run(tmp_path / "third"), fixations=(0,), orders=(), examples=0)
    assert result.start_seconds == third["start_seconds"]
    assert "of what it starts from" in result.to_text()
    assert "No policy has learned in third" in result.to_text()


def test_a_policy_is_not_paid_by_words_that_are_not_learned(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="reward caption asks a model that learns no word"):
        train(config.replace(word_weight=0.0))


def test_a_run_goes_on_in_its_own_subwords_where_captions_changed(config: TrainConfig) -> None:
    first = train(config.replace(stop_after=3))
    table = pq.read_table(config.data.data)
    told = [[f"{text} zzz" for text in own] for own in table["told"].to_pylist()]
    at = table.column_names.index("told")
    pq.write_table(table.set_column(at, "told", pa.array(told)), config.data.data)
    again = train(config.replace(resume=True, data_changed_ok=True))
    assert again.iteration == config.total_iterations
    assert again.model.config.merges == first.model.config.merges


def test_held_out_images_may_have_no_caption(config: TrainConfig) -> None:
    table = pq.read_table(config.data.data)
    split, told = (table[name].to_pylist() for name in ("split", "told"))
    few = [[] if part == "val" else own for part, own in zip(split, told, strict=True)]
    at = table.column_names.index("told")
    pq.write_table(table.set_column(at, "told", pa.array(few)), config.data.data)
    trainer = train(config)
    assert trainer.iteration == config.total_iterations


def test_a_class_may_be_the_caption(config: TrainConfig) -> None:
    table = pq.read_table(config.data.data)
    names = [" ".join(own) or "none" for own in table["told"].to_pylist()]
    pq.write_table(table.append_column("label", pa.array(names)), config.data.data)
    images = TrainingImages(config.replace(caption_column="label"), Processes.started("cpu"))
    assert images.held.captions is not None
    assert images.held.captions[0] == ("none",)
    assert len(images.held.class_names) == 4


def test_operations_are_counted_in_the_subwords_of_the_run(
    config: TrainConfig, tmp_path: Path
) -> None:
    trainer = short_trainer(config, tmp_path / "counted", 1, joint=False)
    assert trainer.config.data.limit is None
    assert trainer.images.words == TrainingImages(config, Processes.started("cpu")).words


def test_in_parallel_batches_no_word_is_read_unless_nothing_is_visible(config: TrainConfig) -> None:
    trainer = Trainer(config.replace(num_captions=2, parallel_share=1.0), Processes.started("cpu"))
    generator = torch.Generator().manual_seed(0)
    batch = trainer.model_learner.draw(4, generator)
    drawn = [trainer.model_learner.words_of(batch, generator) for _ in range(60)]
    blind = [bool((each["word_steps"] == NOTHING).all()) for each in drawn]
    assert 0 < sum(blind) < 30
    for each, alone in zip(drawn, blind, strict=True):
        read = each["words_read"]
        assert read is None if alone else bool((read == -1).all()) and read.shape[1] == 1


def test_words_are_read_with_gaps_and_told_after_all_numbers_of_fixations(
    config: TrainConfig,
) -> None:
    trainer = Trainer(config.replace(num_captions=2, word_dropout=0.5), Processes.started("cpu"))
    learner, generator = trainer.model_learner, torch.Generator().manual_seed(0)
    batch = learner.draw(8, generator)
    drawn = [learner.words_of(batch, generator) for _ in range(400)]
    told = [(each["words"], each["words_read"], each["word_steps"]) for each in drawn]
    hidden, steps = [], []
    for words, read, visible in told:
        assert words is not None
        assert read is not None
        assert visible is not None
        assert bool(((read == words) | (read == -1)).all())
        hidden.append(float((read == -1)[words >= 0].float().mean()))
        steps.append(int(visible[0]))
    assert np.mean(hidden) == pytest.approx(0.5, abs=0.03)
    number = trainer.model.num_patches
    # Whole images also come by chance, as one of all numbers of fixations.
    assert np.mean(np.equal(steps, NOTHING)) == pytest.approx(ALONE_SHARE, abs=0.06)
    assert np.mean(np.equal(steps, number)) > WHOLE_SHARE - 0.1
    assert {*range(1, number)} & {*steps}


def test_what_is_left_out_is_said(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    TrainingImages(config.replace(max_subwords=2), Processes.started("cpu"))
    said = capsys.readouterr().err
    assert "note: 2 of 18 images have no caption, and teach no words" in said
    assert "32 captions are longer than 2 subwords, and cut there" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption_column": None}, r"no captions: .*its columns: \['image', 'split', 'told'\]"),
        ({"caption_column": "tol"}, "no column 'tol' for --caption-column"),
        ({"caption_column": "none"}, r"empty or missing; .*its columns: \['image', 'split', 'no"),
        ({"num_subwords": 100}, "num_subwords must be at least 257"),
    ],
)
def test_captions_that_are_not_there_are_named_before_training(
    config: TrainConfig, change: dict[str, object], message: str
) -> None:
    if change.get("caption_column") == "none":
        table = pq.read_table(config.data.data)
        table = table.append_column("none", pa.nulls(len(table), pa.string()))
        pq.write_table(table, config.data.data)
    with pytest.raises(ValueError, match=message):
        train(config.replace(**change))
    assert not config.run.out.exists() or not list(config.run.out.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": "caption"}, "reward caption needs a recipe with captions"),
        ({"words_prefix": "causal"}, "words_prefix needs a recipe with captions"),
        ({"num_captions": 2}, "num_captions needs a recipe with captions"),
        ({"word_dropout": 0.1}, "word_dropout needs a recipe with captions"),
        ({"parallel_share": 0.5}, "parallel_share needs a recipe with captions"),
        ({"word_weight": 0.5}, "word_weight and image_weight need a recipe with words"),
        ({"recipe": "caption", "word_weight": 0.0, "image_weight": 0.0}, "not both 0"),
        ({"recipe": "caption", "data": "a.tar", "image_size": 8, "stream": True}, "leave out --st"),
        ({"caption_column": "told"}, "caption_column has no effect on scenes"),
    ],
)
def test_options_of_captions_that_mean_nothing_are_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig().replace(**change)


def test_the_preset_of_photographs_has_at_most_five_million_weights() -> None:
    config = PRESETS["flickr8k"][1]
    words = {"vocabulary": tuple(map(str, range(2000))), "max_words": 32}
    model, _ = build(config.replace(device="cpu"), (3, 96, 96), **words)
    assert sum(parameter.numel() for parameter in model.parameters()) < 5e6
