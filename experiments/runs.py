"""A trained run: its config, model and policy, ready to evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agents.policies import PointerPolicy, PolicyAgent
from experiments.run_folder import read_config
from experiments.training.build import build, load_split, load_weights
from experiments.training.config import TrainConfig
from foveate.checkpoint import check_device, read_newest
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders.segments import Fixations
from foveate.recipes import Recipe


@dataclass(frozen=True)
class Run:
    """A trained run, ready to evaluate."""

    directory: Path
    config: TrainConfig
    model: AnyOrderTransformer
    policy: PointerPolicy
    iteration: int

    @property
    def fixations(self) -> Fixations:
        """What the policy chooses from."""
        return Fixations.squares(self.model.grid, self.config.scan.fixation_size)

    @property
    def agent(self) -> PolicyAgent:
        """The policy at its most probable patch; uniform random if it never learned."""
        options = self.config.policy
        learned = options is not None and options.schedule != "frozen"
        return PolicyAgent(self.policy, greedy=learned)

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.directory.resolve().name

    @property
    def budget(self) -> int:
        """Fixations per scan."""
        return self.config.scan.budget

    @property
    def data(self) -> str:
        """Images that the run was trained on: a name, or the last part of a path."""
        return Path(self.config.data.data).name

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
        data = self.config.data.data
        return data if data.isidentifier() else images.name

    def untrained_model(self, image_shape: tuple[int, int, int]) -> AnyOrderTransformer:
        """Build the model as it starts, from torch's global random state.

        What is no weight, such as a palette, is the run's.
        """
        model, _ = build(self.config, image_shape)
        model.load_state_dict(dict(self.model.named_buffers()), strict=False)
        return model

    def split(self, split: str, limit: int | None = None) -> ImageSet:
        """Load one split of the data that the run was trained on."""
        return load_split(self.config, split, limit)


def load_run(directory: Path | str, device: str = "cpu") -> Run:
    """Load model and policy of a run folder, in eval mode.

    Raises:
        ValueError: no such run, or a checkpoint that does not fit its config.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(
            f"no run folder at {directory}; train one with: "
            f"python -m experiments.train PRESET --out {directory}"
        )
    check_device(device)
    config = read_config(directory).replace(device=device, out=directory)
    state = read_newest(directory).state
    if "image_shape" not in state:
        raise ValueError(f"the checkpoint in {directory} holds no run, only a model; train one")
    try:
        saved = state["model_config"]
        words = tuple(saved.get("vocabulary", ())), saved.get("max_words", 0)
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
    return Run(directory, config, model.eval(), policy.eval(), iteration)
