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


def test_a_run_of_a_single_image_has_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two test images are compared, as intervals are over images."""
    run = SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(limit=1)),
        model=SimpleNamespace(config=SimpleNamespace(scannable=True)),
        budget=3,
        split=lambda *_: [0],
    )
    compared: list[dict[str, int]] = []
    monkeypatch.setattr(report, "load_run", lambda _, **__: run)
    monkeypatch.setattr(report, "compare", lambda _, **limits: compared.append(limits))
    for name in ("probe", "draw", "present_probe", "present_comparison", "present_drawings"):
        monkeypatch.setattr(report, name, lambda *_, **__: None)
    report.report(Path("runs/nowhere"))
    assert compared == [{"limit": 2, "oracle_limit": 2}]
