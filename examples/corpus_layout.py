"""A corpus layout: folders of albums in which each recording has its caption in a text file beside it.

Encode it once, for any number of runs:

    plaudit prepare layout examples/corpus_layout.py:list_albums music/ --set test=0.1 -o shards

or name it in a recipe, which then also has audio to extract a reward's features from:

    corpus:
      kind: examples/corpus_layout.py:list_albums
      folder: music
      options: {test: 0.1}
"""

from pathlib import Path

from plaudit.audio import audio_under
from plaudit.corpus.layouts import Listing, uncaptioned
from plaudit.corpus.manifest import Entry, split_of
from plaudit.errors import CorpusError


def list_albums(folder: Path, validation: float = 0.05, test: float = 0.05) -> Listing:
    """One entry for each ALBUM/TRACK.wav (or .mp3, .flac, ...) with an ALBUM/TRACK.txt; an album is in one split."""
    files = audio_under(folder)
    entries = [
        Entry(
            id=file.relative_to(folder).with_suffix("").as_posix(),
            caption=file.with_suffix(".txt").read_text(encoding="utf-8").strip(),
            split=split_of(file.parent.name, validation, test),
            source="albums",
            path=file,
        )
        for file in files
        if file.with_suffix(".txt").is_file()
    ]
    if not entries:
        raise CorpusError(f"{folder} has no audio with a text file beside it; check the path")
    return Listing("albums", entries, uncaptioned(files, entries))
