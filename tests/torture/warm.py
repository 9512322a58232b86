"""What processes of trials need, imported once: they are forked from a process that has it."""

import experiments.evaluation.compare.evaluate
import experiments.evaluation.report
import experiments.runs
import experiments.train
import experiments.training.loop  # noqa: F401
import foveate.data.streaming  # noqa: F401
