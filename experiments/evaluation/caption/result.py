"""What was measured of captions: bits per word by fixations, retrieval, and what was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from experiments.evaluation.caption.means import RECALLS, Bits, Retrieval
from experiments.evaluation.intervals import Interval
from experiments.evaluation.run_result import RunResult, minutes
from experiments.tables import Table, marked, short_commit, signed, with_interval


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written of an image by and by."""

    image: int
    """Its number among the test images that have captions."""
    captions: tuple[str, ...]
    """Its own captions, but for empty ones."""
    after: dict[int, str]
    """What was written after so many fixations of the policy."""
    whole: str
    """What was written of the whole image."""


@dataclass(frozen=True, kw_only=True)
class CaptionResult(RunResult):
    """How well captions are known after fixations of the policy and others."""

    kind: ClassVar[str] = "caption"

    orders: dict[str, dict[int, Bits]]
    """By whose fixations and how many."""
    whole: Bits
    """All patches are visible."""
    alone: Bits
    """Nothing is visible: the words before a word are all that is known."""
    shuffled: Bits
    """All patches of another image are visible: the control."""
    image_nats_per_word: float
    """What the whole image tells of a word: ``alone`` minus ``whole``, nats."""
    image_nats_per_word_ci95: Interval | None
    image_to_text: Retrieval | None
    """Captions are ranked for an image, by log p(caption | image) - log p(caption); right is any of
    the image's own. None = not asked for."""
    text_to_image: Retrieval | None
    """Images are ranked for a caption by the same number."""
    retrieval_images: int
    retrieval_captions: int
    retrieval_pairs: int | None = None
    """Pairs that a model was asked about, of several runs the mean; if not all, a right answer that
    is no candidate is a miss, and a wrong one harms none. None = all, in older results."""
    written: tuple[Written, ...]
    """By the first run."""
    captions: int
    """Captions that were asked for."""
    without_captions: int
    """Test images that have none; they are left out."""
    cut: int
    """Captions longer than the model writes, of which the beginning counts; of several runs, each
    of which has subwords of its own, the most of any."""
    test_images: int
    train_seconds: float | None
    """Of the training; of several runs the mean."""
    start_seconds: float | None = None
    """Of the training of the runs that these start from, the mean; None = there is none, or it is
    not known."""
    periphery: int | None = None
    """Side of the always-visible thumbnail, patches; None = an older result, which does not say."""
    without_policy: str | None = None
    """Why ``policy`` has learned nothing in a run, or several; None = it has in all."""
    data: str
    seed: int | None
    """Of the training of a single run."""
    seeds: tuple[int, ...] = ()
    """Of the trainings of all runs; older results do not say."""
    per_seed: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """``image_nats_per_word`` and ``cut`` by seed; empty of a single run."""
    budget: int
    num_patches: int
    commit: str
    commits: tuple[str, ...] = ()
    """Of the code that asked; others than ``commit`` where an answer was kept."""

    def tables(self) -> list[Table]:
        """Return bits per word by fixations, the references, retrieval, and each run's numbers."""
        tables = [self._bits(), self._references()]
        if self._found:
            tables.append(self._retrieval())
        return [*tables, self._seeds()] if len(self.seeds) > 1 else tables

    @property
    def _sampled(self) -> str:
        return "seeds and images at once" if len(self.seeds) > 1 else "images"

    def _bits(self) -> Table:
        after = list(self.orders["policy"])
        rows = tuple(
            (
                marked(name),
                *(self._cell(row[k]) for k in after),
            )
            for name, row in self.orders.items()
        )
        return Table(
            ("fixations of", *(f"after {k}" for k in after)),
            rows,
            f"Bits per word, {self.data}, {self.test_images} test images, {self.captions} "
            f"captions, {self.num_patches} patches, {self._whose}trained for "
            f"{self._time}, commit `{short_commit(self.commit)}`.",
            (
                "Less is better known. In brackets: minus the policy's, 95% interval over "
                f"{self._sampled}.",
                *self._notes(),
            ),
        )

    @property
    def _time(self) -> str:
        before = self.start_seconds
        after = "" if before is None else f" after the {minutes(before)} of what it starts from"
        return minutes(self.train_seconds) + after

    @property
    def _whose(self) -> str:
        if len(self.seeds) > 1:
            return f"mean of seeds {', '.join(map(str, self.seeds))}, each "
        return f"seed {self.seed}, "

    def _cell(self, bits: Bits) -> str:
        if bits.minus_policy is None or bits.minus_policy_ci95 is None:
            return f"{bits.bits_per_word:.3f}"
        return f"{bits.bits_per_word:.3f} ({signed(bits.minus_policy, bits.minus_policy_ci95)})"

    def _notes(self) -> list[str]:
        notes = []
        if self.without_policy is not None:
            notes.append(f"{self.without_policy[0].upper()}{self.without_policy[1:]}.")
        if self.periphery and 0 in self.orders["policy"]:
            notes.append("After 0 fixations the thumbnail alone is seen.")
        if self.without_captions:
            notes.append(f"{self.without_captions} test images have no caption, and are left out.")
        if self.cut:
            cut = [f"{each:.0f}" for each in self.per_seed.get("cut", ())]
            by_seed = f" (by seed {', '.join(cut)})" if len(set(cut)) > 1 else ""
            notes.append(
                f"Of {self.cut} captions{by_seed}, which are too long, the beginning counts."
            )
        return notes

    def _references(self) -> Table:
        names = {
            "the whole image": self.whole,
            "another image, whole (control)": self.shuffled,
            "no image, text alone": self.alone,
        }
        told = with_interval(self.image_nats_per_word, self.image_nats_per_word_ci95)
        return Table(
            ("what is visible", "bits per word, 95% interval", "minus the whole image's"),
            tuple(
                (
                    name,
                    with_interval(row.bits_per_word, row.bits_per_word_ci95),
                    ""
                    if row.minus_policy is None
                    else signed(row.minus_policy, row.minus_policy_ci95),
                )
                for name, row in names.items()
            ),
            notes=(f"The image tells {told} nats of a word.",),
        )

    @property
    def _found(self) -> dict[str, Retrieval]:
        """Retrieval both ways, if it was asked for."""
        both = {"image to text": self.image_to_text, "text to image": self.text_to_image}
        return {name: found for name, found in both.items() if found is not None}

    def _retrieval(self) -> Table:
        rows = []
        for name, row in self._found.items():
            recalls = (with_interval(row.recall[k], row.recall_ci95[k]) for k in row.recall)
            rows += [
                (name, *recalls),
                (f"{name}, chance", *(f"{share:.3f}" for share in row.chance.values())),
            ]
        return Table(
            ("retrieval", *(f"recall at {k}" for k in RECALLS)),
            tuple(rows),
            f"Retrieval among {self.retrieval_images} images and {self.retrieval_captions} "
            "captions, by log p(caption | image) - log p(caption).",
            self._notes_on_pairs(),
        )

    def _notes_on_pairs(self) -> tuple[str, ...]:
        every = self.retrieval_images * self.retrieval_captions
        if self.retrieval_pairs is None or self.retrieval_pairs == every:
            return ()
        share = self.retrieval_pairs / every
        return (
            f"A model was asked about {share:.0%} of the pairs: a first pass estimated the "
            "others, and only the best of each image and caption by it were asked about in full. "
            "A right answer that is not among these is a miss, and a wrong one that is not among "
            "them does no harm: recall may come out too low or too high.",
        )

    def _seeds(self) -> Table:
        """Return the numbers of each run alone."""
        last = max(self.orders["policy"])
        rows = [
            (f"{name} after {last}, bits per word", row[last].per_seed["bits_per_word"])
            for name, row in self.orders.items()
        ]
        rows.append(("the image tells of a word, nats", self.per_seed["image_nats_per_word"]))
        for name, found in self._found.items():
            rows += [(f"{name}, recall at {k}", each) for k, each in found.per_seed.items()]
        return Table(
            ("by seed", *map(str, self.seeds)),
            tuple((name, *(f"{value:.3f}" for value in each)) for name, each in rows),
        )
