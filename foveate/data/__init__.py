"""Data sets: loaded whole or streamed, from files, folders, torchvision, or composed scenes."""

from foveate.data.images import ImageSet, augment
from foveate.data.loading import TORCHVISION_SETS, load_data

__all__ = ["TORCHVISION_SETS", "ImageSet", "augment", "load_data"]
