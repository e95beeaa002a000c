"""Model folders from released files, with one function per kind of release."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit import __version__
from plaudit.backbone.config import FLUXAUDIO, MEANAUDIO
from plaudit.backbone.published import from_published
from plaudit.codec.bigvgan import BigVGANConfig
from plaudit.codec.mel import MEL_16K
from plaudit.codec.mel_codec import ReleasedCodec, released_codec, save_mel_codec
from plaudit.errors import ModelError
from plaudit.generate.model import ModelConfig
from plaudit.generate.settings import Guidance, SamplingSettings
from plaudit.models.fetch import check_replaceable
from plaudit.models.releases import FETCHED_ONLY, RELEASES, Release
from plaudit.published import labelled_digest, read_released, unwrap
from plaudit.reward.ablation import INPUT_ABLATIONS
from plaudit.reward.features import BLOCKS
from plaudit.reward.tunejury import head_from_published, save_head
from plaudit.storage import WholeFolder, read_json, save_module

SECONDS = 10.0
"""Length of the clips that FluxAudio was trained on."""

ONE_EVALUATION = SamplingSettings(steps=1, guidance=Guidance(weight=1.0))
"""How a network of average velocities that was trained with its guidance is sampled."""

VOCODER_16K = BigVGANConfig(
    bands=80,
    channels=1536,
    upsample_rates=(4, 4, 2, 2, 2, 2),
    upsample_kernels=(8, 8, 4, 4, 4, 4),
    block_kernels=(3, 7, 11),
    block_dilations=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    final_bias=True,
    final_tanh=True,
)
"""MMAudio's 16 kHz vocoder, a BigVGAN of the first version, whose release has no configuration file."""


DEFAULT_AUDIO_EMBEDDER = "statistics"
"""The second listener of a reward that has no use for one: it is always there and takes no memory."""


@dataclass(frozen=True)
class Choices:
    """Choices that released files leave open.

    injection: where a backbone takes its score; by default the release's. names: a map from a backbone's published
    names to ours, see plaudit.backbone.published.read_name_map. verified: whether the files must have the released
    digests; without, files that were converted or replaced are accepted too, and recorded in the folder. blocks, clap,
    audio_embedder: a reward's inputs and encoders; by default the release's.
    """

    injection: str | None = None
    blocks: tuple[str, ...] = ()
    clap: str | None = None
    audio_embedder: str | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    verified: bool = True


@dataclass(frozen=True)
class Import:
    """One import: which release, its files by their local names, facts for config.json, and the folder to write."""

    release: Release
    files: Mapping[str, Path]
    facts: dict[str, Any]
    choices: Choices
    folder: Path


def import_release(
    release: Release, files: Mapping[str, Path], folder: Path, choices: Choices | None = None
) -> dict[str, Any]:
    """Make the model folder of `release` from its files (by their local names); the facts of where it comes from.

    The folder appears whole or not at all, and an old one is replaced only by a new one that is whole. ModelError names
    a file that is missing, is not the released one, or does not fit.
    """
    if release.kind == FETCHED_ONLY:
        raise ModelError(f"{release.id} is a release of files, not a model; its files are used as they are")
    check_replaceable(folder)
    choices = choices or Choices()
    if missing := [file.name for file in release.files if file.name not in files]:
        raise ModelError(f"{release.id} needs {', '.join(missing)} as well")
    origin = {**provenance(release, files, choices.verified), "version": __version__}
    facts = {"licence": release.licence, "provenance": origin}
    with WholeFolder(folder).draft() as draft:
        IMPORTERS[release.kind](Import(release, files, facts, choices, draft))
    return facts


def files_in(folder: Path, release: Release) -> dict[str, Path]:
    """The files of a release in a folder of the user's, under their local or released names; ModelError otherwise.

    A release of one file is taken from a path to that file, too.
    """
    if folder.is_file() and len(release.files) == 1:
        return {release.files[0].name: folder}
    paths = {}
    for file in release.files:
        names = dict.fromkeys((file.name, Path(file.path).name if file.path else file.url.rsplit("/", 1)[1]))
        here = [folder / name for name in names if (folder / name).is_file()]
        if not here:
            raise ModelError(f"{folder} has no {' or '.join(names)}, which {release.id} needs")
        paths[file.name] = here[0]
    return paths


def provenance(release: Release, files: Mapping[str, Path], verified: bool) -> dict[str, Any]:
    """Where each file of the release comes from, and the digest of what was read; ModelError where it is another.

    Files that need not be the released ones are named by their place on this machine.
    """
    sources = {}
    for file in release.files:
        path = files[file.name]
        digest = labelled_digest(path)
        same = not file.digest or file.digest in (digest, labelled_digest(path, file.digest.split(":")[0]))
        if verified and not same:
            raise ModelError(
                f"{path} is not the file that {release.id} was released as: digests differ; fetch it again, or import "
                "it with --unverified if it is meant to be another"
            )
        released_at = file.url or f"{file.repo}/{file.path}@{file.revision}"
        sources[file.name] = {"from": released_at if verified else str(path.resolve()), "digest": digest}
    return {"stage": "imported", "release": release.id, "verified": verified, "files": sources}


def _codec_44k(job: Import) -> None:
    vae, vocoder = read_released(job.files["vae.pth"]), read_released(job.files["vocoder.pt"])
    codec = released_codec(job.release.id, vae, vocoder, read_json(job.files["vocoder.json"]))
    save_mel_codec(job.folder, codec, job.facts)


def _codec_16k(job: Import) -> None:
    vae, vocoder = (unwrap(read_released(job.files[name])) for name in ("vae-16k.pth", "vocoder-16k.pt"))
    save_mel_codec(job.folder, ReleasedCodec(job.release.id, MEL_16K, VOCODER_16K, vae, vocoder), job.facts)


def _clap(job: Import) -> None:
    from plaudit.encoders.laion_clap import save_clap
    from plaudit.encoders.pretrained import read_tokenizer

    tokenizer = read_tokenizer(job.files["tokenizer.json"].parent)
    save_clap(job.folder, job.release.id, read_released(job.files["weights.pt"]), tokenizer, job.facts)


def _text(job: Import) -> None:
    from plaudit.encoders.t5_clap import save_t5_clap, t5_from_folder

    t5, tokenizer = t5_from_folder(job.files["config.json"].parent)
    (clap,) = job.release.needs
    save_t5_clap(job.folder, job.release.id, t5, tokenizer, clap, job.facts)


def _mert(job: Import) -> None:
    from plaudit.encoders.mert import save_mert

    weights = read_released(job.files["pytorch_model.bin"])
    config, preprocessor = read_json(job.files["config.json"]), read_json(job.files["preprocessor_config.json"])
    save_mert(job.folder, job.release.id, weights, config, preprocessor, job.facts)


def _backbone(job: Import) -> None:
    (weights,) = job.files.values()
    injection = job.release.injection if job.choices.injection is None else job.choices.injection
    backbone = from_published(read_released(weights), injection, job.choices.names)
    if backbone.config.kind != job.release.kind:
        of_kind = [release.id for release in RELEASES.values() if release.kind == backbone.config.kind]
        raise ModelError(
            f"{weights} holds a network of kind {backbone.config.kind}, and {job.release.id} is of kind "
            f"{job.release.kind}; import it as one of {', '.join(of_kind)}"
        )
    codec, text_encoder = job.release.needs
    sampling = ONE_EVALUATION if backbone.average_velocity else SamplingSettings().changed(**job.release.sampling)
    if backbone.config.injection == "none":
        sampling = sampling.model_copy(update={"score": None})
    config = ModelConfig(backbone.config, codec, text_encoder, SECONDS, **job.facts, sampling=sampling)
    save_module(job.folder, backbone, config.to_dict())


def _reward(job: Import) -> None:
    (weights,) = job.files.values()
    needs, choices = job.release.needs, job.choices
    clap = choices.clap or (needs[0] if needs else None)
    if clap is None:
        raise ModelError(
            f"{job.release.id} scores with {job.release.encoder}, which is not built in; name yours with "
            f"plaudit models import {job.release.id} --from {weights} --clap FILE.py:NAME"
        )
    head = head_from_published(read_released(weights))
    blocks = choices.blocks or sidecar_blocks(weights) or job.release.blocks
    check_inputs(head.input_dim, blocks)
    audio = choices.audio_embedder or (needs[1] if len(needs) > 1 else DEFAULT_AUDIO_EMBEDDER)
    save_head(job.folder, head, blocks, {"clap": clap, "audio": audio}, job.facts)


def check_inputs(width: int, blocks: Sequence[str]) -> None:
    """ModelError where a head of `width` inputs takes other blocks of the published encoders than `blocks`.

    Widths that no published head has are of other encoders, and are checked when those are loaded.
    """
    if unknown := [block for block in blocks if block not in BLOCKS]:
        raise ModelError(f"a reward has no block {', '.join(unknown)}; there are {', '.join(BLOCKS)}")
    fitting = [inputs for inputs in INPUT_ABLATIONS.values() if _published_width(inputs) == width]
    if fitting and _published_width(blocks) != width:
        choices = " or ".join(f"--blocks {','.join(inputs)}" for inputs in fitting)
        raise ModelError(
            f"the head takes {width} inputs, and {', '.join(blocks)} are {_published_width(blocks)}; say which it is: "
            f"{choices}"
        )


def _published_width(blocks: Sequence[str]) -> int:
    return sum(PUBLISHED_WIDTHS[block] for block in blocks)


PUBLISHED_WIDTHS = {"clap_audio": 512, "audio": 1024, "clap_text": 512, "clap_match": 512}
"""Of CLAP and MERT."""

_EXCLUDED = {"clap_audio": "clap_audio", "mert": "audio", "text": "clap_text"}
"""TuneJury's names of the blocks."""


def sidecar_blocks(weights: Path) -> tuple[str, ...]:
    """The blocks by the JSON that TuneJury's training writes beside a head; none without one."""
    sidecar = weights.with_suffix(".json")
    if not sidecar.is_file():
        return ()
    content = read_json(sidecar)
    excluded = content.get("exclude") if isinstance(content, dict) else None
    if not isinstance(excluded, list) or any(name not in _EXCLUDED for name in excluded):
        raise ModelError(f"{sidecar} is not of a TuneJury head: its 'exclude' must list some of {', '.join(_EXCLUDED)}")
    return tuple(block for name, block in _EXCLUDED.items() if name not in excluded)


IMPORTERS: dict[str, Callable[[Import], None]] = {
    FLUXAUDIO: _backbone,
    MEANAUDIO: _backbone,
    "mel-codec-44k": _codec_44k,
    "mel-codec-16k": _codec_16k,
    "laion-clap": _clap,
    "t5-clap": _text,
    "mert": _mert,
    "tunejury": _reward,
}
"""Writers of the model folder, by kind of release."""
