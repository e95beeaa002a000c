"""Which released models are known: where their files are, under which licence, and what they are for."""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.errors import ModelError

UNSTATED = "not stated here; see the model's page"


@dataclass(frozen=True)
class ReleasedFile:
    """One file: `path` of the Hub repository `repo` at `revision`, or the address `url`.

    name: what importers call it. megabytes: about how large, where known. digest: "sha256:..." or "md5:...", where
    known; a file with another one is refused.
    """

    name: str
    repo: str = ""
    path: str = ""
    revision: str = "main"
    url: str = ""
    megabytes: int | None = None
    digest: str = ""


@dataclass(frozen=True)
class Release:
    """One released model.

    kind: what its folder becomes, see plaudit.models.importing. needs: other releases that it is used with.
    gated: the Hub asks to accept terms first.
    """

    id: str
    kind: str
    purpose: str
    licence: str
    files: tuple[ReleasedFile, ...]
    needs: tuple[str, ...] = ()
    gated: bool = False

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "NC" in self.licence or "non-commercial" in self.licence

    @property
    def source(self) -> str:
        """Where its files come from."""
        return ", ".join(dict.fromkeys(file.repo or file.url.rsplit("/", 1)[0] for file in self.files))


def find(identifier: str) -> Release:
    """The release called `identifier`; ModelError naming those that there are."""
    if identifier not in RELEASES:
        raise ModelError(f"no released model {identifier!r}; known are {', '.join(RELEASES)}")
    return RELEASES[identifier]


def _hub(repo: str, *paths: str) -> tuple[ReleasedFile, ...]:
    return tuple(ReleasedFile(path, repo, path) for path in paths)


def _clap(identifier: str, purpose: str, path: str) -> Release:
    tokenizer = _hub("FacebookAI/roberta-base", "config.json", "tokenizer.json", "tokenizer_config.json")
    weights = ReleasedFile("weights.pt", "lukewys/laion_clap", path)
    return Release(identifier, "laion-clap", purpose, UNSTATED, (weights, *tokenizer))


_MMAUDIO = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1"
_BIGVGAN = "nvidia/bigvgan_v2_44khz_128band_512x"

_ALL = (
    Release(
        "ttm-humanpref",
        "fluxaudio",
        "the paper's text-to-music model, 44.1 kHz, with a score condition",
        "non-commercial; see the model's page",
        (
            ReleasedFile(
                "weights.pt",
                "yonghyunk1m/TTM-HumanPref",
                "gclef_crpoA_fluxaudio_s.pt",
                megabytes=483,
                digest="sha256:0cfb8295fbd695a99c7a2599363a465fdc28a94f39c8d43faf7487461e5e15f2",
            ),
        ),
        needs=("codec-44k", "text-t5-clap"),
    ),
    Release(
        "fluxaudio-s",
        "fluxaudio",
        "FluxAudio-S for sound and music, 16 kHz",
        UNSTATED,
        (ReleasedFile("weights.pth", "AndreasXi/MeanAudio", "fluxaudio_s_full.pth"),),
        needs=("codec-16k", "text-t5-clap"),
    ),
    Release(
        "codec-44k",
        "mel-codec-44k",
        "waveform <-> 40 latents at 43 Hz: MMAudio's mel VAE and BigVGAN v2, 44.1 kHz",
        f"BigVGAN: MIT; the mel VAE: {UNSTATED}",
        (
            ReleasedFile(
                "vae.pth", url=f"{_MMAUDIO}/v1-44.pth", megabytes=1200, digest="md5:fab020275fa44c6589820ce025191600"
            ),
            ReleasedFile("vocoder.pt", _BIGVGAN, "bigvgan_generator.pt", megabytes=489),
            ReleasedFile("vocoder.json", _BIGVGAN, "config.json"),
        ),
    ),
    Release(
        "codec-16k",
        "mel-codec-16k",
        "waveform <-> 20 latents at 31 Hz: MMAudio's mel VAE and its vocoder, 16 kHz",
        UNSTATED,
        (
            ReleasedFile("vae-16k.pth", url=f"{_MMAUDIO}/v1-16.pth", megabytes=655),
            ReleasedFile("vocoder-16k.pt", url=f"{_MMAUDIO}/best_netG.pt", megabytes=429),
        ),
    ),
    Release(
        "text-t5-clap",
        "t5-clap",
        "text encoder of FluxAudio: Flan-T5's tokens and CLAP's pooled text",
        "Apache-2.0",
        _hub("google/flan-t5-large", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        needs=("clap-music-speech",),
    ),
    _clap(
        "clap-music-speech",
        "CLAP of music and speech: the pooled text of FluxAudio",
        "music_speech_audioset_epoch_15_esc_89.98.pt",
    ),
    _clap("clap-music", "CLAP of music: CLAP score, rewards", "music_audioset_epoch_15_esc_90.14.pt"),
    Release(
        "mert-330m",
        "mert",
        "MERT-v1-330M: what rewards hear beside CLAP",
        "CC-BY-NC-4.0",
        _hub("m-a-p/MERT-v1-330M", "config.json", "preprocessor_config.json", "pytorch_model.bin"),
        gated=True,
    ),
)

RELEASES: dict[str, Release] = {release.id: release for release in _ALL}
