"""Exporting models: released names, Hub folders with a model card, pushing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from torch import Tensor

from plaudit import __version__
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.published import from_published, to_published
from plaudit.codec.mel_codec import MEL_CODEC_KIND as MEL_CODEC
from plaudit.codec.mel_codec import published_config, read_mel_codec
from plaudit.corpus.sources import corpus_source
from plaudit.errors import ModelError
from plaudit.evaluate.metrics import METRICS
from plaudit.generate.model import read_model_config
from plaudit.loading import SHIPPED_LICENCES, load_backbone, model_folder
from plaudit.models.fetch import hub_answers, offline
from plaudit.models.inspecting import TEXT_TO_MUSIC, flatten_values, inspect_folder, parts_of
from plaudit.models.releases import is_non_commercial
from plaudit.recipe import Recipe, load_recipe, stage_of
from plaudit.reward.tunejury import TUNEJURY_KIND as TUNEJURY
from plaudit.reward.tunejury import head_to_published, read_head
from plaudit.storage import (
    WholeFolder,
    load_tensors,
    read_json,
    save_checkpoint,
    save_tensors,
    write_atomically,
    write_json,
)
from plaudit.writing import copy_file, copy_folder

CARD_SETTINGS = ("injection", "candidates", "keep", "rounds", "captions", "pairs", "beta", "steps", "learning_rate")
CARD_METRICS = ("reward", "clap", "frechet", "utility")


def model_card(folder: Path, report: Path | None = None) -> str:
    """The card of a model folder, with front matter for the Hub.

    Data, method and figures are those of the run that the folder lies in, where it lies in one; `report`, a
    report.json, takes the place of the run's own. ModelError where the folder is no model or the report no report.
    """
    model = inspect_folder(folder)
    if model["kind"] == TEXT_TO_MUSIC:
        model["config"] = read_model_config(folder).to_dict()
    chain = licence_chain(folder)
    sections = [
        _front_matter(model),
        f"# {_title(model)}\n\n{_description(model)}",
        *_of_the_run(folder, str(model["provenance"].get("stage")), report),
        "## Licences\n\n" + _table(("part", "model", "licence"), chain) + _whole_licence(model["licence"], chain),
        "## Provenance\n\n"
        + ("\n".join(f"- {k}: {v}" for k, v in flatten_values(model["provenance"])) or "Not stated."),
        _use(model),
    ]
    return "\n\n".join(sections) + "\n"


def licence_chain(folder: Path) -> list[tuple[str, str, str]]:
    """(part, name, licence) of a model folder and, in turn, of every model that it names.

    A part that is not on this machine has the licence "unknown".
    """
    return _chain("this model", folder.name, folder)


def _chain(part: str, name: str, folder: Path) -> list[tuple[str, str, str]]:
    model = inspect_folder(folder)
    rows = [(part, name, str(model["licence"]))]
    for inner, named in parts_of(model["config"]).items():
        if named in SHIPPED_LICENCES:
            rows.append((inner, named, SHIPPED_LICENCES[named]))
            continue
        try:
            rows += _chain(inner, named, model_folder(named, {}))
        except ModelError:
            rows.append((inner, named, "unknown: it is not on this machine"))
    return rows


def _front_matter(model: dict[str, Any]) -> str:
    music = model["kind"] == TEXT_TO_MUSIC
    lines = ["---", "library_name: plaudit"]
    lines += ["pipeline_tag: text-to-audio"] if music else []
    apache = model["licence"] == "Apache-2.0"
    lines += ["license: apache-2.0"] if apache else ["license: other", f"license_name: {_quoted(model['licence'])}"]
    return "\n".join([*lines, f"tags: [{'text-to-music, flow-matching' if music else model['kind']}]", "---"])


def _title(model: dict[str, Any]) -> str:
    provenance = model["provenance"]
    if "recipe" in provenance:
        return f"{provenance['recipe']}, after {str(provenance.get('stage', 'training')).replace('_', ' ')}"
    return str(provenance.get("release") or model["config"].get("name") or "A text-to-music model")


def _description(model: dict[str, Any]) -> str:
    config, size = model["config"], f"{model['parameters']:,} parameters"
    if model["kind"] != TEXT_TO_MUSIC:
        return f"A model folder of kind `{model['kind']}`, {size}."
    sampling = ", ".join(f"{key} {value}" for key, value in flatten_values(config["sampling"]) if value != "")
    kind, injection = config["backbone"].get("kind", "fluxaudio"), config["backbone"]["injection"]
    return (
        f"A flow-matching network (`{kind}`, {size}) from prompts to clips of {config['seconds']:g} s, conditioned on "
        f"a score through `{injection}`. It needs the codec `{config['codec']}` and the text encoder "
        f"`{config['text_encoder']}`.\n\nIt is meant to be sampled with {sampling}."
    )


def _of_the_run(folder: Path, stage: str | None, report: Path | None) -> list[str]:
    """Data and method of the run around the folder, and figures of its report or another."""
    run, sections = folder.resolve().parent, []
    recipe = load_recipe(str(run / "recipe.yaml")) if (run / "recipe.yaml").is_file() else None
    if recipe is not None and stage in recipe.model_stages:
        source = corpus_source(recipe.corpus)
        rights = f"\n\n{_data_licences(run)}" if source.licence is None else ""
        sections += [f"## Data\n\n{source.card()}{rights}", f"## Method\n\n{_method(recipe, stage)}"]
    of_run = run / "report" / "report.json"
    place = report or (of_run if sections and of_run.is_file() else None)
    return sections if place is None else [*sections, f"## Figures\n\n{_figures(place, stage)}"]


def _data_licences(run: Path) -> str:
    """The licences of the recordings that a run was trained on, with the number of clips of each."""
    files = [run / "shards" / name for name in ("stats.json", "facts.json")]
    facts: dict[str, Any] = next((read_json(file) for file in files if file.is_file()), {})
    licences: dict[str, int] = facts.get("licences", {})
    if not licences:
        return "The rights to its audio are not known to this card."
    rows = sorted(licences.items(), key=lambda item: (-item[1], item[0]))
    if unknown := facts["clips"] - sum(licences.values()):
        rows.append(("not stated", unknown))
    barred = sum(count for name, count in licences.items() if is_non_commercial(name))
    note = f"\n\n{barred:,} clips are of recordings whose licence forbids commercial use." if barred else ""
    table = _table(("licence of the recording", "clips"), [(name, f"{count:,}") for name, count in rows])
    return f"Its clips by the licences of their recordings:\n\n{table}{note}"


def _method(recipe: Recipe, stage: str) -> str:
    reward = {
        "train": f"a reward trained on {recipe.votes.pairs:,} votes of simulated listeners",
        "load": f"the reward `{recipe.reward.name}`",
        "table": "rewards that came with the data",
    }[recipe.reward.kind]
    lines = [f"Clips were labelled by {reward}. Then, each from the weights of the one before:", ""]
    for number, name in enumerate(recipe.model_stages[: recipe.model_stages.index(stage) + 1], start=1):
        settings = recipe.stage(name)
        description = (inspect.getdoc(type(stage_of(settings))) or settings.kind).split("\n\n")[0].rstrip(".")
        values = [f"{k} {v}" for k, v in flatten_values(settings.model_dump()) if k.split(".")[-1] in CARD_SETTINGS]
        lines.append(f"{number}. {name}: {' '.join(description.split())}; {', '.join(values)}")
    return "\n".join(lines)


def _figures(report: Path, stage: str | None) -> str:
    """The first row and this stage's from a report's report.json."""
    results = read_json(report)
    try:
        first = results["stages"][0]["key"]
        rows = [row for row in results["stages"] if row["key"] in (first, stage)]
        measured = [key for key in CARD_METRICS if all(key in row["means"] for row in rows)]
        if not rows:
            raise KeyError(stage)
        table = [(row["title"], *(_interval(row["means"][key]) for key in measured)) for row in rows]
        prompts = rows[0]["clips"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{report} is no report with figures of stage {stage!r} ({error!r})") from None
    heads = ("stage", *(METRICS.load(key).heading for key in measured))
    scope = f"On {prompts} held-out prompts, with 95 % intervals."
    return f"{scope}\n\n{_table(heads, table)}"


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _whole_licence(licence: str, chain: list[tuple[str, str, str]]) -> str:
    if any(is_non_commercial(part[2]) for part in chain) and not is_non_commercial(licence):
        return "\n\nA part forbids commercial use, so the whole must not be used commercially as it is."
    return ""


def _use(model: dict[str, Any]) -> str:
    use = 'generate "slow sad piano" --model' if model["kind"] == TEXT_TO_MUSIC else "models inspect"
    commands = f"    plaudit models fetch OWNER/NAME\n    plaudit {use} OWNER/NAME"
    return f"## Use\n\nWith Plaudit {__version__}, and OWNER/NAME the repository that this card is in:\n\n{commands}"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


TOKENIZER = "tokenizer"


def export_released(folder: Path, output: Path) -> None:
    """Write the files of the model folder to `output` as its kind is released: tensors under the published names.

    `plaudit models import --unverified` reads them back. ModelError for a kind that is never released, where the
    weights have no released form, or where `output` holds something already.
    """
    kind = inspect_folder(folder)["kind"]
    if kind not in EXPORTERS:
        raise ModelError(
            f"{folder} is of kind {kind!r}, which has no released form; kinds with one: {', '.join(EXPORTERS)}"
        )
    _require_new(output)
    with WholeFolder(output).draft() as draft:
        EXPORTERS[kind](folder, draft)


def export_folder(folder: Path, output: Path, report: Path | None = None) -> None:
    """Write a folder to put on the Hub: the model folder's files and a model card, README.md.

    report: the report.json whose figures the card shows; without one, that of the run the model lies in, if any.
    ModelError where `folder` is no model or `output` holds something already.
    """
    card = model_card(folder, report)
    _require_new(output)
    with WholeFolder(output).draft() as draft:
        for name in ("config.json", "model.safetensors"):
            if (folder / name).exists():
                copy_file(folder / name, draft / name)
        copy_folder(folder / TOKENIZER, draft / TOKENIZER)
        write_atomically(draft / "README.md", card)


def push_folder(folder: Path, repo: str, private: bool = False) -> str:
    """Put an exported folder on the Hub, in a repository that is created where it is new; the URL of the commit.

    ModelError where the folder was not exported, the user is not logged in, or the Hub refuses.
    """
    for name in ("README.md", "config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}; write the folder with plaudit models export first")
    if offline():
        raise ModelError("offline mode is on (HF_HUB_OFFLINE); unset it to push")
    if get_token() is None:
        raise ModelError("not logged in to the Hub; run hf auth login, or set HF_TOKEN")
    api = HfApi()
    with hub_answers(repo, repo, repo, doing="pushed"):
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model folder of Plaudit")
    return str(done.commit_url)


def _require_new(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError(f"{output} is not empty; give a new folder")


def _backbone(folder: Path, output: Path) -> None:
    """FluxAudio. What conditions it on a score has no released names and keeps ours; without it, nothing is ours."""
    config = read_model_config(folder)
    network = load_backbone(folder, config.backbone)
    if not isinstance(network, FluxAudio):
        raise ModelError(f"{folder} has a backbone of kind {config.backbone.kind}, which no release has")
    state = to_published(network)
    if config.backbone.injection == "none":
        state = {name: value for name, value in state.items() if not name.startswith("score")}
    try:
        from_published(state, config.backbone.injection)
    except ModelError as error:
        raise ModelError(f"{folder} has sizes that no released FluxAudio has: {error}") from None
    _save(output / "weights.pth", state)


def _codec(folder: Path, output: Path) -> None:
    codec = read_mel_codec(folder)
    _save(output / "vae.pth", codec.vae_state)
    _save(output / "vocoder.pt", codec.vocoder_state, under="generator")
    write_json(output / "vocoder.json", published_config(codec.mel, codec.vocoder))


def _codec_16k(folder: Path, output: Path) -> None:
    codec = read_mel_codec(folder)
    _save(output / "vae-16k.pth", codec.vae_state)
    _save(output / "vocoder-16k.pt", codec.vocoder_state, under="generator")


def _either_codec(folder: Path, output: Path) -> None:
    """Of the 16 kHz codec no configuration is released, since its spectrogram has another logarithm."""
    natural = read_mel_codec(folder).mel.log == "natural"
    (_codec if natural else _codec_16k)(folder, output)


def _clap(folder: Path, output: Path) -> None:
    _save(output / "weights.pt", load_tensors(folder / "model.safetensors"))
    copy_folder(folder / TOKENIZER, output)
    write_json(output / "config.json", {"model_type": "roberta"})  # by which transformers chooses the tokenizer


def _mert(folder: Path, output: Path) -> None:
    config = read_json(folder / "config.json")
    _save(output / "pytorch_model.bin", load_tensors(folder / "model.safetensors"))
    write_json(output / "config.json", config["mert"])
    write_json(output / "preprocessor_config.json", config["preprocessor"])


def _text(folder: Path, output: Path) -> None:
    save_tensors(output / "model.safetensors", load_tensors(folder / "model.safetensors"), {"format": "pt"})
    copy_folder(folder / TOKENIZER, output)
    write_json(output / "config.json", read_json(folder / "config.json")["t5"])


def _reward(folder: Path, output: Path) -> None:
    head, blocks = read_head(folder)
    _save(output / "weights.pt", head_to_published(head, blocks))


def _save(path: Path, state: Mapping[str, Tensor], under: str = "") -> None:
    """Save a pickle of tensors only, like the releases."""
    plain = {name: value.detach().clone().contiguous() for name, value in state.items()}
    save_checkpoint(path, {under: plain} if under else dict(plain))


EXPORTERS: dict[str, Callable[[Path, Path], None]] = {
    TEXT_TO_MUSIC: _backbone,
    MEL_CODEC: _either_codec,
    "laion-clap": _clap,
    "mert": _mert,
    "t5-clap": _text,
    TUNEJURY: _reward,
}
"""What writes the released files of each kind of model folder."""
