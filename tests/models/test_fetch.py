"""Fetching, against servers on this machine: continued, checked, whole or not at all, and clear when it fails."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from plaudit import loading
from plaudit.cli import models
from plaudit.errors import ModelError
from plaudit.models.fetch import from_address, from_hub
from plaudit.models.releases import RELEASES, Release, ReleasedFile, find
from tests.backbone.test_published import published as fluxaudio_state
from tests.models.test_importing import released_codec

BODY = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Site:
    """A server of `bodies` by path, of BODY at all others, and how it behaves."""

    address: str = ""
    ranges: bool = True
    cut_after: int | None = None
    status: int = 200
    error_code: str = ""
    requests: list[str] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture
def site() -> Iterator[Site]:
    here = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            content = here.bodies.get(self.path, BODY)
            span = self.headers.get("Range", "")
            here.requests.append(f"{self.command} {span}".strip())
            start = int(span.removeprefix("bytes=").split("-")[0]) if span and here.ranges else 0
            status = here.status if here.status != 200 else 416 if start >= len(content) else 206 if start else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) - start if status < 300 else 0))
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"an-etag"')
            if here.error_code:
                self.send_header("X-Error-Code", here.error_code)
            self.end_headers()
            if body and status < 300:
                self.wfile.write(content[start:][: here.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield here
    server.shutdown()
    server.server_close()


def released(site: Site, digest: str = "") -> ReleasedFile:
    return ReleasedFile("weights.pth", url=f"{site.address}/v1/weights.pth", digest=digest)


def place(site: Site, cache: Path, name: str = "weights.pth") -> Path:
    """A file of the site in the cache, in a folder that exists."""
    folder = cache / "files" / site.address.removeprefix("http://").replace(":", "_") / "v1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def left(cache: Path) -> list[str]:
    """The files of the cache, locks apart."""
    return sorted(path.name for path in (cache / "files").rglob("*") if not path.is_dir() and path.suffix != ".lock")


def test_a_file_is_fetched_once_and_checked(site: Site, tmp_path: Path) -> None:
    file = released(site, f"md5:{hashlib.md5(BODY).hexdigest()}")
    updates: list[tuple[int, int]] = []
    path = from_address(file, tmp_path, lambda done, total: updates.append((done, total)))
    assert path.read_bytes() == BODY and left(tmp_path) == ["weights.pth"]
    assert updates[-1] == (len(BODY), len(BODY))
    assert from_address(file, tmp_path) == path and site.requests == ["GET"]


def test_files_of_one_local_name_at_two_addresses_are_two_files(site: Site, tmp_path: Path) -> None:
    site.bodies["/v2/other.pth"] = b"other"
    other = ReleasedFile("weights.pth", url=f"{site.address}/v2/other.pth")
    paths = [from_address(file, tmp_path) for file in (released(site), other)]
    assert [path.read_bytes() for path in paths] == [BODY, b"other"]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues(site: Site, tmp_path: Path, ranges: bool) -> None:
    site.cut_after, site.ranges = 700_000, ranges
    with pytest.raises(ModelError, match=r"weights\.pth cannot be fetched \(.*\); run this again to continue"):
        from_address(released(site), tmp_path)
    assert left(tmp_path) == ["weights.pth.partial"]
    size = place(site, tmp_path, "weights.pth.partial").stat().st_size
    site.cut_after = None
    assert from_address(released(site), tmp_path).read_bytes() == BODY
    assert size == 700_000 and site.requests == ["GET", f"GET bytes={size}-"]
    assert left(tmp_path) == ["weights.pth"]


def test_a_whole_partial_file_is_not_continued_but_fetched_again(site: Site, tmp_path: Path) -> None:
    place(site, tmp_path, "weights.pth.partial").write_bytes(b"x" * len(BODY))
    assert from_address(released(site), tmp_path).read_bytes() == BODY


def test_a_file_with_a_wrong_digest_is_discarded(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights\.pth is not the released file .* models import --unverified$"):
        from_address(released(site, f"sha256:{'0' * 64}"), tmp_path)
    assert left(tmp_path) == []


def test_a_full_disk_leaves_no_half_file(site: Site, tmp_path: Path) -> None:
    place(site, tmp_path, "weights.pth.partial").symlink_to("/dev/full")
    with pytest.raises(ModelError, match=r"no room for http.*free some space"):
        from_address(released(site), tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [404, 500])
def test_an_address_that_refuses_is_named(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(ModelError, match=r"http://127.*weights\.pth cannot be fetched"):
        from_address(released(site), tmp_path)


def test_offline_mode_uses_the_cache_alone(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = from_address(released(site), tmp_path / "full")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert from_address(released(site), tmp_path / "full") == path
    with pytest.raises(ModelError, match="offline mode is on"):
        from_address(released(site), tmp_path / "empty")
    assert site.requests == ["GET"]


def test_two_processes_fetch_a_file_once(site: Site, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=from_address, args=(released(site), tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert place(site, tmp_path).read_bytes() == BODY and site.requests == ["GET"]


@pytest.fixture
def hub_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Moves the Hub to another address, as HF_ENDPOINT does where it is set from the start."""

    def move(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return move


def refusal(identifier: str, cache: Path) -> str:
    """What fetching the first file of a release says; always one line."""
    release = find(identifier)
    with pytest.raises(ModelError) as error:
        from_hub(release.files[0], release, cache)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_of_the_hub_is_fetched_once(site: Site, tmp_path: Path, hub_at: Callable[[str], None]) -> None:
    hub_at(site.address)
    release = find("text-t5-clap")
    path = from_hub(release.files[0], release, tmp_path)
    assert path.name == "config.json" and path.read_bytes() == BODY
    downloads = site.requests.count("GET")
    assert from_hub(release.files[0], release, tmp_path) == path
    assert site.requests.count("GET") == downloads


def test_a_gated_model_is_an_error_with_its_terms_page(
    site: Site, tmp_path: Path, hub_at: Callable[[str], None]
) -> None:
    hub_at(site.address)
    site.status, site.error_code = 403, "GatedRepo"
    assert refusal("mert-330m", tmp_path).startswith(
        "mert-330m is gated: accept its terms at https://huggingface.co/m-a-p/MERT-v1-330M"
    )


@pytest.mark.slow  # huggingface_hub asks several times before it gives up
def test_a_hub_that_does_not_answer_is_reported(tmp_path: Path, hub_at: Callable[[str], None]) -> None:
    hub_at("http://127.0.0.1:9")
    assert "google/flan-t5-large/config.json is not in the cache and the Hub does not answer" in refusal(
        "text-t5-clap", tmp_path
    )


def test_a_hub_without_the_file_or_offline_is_reported(
    site: Site, tmp_path: Path, hub_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_at(site.address)
    site.status, site.error_code = 404, "EntryNotFound"
    assert "the Hub has no google/flan-t5-large/config.json at 0613663d" in refusal("text-t5-clap", tmp_path)
    site.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is on" in refusal("text-t5-clap", tmp_path) and site.requests == []


def test_a_file_of_the_hub_with_another_digest_is_refused(
    site: Site, tmp_path: Path, hub_at: Callable[[str], None]
) -> None:
    hub_at(site.address)
    assert "gclef_crpoA_fluxaudio_s.pt is not the released file" in refusal("ttm-humanpref", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(BODY)]


def test_the_command_fetches_what_is_needed_and_makes_folders(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = released_codec(tmp_path / "released")
    names = {"vae.pth": "v1-44.pth", "vocoder.pt": "bigvgan_generator.pt", "vocoder.json": "config.json"}
    site.bodies = {f"/{name}": (parts / name).read_bytes() for name in names.values()}
    torch.save(fluxaudio_state(), tmp_path / "backbone.pt")
    site.bodies["/backbone.pt"] = (tmp_path / "backbone.pt").read_bytes()
    files = tuple(ReleasedFile(local, url=f"{site.address}/{name}") for local, name in names.items())
    backbone = (ReleasedFile("weights.pt", url=f"{site.address}/backbone.pt"),)
    monkeypatch.setitem(RELEASES, "codec", Release("codec", "mel-codec-44k", "test", "MIT", files))
    needs = ("codec", "here-already")
    monkeypatch.setitem(RELEASES, "here-already", Release("here-already", "t5-clap", "test", "MIT", ()))
    monkeypatch.setitem(RELEASES, "tiny", Release("tiny", "fluxaudio", "test", "CC-BY-NC-4.0", backbone, needs))
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path / "models"))
    (tmp_path / "models" / "here-already").mkdir(parents=True)
    (tmp_path / "models" / "here-already" / "config.json").write_text("{}")
    done = CliRunner().invoke(models.app, ["fetch", "tiny", "--cache", str(tmp_path / "cache"), "--json"])
    assert done.exit_code == 0, done.output
    assert [row["model"] for row in json.loads(done.stdout)] == ["tiny", "codec"]
    assert "tiny: not for commercial use" in done.stderr
    assert loading.CODECS.load("codec").latent_dim == 3
    assert loading.read_model_config(tmp_path / "models" / "tiny").licence == "CC-BY-NC-4.0"
