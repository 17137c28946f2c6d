"""What a report shows of samples whose answer changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from irtools.data import Dataset, text_of, thumbnail_of
from irtools.driver.settings import Settings
from irtools.instruments import Decisions
from irtools.report.entries import Row, SampleEntry

__all__ = ["sample_entries"]

_MOST_TEXTS = 60
_MOST_PICTURES = 24


def sample_entries(
    rows: Sequence[Row], data: Dataset | None, settings: Settings
) -> tuple[SampleEntry, ...]:
    """Return texts or pictures of the samples whose answers changed, what was spoilt first.

    Args:
        rows: Of the report; the last one that has decisions is shown.
        data: What they were measured on.
        settings: Whether samples are shown at all.
    """
    found = next((one for row in rows[::-1] if (one := Decisions.of(row))), None)
    if found is None or data is None or data.synthetic or not settings.show_samples:
        return ()
    return tuple(_entries(data, [flip.sample for flip in found.flips[:_MOST_TEXTS]]))


def _entries(data: Dataset, samples: Sequence[int]) -> Iterator[SampleEntry]:
    pictures = 0
    for sample in samples:
        text = text_of(data, sample)
        thumbnail = thumbnail_of(data, sample) if not text and pictures < _MOST_PICTURES else ""
        pictures += bool(thumbnail)
        if text or thumbnail:
            yield SampleEntry(sample, text, thumbnail)
