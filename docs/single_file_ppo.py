"""A PPO of one file, as CleanRL has them, on the batch that gymnasium makes: nothing of ours.

    python docs/single_file_ppo.py

It learns CueScan. The area under the error curve is .40 at the optimum, about .70 with the cue and
then always the same place, and .77 of random places. Revisits are not masked, and cost .1.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import Tensor, nn

ROLLOUTS, STEPS, ENVS = 80, 5, 64
DISCOUNT, GAE, CLIP, ENTROPY, EPOCHS, MINIBATCHES = 0.9, 0.95, 0.2, 0.003, 4, 4


class Agent(nn.Module):
    """Actor and critic of a vector."""

    def __init__(self, num_inputs: int, num_actions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()
        )
        self.actor, self.critic = nn.Linear(64, num_actions), nn.Linear(64, 1)

    def forward(self, seen: Tensor) -> tuple[torch.distributions.Categorical, Tensor]:
        """Return the policy, and the value."""
        hidden = self.body(seen)
        return torch.distributions.Categorical(logits=self.actor(hidden)), self.critic(hidden)[:, 0]


def trained(seed: int) -> tuple[Agent, list[float]]:
    """Train; give the agent, and the mean return of the episodes of each rollout."""
    torch.manual_seed(seed)
    env = RecordEpisodeStatistics(
        gym.make_vec(
            "foveate.ids:foveate/CueScan-v0",
            num_envs=ENVS,
            obs="latent_flat",
            autoreset="next_step",
        )
    )
    agent = Agent(env.single_observation_space.shape[0], int(env.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-3, eps=1e-5)
    seen, _ = env.reset(seed=seed)
    begins, returns = np.zeros(ENVS, np.bool_), []
    for at in range(ROLLOUTS):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - at / ROLLOUTS)
        kept: list[tuple[Tensor, ...]] = []
        ended: list[float] = []
        for _ in range(STEPS):
            now = torch.as_tensor(seen)
            with torch.no_grad():
                policy, value = agent(now)
                action = policy.sample()
            seen, reward, terminated, _, info = env.step(action.numpy())
            paid, over = torch.as_tensor(reward).float(), torch.as_tensor(terminated)
            # The step that begins an episode anew had no action of the agent's.
            real = torch.as_tensor(~begins)
            kept.append((now, action, policy.log_prob(action), value, paid, over, real))
            begins = terminated
            if terminated.any():
                ended += info["episode"]["r"][terminated].tolist()
        returns.append(float(np.mean(ended)))
        update(agent, optimizer, kept, torch.as_tensor(seen))
    return agent, returns


def update(
    agent: Agent, optimizer: torch.optim.Optimizer, kept: list[tuple[Tensor, ...]], last: Tensor
) -> None:
    """Make the epochs of one rollout."""
    with torch.no_grad():
        after = agent(last)[1]
    advantage, advantages = torch.zeros(ENVS), []
    for *_, value, paid, over, real in reversed(kept):
        goes_on = (~over).float()
        error = paid + DISCOUNT * after * goes_on - value
        advantage = (error + DISCOUNT * GAE * goes_on * advantage) * real
        advantages.insert(0, advantage)
        after = value
    gained = torch.cat(advantages)
    seen, action, log_prob, value, _, _, real = (
        torch.cat(part) for part in zip(*kept, strict=True)
    )
    target = gained + value
    valid = real.nonzero()[:, 0]
    for _ in range(EPOCHS):
        for rows in valid[torch.randperm(len(valid))].chunk(MINIBATCHES):
            policy, guess = agent(seen[rows])
            ratio = (policy.log_prob(action[rows]) - log_prob[rows]).exp()
            weight = gained[rows]
            weight = (weight - weight.mean()) / (weight.std() + 1e-8)
            gain = torch.min(weight * ratio, weight * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = 0.5 * (guess - target[rows]).square().mean() - gain
            loss = loss - ENTROPY * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def area_of(agent: Agent) -> float:
    """Return the area under the error curve of sampled actions, over 500 test images once each."""
    test = gym.make_vec("foveate.ids:foveate/CueScanTest-v0", num_envs=500, obs="latent_flat")
    seen, _ = test.reset(options={"in_turn": True})
    areas = []
    for _ in range(4):
        with torch.no_grad():
            action = agent(torch.as_tensor(seen))[0].sample().numpy()
        seen, reward, *_ = test.step(action)
        areas.append(-reward.mean())
    return float(np.mean(areas))


if __name__ == "__main__":
    print(f"area under the error curve: {area_of(trained(seed=0)[0]):.3f}")
