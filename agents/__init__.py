"""Agents that choose fixations: policies, how they learn, and baselines."""

from foveate.names import check_own

check_own("envs")
