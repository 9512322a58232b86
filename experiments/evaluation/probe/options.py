"""What can be probed of a run. No torch, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.evaluation.options import check_seed
from experiments.evaluation.recognition.options import (
    READ_OUTS,
    READ_OUTS_OF_A_LAYER,
    FixationsOptions,
    ReadOut,
    VectorProbe,
)

Probe = Literal["linear", "knn", "sgd", "attentive", "finetune"]
Pooling = Literal["mean", "cls", "concat"]


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(FixationsOptions):
    """Options of a probe that shape its result."""

    probes: tuple[Probe, ...] = ("linear", "knn")
    """linear: logistic regression; knn: 20 and 10 nearest neighbors; sgd: batch norm and a linear
    layer; attentive: a learned query attends to the tokens; finetune: all weights are trained, from
    the run's and from untrained ones."""
    attention: tuple[Literal["full", "causal"], ...] = ("full", "causal")
    """Whether every patch sees every other, or those before it in raster order."""
    stream: tuple[Literal["content", "query"], ...] = ("content",)
    """Encoder layers, or the decoder's final states of every position."""
    pooling: tuple[Pooling, ...] = ("mean",)
    """Mean over patches; the start token, which is weak as training shows it nothing but itself;
    means of several layers side by side."""
    concat_layers: tuple[int, ...] = (4,)
    """Layers of ``concat``: one number = the last so many, several = these, from 1."""
    finetune_epochs: int = 5
    """Passes over the training images."""
    finetune_lr: tuple[float, ...] = (1e-3, 3e-3)
    """Peak learning rates of fine-tuning; of several, the held-out images choose one."""
    generative_weight: float = 0.0
    """Weight of the model's own loss in fine-tuning (iGPT takes 1); 0 = off."""
    generative_order: str | None = None
    """Order of that loss; None = the one that the model learned from."""
    train_limit: int = 10000
    """Training images of the probe."""
    test_limit: int | None = None
    """Test images; None = all."""
    seed: int = 0
    """Seed of the held-out images, of the untrained weights, and of what the probes draw."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        for name in ("probes", "attention", "stream", "pooling"):
            if not getattr(self, name):
                raise ValueError(f"{name} needs at least one choice")
        self._check_effects()
        probes, content = {*self.probes}, "content" in self.stream
        sees, mean = content and "full" in self.attention, "mean" in self.pooling
        needs = (
            ("pooling cls", "cls" in self.pooling, sees, "attention full and stream content"),
            ("pooling concat", "concat" in self.pooling, content, "stream content"),
            ("stream query", "query" in self.stream, mean, "pooling mean"),
            ("probe attentive", "attentive" in probes, mean, "pooling mean, to stand beside it"),
        )
        for what, wanted, possible, need in needs:
            if wanted and not possible:
                raise ValueError(f"{what} needs {need}")

    def _check_effects(self) -> None:
        """Raise ValueError if an option was changed that has no effect."""
        probes, tunes = {*self.probes}, "finetune" in self.probes
        # Without fixations these were refused before.
        probed = self.asks_fixations or not self.fixations
        frozen = "a probe of frozen features"
        reads_layers = not self.fixations or {*self.asked_read_outs} & {*READ_OUTS_OF_A_LAYER}
        effects = (
            ("read_outs", probed, frozen),
            ("fixations_probe", probed, frozen),
            ("label_shares", probed, frozen),
            ("fixations_layer", probed, frozen),
            ("fixations_layer", reads_layers, f"read-out {', '.join(READ_OUTS_OF_A_LAYER)}"),
            ("finetune_epochs", tunes, "finetune among the probes"),
            ("finetune_lr", tunes, "finetune among the probes"),
            ("generative_weight", tunes, "finetune among the probes"),
            ("generative_order", self.generative_weight > 0, "a generative_weight above 0"),
            ("concat_layers", "concat" in self.pooling, "pooling concat"),
            ("pooling", bool(probes & {"linear", "knn", "sgd"}), "probe linear, knn or sgd"),
            ("stream", probes != {"finetune"}, "a probe of frozen features"),
        )
        for name, has_effect, need in effects:
            if not has_effect and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} has no effect without {need}")

    @property
    def asks_fixations(self) -> bool:
        """Whether frozen features are probed after k fixations."""
        return bool(self.fixations) and {*self.probes} != {"finetune"}

    @property
    def asked_read_outs(self) -> tuple[ReadOut, ...]:
        """What is probed after k fixations: as asked for, or what the probes read."""
        if self.read_outs is not None:
            return self.read_outs
        attends = "attentive" in self.probes
        reads_vectors = bool({"linear", "knn", "sgd"} & {*self.probes})
        return tuple(
            name for name in READ_OUTS if (attends if name == "attentive" else reads_vectors)
        )

    @property
    def probes_of_vectors(self) -> tuple[VectorProbe, ...]:
        """Probes of what is seen after k fixations, linear where neither is asked for."""
        both: tuple[VectorProbe, ...] = ("linear", "knn")
        return tuple(probe for probe in both if probe in self.probes) or both[:1]

    @property
    def file_name(self) -> str:
        """File of the result: probe.json only with all that a record shows of it."""
        needed = {"linear", "knn", "full", "causal", "content", "mean"}
        complete = needed <= {*self.probes, *self.attention, *self.stream, *self.pooling}
        return "probe.json" if complete else f"probe_{'_'.join(dict.fromkeys(self.probes))}.json"
