"""What a run folder says of the training: its scans, and its images."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

from envs.length import DEFAULT_BUDGET
from envs.probing import folder_of
from foveate.checkpoint import MANIFEST, PRETRAINED, checkpoints_in
from foveate.data import ImageSet
from foveate.data.columns import SPLIT_COLUMN
from foveate.data.decoding import ImageSize
from foveate.data.splits import Fingerprint, changes, fingerprints_from
from foveate.files import expanded
from foveate.model import AnyOrderTransformer


@dataclass(frozen=True)
class TrainedWith:
    """What a run says of its scans; without a run what an environment does by itself."""

    budget: int = DEFAULT_BUDGET
    fixation_size: int = 1
    image_size: ImageSize | None = None
    caption_column: str | None = None
    data: str | None = None
    data_root: str = "data"
    stream: bool = False
    image_column: str | None = None
    split_column: str | None = SPLIT_COLUMN
    wander: float | None = None
    """Images lie on a gray canvas so many times as high and wide; None = they fill what is seen."""
    folder: Path | None = None
    """Of the run; None = there is none."""

    def images(self) -> str:
        """Name the images that the run learned from; without a run, scenes.

        Raises:
            ValueError: they were a stream, which no environment reads.
        """
        if self.stream:
            raise ValueError(
                f"the run learned from a stream of {self.data}, which no environment reads; give "
                "data, such as one of its files"
            )
        return self.data or "scenes"

    def columns_of(self, data: object) -> dict[str, str | None]:
        """Return the columns that hold images and splits of these data, if the run had the same.

        Its splits are then those of the training, whatever their column.
        """
        if not self.named_as(data):
            return {}
        return {"image_column": self.image_column, "split_column": self.split_column}

    def named_as(self, data: object) -> bool:
        """Whether the run learned from data of this name."""
        if self.data is None or not isinstance(data, str | Path):
            return False
        learned, given = (expanded(each).resolve() for each in (self.data, data))
        return given == learned

    def warn_of_changes(self, images: ImageSet) -> None:
        """Warn if the images of the training, which these are, changed since.

        What is held out may then be what the model learned from.
        """
        # Of a stream the shards are known, of images in memory the images.
        if self.folder is None or self.stream or images.fingerprints is None:
            return
        before = splits_of_run(self.folder)
        if before is not None and (changed := changes(before, images.fingerprints)):
            warnings.warn(
                f"{self.data} changed since the model learned from it: {'; '.join(changed)}",
                stacklevel=2,
            )


def config_of_run(model: str | Path | AnyOrderTransformer) -> TrainedWith:
    """Read what the config of a run folder says; the defaults of anything else."""
    if isinstance(model, AnyOrderTransformer) or str(model) in PRETRAINED:
        return TrainedWith()
    folder = folder_of(model)
    path = folder / "config.json"
    is_of_run = expanded(model).is_dir() or checkpoints_in(folder)
    if not is_of_run or not path.is_file():
        return TrainedWith()
    try:
        said = json.loads(path.read_text())
        known = {
            field.name: said[field.name] for field in fields(TrainedWith) if field.name in said
        }
    except (OSError, TypeError, ValueError) as reason:
        raise ValueError(f"{path} is no readable config of a run ({reason})") from reason
    sides = known.get("image_size")
    known["image_size"] = tuple(sides) if isinstance(sides, list) else sides
    return TrainedWith(**{**known, "folder": folder})


def splits_of_run(folder: Path) -> dict[str, Fingerprint] | None:
    """Read what the images of a run were known by; None = it does not say."""
    path = folder / MANIFEST
    try:
        recorded = json.loads(path.read_text()).get("splits") if path.is_file() else None
        return None if recorded is None else fingerprints_from(recorded)
    except (AttributeError, OSError, ValueError) as reason:
        raise ValueError(f"{path} is no readable manifest of a run ({reason})") from reason
