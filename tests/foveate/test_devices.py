"""A device that torch lacks, or that is no device, is named before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.record import RecordConfig
from foveate.checkpoint import check_device


@pytest.mark.parametrize("device", ["cpu:1", "cpu:0", "meta", "hpu", "toaster", "", "cuda:-1"])
def test_a_device_that_cannot_be_used_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
        check_device(device)


@pytest.mark.parametrize("slug", ["../../x", "/tmp/x", "a/b", "..", "", "a\\b", "a\n"])
def test_a_record_stays_among_the_records(slug: str) -> None:
    with pytest.raises(ValueError, match="slug names a folder among the records"):
        RecordConfig(run=Path("runs/demo"), slug=slug)
