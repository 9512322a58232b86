"""A trained run: its config, model and policy, ready to evaluate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.policies import PointerPolicy, PolicyAgent
from experiments.run_data import check_data
from experiments.run_folder import read_config, read_manifest
from experiments.training.build import (
    build,
    build_teacher,
    load_split,
    policy_config,
    policy_has_learned,
)
from experiments.training.config import TrainConfig
from experiments.training.run_options import SYNTHETIC
from experiments.training.weights import load_weights
from foveate.checkpoint import check_device, checkpoints_in, read_newest
from foveate.data import ImageSet
from foveate.data.hub import HUB
from foveate.data.loading import TORCHVISION_SETS
from foveate.files import expanded
from foveate.forms import encoder_at
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations
from foveate.recipes import Recipe
from foveate.sampling import seeded


@dataclass(frozen=True)
class Run:
    """A trained run, ready to evaluate."""

    directory: Path
    config: TrainConfig
    model: AnyOrderTransformer
    policy: PointerPolicy
    iteration: int
    moved_to: str | None = None
    """Where its images lie now; None = where they lay in training."""
    data_changed_ok: bool = False
    """Whether it may be evaluated on images other than those of the training."""
    _changes: dict[str, list[str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What changed of the data's place and content; each is looked at once."""

    @property
    def fixations(self) -> Fixations:
        """What the policy chooses from."""
        return Fixations.squares(self.model.grid, self.config.scan.fixation_size)

    @property
    def policy_has_learned(self) -> bool:
        """Whether the policy is another than the one that it started as."""
        return policy_has_learned(self.config, self.iteration)

    @property
    def without_policy(self) -> str | None:
        """What to say where no policy has learned; None = one has."""
        if self.policy_has_learned:
            return None
        return (
            f"no policy has learned in {self.name}; what is called policy is one that has learned "
            "nothing, whose fixations are sampled"
        )

    @property
    def agent(self) -> PolicyAgent:
        """The policy at its most probable patch; one that has not learned is sampled."""
        return PolicyAgent(self.policy, greedy=self.policy_has_learned)

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.directory.resolve().name

    @property
    def budget(self) -> int:
        """Fixations per scan."""
        return self.config.scan.budget

    @property
    def saccade_cost(self) -> float:
        """What the policy's reward lost per patch of distance; 0 without a policy."""
        return 0.0 if self.config.policy is None else self.config.policy.saccade_cost

    @property
    def is_paid_area_and_cost(self) -> bool:
        """Whether the policy learned from the area and from what saccades cost.

        The cost is on the scale of the rewards, which other rewards than the area do not share.
        """
        policy = self.config.policy
        return policy is not None and policy.saccade_cost > 0 and policy.reward == "auc"

    @property
    def data(self) -> str:
        """Images that the run was trained on: a name, or the last part of a path."""
        return Path(self.config.data.data).name

    @property
    def train_seconds(self) -> float | None:
        """How long it was trained; None = its manifest does not say."""
        seconds: float | None = read_manifest(self.directory).get("train_seconds")
        return seconds

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.config.run.seed

    @property
    def parts(self) -> Recipe:
        """What the model is made of and learned from."""
        return self.config.parts

    @property
    def device(self) -> str:
        """Torch device that holds the model and the policy."""
        return self.config.run.device

    def dataset(self, images: ImageSet) -> str:
        """Name of the data in results: that of ``--data``, or of the images if that is a path."""
        data = self.moved_to or self.config.data.data
        return data if data.isidentifier() else images.name

    @property
    def data_options(self) -> dict[str, list[str]]:
        """What a result says of its images beside its options: what changed since the training."""
        found = [change for changes in self._changes.values() for change in changes]
        return {"data_changes": found} if found else {}

    def untrained_model(self, image_shape: tuple[int, int, int], seed: int) -> AnyOrderTransformer:
        """Build the model as it starts from a seed.

        What is no weight, such as a palette, is the run's.
        """
        model = seeded(lambda: build(self.config, image_shape)[0], seed)
        model.load_state_dict(dict(self.model.named_buffers()), strict=False)
        return model

    def untrained_policy(self) -> PointerPolicy:
        """Build the policy as it starts, whatever the seed: its last layer is zero."""
        policy = PointerPolicy(self.model.config.embed_dim, policy_config(self.config.policy))
        return policy.to(self.device).eval()

    def split(self, split: str, limit: int | None = None) -> ImageSet:
        """Load one split of the data that the run was trained on, from where they lie now.

        Raises:
            ValueError: they are not there, differ from those of the training though that is not
                ok, or are of a shape that the model does not read.
        """
        if "place" not in self._changes:
            self._changes["place"] = check_place(self)
        config = self.config if self.moved_to is None else self.config.replace(data=self.moved_to)
        images = load_split(config, split, limit)
        if "content" not in self._changes:
            self._changes["content"] = check_data(
                self.directory, images.fingerprints, changed_ok=self.data_changed_ok
            )
        reads = (self.model.config.in_chans, *self.model.config.image_size)
        if images.image_shape != reads:
            raise ValueError(
                f"the {split} images of {config.data.data} are {written(images.image_shape)}, the "
                f"model in {self.directory} reads {written(reads)}; give images of its training"
            )
        return images


def not_finite(run: Run, where: str = "") -> ValueError:
    """Return what is raised of a model whose predictions are not finite."""
    return ValueError(
        f"the model in {run.directory} predicts numbers that are not finite{where}; its training "
        "went wrong, train anew"
    )


def say_without_policy(runs: Sequence[Run]) -> None:
    """Print a line for each run in which no policy has learned."""
    for line in (run.without_policy for run in runs):
        if line is not None:
            print(line, flush=True)


def written(shape: tuple[int, ...]) -> str:
    """Write a shape: 3 x 32 x 32."""
    return " x ".join(map(str, shape))


def check_place(run: Run) -> list[str]:
    """Check where the images of a run lie; warn if nobody can tell whether these are they.

    Returns:
        what changed, in words: images that are computed cannot have moved.

    Raises:
        ValueError: the images are gone, or are others though that is not ok.
    """
    trained, now = run.config.data.data, run.moved_to
    if now == "":
        raise ValueError("data must be a path or a name, got an empty one")
    if now is not None and now != trained:
        computed = next((name for name in (trained, now) if name in SYNTHETIC), None)
        if computed is None:
            return []
        changed = f"trained on {trained}, evaluated on {now}"
        if not run.data_changed_ok:
            raise ValueError(
                f"{run.directory}: {changed}, though {computed} is computed and cannot have moved; "
                "leave out --data, or add --data-changed-ok"
            )
        print(f"warning: {run.directory}: {changed}", file=sys.stderr)
        return [changed]
    if trained in (*SYNTHETIC, *TORCHVISION_SETS) or trained.startswith(HUB):
        return []
    path = expanded(trained)
    if not path.exists():
        raise ValueError(
            f"the data of {run.directory} are not at {trained} any more; "
            "give the place where they are now with --data"
        )
    if not path.is_absolute() and read_manifest(run.directory).get("splits") is None:
        print(
            f"warning: {run.directory} does not say in which folder {trained} lay in training; "
            f"it is read from {path.resolve()}",
            file=sys.stderr,
        )
    return []


def load_run(
    directory: Path | str,
    device: str = "cpu",
    data: str | None = None,
    data_changed_ok: bool = False,
) -> Run:
    """Load model and policy of a run folder, in eval mode.

    Args:
        directory: the run folder.
        device: where model and policy go.
        data: where the images lie now; None = where they lay in training.
        data_changed_ok: whether the run may be evaluated on other images than those of the
            training. Without it :meth:`Run.split` refuses them, with it says what changed.

    Raises:
        ValueError: no such run, or a checkpoint that does not fit its config.
    """
    directory = expanded(directory)
    if not directory.is_dir():
        raise ValueError(
            f"no run folder at {directory}; train one with: "
            f"python -m experiments.train PRESET --out {directory}"
        )
    if not checkpoints_in(directory) and (encoder := encoder_at(directory)):
        raise ValueError(f"{directory} is no run folder: {encoder}; give the run's own folder")
    check_device(device)
    config = read_config(directory).replace(device=device, out=directory)
    state = read_newest(directory).state
    if "image_shape" not in state:
        raise ValueError(f"the checkpoint in {directory} holds no run, only a model; train one")
    try:
        saved = state["model_config"]
        vocabulary, merges = (tuple(saved.get(name, ())) for name in ("vocabulary", "merges"))
        words = vocabulary, saved.get("max_words", 0), merges
        init = saved.get("init", "timm")
        channels, height, width = map(int, state["image_shape"])
        iteration = int(state["iteration"])
    except (AttributeError, KeyError, TypeError, ValueError) as reason:
        raise ValueError(
            f"the checkpoint in {directory} holds no run of this version "
            f"({type(reason).__name__}: {reason})"
        ) from reason
    # As the run started, whatever its recipe says by now: untrained weights are its control.
    config = config.replace(init=init)
    model, policy = build(config, (channels, height, width), *words)
    load_weights(model, policy, state, directory)
    model = model.eval()
    # Only scans ask for the teacher: what else is measured needs none of timm's weights.
    if model.config.scannable and (teacher := build_teacher(config, model)) is not None:
        teacher.load_state_dict(state["teacher"])
    return Run(
        directory,
        config,
        model,
        policy.eval(),
        iteration,
        moved_to=data,
        data_changed_ok=data_changed_ok,
    )
