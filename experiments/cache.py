"""List the decoded data sets on disk, or remove them.

    python -m experiments.cache
    python -m experiments.cache --empty

They lie in $FOVEATE_CACHE (by default ~/.cache/foveate) and are made anew when they are needed.
$FOVEATE_CACHE_LIMIT is the most bytes they may take, by default 4 GiB.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from experiments.cli import main_with_options


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Options of the cache."""

    empty: bool = False
    """Remove all decoded sets."""


def main(config: CacheConfig) -> None:
    """Print one line for each decoded set, the one used last first, and their sum."""
    from foveate.data import cache

    found = cache.entries()
    for entry in found:
        used = datetime.datetime.fromtimestamp(entry.used_s).strftime("%Y-%m-%d %H:%M")
        print(f"{used} {entry.num_bytes / 2**20:9.1f} MiB  {entry.split:5}  {entry.name}")
    total = sum(entry.num_bytes for entry in found) / 2**20
    if config.empty:
        cache.empty()
    print(
        f"{len(found)} sets, {total:.1f} of {cache.limit_bytes() / 2**20:.0f} MiB, in "
        f"{cache.cache_folder()}{': removed' if config.empty else ''}"
    )


if __name__ == "__main__":
    main_with_options(main, CacheConfig)
