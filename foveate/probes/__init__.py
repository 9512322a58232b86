"""Probes: what frozen features, or fine-tuned weights, know of the images."""

from foveate.probes.features import (
    Attention,
    States,
    extract_features,
    frozen,
    patch_features,
    pixel_features,
    query_features,
    start_features,
)
from foveate.probes.linear import (
    REGULARIZATION,
    Accuracy,
    ChosenAccuracy,
    LinearAccuracy,
    check_features,
    hold_out,
    knn_probe,
    knn_probes,
    linear_probe,
    score,
    wilson_interval,
)

__all__ = [
    "REGULARIZATION",
    "Accuracy",
    "Attention",
    "ChosenAccuracy",
    "LinearAccuracy",
    "States",
    "check_features",
    "extract_features",
    "frozen",
    "hold_out",
    "knn_probe",
    "knn_probes",
    "linear_probe",
    "patch_features",
    "pixel_features",
    "query_features",
    "score",
    "start_features",
    "wilson_interval",
]
