"""Every recipe: predictions depend on exactly what the order allows, and training learns."""

from __future__ import annotations

import inspect
from copy import copy
from dataclasses import replace

import pytest
import torch
from unchecked import unchecked

from foveate import leaks
from foveate.leaks import assert_no_leak
from foveate.model import AnyOrderTransformer, InTurn
from foveate.model.scanning import Scan
from foveate.orders import SUBSETS, rank_to_order
from foveate.orders.semantic import model_ordering
from foveate.recipes import RECIPES, recipe

TIED = (
    "random_squares",
    "random_blobs",
    "random_quadrants",
    "hierarchical",
    "hierarchical_blobs",
)


def build(name: str, **changes: object) -> AnyOrderTransformer:
    torch.manual_seed(0)
    row = recipe(name)
    sizes = {"image_size": (8, 8), "patch_size": 2, "embed_dim": 16, "num_heads": 2}
    if row.captions:
        changes = {"vocabulary": tuple("abcde"), "max_words": 4, **changes}
    config = row.model_config(
        depth=4,
        feature_dim=6 if row.target == "features" else None,
        **{**sizes, "num_colors": 5, **changes},
    )
    model = AnyOrderTransformer(config).eval()
    if config.target == "colors":
        model.palette.copy_(torch.linspace(0, 1, 5).unsqueeze(1))
    return model


def allowed_orders(name: str) -> list[str]:
    row = RECIPES[name]
    if row.stream == "masked":
        return list(SUBSETS)
    if row.lateral == "joint":
        return ["random_subset"]
    # Of orders without ties a fixed one, a random one and one by the image's content: the others
    # are permutations as well.
    untied = ["spiral_in", "random", "most_similar_first"]
    return untied if row.ranks == "untied" else [*untied, *TIED]


@pytest.mark.parametrize("name", RECIPES)
def test_predictions_depend_on_exactly_the_allowed_patches(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with unchecked():
        assert_no_leak(model, RECIPES[name])
        # What has no gradient was looked for in one order; all pass through the same masks.
        monkeypatch.setattr(leaks, "different", lambda inputs: ())
        for order in allowed_orders(name):
            generator = torch.Generator().manual_seed(2)
            rank = model_ordering(order, model)(images, generator=generator)
            assert_no_leak(model, images, rank)


def test_the_leak_check_finds_a_shift_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the outputs one place too late, as if the patch itself had been seen."""
    model = build("igpt")
    images = torch.rand(1, 1, 8, 8)
    rank = model_ordering("raster", model)(images)
    encode = type(model).encode_tokens

    def shifted(self: AnyOrderTransformer, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(layer.roll(-1, dims=1) for layer in encode(self, *args))

    monkeypatch.setattr(type(model), "encode_tokens", shifted)
    with pytest.raises(AssertionError, match="leaks"):
        assert_no_leak(model, images, rank)
    with pytest.raises(AssertionError, match="leaks"):
        assert_no_leak(model, RECIPES["igpt"])
    with pytest.raises(ValueError, match="need a rank"):
        assert_no_leak(model, images)


@pytest.mark.parametrize("name", ["saim", "igpt"])
@pytest.mark.parametrize("leak", ["patches that see their neighbors", "a start token that looks"])
def test_the_leak_check_finds_tokens_that_hold_others(
    leak: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name)
    embed = type(model).embed

    def mixed(self: AnyOrderTransformer, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        always, patches = embed(self, images)
        if leak == "a start token that looks":
            return always + patches[:, -1:], patches
        return always, patches + patches.roll(1, dims=1)

    monkeypatch.setattr(type(model), "embed", mixed)
    with pytest.raises(AssertionError, match="leaks"):
        assert_no_leak(model, RECIPES[name])


@pytest.mark.parametrize("name", ["saim", "igpt"])
def test_the_leak_check_finds_what_a_subclass_adds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name)
    predict = type(model).predict_in_turn

    def peeking(self: AnyOrderTransformer, images: torch.Tensor, rank: torch.Tensor) -> InTurn:
        turn = predict(self, images, rank)
        peek = self.patchify(images).mean()
        return replace(turn, prediction=turn.prediction.map(lambda each: each + peek))

    monkeypatch.setattr(type(model), "predict_in_turn", peeking)
    with pytest.raises(AssertionError, match="leaks"):
        assert_no_leak(model, RECIPES[name])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_lowers_its_loss(name: str) -> None:
    """Forty steps on eight fixed images: a loss that stays has no gradient."""
    model = build(name).train()
    row = recipe(name)
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    features = torch.randn(8, 16, 6) if row.target == "features" else None
    words = {"words": torch.randint(5, (8, 1, 4))} if row.captions else {}
    order = model_ordering(row.order, model, **row.order_options)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(40):
        rank = order(images, generator=torch.Generator().manual_seed(2))
        generator = torch.Generator().manual_seed(3)
        loss = model(images, rank, features=features, generator=generator, **words)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    unused = [
        weight_name
        for weight_name, p in model.named_parameters()
        if p.requires_grad and p.grad is None and p.numel()
    ]
    assert not unused
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", ["foveate", "saim", "semaim"])
def test_cached_scans_equal_the_parallel_pass_for_every_memory(name: str) -> None:
    for memory in ("last", "layers", "mixed", "taps"):
        model = build(name, target="pixels", memory=memory, decoder_depth=2)
        images = torch.rand(2, 1, 8, 8)
        rank = model_ordering("random", model)(images)
        scan = Scan.start(model, images, 16)
        with torch.no_grad():
            parallel = model.predict_scan(images, rank, 5)
        for step, patch in enumerate(rank_to_order(rank)[:, :5].unbind(1)):
            torch.testing.assert_close(
                scan.predict().values, parallel[:, step], atol=1e-5, rtol=1e-5
            )
            scan.reveal(patch.unsqueeze(1))


@pytest.mark.parametrize(
    ("name", "order", "complaint"),
    [
        ("igpt", "random_squares", "patches are decoded one by one"),
        ("autonat", "random", "ranks 0 .visible. and 1 .hidden. only"),
        ("mae", "raster", "ranks 0 .visible. and 1 .hidden. only"),
        ("mae", "beta_subset", "one size in all images"),
    ],
)
def test_an_order_that_the_parts_do_not_take_is_refused(
    name: str, order: str, complaint: str
) -> None:
    model = build(name)
    images = torch.rand(8, 1, 8, 8)
    rank = model_ordering(order, model)(images, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=complaint):
        model(images, rank)


def test_orders_of_recipes_are_swapped_in_one_line() -> None:
    for row in RECIPES.values():
        swapped = replace(row, order="random_blobs")
        order = model_ordering(swapped.order, build("saim"), **swapped.order_options)
        assert order(torch.rand(2, 1, 8, 8)).shape == (2, 16)


def test_a_palette_is_as_large_as_the_recipe_says() -> None:
    row, sizes = recipe("igpt"), {"depth": 1, "image_size": (8, 8), "embed_dim": 16}
    assert [row.model_config(in_chans=c, **sizes).num_colors for c in (1, 3)] == [64, 512]
    assert replace(row, num_colors=16).model_config(in_chans=3, **sizes).num_colors == 16
    with pytest.raises(ValueError, match="num_colors"):
        replace(row, num_colors=0).model_config(in_chans=3, **sizes)


def test_mistakes_are_named() -> None:
    for part in ("stream", "memory", "lateral", "queries", "target", "lr_schedule"):
        row = copy(recipe("saim"))
        object.__setattr__(row, part, "nonsense")  # The tests' type checks would refuse replace().
        with pytest.raises(ValueError, match=f"unknown {part} 'nonsense'; did you mean"):
            row.__post_init__()
    for images, complaint in (
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "uint8; divide by 255"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.float64), r"of torch\.float32, .* images\.to\(torch"),
    ):
        with pytest.raises(ValueError, match=complaint):
            # Without the tests' own type checks, which would complain first.
            inspect.unwrap(AnyOrderTransformer.normalize)(build("saim"), images)
    with pytest.raises(ValueError, match="one image or more, got none"):
        build("saim")(torch.zeros(0, 1, 8, 8), torch.zeros(0, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match="did you mean 'saim'"):
        recipe("sam")
    with pytest.raises(ValueError, match="unknown order 'rastr'; did you mean 'raster'"):
        model_ordering("rastr", build("saim"))
    with pytest.raises(ValueError, match="decoder_depth that divides depth 4, got 3"):
        build("saim", decoder_depth=3)
    with pytest.raises(ValueError, match="only a causal stream"):
        Scan.start(build("randsac"), torch.rand(1, 1, 8, 8), 3)
    single = build("randsac", image_size=(2, 2))
    with pytest.raises(ValueError, match="nothing to predict"):
        single(torch.rand(2, 1, 2, 2), torch.zeros(2, 1, dtype=torch.long))
    teachable, images = build("digpt"), torch.rand(2, 1, 8, 8)
    with pytest.raises(ValueError, match="needs features"):
        teachable(images, model_ordering("random_squares", teachable)(images))
    empty = build("igpt")
    empty.palette.fill_(torch.nan)
    with pytest.raises(ValueError, match="no palette yet"):
        empty.color_ids(torch.rand(1, 1, 8, 8))
