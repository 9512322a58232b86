"""What other people's code asks of the environments: actions, autoreset, seeds, info, spaces."""

from __future__ import annotations

import json
import pickle
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import gymnasium.wrappers.vector as wrappers
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from torch import Tensor

import envs
from envs import probing
from envs.forms import FORMS
from envs.recognition import RecognitionProbe
from envs.rewards import REVISIT_PENALTY
from envs.toy import cue_set
from foveate.checkpoint import load_model, save_model
from foveate.config import ModelConfig
from foveate.data import ImageSet, load_data
from foveate.ids import IDS, WORLDS
from foveate.model import AnyOrderTransformer
from foveate.tensors import read_state

composed = cache(load_data)


@pytest.fixture(scope="module")
def model() -> AnyOrderTransformer:
    """One for all: nothing here depends on what a model knows."""
    torch.manual_seed(0)
    sizes = {"image_size": (6, 8), "in_chans": 2, "patch_size": 2}
    return AnyOrderTransformer(
        ModelConfig(**sizes, embed_dim=16, depth=1, num_heads=2, periphery=2)
    ).eval()


@pytest.fixture(scope="module")
def data() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (9, 2, 6, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(9) % 3, ("a", "b", "c"), "toy")


def batch(model: AnyOrderTransformer, data: Any, rows: int = 3, **options: Any) -> Any:
    return envs.ImageScanVectorEnv(rows, model=model, data=data, **{"budget": 3, **options})


# --- actions


@pytest.mark.parametrize(
    ("action", "wrong", "message"),
    [
        ("patch", [0, 1], "shape .3,. with fixations as integers"),
        ("patch", 1, "shape .3,."),
        ("patch", [[0], [1], [2]], r"got an array of int64 and shape .3, 1."),
        ("patch", [0.0, 1.0, 2.0], "got an array of float64"),
        ("patch", [True, False, True], "got an array of bool"),
        ("patch", [0, 1, 12], r"a fixation must lie in 0\.\.11, got 12 in row 2"),
        ("patch", [0, -1, 1], "got -1 in row 1"),
        ("patch", None, "got an array of object"),
        ("patch", [[0], [1, 2], [3]], "the action must be an array of shape"),
        ("gaze", [[0.0, 0.0], [0.0, np.nan], [0.0, 0.0]], "a gaze point must lie in .* got nan"),
        ("gaze", [0.0, 0.0], "shape .3, 2. with gaze points"),
        ("gaze", [[0.0, 0.0], [1.5, 0.0], [0.0, 0.0]], "got 1.5 in row 1"),
    ],
)
def test_an_action_that_does_not_fit_is_refused_and_moves_nothing(
    action: str, wrong: Any, message: str, model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = batch(model, data, action=action)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message) as refusal:
        env.step(wrong)
    assert "\n" not in str(refusal.value)
    assert env.episode.num_steps.tolist() == [0, 0, 0]
    assert (env.episode.order == -1).all()


@pytest.mark.parametrize("wrong", [[1], 1.0, np.array([1]), 12, True, None])
def test_a_single_environment_takes_one_fixation(
    wrong: Any, model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanEnv(model=model, data=data, budget=3)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="fixation"):
        env.step(wrong)
    env.step(np.int64(3))
    env.step(torch.tensor(4))
    _, info = env.step(np.array(5, np.uint8))[3:]
    assert info["scanpath"].tolist() == [3, 4, 5]


def test_an_episode_does_not_broadcast_its_patches(
    model: AnyOrderTransformer, images: Tensor
) -> None:
    episode = envs.Episode(model, images, budget=2)
    for wrong in (torch.tensor([1]), torch.zeros(5)):
        with pytest.raises(Exception, match=r"of each of the 5 rows|Type-check error"):
            episode.step(wrong)
    assert episode.num_steps.tolist() == [0] * 5


# --- autoreset


def test_next_step_resets_as_gymnasiums_own_batches_do(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    """The same actions on single environments in gymnasium's batch give the same."""

    def single() -> gym.Env[Any, Any]:
        return envs.ImageScanEnv(model=model, data=data, budget=3)

    theirs, ours = gym.vector.SyncVectorEnv([single] * 3), batch(model, data, autoreset="next_step")
    assert ours.autoreset_mode is ours.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    ours.reset(seed=[4, 5, 6])
    theirs.reset(seed=[4, 5, 6])
    for step in range(9):
        action = np.array([step, step + 1, step + 2])
        told, expected = ours.step(action), theirs.step(action)
        for name in expected[0]:
            np.testing.assert_allclose(told[0][name], expected[0][name], atol=1e-5)
        for one, other in zip(told[1:4], expected[1:4], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert told[4].keys() == expected[4].keys()
        for name in expected[4]:
            np.testing.assert_allclose(told[4][name], expected[4][name], atol=1e-5)
        assert told[2].tolist() == [step % 4 == 2] * 3


def test_rows_out_of_step_begin_anew_by_themselves(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = batch(model, data, autoreset="next_step")
    env.reset(seed=[1, 2, 3])
    env.step(np.array([0, 0, 0]))
    only = np.array([False, True, False])
    env.reset(options={"reset_mask": only, "index": 4})
    env.step(np.array([1, 1, 1]))
    assert env.step(np.array([2, 2, 2]))[2].tolist() == [True, False, True]
    _, reward, terminated, _, info = env.step(np.array([3, 3, 3]))
    assert terminated.tolist() == [False, True, False]
    assert reward[[0, 2]].tolist() == [0, 0]
    assert info["error"][[0, 2]].tolist() == [1, 1]
    assert info["scanpath"].tolist() == [[-1] * 3, [1, 2, 3], [-1] * 3]
    alone = batch(model, data, rows=1, budget=3)
    alone.reset(options={"index": 4})
    for patch in (1, 2):
        alone.step(np.array([patch]))
    np.testing.assert_allclose(alone.step(np.array([3]))[1][0], reward[1], atol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        wrappers.NormalizeObservation,
        wrappers.FlattenObservation,
        wrappers.GrayscaleObservation,
        wrappers.NormalizeReward,
        wrappers.RecordEpisodeStatistics,
        partial(wrappers.ReshapeObservation, shape=(-1,)),
        partial(wrappers.RescaleObservation, min_obs=0.0, max_obs=1.0),
        partial(wrappers.DtypeObservation, dtype=np.float32),
    ],
    ids=lambda wrap: getattr(wrap, "func", wrap).__name__,
)
def test_gymnasiums_wrappers_of_batches_take_the_environment(wrap: Any) -> None:
    options = {"num_envs": 2, "obs": "picture", "autoreset": "next_step"}
    plain = gym.make_vec("foveate/CueScan-v0", **options)
    if getattr(wrap, "func", None) is wrappers.ReshapeObservation:
        wrap = partial(wrap.func, shape=(4800,))
    env = wrap(plain)
    env.reset(seed=0)
    for step in range(6):
        observation, _, terminated, _, info = env.step(np.array([step, step + 1]))
        assert observation in env.observation_space
        assert terminated.all() == (step == 3)
        if step == 3 and "episode" in info:
            assert info["episode"]["l"].tolist() == [4, 4]


# --- seeds


def test_a_row_with_a_seed_is_a_single_environment_of_that_seed(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env, seeds = batch(model, data, budget=1), [7, 3, 7]
    singles = [envs.ImageScanEnv(model=model, data=data, budget=1) for _ in seeds]
    told = env.reset(seed=seeds)[1]["index"].tolist()
    assert told == [
        int(one.reset(seed=seed)[1]["index"]) for one, seed in zip(singles, seeds, strict=True)
    ]
    for _ in range(5):
        told = env.step(np.array([0, 1, 2]))[4]["index"].tolist()
        assert told == [int(one.reset()[1]["index"]) for one in singles]
        assert told[0] == told[2]
    with pytest.raises(ValueError, match="or 3 of them"):
        env.reset(seed=[1, 2])


def test_some_rows_may_be_chosen_and_others_drawn(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = batch(model, data)
    drawn = env.reset(seed=5)[1]["index"]
    told = env.reset(seed=5, options={"index": [None, 8, None]})[1]["index"]
    assert told.tolist() == [drawn[0], 8, drawn[2]]


# --- info


def test_info_tells_what_a_log_wants(model: AnyOrderTransformer, data: ImageSet) -> None:
    env = batch(model, data, rows=2, fixation_size=2, budget=2, autoreset="disabled")
    _, info = env.reset(options={"index": [4, 5]})
    assert info["fixated"].tolist() == [[-1] * 4] * 2
    assert info["gaze_px"].tolist() == [[4, 3]] * 2
    assert info["label"].tolist() == [1, 2]
    before = info["error"]
    _, _, _, _, info = env.step(np.array([0, 3]))
    np.testing.assert_array_equal(info["error_before"], before)
    assert (info["error"] < before).all()
    # Squares of two patches a side on the grid of 3 x 4; the lower ones hold one row.
    assert info["fixated"].tolist() == [[0, 1, 4, 5], [10, 11, -1, -1]]
    assert info["gaze_px"].tolist() == [[2, 2], [6, 5]]
    assert info["scanpath"].tolist()[0] == [[0, 1, 4, 5], [-1] * 4]
    single = envs.ImageScanEnv(model=model, data=data, budget=2)
    _, alone = single.reset(options={"index": 4})
    assert all(isinstance(value, np.ndarray) for value in alone.values())
    assert alone["label"].shape == alone["error"].shape == ()


def test_a_model_in_half_precision_is_refused(model: AnyOrderTransformer, data: ImageSet) -> None:
    with pytest.raises(ValueError, match=r"float32 or float64, got torch.bfloat16"):
        envs.ImageScanEnv(model=model.bfloat16(), data=data, budget=2)
    env = envs.ImageScanEnv(model=model.double(), data=data, budget=2)
    env.reset(seed=0)
    assert np.isfinite(env.step(0)[1])


def test_images_in_turn_come_once_each(model: AnyOrderTransformer, data: ImageSet) -> None:
    """Nine images in four rows: the third round holds one that is left and three again."""
    env = batch(model, data, rows=4, budget=1)
    _, info = env.reset(seed=0, options={"in_turn": True})
    seen, laps = list(info["index"]), list(info["lap"])
    for _ in range(2):
        info = env.step(np.arange(4))[4]
        seen, laps = [*seen, *info["index"]], [*laps, *info["lap"]]
    assert seen == [*range(9), 0, 1, 2]
    assert laps == [0] * 9 + [1] * 3
    single = envs.ImageScanEnv(model=model, data=data, budget=1)
    single.reset(options={"in_turn": True})
    assert [int(single.reset()[1]["index"]) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="in_turn takes True or False"):
        single.reset(options={"in_turn": "yes"})


# --- own things


def half(fixation: Any, weight: float = 0.5) -> Tensor:
    return weight * fixation.before


def test_a_reward_may_be_a_function_with_options_and_a_price_of_revisits(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    def first_two(**options: Any) -> list[float]:
        env = batch(model, data, rows=1, **options)
        env.reset(options={"index": 0})
        return [float(env.step(np.array([3]))[1][0]) for _ in range(2)]

    plain = first_two(reward=half)
    assert plain[0] == 0.5
    twice = first_two(reward=half, reward_options={"weight": 1.0}, revisit_penalty=0.0)
    np.testing.assert_allclose(twice, [2 * plain[0], 2 * (plain[1] + REVISIT_PENALTY)], atol=1e-6)
    for options, message in (
        ({"reward_options": {"weight": 1}}, "reward 'auc' takes no reward_options"),
        ({"reward": half, "reward_options": {"wait": 1}}, "reward 'half': TypeError"),
        ({"revisit_penalty": -1.0}, "revisit_penalty must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            first_two(**options)


def test_data_may_be_arrays_and_tensors(model: AnyOrderTransformer, data: ImageSet) -> None:
    pixels = data.images
    labels = data.labels.tolist()
    learned = (pixels.float() / 255).requires_grad_()
    for given in (pixels, pixels.numpy(), learned, (pixels, data.labels), (pixels, labels)):
        env = batch(model, given, limit=5)
        _, info = env.reset(options={"index": 4})
        assert torch.equal(env.images.images, pixels[:5])
        assert info["label"].tolist() == [1 if isinstance(given, tuple) else -1] * 3
    with pytest.raises(ValueError, match="channels last"):
        batch(model, np.zeros((9, 6, 8, 2), np.uint8))
    with pytest.raises(ValueError, match="image_size resizes data by name"):
        batch(model, data, image_size=8)


def test_a_missing_device_is_called_so_for_a_given_model_too(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used here"):
        batch(model, data, device="nowhere")
    with pytest.raises(ValueError, match=r"lies on cpu, not on meta|'meta' cannot be used"):
        batch(model, data, device="meta")


def test_a_run_folder_brings_its_budget_squares_and_canvas(tmp_path: Path) -> None:
    canvas = ModelConfig(image_size=(48, 48), patch_size=8, embed_dim=16, depth=1, num_heads=2)
    torch.manual_seed(0)
    save_model(AnyOrderTransformer(canvas), tmp_path / "checkpoint.safetensors")
    said = {"budget": 2, "fixation_size": 3, "wander": 1.5, "image_size": None, "data": "scenes"}
    (tmp_path / "config.json").write_text(json.dumps(said))
    env = envs.ImageScanVectorEnv(2, model=str(tmp_path), limit=3)
    assert env.budget == 2
    assert len(env.fixations) == 4
    assert env.images.image_shape == (1, 48, 48)
    assert envs.ImageScanVectorEnv(2, model=str(tmp_path), limit=3, budget=1).budget == 1


# --- spaces, specs, windows


@pytest.mark.parametrize("form", sorted(FORMS))
def test_standard_forms_pass_both_checkers_and_wrappers_of_pictures(
    form: str, model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanEnv(model=model, data=data, budget=3, obs=form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check_env(env, skip_render_check=True)
        check_env_for_sb3(env)
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box) or all(
        isinstance(part, gym.spaces.Box) for part in space.spaces.values()
    )
    if form == "picture":
        gray = gym.wrappers.GrayscaleObservation(env)
        assert gray.reset(seed=0)[0] in gray.observation_space


def test_the_flat_form_is_that_of_gymnasium(model: AnyOrderTransformer, data: ImageSet) -> None:
    rich, flat = (batch(model, data, rows=2, obs=obs) for obs in ("latent", "latent_flat"))
    one, other = rich.reset(seed=0)[0], flat.reset(seed=0)[0]
    row = {name: values[1] for name, values in one.items()}
    expected = gym.spaces.flatten(rich.single_observation_space, row)
    np.testing.assert_allclose(other[1], expected, atol=1e-6)


def test_the_spec_says_how_long_an_episode_is() -> None:
    for budget in (2, 5):
        env = gym.make("foveate/CueScan-v0", budget=budget)
        assert env.spec is not None
        assert env.spec.max_episode_steps == budget
        assert gym.make(env.spec).spec == env.spec
        many = gym.make_vec("foveate/CueScan-v0", num_envs=2, budget=budget)
        assert many.spec is not None
        assert many.spec.max_episode_steps == budget
        assert gym.make_vec(many.spec).num_envs == 2


def test_a_limit_below_the_budget_truncates(model: AnyOrderTransformer, data: ImageSet) -> None:
    env = batch(model, data, max_episode_steps=2)
    env.reset(seed=0)
    env.step(np.array([0, 1, 2]))
    _, _, terminated, truncated, info = env.step(np.array([3, 4, 5]))
    assert truncated.all()
    assert not terminated.any()
    assert info["final_info"]["scanpath"].tolist() == [[0, 3, -1], [1, 4, -1], [2, 5, -1]]


def test_a_batch_opens_gymnasiums_window() -> None:
    env = gym.make_vec("foveate/CueScan-v0", num_envs=2, render_mode="human")
    assert isinstance(env, wrappers.HumanRendering)


@pytest.mark.parametrize("reward", ["auc", "gain", "surprise", "ease"])
def test_an_episode_under_way_can_be_pickled(
    reward: str, model: AnyOrderTransformer, data: ImageSet
) -> None:
    env = envs.ImageScanEnv(model=model, data=data, budget=3, reward=reward, obs="retina")
    env.reset(seed=0)
    env.step(3)
    again = pickle.loads(pickle.dumps(env))
    for one, other in zip(again.step(5)[1:4], env.step(5)[1:4], strict=True):
        assert one == other
    assert again.reset()[1]["index"] == env.reset()[1]["index"]


def test_the_class_of_the_cue_world_is_known_after_the_cue() -> None:
    """Log 4 nats are to be had. A random first look pays less than half as much as the cue."""
    env = gym.make_vec("foveate/CueRecognitionTest-v0", num_envs=200)
    paid = {}
    for name, patch in (("cue", np.zeros(200, int)), ("random", np.arange(200) % 16)):
        env.reset(seed=0)
        _, reward, _, _, info = env.step(patch)
        paid[name] = reward.mean()
        if name == "cue":
            assert (info["guess"] == info["label"]).mean() > 0.98
    assert paid["cue"] > 0.8 * np.log(4)
    assert paid["random"] < 0.5 * np.log(4)


def test_sides_of_images_may_come_as_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON holds them; the probe is then the one of the same tuple, and it is said once."""
    monkeypatch.setattr(probing, "fitted_probe", lambda *_: RecognitionProbe(64, 10))
    probing.shipped_probe.cache_clear()
    options: dict[str, Any] = {"model": "scenes", "data": "scenes", "budget": 2, "limit": 20}
    probes = [
        envs.ImageScanVectorEnv(reward="recognition", image_size=size, **options).world.probe
        for size in ([32, 32], (32, 32))
    ]
    probing.shipped_probe.cache_clear()
    assert probes[0] is probes[1] is not None
    (line,) = capsys.readouterr().err.splitlines()
    assert "fitting the classifier of reward 'recognition'" in line


def test_every_world_of_the_ids_has_a_probe_of_its_model() -> None:
    """No id waits for one to be fitted. After a change: python -m experiments.assets --probes."""
    kept = read_state(probing.SHIPPED)
    for look in WORLDS.values():
        of = {"model": "scenes", "data": "scenes", "budget": 12, **look}
        model, data, budget = (of[name] for name in ("model", "data", "budget"))
        found = kept.pop(probing.name_of_world(model, data, 1, budget))
        assert found["model_sha256"] == probing.digest_of(model)
        classes, width = found["probe"]["linear.weight"].shape
        assert (classes, width) == (4 if data == "cue" else 10, load_model(model).config.embed_dim)
    assert not kept


def test_a_probe_that_ships_is_what_fitting_gives() -> None:
    fitted = probing.fit_to_training("cue", "cue", None, 1, 4)
    ships = probing.shipped_probes()[probing.name_of_world("cue", "cue", 1, 4)]
    features = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ships(features), fitted(features), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("name", sorted(name for name in IDS if "Test" in name))
def test_test_ids_show_test_images(name: str) -> None:
    """That every id passes both checkers is shown by the examples of docs/clients.md."""
    options = IDS[name].options
    data, size = str(options.get("data", "scenes")), options.get("image_size")
    expected = cue_set("test") if data == "cue" else composed(data, "test", image_size=size)
    shown = gym.make(f"foveate/{name}", limit=20).unwrapped.batch.images
    assert torch.equal(shown.images, expected.images[:20])
    train = IDS[name.replace("Test", "")]
    assert options == {**train.options, "split": "test"}
    assert IDS[name].entry_points == train.entry_points


def test_environments_of_a_process_share_scenes() -> None:
    one, other = (gym.make("foveate/ScenesScan-v0", limit=30).unwrapped for _ in range(2))
    assert one.batch.images is other.batch.images
    assert one.batch.model is not other.batch.model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autoreset": "next_step"}, "waits for reset.*make_vec"),
        ({"autoreset_mode": "NextStep"}, "no argument 'autoreset_mode': autoreset says it"),
        ({"num_envs": 4}, "for more: gymnasium.make_vec"),
        ({"budgt": 3}, "unknown argument 'budgt'; did you mean 'budget'"),
    ],
)
def test_an_argument_that_there_is_not_is_answered(options: Any, message: str) -> None:
    for name in ("CueScan-v0", "CueGuess-v0"):
        with pytest.raises(ValueError, match=message) as refusal:
            gym.make(f"foveate/{name}", **options)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("make", [gym.make, partial(gym.make_vec, num_envs=2)])
def test_an_unknown_argument_is_a_type_error_too_in_the_words_that_clients_look_for(
    make: Any,
) -> None:
    """TorchRL's GymEnv tries every environment with ``frameskip``, and goes on without."""
    for name in ("CueScan-v0", "CueGuess-v0"):
        with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
            make(f"foveate/{name}", frameskip=1)


def test_a_batch_answers_too() -> None:
    with pytest.raises(ValueError, match="vector_kwargs"):
        gym.make_vec("foveate/CueScan-v0", num_envs=2, autoreset_mode="NextStep")
    with pytest.raises(ValueError, match="did you mean 'flat'"):
        gym.make_vec("foveate/CueGuess-v0", num_envs=2, flt=True)
    assert envs.ImageScanVectorEnv(num_envs=2, model="cue", data="cue", budget=2).num_envs == 2


def test_an_unknown_reward_lists_those_that_can_be_had(
    model: AnyOrderTransformer, data: ImageSet
) -> None:
    """No captions here, no parts of an error, and no classifier of a model of one's own."""
    plain = "known: auc, gain, surprise, ease, or MODULE:NAME of your own$"
    with pytest.raises(ValueError, match=f"unknown reward 'gian'; did you mean 'gain'. {plain}"):
        batch(model, data, reward="gian")
    with pytest.raises(ValueError, match="known: auc, gain, surprise, ease, recognition, or"):
        gym.make("foveate/CueScan-v0", reward="regoc")


def test_ids_differ_in_one_thing_each() -> None:
    """A world is blind or peripheral, gray or RGB, small or large; its model says so."""
    for name, look in WORLDS.items():
        if name != "Cue":
            config = load_model(str(look.get("model", "scenes"))).config
            assert (config.periphery == 0) == ("Blind" in name)
            assert config.in_chans == (3 if "RGB" in name else 1)
            assert config.image_size == ((96, 96) if "96" in name else (32, 32))
