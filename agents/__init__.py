"""Agents that choose fixations: policies, how they learn, and baselines."""
