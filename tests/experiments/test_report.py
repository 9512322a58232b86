"""What a run's own report asks, and of how many images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.evaluation import report


@pytest.mark.parametrize(("limit", "asked"), [(None, (4000, 2000)), (256, (256, 256))])
def test_a_report_asks_about_no_more_images_than_were_learned_from(
    limit: int | None, asked: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(limit=limit)),
        model=SimpleNamespace(config=SimpleNamespace(scannable=False)),
    )
    said: list[tuple[int, int]] = []

    def probe(_: object, *, train_limit: int, test_limit: int) -> None:
        said.append((train_limit, test_limit))

    loaded: list[dict[str, object]] = []
    monkeypatch.setattr(report, "load_run", lambda _, **options: loaded.append(options) or run)
    monkeypatch.setattr(report, "probe", probe)
    monkeypatch.setattr(report, "present_probe", lambda *_: None)
    report.report(Path("runs/nowhere"), device="meta", data_changed_ok=True)
    assert said == [asked]
    assert loaded == [{"device": "meta", "data_changed_ok": True}]
