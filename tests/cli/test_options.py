"""Options generated from a settings model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import Field, model_validator
from typer.testing import CliRunner, Result

from plaudit.cli.options import App, options
from plaudit.settings import Count, Fraction, Settings, option


class Inner(Settings):
    steps: Count = option(25, "--steps", help="Steps.")
    mode: Literal["switch", "average"] = option("switch", "--average", value="average", help="Average.")
    hidden: int = 3


class Model(Settings):
    count: Count = option(1, "-n", "--count", help="How many.", panel="Clips")
    part: Fraction = option(0.5, "--part", help="A part.")
    level: Annotated[float, Field(ge=-40, le=-5)] | None = option(-16.5, "--level", help="A level, or null.")
    names: tuple[str, ...] | None = option(None, "--name", help="A name; repeat it.")
    sizes: dict[str, float] = option({}, "--size", help="A size by name.")
    cache: bool = option(True, "--no-cache", value=False, help="No cache.")
    bits: Literal[16, 24] = option(16, "--bits", help="Bits.")
    output: Path | None = option(None, "-o", "--output", help="Folder.")
    inner: Inner = Field(Inner(), json_schema_extra={"default_of": "model"})

    @model_validator(mode="after")
    def _together(self) -> Model:
        if self.count > 5 and not self.cache:
            raise ValueError("--no-cache is for 5 at most")
        return self


def run(*words: str) -> tuple[Result, list[Model]]:
    got: list[Model] = []
    app = App()

    @app.command()
    @options(Model, output=Path("out"))
    def command(word: Annotated[str, typer.Argument()] = "x", *, settings: Model) -> None:
        got.append(settings)

    return CliRunner().invoke(app, list(words)), got


def test_what_is_not_typed_is_the_models_default() -> None:
    (settings,) = run()[1]
    assert settings == Model(output=Path("out"))
    assert settings.inner.model_fields_set == set()  # so that defaults of something else can take their place


def test_every_kind_of_option_is_read() -> None:
    words = "y -n 3 --part 0.25 --level null --name a --name b --size x=1 --size y=2.5 --no-cache --bits 24 -o there"
    (settings,) = run(*words.split(), "--steps", "9", "--average", "--set", "inner.hidden=7")[1]
    assert settings == Model(
        count=3, part=0.25, level=None, names=("a", "b"), sizes={"x": 1, "y": 2.5}, cache=False, bits=24,
        output=Path("there"), inner=Inner(steps=9, mode="average", hidden=7),
    )  # fmt: skip
    assert run("--level", "-20")[1][0].level == -20


def test_help_shows_defaults_bounds_and_headings() -> None:
    text = " ".join(run("--help")[0].output.split())
    assert "Clips: -n, --count INTEGER How many. [default: 1; at least 1]" in text
    assert "--part NUMBER A part. [default: 0.5; from 0 to 1]" in text
    assert "--steps INTEGER Steps. Default: the model's own. [at least 1]" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-n 0", "--count"),
        ("--part 1.5", "--part"),
        ("--level -2", "--level"),
        ("--level much", "--level"),
        ("--bits 12", "--bits"),
        ("--size x", "--size"),
        ("--size x=much", "--size"),
        ("-n 6 --no-cache", "--no-cache is for 5 at most"),
    ],
)
def test_a_value_that_does_not_fit_names_its_option(words: str, says: str) -> None:
    done, got = run(*words.split())
    assert done.exit_code == 2 and says in done.stderr and not got


def test_an_unknown_setting_names_the_nearest() -> None:
    done, got = run("--set", "inner.stepss=3")
    assert done.exit_code == 1 and "did you mean steps" in str(done.exception) and not got
