"""How a run is trained: config, presets, what is built, iterations, processes, the loop.

``run_options``, ``groups`` and ``config`` hold the options, ``presets`` names configs,
``command_line`` reads them. ``build`` makes model, policy and optimizers, and ``batches`` draws
images. ``trainer`` takes one step with ``model_learner`` and ``policy_learner``; ``loop`` takes all
of them, with ``log``, ``validation`` and checkpoints. ``distributed`` knows the processes.
"""
