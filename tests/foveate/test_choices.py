"""A part of the user's own that is of another kind, or fails, ends in one line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.checks import check_reward
from envs.episode import Episode
from experiments.cli import run
from experiments.evaluation.scanpaths import make_agent
from experiments.training.presets import own_preset
from foveate.choices import check_choice, lookup, sources_of, told
from foveate.model import AnyOrderTransformer
from foveate.orders import check_rank, ordering

OWN = """
import math, sys, torch

class NeedsMore:
    def __init__(self, one, two): ...

def leaves(*_, **__): sys.exit(3)
def divides(*_, **__): return 1 / 0
def truth(fixation): return fixation.after > 0
def short(fixation): return fixation.after[:1]
def nothing(fixation): return fixation.after * math.nan
def grows(fixation): return fixation.after.clone().requires_grad_()
def raises_later(grid): return divides
def counts(grid): return lambda images, generator=None: torch.zeros(len(images), 2).long()
def floats(grid): return lambda images, generator=None: torch.zeros(len(images), 12)
def below(grid): return lambda images, generator=None: torch.zeros(len(images), 12).long() - 1
def blackens(grid): return lambda images, generator=None: images.zero_()
def outside(): return looks_outside
def looks_outside(episode, generator=None): return torch.full((len(episode.unseen),), 99)
def last(grid): return lambda images, generator=None: torch.arange(12).repeat(len(images), 1)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_choices.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("def (")
    (tmp_path / "own_exit.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "json:loads",
        "builtins:list",
        "builtins:type",
        "math:pi",
        "os:nothing",
        "own_broken:x",
        "own_exit:x",
        "own_choices:NeedsMore",
        "own_choices:leaves",
        "own_choices:divides",
    ],
)
def test_what_leads_to_another_kind_of_thing_is_named(
    name: str, model: AnyOrderTransformer, images: torch.Tensor
) -> None:
    def order() -> object:
        return ordering(name, model.grid)(images)

    def agent() -> object:
        return make_agent(name)(Episode(model, images, budget=2), None)

    kinds: dict[str, Callable[[], object]] = {
        "reward": lambda: check_reward(name, model, images[:2]),
        "order": order,
        "agent": agent,
        "preset": lambda: own_preset(name),
    }
    for kind, use in kinds.items():
        with pytest.raises(ValueError, match=rf"{kind} '{name}'") as wrong:
            use()
        assert len(str(wrong.value)) < 500


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truth", "must return a real number per row, a tensor of shape .2,. on cpu, got Tensor"),
        ("short", "must return a real number per row"),
        ("nothing", r"reward 'own_choices:nothing' is nan on image 0, 1"),
    ],
)
def test_rewards_are_real_and_finite_numbers(
    name: str, message: str, model: AnyOrderTransformer, images: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        check_reward(f"own_choices:{name}", model, images[:2])


def test_nothing_is_learned_through_a_reward(
    model: AnyOrderTransformer, images: torch.Tensor
) -> None:
    episode = Episode(model, images, budget=1, reward="own_choices:grows")
    assert not episode.step(torch.zeros(len(images), dtype=torch.long)).requires_grad


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises_later", "ZeroDivisionError: division by zero"),
        ("counts", r"must return ranks of shape \(5, 12\) on cpu, got Tensor"),
        ("floats", "rank must be int64"),
        ("below", "rank must not be negative"),
    ],
)
def test_orders_of_ones_own_are_checked_whenever_they_are_asked(
    name: str, message: str, images: torch.Tensor
) -> None:
    order = ordering(f"own_choices:{name}", (3, 4))
    with pytest.raises(ValueError, match=rf"order 'own_choices:{name}'.*{message}"):
        order(images)
    check_rank(ordering("own_choices:last", (3, 4))(images), 12)


def test_an_order_of_ones_own_leaves_the_images_as_they_are(tmp_path: Path) -> None:
    images = torch.rand(5, 1, 6, 8)
    before = images.clone()
    with pytest.raises(ValueError, match="must return ranks"):
        ordering("own_choices:blackens", (3, 4))(images)
    assert torch.equal(images, before)


def test_an_agent_of_ones_own_that_looks_outside_is_named(
    model: AnyOrderTransformer, images: torch.Tensor
) -> None:
    agent = make_agent("own_choices:outside")
    with pytest.raises(ValueError, match=r"'own_choices:outside': a patch must lie in 0\.\.11"):
        agent(Episode(model, images, budget=3))


def test_the_code_of_what_is_ones_own_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "own_digested.py").write_text("last = 1")
    names = ("raster", "own_digested:last", "math:pi")
    before = sources_of(names)
    assert [*before] == ["own_digested:last", "math:pi"]
    (tmp_path / "own_digested.py").write_text("last = 2")
    after = sources_of(names)
    assert after["own_digested:last"] != before["own_digested:last"]
    assert sources_of(("nowhere:x", "own_exit:x", "own_broken:x")) == {}
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("from own_package.far import spiral")
    far = tmp_path / "own_package" / "far.py"
    far.write_text("def spiral(): return 1")
    before = sources_of(["own_package:spiral"])
    far.write_text("def spiral(): return 2")
    assert sources_of(["own_package:spiral"]) != before, "where it is defined counts"


def test_arrays_are_told_by_type_and_shape() -> None:
    pixels = np.zeros((2, 3), np.uint8)
    assert told(pixels) == "ndarray of uint8 and shape (2, 3)"
    assert told([pixels, pixels]) == "list of 2, the first ndarray of uint8 and shape (2, 3)"
    assert told(([0.5] * 90,)) == "tuple of 1, the first list of 90, the first 0.5"
    assert told([3, "a"]) == "[3, 'a']"
    with pytest.raises(ValueError, match="obs must be one of a, b, got ndarray of uint8"):
        check_choice("obs", pixels, "ab")


def test_what_a_part_of_ones_own_raises_anywhere_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    divides: Callable[..., object] = lookup("target", "own_choices:divides", {})
    with pytest.raises(SystemExit):
        run(divides, None)
    line = "error: target 'own_choices:divides': ZeroDivisionError: division by zero\n"
    assert capsys.readouterr().err == line
    monkeypatch.setenv("FOVEATE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(divides, None)
