"""Write docs/listen.md: one clip of each stage of a finished run for the first held-out prompts.

    python -m tools.listening_page runs/synthetic

Clips are those of the run's report, as Ogg Vorbis in docs/audio, with the run's reward of each, and in the synthetic
world its true utility.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from plaudit.audio import read_audio, write_file
from plaudit.audio_format import AudioFormat, encode_audio
from plaudit.evaluate.pages import text
from plaudit.evaluate.values import Values
from plaudit.pipeline.report_data import title_of
from plaudit.pipeline.results import stages_of
from plaudit.pipeline.steps import FINISHED
from plaudit.recipe import Recipe, load_recipe

OGG = AudioFormat(container="ogg", quality=0.5)
METRICS = {"reward": "reward", "utility": "true utility"}


def write_listening_page(run: Path, docs: Path, prompts: int = 8) -> Path:
    """The page, with its clips in `docs`/audio; those of an earlier page are removed."""
    recipe = load_recipe(str(run / "recipe.yaml"))
    stages, audio = [*stages_of(recipe), FINISHED], docs / "audio"
    values = {stage: Values.read(run / f"values-{stage}") for stage in stages}
    shown = [metric for metric in METRICS if all(metric in one.clip_metrics for one in values.values())]
    for old in audio.glob("*.ogg"):
        old.unlink()
    lines = _introduction(recipe, prompts)
    for number, prompt in enumerate(values[stages[0]].prompts[:prompts]):
        lines += [f"## {number + 1}. {prompt}", "", f"| stage | clip | {' | '.join(METRICS[one] for one in shown)} |"]
        lines.append("|---|---|" + "---|" * len(shown))
        for stage in stages:
            name = f"{number + 1}-{stage}.ogg"
            wave, rate = read_audio(run / f"clips-{stage}" / f"{number:04d}.wav")
            write_file(audio / name, encode_audio(wave, rate, OGG))
            player = f'<audio controls preload="none" src="../audio/{name}"></audio> [ogg](audio/{name})'
            cells = [text.number(float(values[stage].clip(one)[number]), 2) for one in shown]
            title = "After post-processing" if stage == FINISHED else title_of(stage)
            lines.append(f"| {' | '.join([title, player, *cells])} |")
        lines.append("")
    page = docs / "listen.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def _introduction(recipe: Recipe, prompts: int) -> list[str]:
    return [
        "# What it sounds like",
        "",
        f"One clip of every stage of the recipe `{recipe.name}` for its first {prompts} held-out prompts, with the",
        "same seed for every stage. The models know a [synthetic world](synthetic.md) of simple music, whose",
        "instruments are wavetables at 16 kHz; that is what they play. Which stage is better on average, with",
        "intervals, is in [Results](results.md).",
        "",
        "```sh",
        f"plaudit run {recipe.name} -o runs/{recipe.name}",
        f"python -m tools.listening_page runs/{recipe.name}",
        "```",
        "",
    ]


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("-n", "--prompts", type=int, default=8)
    options = parser.parse_args()
    print(write_listening_page(options.run, options.docs, options.prompts))


if __name__ == "__main__":
    main()
