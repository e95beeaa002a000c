"""The model card: what a model is, from which data and by which method, how good, and under whose licences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit import __version__
from plaudit.assets import read_json
from plaudit.errors import ModelError
from plaudit.generate.model import read_model_config
from plaudit.hub import SHIPPED, model_folder
from plaudit.models.inspecting import TEXT_TO_MUSIC, flattened, inspect_folder, parts_of
from plaudit.models.registry import forbids_commerce
from plaudit.recipe import Recipe, load_recipe

STAGES = {
    "sft": "flow matching on captioned clips with their rewards as a condition",
    "expert_iteration": "its own clips, the best by reward and CLAP kept, trained on beside the corpus and then alone",
    "cross_load": "the weights loaded into another injection of the score, without training",
    "crpo": "preference pairs of clips (CRPO)",
    "nft": "its own clips, by how much better each is than others of its caption (DiffusionNFT)",
}
METRICS = {"reward": "reward", "clap": "CLAP score", "frechet": "Frechet distance", "utility": "true utility"}


def model_card(folder: Path, report: Path | None = None) -> str:
    """The card of a model folder, with a front matter for the Hub.

    Data, method and figures are those of the run that the folder lies in, where it lies in one; `report`, a
    report.json, takes the place of the run's own. ModelError where the folder is no model or the report no report.
    """
    found = inspect_folder(folder)
    if found["kind"] == TEXT_TO_MUSIC:
        found["config"] = read_model_config(folder).to_dict()
    chain = licence_chain(folder)
    own = found["licence"]
    sections = [
        _front_matter(found),
        f"# {_title(found)}\n\n{_description(found)}",
        *_of_the_run(folder, str(found["made"].get("stage")), report),
        "## Licences\n\n" + _table(("part", "model", "licence"), chain) + _whole(own, [row[2] for row in chain]),
        "## How it was made\n\n" + ("\n".join(f"- {k}: {v}" for k, v in flattened(found["made"])) or "Not stated."),
        _use(found),
    ]
    return "\n\n".join(sections) + "\n"


def licence_chain(folder: Path) -> list[tuple[str, str, str]]:
    """(part, name, licence) of a model folder and, in turn, of every model that it names.

    A part that is not on this machine has the licence "unknown".
    """
    return _chain("this model", folder.name, folder)


def _chain(part: str, name: str, folder: Path) -> list[tuple[str, str, str]]:
    found = inspect_folder(folder)
    rows = [(part, name, str(found["licence"]))]
    for inner, named in parts_of(found["config"]).items():
        if named in SHIPPED:
            rows.append((inner, named, SHIPPED[named]))
            continue
        try:
            rows += _chain(inner, named, model_folder(named, {}))
        except ModelError:
            rows.append((inner, named, "unknown: it is not on this machine"))
    return rows


def _front_matter(found: dict[str, Any]) -> str:
    music = found["kind"] == TEXT_TO_MUSIC
    lines = ["---", "library_name: plaudit"]
    lines += ["pipeline_tag: text-to-audio"] if music else []
    apache = found["licence"] == "Apache-2.0"
    lines += ["license: apache-2.0"] if apache else ["license: other", f"license_name: {_quoted(found['licence'])}"]
    return "\n".join([*lines, f"tags: [{'text-to-music, flow-matching' if music else found['kind']}]", "---"])


def _title(found: dict[str, Any]) -> str:
    made = found["made"]
    if "recipe" in made:
        return f"{made['recipe']}, after {str(made.get('stage', 'training')).replace('_', ' ')}"
    return str(made.get("release") or found["config"].get("name") or "A text-to-music model")


def _description(found: dict[str, Any]) -> str:
    config, size = found["config"], f"{found['parameters']:,} parameters"
    if found["kind"] != TEXT_TO_MUSIC:
        return f"A model folder of kind `{found['kind']}`, {size}."
    sampling = ", ".join(f"{key} {value}" for key, value in flattened(config["sampling"]) if value != "")
    return (
        f"FluxAudio with {size}: a flow-matching transformer from prompts to clips of {config['seconds']:g} s. A score "
        f"conditions it through `{config['backbone']['injection']}`. It needs the codec `{config['codec']}` and the "
        f"text encoder `{config['text_encoder']}`.\n\nIt is meant to be sampled with {sampling}."
    )


def _of_the_run(folder: Path, stage: str | None, report: Path | None) -> list[str]:
    """Data and method of the run around the folder, and figures of its report or another."""
    run, sections = folder.resolve().parent, []
    if (run / "recipe.yaml").is_file() and stage in STAGES:
        recipe = load_recipe(str(run / "recipe.yaml"))
        sections += [f"## Data\n\n{_data(recipe)}", f"## Method\n\n{_method(recipe, stage)}"]
    own = run / "report" / "report.json"
    place = report or (own if sections and own.is_file() else None)
    return sections if place is None else [*sections, f"## Figures\n\n{_figures(place, stage)}"]


def _data(recipe: Recipe) -> str:
    corpus = recipe.corpus
    if corpus.kind == "embedded":
        return (
            f"{corpus.size:,} clips of {corpus.seconds:g} s of Plaudit's synthetic musical world (seed {corpus.seed}), "
            f"of which {corpus.flawed_share:.0%} have flaws and {corpus.miscaptioned_share:.0%} wrong captions. "
            "No recordings and no works of others are in it."
        )
    table = corpus.table.name if corpus.table else ""
    return (
        f"Captioned audio of whoever trained it, listed in `{table}`, as clips of {corpus.seconds:g} s; its rights "
        "are not known to this card."
    )


def _method(recipe: Recipe, stage: str) -> str:
    reward = {
        "train": f"a reward trained on {recipe.votes.pairs:,} votes of simulated listeners",
        "load": f"the reward `{recipe.reward.name}`",
        "table": "rewards that came with the data",
    }[recipe.reward.kind]
    lines = [f"Clips were labelled by {reward}. Then, each from the weights of the one before:", ""]
    for number, name in enumerate(STAGES, start=1):
        settings = getattr(recipe.stages, name)
        told = ", ".join(f"{key} {value}" for key, value in _told(settings.model_dump()))
        lines.append(f"{number}. {name}: {STAGES[name]}; {told}")
        if name == stage:
            break
    return "\n".join(lines)


def _told(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    wanted = ("injection", "candidates", "keep", "rounds", "captions", "pairs", "beta", "steps", "learning_rate")
    return [(key, value) for key, value in flattened(settings) if key.split(".")[-1] in wanted]


def _figures(report: Path, stage: str | None) -> str:
    """Rows of the baseline and of this stage from a report's report.json."""
    results = read_json(report)
    try:
        rows = [row for row in results["stages"] if row["key"] in ("baseline", stage)]
        measured = [key for key in METRICS if all(row[key] is not None for row in rows)]
        if not rows:
            raise KeyError(stage)
        table = [(row["title"], *(_interval(row[key]) for key in measured)) for row in rows]
        prompts = rows[0]["clips"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{report} is no report with figures of stage {stage!r} ({error!r})") from None
    heads = ("stage", *(METRICS[key] for key in measured))
    said = f"On {prompts} held-out prompts, with 95 % intervals; the baseline is the first stage asked for no score."
    return f"{said}\n\n{_table(heads, table)}"


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _whole(own: str, licences: list[str]) -> str:
    if any(map(forbids_commerce, licences)) and not forbids_commerce(own):
        return "\n\nA part forbids commercial use, so the whole must not be used commercially as it is."
    return ""


def _use(found: dict[str, Any]) -> str:
    use = 'generate "slow sad piano" --model' if found["kind"] == TEXT_TO_MUSIC else "models inspect"
    commands = f"    plaudit models fetch OWNER/NAME\n    plaudit {use} OWNER/NAME"
    return f"## Use\n\nWith Plaudit {__version__}, and OWNER/NAME the repository that this card is in:\n\n{commands}"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
