"""A chart in a page: a drawing in the page's own colours, light, dark or printed, and the same as a file to keep."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from plaudit.evaluate.html import data_address
from plaudit.evaluate.report.plots import LIGHT, WIDE, Draw, panels_svg


@dataclass(frozen=True)
class Chart:
    """A chart on a page. svg: to stand in the page; file, name: the same for downloading, in light colours.

    wide: it has small print, and keeps its width on a narrow screen, where it can be scrolled.
    """

    title: str
    alt: str
    svg: Markup
    file: str
    name: str
    wide: bool = False


def chart(
    draw: Draw, name: str, title: str, alt: str, size: tuple[float, float] = WIDE, wide: bool = False
) -> Chart:
    """Draw a chart for a page; `name` is its file's, without suffix, and unique on the page."""
    svg = panels_svg({"": draw}, name, size)
    return Chart(title, alt, Markup(inline(svg, name, alt)), data_address("image/svg+xml", svg), f"{name}.svg", wide)


def inline(svg: str, name: str, alt: str) -> str:
    """A drawing as an element of a page: its colours those of the page, its ids unlike those of other drawings."""
    names = ("card", "ink", "faint", "grid", *(f"stage-{place}" for place in range(len(LIGHT.stages))))
    variables = dict(zip(LIGHT.colours, names, strict=True))
    element = svg[svg.index("<svg") :].rstrip()
    element = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", element, flags=re.DOTALL)
    element = re.sub("|".join(variables), lambda found: f"var(--{variables[found[0]]})", element)
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    # What a page holds as Markup is not escaped again, so this is.
    return f'{head} role="img" aria-label="{Markup.escape(alt)}">{rest}'
