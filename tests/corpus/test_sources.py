"""Corpora as a recipe names them: the synthetic one has a known truth, and others can be added."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from plaudit.corpus.layouts import Listing
from plaudit.corpus.manifest import Entry
from plaudit.corpus.sources import CORPORA, CorpusSettings, CorpusSource, corpus_source, synthetic_source
from plaudit.errors import CorpusError


def test_the_synthetic_corpus_simulates_votes_prompts_and_utility(tmp_path: Path) -> None:
    source = corpus_source(CorpusSettings(size=60, seconds=3))
    votes, facts = source.simulate_votes({"train": 5, "validation": 2}, seed=0)
    assert {split: len(group) for split, group in votes.items()} == {"train": 5, "validation": 2}
    assert set(facts) == {"taste", "train", "validation"} and 0 <= facts["train"]["ceiling"] <= 1
    trained = {entry.caption for entry in source.listing().entries}
    held_out = source.held_out(4)
    assert held_out.truths is not None and len(held_out.prompts) == 4 and not trained & set(held_out.prompts)
    count, clips = source.reference(2)
    waves = [torch.from_numpy(wave) for wave, rate in clips if rate == 16000]
    utility = source.true_utility()
    assert count == len(waves) == 2 and utility is not None and utility(waves, held_out.truths[:2]).shape == (2,)
    assert source.save_truth(tmp_path)["flawed"] > 0 and (tmp_path / "truth.jsonl").is_file()


def test_recorded_audio_has_no_truth(tmp_path: Path) -> None:
    source = corpus_source(CorpusSettings(kind="folder", folder=tmp_path, table=tmp_path / "clips.csv"))
    assert not source.truth_known and source.true_utility() is None and source.detector() is None
    with pytest.raises(CorpusError, match="no simulated listeners"):
        source.simulate_votes({"train": 1}, 0)
    with pytest.raises(CorpusError, match="does not know what its clips contain"):
        source.measure_detector(None, None, 2, lambda done, total: None)


class Silence(CorpusSource):
    """A corpus of somebody else."""

    def check(self) -> None:
        if self.settings.size > 3:
            raise ValueError("there are three silences")

    def listing(self, progress: object = None) -> Listing:
        return Listing("silence", [Entry(f"s{i}", "silence", "train", "silence") for i in range(self.settings.size)])


def test_another_corpus_is_used_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORPORA.builtin, "silence", Silence)
    assert corpus_source(CorpusSettings(kind="silence", size=3)).count() == 3
    with pytest.raises(ValidationError, match="there are three silences"):
        CorpusSettings(kind="silence", size=4)


def test_lengths_too_short_for_listeners_are_refused_in_recipes_only() -> None:
    with pytest.raises(ValidationError, match=r"need 2\.5 seconds"):
        CorpusSettings(seconds=2)
    assert len(synthetic_source(2.0).held_out(2).prompts) == 2
