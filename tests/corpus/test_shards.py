"""Shard sets hold the codec's output, and survive bad audio, damage, kills and a full disk."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from plaudit.audio import fit_length, write_wav
from plaudit.corpus.layouts import FolderCorpus
from plaudit.corpus.manifest import Entry, ListedCorpus
from plaudit.corpus.shard_set import ShardProvenance, locked_ledger
from plaudit.corpus.shards import Advance, EncodedShard, Job, Preprocessing, ShardEngine, ShardSet, encode_corpus
from plaudit.errors import AudioError, CorpusError
from plaudit.synthetic.corpus import SyntheticCorpus

from .toy import TOY, BandCodec, HashEncoder, encode, maker, write_folder

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != ".lock"}


def stamps(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderCorpus:
    return write_folder(tmp_path_factory.mktemp("audio"), 13)


@pytest.fixture(scope="module")
def whole(source: FolderCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "shards"
    encode(source, folder)
    return folder


def copied(whole: Path, folder: Path) -> Path:
    folder.mkdir()
    for name, data in contents(whole).items():
        (folder / name).write_bytes(data)
    return folder


def test_every_row_is_its_clip_and_its_caption(source: FolderCorpus, whole: Path) -> None:
    shards, entries = ShardSet(whole), source.entries()
    assert (len(shards), shards.frames, shards.latent_dim) == (13, 100, 6)
    assert shards.ids == [entry.id for entry in entries] and shards.splits == [entry.split for entry in entries]
    assert shards.captions == [entry.caption for entry in entries]
    rewards = [np.nan if entry.reward is None else entry.reward for entry in entries]
    assert np.array_equal(shards.rewards, rewards, equal_nan=True) and shards.rewards.dtype == np.float64
    rows = np.array([12, 0, 7, 7, 3])
    waves = torch.stack([torch.from_numpy(fit_length(source.load([entries[row]], 1.0)[0][0], 8000)) for row in rows])
    expected, found = BandCodec().encode(waves), shards.posterior(rows)
    assert found.mean.dtype == torch.float32 and found.mean.shape == (5, 100, 6)
    assert torch.allclose(found.mean, expected.mean, atol=2e-3)
    assert torch.allclose(found.std, expected.std, atol=1e-3)
    text = HashEncoder().encode([entries[row].caption for row in rows])
    assert torch.allclose(shards.text(rows).tokens, text.tokens, atol=2e-3)
    assert torch.allclose(shards.text(rows).pooled, text.pooled, atol=2e-3)


def test_equal_captions_are_encoded_once(whole: Path) -> None:
    index = pyarrow.parquet.read_table(whole / "index.parquet").to_pydict()
    assert list(index) == ["id", "source", "caption", "caption_row", "reward", "split", "shard", "row"]
    assert len(set(index["caption_row"])) == len(set(index["caption"])) == 9
    assert index["shard"] == [0] * 4 + [1] * 4 + [2] * 4 + [3] and index["row"] == [0, 1, 2, 3] * 3 + [0]


def test_statistics_are_those_of_draws_from_the_train_split(whole: Path) -> None:
    shards = ShardSet(whole)
    rows = shards.rows("train")
    assert 0 < len(rows) < 13
    posterior, generator = shards.posterior(rows), torch.Generator().manual_seed(0)
    draws = torch.cat([posterior.sample(generator) for _ in range(200)]).flatten(0, 1)  # [n, C]
    assert torch.allclose(shards.latent_mean, draws.mean(0), atol=2e-3)
    assert torch.allclose(shards.latent_std, draws.std(0), rtol=5e-3)
    assert not torch.allclose(shards.latent_std, posterior.mean.flatten(0, 1).std(0), rtol=5e-3)


def test_rows_may_be_none_and_of_any_integer_type(whole: Path) -> None:
    shards = ShardSet(whole)
    assert shards.posterior(np.array([], dtype=np.int64)).mean.shape == (0, 100, 6)
    assert torch.equal(shards.posterior(np.array([3], np.int32)).mean, shards.posterior(np.array([3])).mean)


def test_other_rates_and_lengths(tmp_path: Path) -> None:
    """A tone is the same tone at any rate: what is too long is cut, what is too short is padded with zeros."""
    (tmp_path / "clips.csv").write_text("file,caption\n" + "".join(f"{n}.wav,x\n" for n in ("same", "long", "short")))
    for name, seconds, rate, channels in [("same", 1.0, 8000, 1), ("long", 2.5, 44100, 2), ("short", 0.5, 16000, 1)]:
        wave = 0.5 * np.sin(2 * np.pi * 50 * np.arange(round(seconds * rate)) / rate)
        soundfile.write(tmp_path / f"{name}.wav", np.stack([wave] * channels, 1), rate)
    shards = encode_corpus(
        FolderCorpus(tmp_path, Path("clips.csv")), BandCodec(), HashEncoder(), tmp_path / "shards", 1.0049
    )
    same, long, short = shards.posterior(np.arange(3)).mean
    assert same.shape == (100, 6)
    assert torch.allclose(same[2:-2], long[2:-2], atol=5e-3) and torch.allclose(same[2:48], short[2:48], atol=5e-3)
    assert not short[52:].any()


def test_bad_audio_is_quarantined_and_skipped(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "audio", 9)
    audio = tmp_path / "audio"
    (audio / "000.wav").unlink()
    (audio / "001.wav").write_bytes(b"")
    (audio / "002.wav").write_bytes((audio / "003.wav").read_bytes()[:5000])
    soundfile.write(audio / "004.wav", np.full(8000, np.nan), 8000, "FLOAT")
    soundfile.write(audio / "005.wav", np.r_[np.zeros(8000), np.ones(8000)], 8000)
    table = (audio / "clips.csv").read_text().replace("006.wav,caption 6", "006.wav, ")
    (audio / "clips.csv").write_text(table)
    encode(source, tmp_path / "shards")
    shards = ShardSet(tmp_path / "shards")
    assert shards.ids == ["003", "007", "008"]
    lines = [json.loads(line) for line in (tmp_path / "shards" / "quarantine.jsonl").read_text().splitlines()]
    reasons = ["does not exist", "empty", "truncated", "NaN", "first 1 s are silent", "caption is empty"]
    assert [line["id"] for line in lines] == ["000", "001", "002", "004", "005", "006"]
    assert all(reason in line["reason"] for reason, line in zip(reasons, lines, strict=True))
    assert lines[0]["path"] == str(audio / "000.wav")

    # One file is repaired: its shard is made again, the last one is not.
    before = stamps(tmp_path / "shards")
    (audio / "000.wav").write_bytes((audio / "003.wav").read_bytes())
    encode(source, tmp_path / "shards")
    after = stamps(tmp_path / "shards")
    assert ShardSet(tmp_path / "shards").ids == ["000", "003", "007", "008"]
    assert after["latents-00002.safetensors"] == before["latents-00002.safetensors"]
    assert after["latents-00000.safetensors"] != before["latents-00000.safetensors"]


def test_nothing_usable_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,caption\na.wav,x\nb.wav,y\n")
    with pytest.raises(CorpusError, match=r"none of the 2 clips .*a\.wav does not exist") as caught:
        encode(FolderCorpus(tmp_path, Path("clips.csv")), tmp_path / "shards")
    assert "\n" not in str(caught.value)
    with pytest.raises(CorpusError, match="not finished"):
        ShardSet(tmp_path / "shards")


def test_latents_that_are_not_finite_are_quarantined(source: FolderCorpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="not finite"):
        encode_corpus(source, BandCodec(scale=1e6), HashEncoder(), tmp_path / "shards", 1.0)


def test_too_short_for_one_frame(source: FolderCorpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="one latent frame"):
        encode_corpus(source, BandCodec(), HashEncoder(), tmp_path, 0.001)


def test_a_second_run_does_nothing(source: FolderCorpus, whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "shards")
    before, steps = stamps(folder), []
    encode(source, folder, lambda done, total: steps.append((done, total)))
    assert stamps(folder) == before and contents(folder) == contents(whole)
    assert steps[-1] == (13, 13) and all(done <= total for done, total in steps)


def test_another_codec_or_a_smaller_corpus_replaces_what_lies_there(
    source: FolderCorpus, whole: Path, tmp_path: Path
) -> None:
    folder = copied(whole, tmp_path / "shards")
    other = ShardProvenance(TOY.source, {"seconds": 0.5})
    with pytest.raises(CorpusError, match=r"other settings \(seconds was 1.0, is now 0.5\); add --yes"):
        encode_corpus(source, BandCodec(name="other"), HashEncoder(), folder, 0.5, provenance=other)
    assert contents(folder) == contents(whole)
    agreed: list[Sequence[str]] = []
    shards = encode_corpus(
        source, BandCodec(name="other"), HashEncoder(), folder, 0.5, provenance=other,
        approve=lambda differences: not agreed.append(differences),
    )  # fmt: skip
    assert agreed == [["seconds was 1.0, is now 0.5"]]
    assert shards.frames == 50 and len(list(folder.glob("latents-*"))) == 1
    assert shards.stats["codec"] == "other" and len(ShardSet(folder)) == 13


@pytest.mark.parametrize(
    "name", ["latents-00001.safetensors", "captions-00002.safetensors", "index.parquet", "stats.json"]
)
@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "garbage"])
def test_damage_is_named_and_remade(source: FolderCorpus, whole: Path, tmp_path: Path, name: str, harm: str) -> None:
    folder = copied(whole, tmp_path / "shards")
    data = bytearray((folder / name).read_bytes())
    data[-5] ^= 1
    changed = {"cut": data[:-9], "flip": data, "garbage": b"\xff" * len(data), "remove": b""}[harm]
    (folder / name).write_bytes(changed)
    if harm == "remove":
        (folder / name).unlink()
    with pytest.raises(CorpusError, match=name) as caught:
        ShardSet(folder)
    assert "\n" not in str(caught.value)
    before = stamps(folder)
    encode(source, folder)
    assert contents(folder) == contents(whole)
    assert [n for n, stamp in stamps(folder).items() if before.get(n) != stamp] == [name] * name.endswith("tensors")


@pytest.mark.parametrize("ledger", [b"", b"{", b"[]", b'{"a": 1}', b"\xff", None])
def test_a_damaged_ledger(source: FolderCorpus, whole: Path, tmp_path: Path, ledger: bytes | None) -> None:
    folder = copied(whole, tmp_path / "shards")
    (folder / "shards.json").write_bytes(ledger) if ledger is not None else (folder / "shards.json").unlink()
    with pytest.raises(CorpusError, match="not a shard set"):
        ShardSet(folder)
    encode(source, folder)
    assert contents(folder) == contents(whole)


def refused(folder: Path, said: str, encoding: Callable[[], object]) -> None:
    before = {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}
    with pytest.raises(CorpusError, match=said) as caught:
        encoding()
    assert "\n" not in str(caught.value)
    assert {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")} == before


def test_files_of_another_source_are_not_touched(source: FolderCorpus, whole: Path, tmp_path: Path) -> None:
    """Somebody's weights, clips of another data set, a run's step: neither removed nor written into."""
    mine, step = tmp_path / "mine", tmp_path / "step"
    mine.mkdir()
    (mine / "model.safetensors").write_bytes(b"weights")
    refused(mine, "holds files, but no shard set; choose another folder", lambda: encode(source, mine))
    step.mkdir()
    (step / "step.json").write_text("{}")
    refused(step, "holds files, but no shard set", lambda: encode(source, step))
    encode_corpus(source, BandCodec(), HashEncoder(), step, 1.0)  # as a run does
    there = copied(whole, tmp_path / "shards")
    for other in (ShardProvenance({"data set": "other"}, TOY.settings), None):
        refused(
            there, r"holds another data set \(data set toy\); give this one a folder of its own",
            lambda other=other: encode_corpus(source, BandCodec(), HashEncoder(), there, 1.0, provenance=other),
        )  # fmt: skip
    unknown = tmp_path / "unknown"
    encode_corpus(source, BandCodec(), HashEncoder(), unknown, 1.0)
    refused(unknown, "without a record of its source", lambda: encode(source, unknown))


def test_foreign_files_in_a_shard_set_are_not_removed(source: FolderCorpus, whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "shards")
    for name in ("model.safetensors", "notes.txt"):
        (folder / name).write_text("mine")
    (folder / "latents-00099.safetensors").write_text("of an earlier, larger corpus")
    encode(source, folder)
    assert {name: data for name, data in contents(folder).items() if data != b"mine"} == contents(whole)
    assert (folder / "model.safetensors").read_text() == (folder / "notes.txt").read_text() == "mine"


def test_no_shard_set_at_all(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="not a shard set"):
        ShardSet(tmp_path / "nowhere")


def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    whole: Path, source: FolderCorpus, tmp_path: Path
) -> None:
    folder, dice = tmp_path / "shards", random.Random(1)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-m", "tests.corpus.toy", source.folder, folder], cwd=ROOT)
        deadline = time.monotonic() + 120
        wanted = dice.randint(0, 3)
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(folder.glob("latents-*"))) >= wanted and folder.exists():
                break
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        for leftover in folder.glob("latents-*"):  # whole or not at all
            assert leftover.stat().st_size == (whole / leftover.name).stat().st_size
    assert kills
    encode(source, folder)
    assert contents(folder) == contents(whole)
    assert len(ShardSet(folder)) == 13


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Makes the system refuse to write more than `size` bytes into any file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_full_disk(source: FolderCorpus, whole: Path, tmp_path: Path, size: int) -> None:
    folder = copied(whole, tmp_path / "shards")
    for name in ("latents-00001.safetensors", "index.parquet"):
        (folder / name).unlink()
    with (
        files_of_at_most(size),
        pytest.raises(CorpusError, match=r"cannot be written .* finished shards are kept") as caught,
    ):
        encode(source, folder)
    assert "\n" not in str(caught.value)
    assert not [name for name in contents(folder) if name.startswith(".")]  # nothing half-written
    assert (folder / "latents-00000.safetensors").read_bytes() == (whole / "latents-00000.safetensors").read_bytes()
    encode(source, folder)
    assert contents(folder) == contents(whole)


def test_a_folder_that_cannot_be_created(source: FolderCorpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CorpusError, match="cannot be written"):
        encode(source, tmp_path / "file" / "shards")


def long_recordings(folder: Path, count: int, loads: list[str]) -> tuple[ListedCorpus, list[np.ndarray]]:
    """`count` recordings of three seconds, each an entry per second; `loads` records which are loaded."""
    waves = [0.3 * np.random.default_rng(i).standard_normal(24000).astype(np.float32) for i in range(count)]
    entries = []
    for number, wave in enumerate(waves):
        write_wav(folder / f"{number}.wav", wave, 8000, "FLOAT")
        for second in (0, 1, 2):
            path = folder / f"{number}.wav"
            entries.append(Entry(f"{number}@{second}", f"caption {number}", "train", "s", None, path, start=second))

    class Counting(ListedCorpus):
        def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
            loads.append(clips[0].id)
            return super().load(clips, seconds)

    return Counting("long", entries), waves


def test_a_recording_is_decoded_once_and_never_cut_apart_by_shards(tmp_path: Path) -> None:
    loads: list[str] = []
    corpus, waves = long_recordings(tmp_path, 4, loads)
    for shard_size, shards in ((7, 2), (2, 4)):
        loads.clear()
        folder = tmp_path / f"shards-{shard_size}"
        made = encode_corpus(corpus, BandCodec(), HashEncoder(), folder, 1.0, shard_size, batch_size=2)
        assert sorted(loads) == ["0@0", "1@0", "2@0", "3@0"] and len(list(folder.glob("latents-*"))) == shards
        assert made.ids == [entry.id for entry in corpus.entries()]
        expected = BandCodec().encode(torch.from_numpy(np.concatenate(waves).reshape(12, 8000))).mean
        assert torch.allclose(made.posterior(np.arange(12)).mean, expected, atol=5e-3)


def test_a_clip_past_the_end_and_a_known_problem_go_to_quarantine(tmp_path: Path) -> None:
    corpus, _ = long_recordings(tmp_path, 1, [])
    entries = corpus.entries()
    wrong = [*entries, replace(entries[0], id="late", start=3.0), replace(entries[0], id="odd", problem="it is odd")]
    made = encode_corpus(ListedCorpus("long", wrong), BandCodec(), HashEncoder(), tmp_path / "shards", 1.0)
    assert len(made) == 3
    lines = [json.loads(line) for line in (tmp_path / "shards" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["late", "odd"] and lines[1]["reason"] == "it is odd"
    assert "ends before 3.00 s" in lines[0]["reason"]


def test_preprocessing_is_applied_to_each_clip_and_other_preprocessing_means_other_shards(tmp_path: Path) -> None:
    corpus, _ = long_recordings(tmp_path, 2, [])
    plain = encode_corpus(corpus, BandCodec(), HashEncoder(), tmp_path / "shards", 1.0)
    before, rows = plain.posterior(np.arange(6)).mean, np.arange(6)

    def halved(wave: np.ndarray, rate: int) -> np.ndarray:
        assert rate == 8000 and len(wave) <= 8800  # the clip and the margin, not the recording
        return 0.5 * wave

    def refused(wave: np.ndarray, rate: int) -> np.ndarray:
        raise AudioError("nothing is left")

    def treated(preprocessing: Preprocessing) -> ShardSet:
        return encode_corpus(corpus, BandCodec(), HashEncoder(), tmp_path / "shards", 1.0, preprocessing=preprocessing)

    made = treated(Preprocessing("halved", halved))
    assert made.stats["preprocessing"] == "halved"
    assert torch.allclose(made.posterior(rows).mean, 0.5 * before, atol=2e-3)
    assert torch.allclose(
        treated(Preprocessing("halved", refused)).posterior(rows).mean, 0.5 * before, atol=2e-3
    )  # kept
    with pytest.raises(CorpusError, match=r"none of the 6 clips .* nothing is left"):
        treated(Preprocessing("refused", refused))


def test_an_engine_that_loses_a_shard_is_an_error(source: FolderCorpus, whole: Path, tmp_path: Path) -> None:
    local = maker()

    def forgetful(jobs: Sequence[Job], advance: Advance) -> Generator[EncodedShard]:
        return local([job for job in jobs if not job.name.endswith("00001.safetensors")], advance)

    def backwards(jobs: Sequence[Job], advance: Advance) -> Generator[EncodedShard]:
        return local(jobs[::-1], advance)

    def by(engine: ShardEngine) -> None:
        encode_corpus(
            source, BandCodec(), HashEncoder(), tmp_path / "shards", 1.0, shard_size=4, batch_size=2, engine=engine,
            provenance=TOY,
        )  # fmt: skip

    with pytest.raises(CorpusError, match=r"1 shards were not made, the first is latents-00001"):
        by(forgetful)
    with pytest.raises(CorpusError, match="not finished"):
        ShardSet(tmp_path / "shards")
    by(backwards)
    assert contents(tmp_path / "shards") == contents(whole)


def test_concurrent_writers_are_excluded(source: FolderCorpus, tmp_path: Path) -> None:
    with locked_ledger(tmp_path / "shards"), pytest.raises(CorpusError, match="another process"):
        encode(source, tmp_path / "shards")
    encode(source, tmp_path / "shards")


def test_the_synthetic_corpus_is_a_corpus_like_any_other(tmp_path: Path) -> None:
    corpus = SyntheticCorpus(4, 1.0, seed=3)
    shards = encode_corpus(corpus, BandCodec(sample_rate=16000), HashEncoder(), tmp_path, 1.0)
    assert shards.ids == [clip.id for clip in corpus.clips] and shards.splits == [clip.split for clip in corpus.clips]
    expected = BandCodec().encode(torch.from_numpy(corpus.render(corpus.clips[2]))[None]).mean
    assert torch.allclose(shards.posterior(np.array([2])).mean, expected, atol=5e-3)
    assert np.isnan(shards.rewards).all()
    longer, other = SyntheticCorpus(4, 2.0, seed=3), SyntheticCorpus(4, 1.0, 3, 0.0)
    flawed = [i for i, clip in enumerate(corpus.clips) if clip.flaws]
    assert all(a.origin != b.origin for a, b in zip(corpus.entries(), longer.entries(), strict=True))
    assert all((corpus.entries()[i].origin != other.entries()[i].origin) == (i in flawed) for i in range(4))
    with pytest.raises(CorpusError, match="not in this synthetic corpus"):
        corpus.load([Entry("stranger", "x", "train", "synthetic")], 1.0)


def test_leftovers_of_a_killed_writer_are_removed(whole: Path, source: FolderCorpus, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for leftover in (".tmpp2uV60", ".latents-00000.safetensors.7.partial"):
        (tmp_path / "shards" / leftover).touch()
    encode(source, tmp_path / "shards")
    assert contents(tmp_path / "shards") == contents(whole)
