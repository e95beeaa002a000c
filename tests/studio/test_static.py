"""The committed build of the page: made from the committed sources, complete, and fit for the security policy."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import plaudit.studio

STUDIO = Path(plaudit.studio.__file__).parent
PAGE, STATIC = STUDIO / "page", STUDIO / "static"
LEFT_OUT = {"node_modules", "dev", ".vite"}
REBUILD = "run `npm ci && npm run build` in src/plaudit/studio/page and commit src/plaudit/studio/static"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def source_files() -> list[str]:
    """The files that vite.config.ts counts as sources."""
    paths = (path.relative_to(PAGE) for path in PAGE.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not LEFT_OUT & set(path.parts))


def test_build_is_of_the_sources() -> None:
    lines = "".join(f"{digest(PAGE / path)}  {path}\n" for path in source_files())
    build = json.loads((STATIC / "build.json").read_text())
    assert build["sources"] == hashlib.sha256(lines.encode()).hexdigest(), f"the build is of other sources: {REBUILD}"


def test_build_is_complete_and_unchanged() -> None:
    build = json.loads((STATIC / "build.json").read_text())
    files = {path.relative_to(STATIC).as_posix(): digest(path) for path in STATIC.rglob("*") if path.is_file()}
    del files["build.json"]
    assert files == build["files"], f"files of the build were changed by hand: {REBUILD}"


def test_html_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    for name in ("index.html", "listen.html"):
        html = (STATIC / name).read_text()
        assert re.search(r"<script[^>]* src=", html) and not re.search(r"<script(?![^>]* src=)", html)
        assert not re.search(r"<style|\sstyle=|\son\w+=", html)
        for address in re.findall(r"(?:src|href)=\"([^\"]*)\"", html):
            assert address.startswith("/assets/") and (STATIC / address[1:]).is_file(), address


def test_listeners_get_a_small_bundle() -> None:
    html = (STATIC / "listen.html").read_text()
    addresses = set(re.findall(r"\"(/assets/[^\"]*\.(?:js|css))\"", html))
    assert sum((STATIC / address[1:]).stat().st_size for address in addresses) < 80_000
    assert not any("studio" in address for address in addresses)
