"""The options of what the model is asked, and how much each answer counts.

No torch here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foveate.sizes import check_at_least, check_share


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """What the model is asked of an order, and how much each answer counts."""

    prefer: Literal["none", "policy", "harder", "easier"] = "none"
    """Which of the patches that are asked for together count more. policy: by its softmax among
    them, judged as if these were all candidates; harder: in proportion to the error that the model
    expects of each, in the units of its target; easier: to the inverse of that. In all orders,
    random ones as well."""
    prefer_by: Literal["weight", "ask"] = "weight"
    """weight: the loss of a preferred patch counts more, at no cost. ask: preferred patches are
    asked for more often (queries="unseen"), instead of evenly drawn ones."""
    prefer_share: float = 0.5
    """Share of the preference; the rest is an even choice."""
    prefer_share_start: float | None = None
    """That share in the first iteration, with prefer policy the first that has a policy; from there
    it goes to ``prefer_share`` along a line. None = it stays."""
    ask_among: int = 8
    """Random unseen patches among which those that are asked are drawn (prefer_by="ask"); each
    costs a pass of the decoder without gradient."""
    encode_first: int | None = None
    """Steps of an order that are encoded; all later patches are asked for together, from these.
    None = all that precede another; with queries="unseen", whose number the budget says, only
    None. Of a tied prefix all patches are encoded: ``--prefix-share 0`` keeps encoders small."""

    num_captions: int = 1
    """Captions of an image that are learned together (recipe caption); they share one reading of
    it."""
    word_dropout: float = 0.0
    """Share of the earlier words of a caption that are hidden from the next one in training (Bowman
    et al. 2016, arXiv 1511.06349, Sec. 3.1), so that the image must tell (recipe caption)."""
    parallel_share: float = 0.0
    """Share of the batches in which no word of a caption reads another, so that the image alone
    must tell them all (CapPa: Tschannen et al. 2023, arXiv 2306.07915, Sec. 3, at 0.75); batches of
    words without an image are not among them (recipe caption)."""

    def __post_init__(self) -> None:
        check_share(self, "prefer_share", "prefer_share_start", "word_dropout", "parallel_share")
        check_at_least(self, 1, "num_captions")
        check_at_least(self, 1, "ask_among", "encode_first")
        for name in ("prefer_by", "prefer_share", "prefer_share_start"):
            if self.prefer == "none" and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} needs --prefer policy, harder or easier")
        if self.prefer_by != "ask" and self.ask_among != type(self).ask_among:
            raise ValueError("ask_among needs --prefer-by ask")

    @property
    def needs_error(self) -> bool:
        """Whether the model is to learn its expected error, whatever it predicts."""
        return self.prefer in ("harder", "easier")

    @property
    def first_share(self) -> float:
        """Share of the preference in the first iteration that has one."""
        return self.prefer_share if self.prefer_share_start is None else self.prefer_share_start
