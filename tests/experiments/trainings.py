"""Train several times under one torchrun, as the command lines of a JSON file say.

python -m torch.distributed.run ... tests/experiments/trainings.py COMMANDS.json

Each is ``experiments.train`` as typed; torch is imported, and processes are started, once for all.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from experiments.cli import main_with_reader
from experiments.train import main
from experiments.training.command_line import read_command_line

if __name__ == "__main__":
    # Processes meet at a store of their own each time: what torchrun's store keeps of the last
    # meeting are addresses that no longer answer.
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    for options in json.loads(Path(sys.argv[1]).read_text()):
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
        sys.argv[1:] = options
        main_with_reader(main, read_command_line)
