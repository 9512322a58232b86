"""The command line of a training run: a preset, and options by their names alone.

A run without a policy has no options of one. Whether there is a policy is up to ``--iterations``,
hence that option is looked at before the others are parsed. No torch here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import tyro

from experiments.cli import one_line, program
from experiments.training.config import GROUPS, TrainConfig, check_without_policy
from experiments.training.groups import PolicyTraining
from experiments.training.presets import PRESETS, own_preset
from foveate.choices import check_name
from foveate.config import Init

WITHOUT_POLICY = "It trains the model alone; --iterations 1000 adds a policy, with its options."

OF_WORDS = ("num_captions", "word_dropout", "parallel_share")
OF_A_LEARNING_POLICY = ("policy_lr", "policy_depth", "doubt", "entropy_weight", "discount")
OF_A_LEARNING_MODEL = ("prefer", "prefix_share", "model_lr", "weight_decay")
"""Options that nothing reads where there are no words, or where one of both never learns."""


@dataclass(frozen=True, kw_only=True)
class WithPolicy(TrainConfig):
    """A run that has a policy, which ``--help`` can then list as a group of its own."""

    policy: PolicyTraining = field(default_factory=PolicyTraining)
    """The policy, which scans and learns after the warm-up."""


def read_command_line(arguments: Sequence[str]) -> TrainConfig:
    """Return the config that the arguments name: PRESET or MODULE:NAME, then options.

    Raises:
        ValueError: no such preset, a value that is not allowed, or an option that the run has no
            policy for.
        SystemExit: another mistake, or ``--help``, as by tyro.
    """
    name, options = (arguments[0], from_weights(as_flags(arguments[1:]))) if arguments else ("", [])
    chosen: dict[str, tuple[str, TrainConfig]] = {}
    if name and not name.startswith("-"):
        check_name("preset", name, PRESETS)
    if name in PRESETS or ":" in name:
        own = ":" in name
        title, preset = ("A preset of your own.", own_preset(name)) if own else PRESETS[name]
        preset, options = with_policy_or_without(preset, options)
        chosen[name] = described(title, preset)
    parsed: TrainConfig = tyro.extras.overridable_config_cli(
        {**PRESETS, **chosen},
        prog=program(),
        args=[*arguments[:1], *options],
        config=(tyro.conf.OmitArgPrefixes,),
    )
    config = TrainConfig(**{group: getattr(parsed, group) for group in GROUPS})
    check_given(config, options)
    if value_of("out", options) is None:
        config = in_folder_of_seed(config, preset)
    return config


def check_given(config: TrainConfig, options: list[str]) -> None:
    """Raise ValueError if an option was given that nothing reads, or a folder without a name.

    Presets, and runs from before this was asked, may hold such values.
    """
    if value_of("out", options) == "":
        raise ValueError("out must name a folder, such as runs/mine, got an empty text")
    idle = {}
    if config.parts.queries == "own":
        idle["num_targets"] = f"recipe {config.model.recipe}, which asks for every patch once"
    if config.parts.image_weight == 0:
        idle["num_targets"] = "image_weight 0, with which no patches are asked for"
    if config.parts.captions and config.parts.word_weight == 0:
        idle |= dict.fromkeys(OF_WORDS, "word_weight 0, with which no words are learned")
    if config.policy is not None and config.policy.schedule == "frozen":
        idle |= dict.fromkeys(OF_A_LEARNING_POLICY, "schedule frozen, whose policy never learns")
    if config.policy is not None and config.policy.schedule == "policy_only":
        idle["random_share"] = "schedule policy_only, whose model learns from no scans"
        if config.optimization.warmup_iterations == 0:
            none_learns = "schedule policy_only without a warm-up, in which no model learns"
            idle |= dict.fromkeys(OF_A_LEARNING_MODEL, none_learns)
    if config.data.data == "cue":
        idle |= dict.fromkeys(("image_size", "split_column"), "cue, whose images are computed")
    for name, what in idle.items():
        if value_of(name, options) not in (None, "None"):
            raise ValueError(f"{name} has no effect on {what}; leave it out")


@functools.cache
def read_words(words: tuple[str, ...]) -> TrainConfig:
    """Do as :func:`read_command_line` does, once for the same words, which take a moment.

    Raises:
        ValueError: they are no training; the complaint is one line.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(complaint):
            return read_command_line(words)
    except SystemExit as stop:
        raise ValueError(one_line(complaint.getvalue())) from stop


def in_folder_of_seed(config: TrainConfig, preset: TrainConfig) -> TrainConfig:
    """Give a run of another seed than the preset's a folder of its own.

    Two seeds in two terminals then do not meet.
    """
    seed, out = config.run.seed, preset.run.out
    if seed == preset.run.seed:
        return config
    return config.replace(out=out.with_name(f"{out.name}-seed{seed}"))


def described(title: str, preset: TrainConfig) -> tuple[str, TrainConfig]:
    """Return title and preset in the form that the parser takes."""
    if preset.policy is None:
        return f"{title} {WITHOUT_POLICY}", preset
    return title, WithPolicy(**{group: getattr(preset, group) for group in GROUPS})


def with_policy_or_without(
    preset: TrainConfig, options: list[str]
) -> tuple[TrainConfig, list[str]]:
    """Give the preset a policy or take it away, as ``--iterations`` says; return what is left.

    Raises:
        ValueError: options of a policy for a run without one.
    """
    iterations = value_of("iterations", options)
    if iterations == "0":
        preset = dataclasses.replace(preset, policy=None)
    elif iterations is not None:
        preset = preset.replace(iterations=preset.iterations or 1)
    if preset.policy is None:
        options = without("iterations", options)
        check_without_policy([option_name(each) for each in options])
    return preset, options


def as_flags(arguments: Sequence[str]) -> list[str]:
    """Write ``--augment=True`` and ``--augment=False``, as sweeps do, as flags."""
    flags = {
        each.name
        for group in GROUPS.values()
        for each in dataclasses.fields(group)
        if each.type == "bool"
    }
    written = []
    for argument in arguments:
        value = argument.partition("=")[2].lower()
        if option_name(argument) in flags and value in ("true", "false"):
            no = "" if value == "true" else "no-"
            argument = f"--{no}{option_name(argument).replace('_', '-')}"
        written.append(argument)
    return written


def from_weights(arguments: list[str]) -> list[str]:
    """Write ``--init FILE`` as ``--start-from FILE``: what is no way to initialize is a place."""
    source = value_of("init", arguments)
    if not source or source.startswith("--") or source in (*get_args(Init), "None"):
        return arguments
    return [*without("init", arguments), "--start-from", source]


def option_name(argument: str) -> str:
    """Return the option of an argument, ``--embed-dim`` or ``--embed-dim=32``; empty if none."""
    is_option = argument.startswith("--")
    return argument[2:].partition("=")[0].replace("-", "_") if is_option else ""


def value_of(option: str, arguments: list[str]) -> str | None:
    """Return the last value that the arguments give to an option; None if they do not."""
    value = None
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if option_name(argument) == option:
            value = argument.partition("=")[2] if "=" in argument else following
    return value


def without(option: str, arguments: list[str]) -> list[str]:
    """Return the arguments without an option and its value."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif option_name(argument) == option:
            skip = "=" not in argument
        else:
            kept.append(argument)
    return kept
