"""References: cached by content, exported without audio, and refused for another encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit.audio import write_wav
from plaudit.errors import EvaluationError, PlauditError
from plaudit.evaluate.distances import frechet_between, gaussian
from plaudit.evaluate.embeddings import (
    AudioEncoder,
    EmbeddingCache,
    embed_reference_folder,
    export_references,
    load_references,
    reference_for,
    reference_of,
)
from plaudit.storage import load_tensors, save_tensors


class Moments:
    """Embeds a clip by its first moments, and counts clips."""

    name, sample_rate, dim = "moments", 8000, 3

    def __init__(self) -> None:
        self.count = 0

    def audio(self, wave: Tensor) -> Tensor:
        self.count += len(wave)
        return torch.stack([wave.mean(1), wave.std(1), wave.abs().amax(1)], 1)


def moments_encoder(digest: str = "d1", name: str = "moments") -> AudioEncoder:
    return AudioEncoder(name, digest, Moments())


@pytest.fixture
def music(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(5):
        write_wav(tmp_path / "music" / f"{number}.wav", 0.1 * (1 + number) * rng.uniform(-1, 1, 4000), 8000)
    return tmp_path / "music"


def embed(music: Path, encoder: AudioEncoder, cache: EmbeddingCache | None) -> tuple[list, list[str], set[str]]:
    return embed_reference_folder(music, [encoder], cache, lambda done, total: None)


def refuse(line: str) -> None:
    raise AssertionError(line)


def test_encoded_music_is_cached_by_content(music: Path, tmp_path: Path) -> None:
    cache, encoder = EmbeddingCache(tmp_path / "e.sqlite", refuse), moments_encoder()
    (first,), notes, contents = embed(music, encoder, cache)
    assert notes == [] and len(contents) == 5 and first.clips == 5
    shutil.copytree(music, tmp_path / "copy")
    (tmp_path / "copy" / "0.wav").rename(tmp_path / "copy" / "z.wav")
    (again,), _, _ = embed(tmp_path / "copy", encoder, cache)
    assert encoder.embedder.count == 5  # type: ignore[attr-defined]
    assert again.source == str(tmp_path / "copy")
    np.testing.assert_array_equal(np.sort(again.embeddings, 0), np.sort(first.embeddings, 0))
    other = moments_encoder("d2")
    embed(music, other, cache)
    assert other.embedder.count == 5  # type: ignore[attr-defined]
    write_wav(music / "0.wav", 0.5 * np.sign(np.sin(np.arange(4000))), 8000)
    (changed,), _, _ = embed(music, encoder, cache)
    assert encoder.embedder.count == 6  # type: ignore[attr-defined]
    assert frechet_between(changed.gaussian, first.gaussian) > 0


def test_an_interrupted_reference_resumes(music: Path, tmp_path: Path) -> None:
    """Killed after the third clip: the next process encodes the other two."""

    def killed(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    encoder, path = moments_encoder(), tmp_path / "e.sqlite"
    with pytest.raises(KeyboardInterrupt):
        embed_reference_folder(music, [encoder], EmbeddingCache(path, refuse), killed)
    (reference,), _, _ = embed(music, encoder, EmbeddingCache(path, refuse))
    assert encoder.embedder.count == 5  # type: ignore[attr-defined]
    (uninterrupted,), _, _ = embed(music, moments_encoder(), None)
    np.testing.assert_array_equal(reference.embeddings, uninterrupted.embeddings)


def test_an_unusable_cache_only_costs_time(music: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.sqlite").write_text("no database, and long enough to be told from an empty one")
    warnings: list[str] = []
    (reference,), notes, _ = embed(music, moments_encoder(), EmbeddingCache(tmp_path / "bad.sqlite", warnings.append))
    assert reference.clips == 5 and notes == [] and len(warnings) == 1 and "embeddings are not cached" in warnings[0]


def test_unusable_files_are_reported_every_time(music: Path, tmp_path: Path) -> None:
    (music / "bad.wav").write_text("no audio")
    cache = EmbeddingCache(tmp_path / "e.sqlite", refuse)
    for _ in range(2):
        (reference,), (note,), _ = embed(music, moments_encoder(), cache)
        assert reference.clips == 5 and "bad.wav" in note
    for number in range(4):
        (music / f"{number}.wav").unlink()
    with pytest.raises(EvaluationError, match="holds 1 clips that can be read; a reference needs 2"):
        embed(music, moments_encoder(), None)


def test_the_file_holds_the_same_distance(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    one = reference_of(moments_encoder(), rng.normal(size=(9, 3)), "music")
    two = reference_of(moments_encoder("d2", "other/name"), rng.normal(size=(9, 20)), "music")
    file = tmp_path / "r.safetensors"
    generated = gaussian(rng.normal(size=(7, 20)))
    for with_embeddings in (False, True):
        export_references(file, [one, two], with_embeddings)
        reference = load_references(file)
        assert [(r.embedding, r.digest, r.clips) for r in reference] == [("moments", "d1", 9), ("other/name", "d2", 9)]
        assert frechet_between(generated, reference[1].gaussian) == frechet_between(generated, two.gaussian)
        assert (reference[0].embeddings is not None) == with_embeddings
    np.testing.assert_array_equal(reference[1].embeddings, two.embeddings)
    assert reference_for(reference, moments_encoder("d2", "its other name")).embedding == "its other name"


def test_another_encoder_is_refused_by_name_and_by_weights(tmp_path: Path) -> None:
    export_references(tmp_path / "r", [reference_of(moments_encoder(), np.eye(3), "music")], with_embeddings=False)
    reference = load_references(tmp_path / "r")
    with pytest.raises(EvaluationError, match="made with other weights of 'moments'"):
        reference_for(reference, moments_encoder("d2"))
    with pytest.raises(EvaluationError, match="is of the embedding 'moments', not of 'clap'"):
        reference_for(reference, moments_encoder("d2", "clap"))
    with pytest.raises(EvaluationError, match="holds no embeddings of moments to export"):
        export_references(tmp_path / "again", reference, with_embeddings=True)


def test_a_file_that_is_no_reference_is_one_line(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    export_references(good, [reference_of(moments_encoder(), np.eye(3), "music")], with_embeddings=True)
    bad.write_text("no tensors")
    save_tensors(tmp_path / "plain", {"mean": torch.zeros(3)})
    for number, (name, value) in enumerate(
        [("0.mean", torch.zeros(4)), ("0.factor", torch.full((3, 3), torch.nan)), ("0.embeddings", torch.zeros(2, 3))]
    ):
        from safetensors import safe_open

        with safe_open(good, framework="pt") as file:
            metadata = file.metadata()
        save_tensors(tmp_path / f"spoilt{number}", {**load_tensors(good), name: value}, metadata)
    for file in ("bad", "plain", "spoilt0", "spoilt1", "spoilt2", "nowhere"):
        with pytest.raises(PlauditError) as error:
            load_references(tmp_path / file)
        assert "\n" not in str(error.value) and file in str(error.value)
