"""Which images a run learned from, and whether they have changed since."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.run_folder import read_manifest
from foveate.checkpoint import MANIFEST
from foveate.data.splits import Fingerprint, changes, fingerprints_from


def check_data(
    directory: Path, now: Mapping[str, Fingerprint] | None, *, changed_ok: bool
) -> list[str]:
    """Compare a run's data with those it was trained on, and return what changed, in words.

    Of older runs and of computed data nothing is known that could be compared.

    Args:
        directory: the run folder.
        now: fingerprint of each split of today's data.
        changed_ok: warn instead of raising.

    Raises:
        ValueError: the data changed, or the manifest is damaged.
    """
    if now is not None and not read_manifest(directory):
        unknown = (
            "which images it was trained on is unknown, since its manifest.json is gone or empty"
        )
        print(f"warning: {directory}: {unknown}", file=sys.stderr)
        return [unknown]
    before = learned_from(directory)
    if before is None or now is None:
        return []
    changed = changes(before, now)
    if changed and not changed_ok:
        raise ValueError(
            f"the data of {directory} changed: {'; '.join(changed)}; bring the former data back, "
            "or add --data-changed-ok"
        )
    if changed:
        print(f"warning: the data of {directory} changed: {'; '.join(changed)}", file=sys.stderr)
    return changed


def learned_from(directory: Path) -> dict[str, Fingerprint] | None:
    """Return the fingerprint of each split that a run was trained on; None = it is not known.

    Raises:
        ValueError: the manifest is damaged.
    """
    recorded = read_manifest(directory).get("splits")
    if recorded is None:
        return None
    try:
        return fingerprints_from(recorded)
    except ValueError as reason:
        raise ValueError(f"splits in {directory / MANIFEST} are damaged ({reason})") from reason


def as_recorded(fingerprints: Mapping[str, Fingerprint] | None) -> dict[str, Any] | None:
    """Return the fingerprints of splits as a manifest holds them."""
    if fingerprints is None:
        return None
    return {name: asdict(each) for name, each in fingerprints.items()}
