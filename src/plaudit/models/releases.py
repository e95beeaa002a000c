"""The released models: files, licences and uses.

Revisions, sizes, digests and licences are those that the releases' pages, or others who pinned them, state; an empty
digest and the revision `main` mean that none is stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Literal

from plaudit.errors import ModelError
from plaudit.reward.features import PUBLISHED_BLOCKS

FETCHED_ONLY = "files"
"""The kind of releases whose files are downloaded and used as they are, without a model folder."""


@dataclass(frozen=True)
class ReleasedFile:
    """One file: `path` of the Hub repository `repo` at `revision`, or the address `url`.

    name: its key for importers. path: with `*` in it, all files that fit. megabytes: approximate size, None if unknown.
    digest: "sha256:..." or "md5:...", where known; a file with another one is refused.
    """

    name: str
    repo: str = ""
    path: str = ""
    revision: str = "main"
    url: str = ""
    megabytes: int | None = None
    digest: str = ""
    of: Literal["model", "dataset"] = "model"

    @property
    def many(self) -> bool:
        """Whether these are all files that fit a pattern; what is fetched is then their folder."""
        return "*" in self.path

    def fits(self, path: str) -> bool:
        """Whether a path in the repository is the file, or fits its pattern."""
        return fnmatch(path, self.path)


@dataclass(frozen=True)
class Release:
    """One release.

    kind: what its folder becomes, see plaudit.models.importing, or FETCHED_ONLY. needs: other releases that it is used
    with. gated: the Hub asks to accept terms first. injection: where a backbone takes its score. sampling: the settings
    that a backbone's authors sampled it with, where they are not the defaults. blocks: a reward's inputs. encoder: one
    that a reward needs and that is not built in.
    """

    id: str
    kind: str
    purpose: str
    licence: str
    files: tuple[ReleasedFile, ...]
    needs: tuple[str, ...] = ()
    gated: bool = False
    injection: str = "none"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    encoder: str = ""

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return is_non_commercial(self.licence)

    @property
    def source(self) -> str:
        """The source of its files."""
        return ", ".join(dict.fromkeys(file.repo or file.url.rsplit("/", 1)[0] for file in self.files))

    @property
    def megabytes(self) -> int | None:
        """The approximate size of all files; None where that of a large one is unknown."""
        sizes = [file.megabytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def is_non_commercial(licence: str) -> bool:
    """Whether the text of a licence, or its name, forbids commercial use."""
    return "-NC" in licence.upper().replace(" NC", "-NC") or "non-commercial" in licence.lower()


def find(identifier: str) -> Release:
    """The release called `identifier`; ModelError naming those that there are."""
    if identifier not in RELEASES:
        raise ModelError(f"no released model {identifier!r}; there are {', '.join(RELEASES)}")
    return RELEASES[identifier]


def _hub(repo: str, revision: str, *paths: str) -> tuple[ReleasedFile, ...]:
    """Small files, without digests."""
    return tuple(ReleasedFile(path, repo, path, revision, megabytes=0) for path in paths)


def _head(id: str, file: str, purpose: str) -> Release:
    """One of TuneJury's heads over CLAP and MERT."""
    return Release(
        id, "tunejury", purpose, "CC-BY-NC-4.0",
        (ReleasedFile("weights.pt", _TUNEJURY, file, _TUNEJURY_AT, megabytes=11),),
        needs=("clap-music", "mert-330m"), blocks=PUBLISHED_BLOCKS,
    )  # fmt: skip


def _tokenizer() -> tuple[ReleasedFile, ...]:
    revision = "e2da8e2f811d1448a5b465c236feacd80ffbac7b"
    return _hub("FacebookAI/roberta-base", revision, "config.json", "tokenizer.json", "tokenizer_config.json")


_PAPERS_SAMPLING = {
    "score": 5.0,
    "prefix": "high quality instrumental music, ",
    "precision": "tf32",
    "noise": "cuda",
    "boundaries": "published",
}
"""Beside 25 Euler steps, a guidance of 4 and the negative prompt, which are defaults."""

_PAPER = "https://github.com/yonghyunk1m/TTM-HumanPref/releases/download/v1.0-icme2026"
_MMAUDIO = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1"
_BIGVGAN = "nvidia/bigvgan_v2_44khz_128band_512x"
_BIGVGAN_AT = "95a9d1dcb12906c03edd938d77b9333d6ded7dfb"
_MEANAUDIO, _MEANAUDIO_AT = "AndreasXi/MeanAudio", "6e072062d4f9af21c647e2bae5aafc1da2c84014"
_FLAN_T5, _FLAN_T5_AT = "google/flan-t5-large", "0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a"
_MERT, _MERT_AT = "m-a-p/MERT-v1-330M", "5240c2708a5acaee1007f43fb9735c7dcd0b78c9"
_TUNEJURY, _TUNEJURY_AT = "TuneJury/tunejury", "a36a6adaad4a9786a12c3e5fd82501f2f2dc54ff"
_CLAP_AT, _SONGS_AT = "b3708341862f581175dba5c356a4ebf74a9b6651", "dc39062efec7515add304b98a54da2948709a808"

# fmt: off
_ALL = (
    Release(
        "ttm-humanpref", "fluxaudio", "the paper's text-to-music model, 44.1 kHz, with a score condition",
        "non-commercial; see the model's page",
        (ReleasedFile("weights.pt", "yonghyunk1m/TTM-HumanPref", "gclef_crpoA_fluxaudio_s.pt", megabytes=483,
                      digest="sha256:0cfb8295fbd695a99c7a2599363a465fdc28a94f39c8d43faf7487461e5e15f2"),),
        needs=("codec-44k", "text-t5-clap"), injection="input_add", sampling=_PAPERS_SAMPLING,
    ),
    *(Release(
        f"ttm-humanpref-sub{number}", "fluxaudio",
        f"the paper's submission {number}, to be sampled from seed {seed}; by its authors ttm-humanpref's weights",
        "non-commercial; see the model's page",
        (ReleasedFile("weights.pt", url=f"{_PAPER}/sub{number}_seed{seed}_fluxaudio_s.pt", megabytes=483),),
        needs=("codec-44k", "text-t5-clap"), injection="input_add", sampling=_PAPERS_SAMPLING,
    ) for number, seed in ((1, 42), (2, 55))),
    Release(
        "fluxaudio-s", "fluxaudio", "FluxAudio-S for sound and music, 16 kHz", "MIT",
        (ReleasedFile("weights.pth", _MEANAUDIO, "fluxaudio_s_full.pth", _MEANAUDIO_AT, megabytes=480),),
        needs=("codec-16k", "text-t5-clap"),
    ),
    *(Release(
        name, "meanaudio", f"{title}: FluxAudio's sibling, a clip in one evaluation, 16 kHz", "MIT",
        (ReleasedFile("weights.pth", _MEANAUDIO, f"{name.replace('-', '_')}.pth", _MEANAUDIO_AT, megabytes=megabytes,
                      digest=digest),),
        needs=("codec-16k", "text-t5-clap"),
    ) for name, title, megabytes, digest in (
        ("meanaudio-s-ac", "MeanAudio-S-AC", 480, ""),
        ("meanaudio-s-full", "MeanAudio-S-Full", 480,
         "sha256:d1051af33e15f7d98481c2a10b61cd54ab8bca45df59b7079c3bc27dcd1e8ac5"),
        ("meanaudio-l-full", "MeanAudio-L-Full", 1920, ""),
    )),
    Release(
        "codec-44k", "mel-codec-44k", "waveform <-> 40 latents at 43 Hz: MMAudio's mel VAE and BigVGAN v2, 44.1 kHz",
        "mel VAE: CC-BY-NC-4.0; BigVGAN: MIT",
        (ReleasedFile("vae.pth", url=f"{_MMAUDIO}/v1-44.pth", megabytes=1220,
                      digest="md5:fab020275fa44c6589820ce025191600"),
         ReleasedFile("vocoder.pt", _BIGVGAN, "bigvgan_generator.pt", _BIGVGAN_AT, megabytes=489,
                      digest="sha256:d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357"),
         ReleasedFile("vocoder.json", _BIGVGAN, "config.json", _BIGVGAN_AT, megabytes=0,
                      digest="sha256:65b7f487bfaf15256056a75f6667ef5f640214c981922a111927873705ea4ddb")),
    ),
    Release(
        "codec-16k", "mel-codec-16k", "waveform <-> 20 latents at 31 Hz: MMAudio's mel VAE and its vocoder, 16 kHz",
        "CC-BY-NC-4.0",
        (ReleasedFile("vae-16k.pth", url=f"{_MMAUDIO}/v1-16.pth", megabytes=655,
                      digest="md5:69f56803f59a549a1a507c93859fd4d7"),
         ReleasedFile("vocoder-16k.pt", url=f"{_MMAUDIO}/best_netG.pt", megabytes=429,
                      digest="md5:eeaf372a38a9c31c362120aba2dde292")),
    ),
    Release(
        "text-t5-clap", "t5-clap", "text encoder of FluxAudio: Flan-T5's tokens and CLAP's pooled text", "Apache-2.0",
        (*_hub(_FLAN_T5, _FLAN_T5_AT, "config.json", "tokenizer.json", "tokenizer_config.json"),
         ReleasedFile("model.safetensors", _FLAN_T5, "model.safetensors", _FLAN_T5_AT, megabytes=3130)),
        needs=("clap-music-speech",),
    ),
    Release(
        "clap-music-speech", "laion-clap", "CLAP of music and speech: the pooled text of FluxAudio", "CC0-1.0",
        (ReleasedFile("weights.pt", _MEANAUDIO, "music_speech_audioset_epoch_15_esc_89.98.pt", _MEANAUDIO_AT,
                      megabytes=2350, digest="sha256:51c68f12f9d7ea25fdaaccf741ec7f81e93ee594455410f3bca4f47f88d8e006"),
         *_tokenizer()),
    ),
    Release(
        "clap-music", "laion-clap", "CLAP of music: CLAP score, rewards", "CC0-1.0",
        (ReleasedFile("weights.pt", "lukewys/laion_clap", "music_audioset_epoch_15_esc_90.14.pt", _CLAP_AT,
                      megabytes=2350, digest="sha256:fae3e9c087f2909c28a09dc31c8dfcdacbc42ba44c70e972b58c1bd1caf6dedd"),
         *_tokenizer()),
    ),
    Release(
        "mert-330m", "mert", "MERT-v1-330M: audio encoder of rewards, beside CLAP", "CC-BY-NC-4.0",
        (ReleasedFile("pytorch_model.bin", _MERT, "pytorch_model.bin", _MERT_AT, megabytes=1260,
                      digest="sha256:0c03774d821a6ad972cb48220b128a10ebea2c790116bd0fd35e5a013f8017f6"),
         *_hub(_MERT, _MERT_AT, "config.json", "preprocessor_config.json")),
        gated=True,
    ),
    _head("tunejury", "tunejury.pt", "TuneJury over CLAP and MERT, from 17,554 pairs that are in no benchmark"),
    Release(
        "tunejury-challenge", "tunejury",
        "the reward of the paper's challenge entry: TuneJury's inputs, from some 22,000 pairs", "CC-BY-NC-4.0",
        (ReleasedFile("weights.pt", url=f"{_PAPER}/tunejury_reward.pt", megabytes=11),),
        needs=("clap-music", "mert-330m"), blocks=PUBLISHED_BLOCKS,
    ),
    *(_head(f"tunejury-leave-{name.lower().replace('_', '-')}", f"tunejury_leave_{name}.pt",
            f"TuneJury from its pairs without {without}")
      for name, without in (("MA", "Music Arena's"), ("MP", "MusicPrefs'"), ("AIME", "AIME's"), ("SE", "SongEval's"),
                            ("SE_MA", "SongEval's and Music Arena's"), ("MP_MA", "MusicPrefs' and Music Arena's"))),
    _head("tunejury-mp-zero", "tunejury_mp_zero.pt", "TuneJury trained without the prompts of MusicPrefs' pairs"),
    Release(
        "tunejury-muq-leave-ma", "tunejury",
        "TuneJury over MuQ-MuLan's audio and text, from its pairs without Music Arena's", "CC-BY-NC-4.0",
        (ReleasedFile("weights.pt", _TUNEJURY, "tunejury_muq_leave_MA.pt", _TUNEJURY_AT, megabytes=7),),
        blocks=("clap_audio", "clap_text"), encoder="MuQ-MuLan",
    ),
    Release(
        "tunejury-clap", "tunejury", "a reward from CLAP's audio alone, whose licence allows commercial use",
        "Apache-2.0",
        (ReleasedFile("weights.pt", _TUNEJURY, "A1_clap_audio_only.pt", _TUNEJURY_AT, megabytes=5),),
        needs=("clap-music",), blocks=("clap_audio",),
    ),
    Release(
        "tunejury-scores", FETCHED_ONLY, "TuneJury's scores of 219,020 tracks, MTG-Jamendo among them, as labels",
        "mixed, per collection; see the dataset's page",
        (ReleasedFile("scores", "TuneJury/release-scores", "*.csv", of="dataset"),),
    ),
    Release(
        "song-describer", FETCHED_ONLY, "captioned clips of 706 tracks, the reference of evaluation", "CC-BY-SA-4.0",
        (ReleasedFile("clips", "renumics/song-describer-dataset", "*.parquet", _SONGS_AT, of="dataset"),),
    ),
)
# fmt: on

RELEASES: dict[str, Release] = {release.id: release for release in _ALL}
