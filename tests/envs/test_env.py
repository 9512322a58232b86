"""Environments: the contracts of gymnasium and stable-baselines3, rows alike, no leaks."""

from __future__ import annotations

import itertools
import json
import pickle
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from image_files import numbered, write_parquet
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from torch import Tensor

import envs
from envs.observations import OBSERVERS
from envs.rewards import REVISIT_PENALTY
from envs.starts import ResetOptions, checked_seed
from envs.trained import config_of_run
from foveate.checkpoint import CHECKPOINT, save_model
from foveate.config import ModelConfig
from foveate.data import ImageSet, load_data
from foveate.model import AnyOrderTransformer

IDS = [f"foveate/{name}-v0" for name in ("ImageScan", "ImageScanContinuous", "CueScan")]
MODES = sorted(OBSERVERS)


@pytest.fixture
def data() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (9, 2, 6, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.zeros(9, dtype=torch.long), ("a",), "toy")


def equal(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    """Compare observations; pictures may round differently by one."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            equal(one[name], other[name], tolerance)
    elif np.asarray(one).dtype == np.uint8:
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
    else:
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.parametrize(("name", "mode"), list(itertools.product(IDS, MODES)))
def test_both_checkers_pass(name: str, mode: str) -> None:
    with warnings.catch_warnings():
        # Both warn of unbounded or two-dimensional boxes, which the latent observation has.
        warnings.simplefilter("ignore", UserWarning)
        env = gym.make(name, obs=mode, limit=20, render_mode="rgb_array")
        check_env(env.unwrapped)
        check_env_for_sb3(env.unwrapped)
    assert pickle.loads(pickle.dumps(env.spec)) == env.spec


@pytest.mark.parametrize(("name", "mode"), list(itertools.product(IDS[:2], MODES)))
def test_a_row_equals_the_single_environment(name: str, mode: str) -> None:
    """Over two episodes, so that autoreset is part of it."""
    many = gym.make_vec(name, num_envs=3, obs=mode, budget=3, limit=20)
    one = gym.make(name, obs=mode, budget=3, limit=20).unwrapped
    many.action_space.seed(0)
    observation, info = many.reset(seed=0, options={"index": [4, 7, 2]})
    alone, alone_info = one.reset(options={"index": 7})
    for step in range(6):
        equal({"obs": alone}, {"obs": row(observation, 1)})
        np.testing.assert_array_equal(info["action_mask"][1], alone_info["action_mask"])
        action = many.action_space.sample()
        observation, reward, terminated, truncated, info = many.step(action)
        alone, alone_reward, alone_terminated, _, alone_info = one.step(action[1])
        np.testing.assert_allclose(reward[1], alone_reward, atol=1e-5)
        assert terminated.tolist() == [alone_terminated] * 3 == [step % 3 == 2] * 3
        assert not truncated.any()
        if alone_terminated:
            equal({"obs": alone}, {"obs": info["final_obs"][1]})
            np.testing.assert_allclose(
                info["final_info"]["error"][1], alone_info["error"], atol=1e-5
            )
            alone, alone_info = one.reset(options={"index": int(info["index"][1])})


def row(observation: Any, number: int) -> Any:
    if isinstance(observation, dict):
        return {name: values[number] for name, values in observation.items()}
    return observation[number]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("periphery", [0, 2])
def test_observations_ignore_unseen_patches_unless_there_is_a_periphery(
    mode: str, periphery: int
) -> None:
    torch.manual_seed(0)
    model = AnyOrderTransformer(
        ModelConfig(
            image_size=(8, 8),
            patch_size=2,
            embed_dim=16,
            depth=2,
            num_heads=2,
            periphery=periphery,
        )
    ).eval()
    pixels = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8)
    changed = 255 - pixels
    changed[..., :2, :2], changed[..., 4:6, 2:4] = pixels[..., :2, :2], pixels[..., 4:6, 2:4]
    worlds = ImageSet(torch.cat([pixels, changed]), torch.zeros(2).long(), (), "two")
    env = envs.ImageScanVectorEnv(2, model=model, data=worlds, budget=4, obs=mode)
    env.reset(options={"index": [0, 1]})
    env.step(np.array([0, 0]))
    observation, *_ = env.step(np.array([9, 9]))
    if periphery:
        assert not same(row(observation, 0), row(observation, 1))
    else:
        assert same(row(observation, 0), row(observation, 1))


def test_a_canvas_and_a_retina_show_what_was_fixated() -> None:
    """The patch in the second row and third column of a black image is white."""
    torch.manual_seed(0)
    model = AnyOrderTransformer(
        ModelConfig(
            image_size=(8, 8), patch_size=2, embed_dim=16, depth=1, num_heads=2, periphery=0
        )
    ).eval()
    pixels = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    pixels[..., 2:4, 4:6] = 255
    world = ImageSet(pixels, torch.zeros(1).long(), (), "one")

    def look(mode: str, *patches: int) -> Any:
        env = envs.ImageScanVectorEnv(1, model=model, data=world, budget=4, obs=mode)
        env.reset()
        for patch in patches:
            observation, *_ = env.step(np.array([patch]))
        return row(observation, 0)

    side = look("canvas", 6).shape[1] // 8
    first, second, seen = look("canvas", 0, 6)[:, ::side, ::side]
    black, white = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    black[:2, :2], white[2:4, 4:6] = True, True
    assert (seen == 255 * (black | white)).all()
    for shown in (first, second):
        assert (shown[white] == 255).all()
        assert (shown[black] == 0).all()
    assert set(first[~(black | white)].tolist()) <= {127, 128}
    at_white, at_black = look("retina", 6), look("retina", 6, 0)
    assert at_white["gaze"].tolist() == [0.25, -0.25]
    assert at_black["gaze"].tolist() == [-0.75, -0.75]
    # The nearest crop is as wide as a patch: all white, then all black.
    near = [each["retina"][0, 12:24, 12:24] for each in (at_white, at_black)]
    assert near[0].min() > 200
    assert near[1].max() < 60
    # In the whole width around the gaze it is the middle, and later right and below.
    wide = at_white["retina"][2]
    assert wide[17:19, 17:19].min() > 200
    bright = np.argwhere(at_black["retina"][2] > 200).mean(0)
    assert (bright > 17.5).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_cost_of_saccades_is_paid_and_told_as_in_an_episode(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    """Distances are observed where they cost something, and only there."""
    options: dict[str, Any] = {"model": model, "data": data, "budget": 3}
    assert "distance" not in envs.ImageScanEnv(**options).observation_space.spaces
    with pytest.raises(ValueError, match="saccade_cost must be"):
        envs.ImageScanEnv(**options, saccade_cost=-1.0)
    env = gym.make("foveate/ImageScan-v0", **options, saccade_cost=0.2).unwrapped
    check_env(env, skip_render_check=True)
    check_env_for_sb3(env)
    observation, _ = env.reset(options={"index": 4})
    episode = envs.Episode(model, data.batch(torch.tensor([4])), budget=3, saccade_cost=0.2)
    for patch in (0, 11, 1):
        seen = episode.observe()
        np.testing.assert_allclose(observation["distance"], seen.distance[0], atol=1e-5)
        np.testing.assert_allclose(observation["expected_gain"], seen.expected_gain[0], atol=1e-5)
        observation, reward, *_ = env.step(patch)
        assert reward == pytest.approx(float(episode.step(torch.tensor([patch]))), abs=1e-5)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(same(one[name], other[name]) for name in one)
    return bool(np.allclose(one, other, atol=1e-6))


def test_masks_name_the_unvisited_and_are_never_empty(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanVectorEnv(3, model=model, data=data, budget=11)
    env.action_space.seed(0)
    _, info = env.reset(seed=0)
    for step in range(11):
        assert info["action_mask"].dtype == np.int8
        assert env.action_masks().dtype == np.bool_
        np.testing.assert_array_equal(info["action_mask"], env.action_masks())
        assert (info["action_mask"].sum(1) == 12 - step).all()
        action = env.action_space.sample(tuple(info["action_mask"]))
        _, reward, terminated, _, info = env.step(action)
        last = info["final_info"] if terminated.all() else info
        np.testing.assert_allclose(reward, -last["error"], atol=1e-6)
        assert (last["action_mask"].sum(1) == 11 - step).all()
    assert terminated.all()
    assert (info["action_mask"] == 1).all()


def test_a_revisit_is_a_penalized_step_without_effect(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanVectorEnv(2, model=model, data=data, budget=3)
    env.reset(seed=0)
    _, _, _, _, before = env.step(np.array([0, 1]))
    _, reward, _, _, info = env.step(np.array([0, 2]))
    np.testing.assert_allclose(info["error"][0], before["error"][0], atol=1e-6)
    np.testing.assert_allclose(reward[0], -before["error"][0] - REVISIT_PENALTY, atol=1e-6)
    assert info["scanpath"].tolist() == [[0, -1, -1], [1, 2, -1]]
    assert info["fixated"].tolist() == [[0], [2]]


def test_chosen_rows_restart_when_autoreset_is_off(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanVectorEnv(3, model=model, data=data, budget=2, autoreset="disabled")
    env.reset(seed=0)
    env.step(np.array([0, 1, 2]))
    _, _, terminated, _, info = env.step(np.array([3, 4, 5]))
    assert terminated.all()
    with pytest.raises(ValueError, match="is spent"):
        env.step(np.array([6, 7, 8]))
    mask = np.array([False, True, False])
    before = info["error"]
    observation, info = env.reset(options={"reset_mask": mask, "index": 5})
    assert info["error"].tolist() == [before[0], 1.0, before[2]]
    assert int(info["index"][1]) == 5
    alone = envs.ImageScanVectorEnv(1, model=model, data=data, budget=2)
    equal(row(observation, 1), row(alone.reset(options={"index": 5})[0], 0))


def test_a_gaze_lands_on_the_nearest_unvisited_patch(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanVectorEnv(1, model=model, data=data, budget=3, action="gaze")
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.array([[-1.0, -1.0]]))
    env.step(np.array([[0.9, 1.0]]))
    env.reset(seed=0)
    env.step(np.array([[0.9, 1.0]]))
    assert env.episode is not None
    assert env.episode.order[0, 0] == 11
    for _ in range(2):
        gaze = env.actions.fixations(np.array([[0.9, 1.0]]), env.episode.selectable)
        env.episode.step(env.episode.opens(gaze))
    # The neighbor on the left is nearer (2 of 8 pixels wide) than the one above (2 of 6 high).
    assert env.episode.order[0].tolist() == [11, 10, 7]


def test_gaze_goes_to_the_patch_that_is_nearest_in_patches() -> None:
    """On 2 x 8 patches the one below is nearer than the one after the next."""
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_depth": 1}
    wide = AnyOrderTransformer(ModelConfig(image_size=(8, 32), in_chans=1, **sizes)).eval()
    pixels = torch.randint(256, (4, 1, 8, 32), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(4).long(), (), "wide")
    env = envs.ImageScanVectorEnv(1, model=wide, data=images, budget=3, action="gaze")
    env.reset(seed=0)
    assert env.episode is not None
    for _ in range(3):
        gaze = env.actions.fixations(np.array([[-0.875, -0.5]]), env.episode.selectable)
        env.episode.step(env.episode.opens(gaze))
    assert env.episode.order[0].tolist() == [0, 1, 8]


def test_a_masked_reset_seeds_the_rows_that_it_resets(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanVectorEnv(2, model=model, data=data, budget=2)
    env.reset(seed=[3, 4])
    kept = env.starts.streams[1]
    for seed in (7, [8, 9]):
        env.reset(seed=seed, options={"reset_mask": np.array([True, False])})
        assert env.starts.streams[1] is kept
    assert env.starts.streams[0] is not None


def test_a_reset_that_is_refused_changes_nothing(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env, same = (envs.ImageScanVectorEnv(2, model=model, data=data, budget=2) for _ in range(2))
    for each in (env, same):
        each.reset(seed=0)
    with pytest.raises(ValueError, match="takes one image number"):
        env.reset(seed=5, options={"in_turn": True, "index": 999})
    assert env.reset()[1]["index"].tolist() == same.reset()[1]["index"].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_fixes_the_images(seed: int, model: AnyOrderTransformer, data: ImageSet) -> None:
    env = envs.ImageScanVectorEnv(5, model=model, data=data, budget=2)
    first, again, other = (
        env.reset(seed=number)[1]["index"].tolist() for number in (seed, seed, seed + 7)
    )
    assert first == again != other


@pytest.mark.filterwarnings("ignore:.*human")
def test_human_rendering_is_gymnasiums_window_around_our_frames() -> None:
    env = gym.make("foveate/CueScan-v0", render_mode="human")
    assert isinstance(env, gym.wrappers.HumanRendering)
    assert env.unwrapped.render_mode == "rgb_array"


def test_rendering_shows_three_panels(model: AnyOrderTransformer) -> None:
    env = gym.make("foveate/ImageScan-v0", render_mode="rgb_array", limit=5)
    env.reset(seed=0)
    env.step(3)
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.shape == (224, 3 * 224 + 8, 3)


@pytest.mark.parametrize("in_chans", [1, 2, 4])
def test_images_of_any_channels_are_drawn(in_chans: int) -> None:
    sizes = {"image_size": (8, 12), "in_chans": in_chans, "patch_size": 4}
    own = AnyOrderTransformer(ModelConfig(**sizes, embed_dim=8, depth=1, num_heads=1))
    pixels = np.full((3, in_chans, 8, 12), 128, np.uint8)
    pixels[:, 0] = 255
    env = envs.ImageScanEnv(model=own, data=pixels, budget=2, render_mode="rgb_array")
    env.reset(seed=0)
    shown = env.render()[100, 100]
    assert shown.tolist() == ([255] * 3 if in_chans == 1 else [255, 128, 128])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"obs": "latnt"}, "did you mean 'latent'"),
        ({"reward": "auk"}, "did you mean 'auc'"),
        ({"action": "look"}, "unknown action 'look'"),
        ({"budget": 64}, "budget must lie in 1..63"),
        ({"model": "nowhere"}, "no checkpoint at nowhere"),
        ({"model": "cue"}, "the model reads images of shape"),
        ({"render_mode": "ansi"}, "render_mode must be None, 'rgb_array' or, .* 'human'"),
        ({"model": "cue", "data": "cue", "image_size": 16}, "image_size has no effect on the cue"),
        (
            {"model": "cue", "data": "cue", "fixation_size": 3, "budget": 4},
            r"1\.\.3 .* got 4; fixation_size 3 leaves 4 to choose from on a grid of 4x4",
        ),
        ({"model": "cue", "data": "cue", "limit": True}, "at least 1 image, got True"),
        ({"data": "nowhere"}, "no data 'nowhere'"),
        ({"model": "cue", "data": "cue", "budget": True}, "a whole number, got True"),
        ({"model": "cue", "data": "cue", "fixation_size": True}, "a whole number, got True"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.ImageScanEnv(**options)


@pytest.mark.parametrize("number", [0, True])
@pytest.mark.parametrize("name", ["num_envs", "max_episode_steps"])
def test_numbers_of_rows_and_steps_are_whole(name: str, number: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, a whole number, got"):
        envs.ImageScanVectorEnv(model="cue", data="cue", **{name: number})


def test_a_device_is_torchs_or_its_name() -> None:
    env = envs.ImageScanEnv(model="cue", data="cue", budget=2, device=torch.device("cpu"))
    assert env.reset(seed=0)[1]["index"].shape == ()
    with pytest.raises(ValueError, match="torch does not number processors"):
        envs.ImageScanEnv(model="cue", data="cue", budget=2, device=torch.device("cpu", 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": [0, 9]}, r"one image number in 0\.\.8"),
        ({"index": 0.5}, "one image number"),
        ({"indx": 1}, "unknown option 'indx'; did you mean 'index'"),
        ({"reset_mask": [1, 0]}, "2 bools"),
        ({"reset_mask": np.array([False, False])}, "at least one"),
    ],
)
def test_wrong_reset_options_are_named(
    options: dict[str, Any], message: str, model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanVectorEnv(2, model=model, data=data, budget=2)
    with pytest.raises(ValueError, match="reset"):
        env.step(np.array([0, 1]))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


@pytest.mark.parametrize("seed", ["x", 1.5, -1, True])
def test_a_wrong_seed_is_named(seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, or None, got"):
        checked_seed(seed)


def test_bytes_are_no_list_of_seeds(model: AnyOrderTransformer, data: ImageSet) -> None:
    env = envs.ImageScanVectorEnv(2, model=model, data=data, budget=2)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, or None, got"):
        env.reset(seed=b"ab")


def test_a_reset_that_is_refused_takes_no_seed(model: AnyOrderTransformer, data: ImageSet) -> None:
    def drawn(refused: bool) -> list[int]:
        env = envs.ImageScanEnv(model=model, data=data, budget=2)
        env.reset(seed=1)
        if refused:
            with pytest.raises(ValueError, match="one image number"):
                env.reset(seed=7, options={"index": 9999})
        return [int(env.reset()[1]["index"]) for _ in range(5)]

    assert drawn(refused=True) == drawn(refused=False)


def test_options_that_are_no_mapping_are_named() -> None:
    with pytest.raises(ValueError, match=r"options must be a mapping, .* got \[1\]"):
        ResetOptions.of([1], 2)


def test_images_of_ones_own_have_no_split(model: AnyOrderTransformer, data: ImageSet) -> None:
    with pytest.raises(ValueError, match=r"taken whole; leave out split='test'"):
        envs.ImageScanEnv(model=model, data=data, split="test")


def test_observations_carry_no_gradient_to_unseen_pixels(images: Tensor) -> None:
    """The reward may look at the whole image; what the agent sees is detached."""
    model = AnyOrderTransformer(
        ModelConfig(image_size=(6, 8), in_chans=2, patch_size=2, embed_dim=16, depth=2, num_heads=2)
    )
    seen = envs.Episode(model, images.requires_grad_(), budget=2).observe()
    assert not seen.query_states.requires_grad
    assert not seen.content_state.requires_grad


def test_a_reward_is_tried_on_two_images_and_on_what_a_fixation_opens(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    tried: list[tuple[int, ...]] = []

    def one(fixation: Any) -> Tensor:
        tried.append(tuple(fixation.patches.shape))
        assert not torch.equal(*fixation.images)
        return fixation.patches[:, 3].float()

    envs.ImageScanVectorEnv(
        1, model=model, data=data, budget=1, fixation_size=2, reward=one, limit=2
    )
    assert tried == [(2, 4)]


def test_a_fixation_that_paid_no_number_is_made(model: AnyOrderTransformer, data: ImageSet) -> None:
    spoils: list[bool] = []
    env = envs.ImageScanVectorEnv(
        2,
        model=model,
        data=data,
        budget=1,
        reward=lambda fixation: fixation.known_after.error * (torch.nan if spoils else 1),
    )
    env.reset(seed=0)
    spoils.append(True)
    with pytest.raises(ValueError, match="is nan on image"):
        env.step(np.array([0, 1]))
    with pytest.raises(ValueError, match="budget of 1 fixations is spent"):
        env.step(np.array([2, 3]))


def test_an_environment_of_a_run_on_its_own_images_has_its_splits(tmp_path: Path) -> None:
    """Elsewhere the run's columns say nothing."""
    said = {"data": str(tmp_path / "a.parquet"), "split_column": "fold", "image_column": "photo"}
    (tmp_path / "config.json").write_text(json.dumps(said))
    trained = config_of_run(tmp_path)
    assert trained.columns_of(tmp_path / "a.parquet") == {
        "split_column": "fold",
        "image_column": "photo",
    }
    assert trained.columns_of(tmp_path / "b.parquet") == {}
    assert trained.columns_of(torch.zeros(1)) == {}


def test_an_environment_of_a_run_scans_the_images_that_it_learned_from(
    tmp_path: Path, model: AnyOrderTransformer
) -> None:
    """Given by its folder or by one of its checkpoints."""
    rebuilt = AnyOrderTransformer(replace(model.config, image_size=(8, 8), in_chans=1))
    weights = tmp_path / CHECKPOINT
    save_model(rebuilt, weights)
    (tmp_path / "config.json").write_text(json.dumps({"data": "cue", "budget": 3}))
    for given in (tmp_path, weights):
        env = envs.ImageScanEnv(model=given)
        assert (env.budget, env.batch.images.name) == (3, "cue")
    assert envs.ImageScanEnv(model=rebuilt, data="cue").budget == 12
    (tmp_path / "config.json").write_text(json.dumps({"data": "shards", "stream": True}))
    with pytest.raises(ValueError, match="a stream of shards, which no environment reads"):
        envs.ImageScanEnv(model=tmp_path)


def test_an_environment_of_a_run_warns_of_images_that_changed_since(
    tmp_path: Path, model: AnyOrderTransformer
) -> None:
    """Images of another name are another set, and nothing is said of them."""
    for name in ("own", "other"):
        write_parquet(tmp_path / f"{name}.parquet", [numbered(n, size=(8, 8)) for n in range(40)])
    own, other = (str(tmp_path / f"{name}.parquet") for name in ("own", "other"))
    told = [f"image {number}" for number in range(40)]
    write_parquet(Path(own), [numbered(n, size=(8, 8)) for n in range(40)], about=told)
    run = tmp_path / "run"
    run.mkdir()
    rebuilt = AnyOrderTransformer(replace(model.config, image_size=(8, 8), in_chans=1))
    save_model(rebuilt, run / CHECKPOINT)
    said = {"data": own, "budget": 3, "image_size": 8, "caption_column": "about"}
    (run / "config.json").write_text(json.dumps(said))
    prints = load_data(own, image_size=8, caption_column="about").fingerprints
    assert prints is not None
    splits = {name: asdict(each) for name, each in prints.items()}
    (run / "manifest.json").write_text(json.dumps({"splits": splits}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs.ImageScanEnv(model=run)
    write_parquet(Path(own), [numbered(n, size=(8, 8)) for n in range(1, 40)], about=told[1:])
    with pytest.warns(UserWarning, match="own.parquet changed since the model learned from it"):
        envs.ImageScanEnv(model=run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs.ImageScanEnv(model=run, data=other)
    (run / "config.json").write_text(json.dumps({**said, "stream": True}))
    envs.ImageScanEnv(model=run, data=own)
    (run / "config.json").write_text(json.dumps(said))
    (run / "manifest.json").write_text(json.dumps({"splits": [1]}))
    envs.ImageScanEnv(model=run, data=other)
    with pytest.raises(ValueError, match=r"manifest\.json is no readable manifest of a run"):
        envs.ImageScanEnv(model=run, data=own)
