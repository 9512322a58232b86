"""Which libraries of others work with the environments, and with which versions.

    python -m experiments.clients

Runs every example of docs/clients.md and writes a table: client, version, what was tried, and
whether it works. Libraries that are not installed are said so. Ends with exit code 1 if one fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.cli import main_with_options

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"


@dataclass(frozen=True, kw_only=True)
class ClientsConfig:
    """Options of the trial."""

    out: Path = Path("runs") / "clients.json"
    """File to write."""

    def __post_init__(self) -> None:
        if self.out.is_dir():
            raise ValueError(f"out must be a file, {self.out} is a folder")


def main(config: ClientsConfig) -> None:
    """Try all clients; write and print."""
    import os
    import warnings

    from experiments.evaluation.clients import examples_of, try_clients
    from experiments.training.build import set_threads

    path = config.out.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Examples name files of the repository; what libraries advise is not a failure; workers are
    # forked, which threads do not survive.
    os.chdir(PAGE.parents[1])
    warnings.simplefilter("ignore")
    set_threads(1)
    result = try_clients(examples_of(PAGE))
    result.write(path)
    print(f"\n{result.to_text()}\nwritten: {config.out}")
    if result.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main_with_options(main, ClientsConfig)
