"""The scanning environment and the pointer policy for stable-baselines3 and sb3-contrib.

``ScanVecEnv`` is the batched environment as a VecEnv; ``PointerActorCriticPolicy`` gives
MaskablePPO one logit per fixation with shared weights, so that it works for every grid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Float
from numpy.typing import NDArray
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
from torch import Tensor, nn

from agents.latents import as_observation, check_latent
from agents.policies import PointerPolicy, PolicyConfig
from agents.rows import infos_of, merged_options
from envs.vector import ImageScanVectorEnv
from foveate.choices import told


class ScanVecEnv(VecEnv):
    """The batched environment in stable-baselines3's own interface.

    stable-baselines3 takes no gymnasium VectorEnv; all rows live in one object here, so attributes
    and methods are asked of that object and answered once per row.

    Args:
        env: with autoreset in the same step.

    Raises:
        ValueError: no batch of ours; autoreset is off, or at the next step; or the environment
            hands out tensors.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(env, ImageScanVectorEnv):
            raise ValueError(
                "ScanVecEnv takes the batch that gymnasium.make_vec(id, num_envs=N) makes, without "
                f"wrappers; got {told(env)}. For single environments there is DummyVecEnv"
            )
        if env.autoreset != "same_step":
            raise ValueError("ScanVecEnv needs autoreset='same_step', as stable-baselines3 does")
        if env.output != "numpy":
            raise ValueError("stable-baselines3 takes arrays; make the environment without output")
        self.env = env
        self.actions: NDArray[Any] | None = None
        self.returns = np.zeros(env.num_envs)
        self.lengths = np.zeros(env.num_envs, np.int64)
        self.began_at = time.time()
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Start a scan in every row; seed and options are those set before.

        A seed is that of the batch: all rows draw from one stream.
        """
        options = merged_options(self._options)
        observation, info = self.env.reset(seed=self._seeds[0], options=options)
        self.reset_infos = [infos_of(info, row) for row in range(self.num_envs)]
        self.returns[:], self.lengths[:] = 0, 0
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self.actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Make one fixation per row; a row that ends begins anew and keeps its last observation."""
        assert self.actions is not None, "step_async comes first"
        observation, reward, terminated, truncated, info = self.env.step(self.actions)
        done = terminated | truncated
        self.returns += reward
        self.lengths += 1
        infos = [
            infos_of(info["final_info"] if done[row] else info, row) for row in range(len(done))
        ]
        for info_of_row, is_cut in zip(infos, truncated, strict=True):
            info_of_row["TimeLimit.truncated"] = bool(is_cut)
        for row in done.nonzero()[0]:
            infos[row]["terminal_observation"] = info["final_obs"][row]
            # What Monitor tells, from which come ep_rew_mean and ep_len_mean.
            infos[row]["episode"] = {
                "r": float(self.returns[row]),
                "l": int(self.lengths[row]),
                "t": round(time.time() - self.began_at, 6),
            }
        self.returns[done], self.lengths[done] = 0, 0
        return observation, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the environment, once per row."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: rows share one environment.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(f"rows of {type(self.env).__name__} have no {attr_name} of their own")

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the environment once and return what it says of each row.

        Raises:
            ValueError: it is ``reset`` or ``step``, which this adapter has methods of.
        """
        if method_name in ("reset", "step"):
            raise ValueError(f"call {method_name}() of the adapter itself, which counts episodes")
        answers = getattr(self.env, method_name)(*args, **kwargs)
        of_rows = isinstance(answers, np.ndarray | Sequence) and len(answers) == self.num_envs
        return [answers[row] if of_rows else answers for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return False for every row."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return one rendered frame per row."""
        return self.env.render()


class PassThrough(BaseFeaturesExtractor):
    """Hand the latent observation on as it is: it is features already."""

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        super().__init__(observation_space, features_dim=1)

    def forward(self, observations: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the observations."""
        return observations


class PointerActorCritic(nn.Module):
    """The pointer policy as actor, and a critic: latents in, logits and the critic's features out.

    The critic reads the mean query state of all fixations, the last content state and the budget
    left. Unlike the actor it sees no expected error, distance or what is selectable.
    """

    def __init__(self, num_fixations: int, embed_dim: int, config: PolicyConfig) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = num_fixations, config.hidden_dim
        self.pointer = PointerPolicy(embed_dim, config)
        self.critic = nn.Sequential(
            nn.LayerNorm(2 * embed_dim + 1),
            nn.Linear(2 * embed_dim + 1, config.hidden_dim),
            nn.GELU(),
            nn.Linear(config.hidden_dim, config.hidden_dim),
            nn.GELU(),
        )

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return one logit per fixation, and the critic's last hidden layer."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: dict[str, Tensor]) -> Float[Tensor, "B A"]:
        """Return one logit per fixation."""
        return self.pointer(as_observation(features))

    def forward_critic(self, features: dict[str, Tensor]) -> Float[Tensor, "B H"]:
        """Return the critic's last hidden layer."""
        pooled = features["query_states"].mean(1)
        seen = torch.cat([pooled, features["content_state"], features["remaining"]], dim=-1)
        hidden: Tensor = self.critic(seen)
        return hidden


class PointerActorCriticPolicy(MaskableMultiInputActorCriticPolicy):
    """MaskablePPO's policy with one logit per fixation; for ``obs="latent"``.

    ``MaskablePPO(PointerActorCriticPolicy, env)`` is all it takes. ``policy_kwargs`` takes the
    fields of :class:`agents.policies.PolicyConfig`, such as the environment's ``saccade_cost``.
    Options of stable-baselines3 that shape other networks, such as ``net_arch``, have no effect.

    Raises:
        ValueError: the observations are not latent, the algorithm has no action masks, or either
            the environment or the policy has a cost of saccades and the other has none.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Space[Any],
        action_space: gym.spaces.Discrete,
        lr_schedule: Callable[[float], float],
        hidden_dim: int = PolicyConfig.hidden_dim,
        doubt: float = PolicyConfig.doubt,
        depth: int = PolicyConfig.depth,
        saccade_cost: float = PolicyConfig.saccade_cost,
        **kwargs: Any,
    ) -> None:
        if "use_sde" in kwargs:  # On-policy algorithms without masks give it, MaskablePPO does not.
            raise ValueError(
                "PointerActorCriticPolicy needs action masks; train it with sb3_contrib.MaskablePPO"
            )
        check_latent(observation_space)
        assert isinstance(observation_space, gym.spaces.Dict), "has been checked"
        has_cost = "distance" in observation_space.spaces
        if has_cost != (saccade_cost > 0):
            unknown = "the environment has a saccade_cost and the policy has none"
            needless = "the policy has a saccade_cost and the environment has none"
            raise ValueError(
                f"{unknown if has_cost else needless}; pass that of the environment, C, as "
                'policy_kwargs={"saccade_cost": C}, and none where it has none'
            )
        self.config = PolicyConfig(
            hidden_dim=hidden_dim, doubt=doubt, depth=depth, saccade_cost=saccade_cost
        )
        self.latent_space = observation_space
        # Orthogonal layers would undo the zero start, by which the first policy is its doubt.
        kwargs |= {"ortho_init": False, "normalize_images": False}
        kwargs["features_extractor_class"] = PassThrough
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """Name the policy's own options as well, so that ``save`` and ``load`` keep them."""
        return {**super()._get_constructor_parameters(), **asdict(self.config)}

    def _build_mlp_extractor(self) -> None:
        num_fixations, embed_dim = self.latent_space["query_states"].shape or (0, 0)
        network = PointerActorCritic(num_fixations, embed_dim, self.config).to(self.device)
        self.mlp_extractor = network  # type: ignore[assignment]  # sb3 asks for the methods alone

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        super()._build(lr_schedule)
        self.action_net = nn.Identity()
        # Once more, without the parameters of the linear layer that the pointer replaces.
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]  # every optimizer but the base takes it
            **self.optimizer_kwargs,
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights; of a policy without doubt they make this one such a policy.

        Agents saved before there was doubt do not name it in their ``policy_kwargs``.
        """
        pointer = "mlp_extractor.pointer."
        lacks_doubt = pointer + "doubt" not in state_dict
        if lacks_doubt and self.config.doubt and pointer + "score.weight" in state_dict:
            self.config = replace(self.config, doubt=0.0)
            device, learning_rate = self.device, self.optimizer.param_groups[0]["lr"]
            # Built anew, so that the optimizer's state, which is loaded next, fits as well.
            self._build(lambda _: learning_rate)
            self.to(device)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)
