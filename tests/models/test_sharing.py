"""Model folders on the Hub: pushed, fetched by somebody else, and used; against a Hub on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from plaudit import loading
from plaudit.cli import models
from plaudit.errors import ModelError
from plaudit.models.exporting import export_folder, push_folder
from plaudit.models.fetch import fetch_folder, fetch_release
from plaudit.models.releases import find
from plaudit.places import SHIPPED_WEIGHTS

COMMIT = "1" * 40


@dataclass
class Hub:
    """What was put on a Hub of one user: files by repository and path, and the requests with their tokens."""

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    status: int = 200


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    here = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length, chunks = self.headers.get("Content-Length"), b""
            if length is not None:
                chunks = self.rfile.read(int(length))
            else:
                while size := int(self.rfile.readline(), 16):
                    chunks += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            here.tokens.add(self.headers.get("Authorization", ""))
            if here.status != 200:
                return self.give({"error": "no"}, here.status)
            parts = self.path.split("/")
            if self.path == "/api/repos/create":
                requested = json.loads(chunks)
                repo = f"{requested.get('organization') or 'me'}/{requested['name']}"
                here.files.setdefault(repo, {})
                here.private += [repo] if requested.get("private") or requested.get("visibility") == "private" else []
                return self.give({"url": f"{here.address}/{repo}", "id": repo})
            if "preupload" in parts:
                paths = [item["path"] for item in json.loads(chunks)["files"]]
                modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
                return self.give({"files": modes})
            if "commit" in parts:
                repo = "/".join(parts[3:5])
                for line in chunks.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        here.files[repo][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                url = f"{here.address}/{repo}/commit/{COMMIT}"
                return self.give({"commitUrl": url, "commitOid": COMMIT, "success": True})
            return self.give({"warnings": [], "errors": []})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = self.path.split("?")[0].split("/")
            if parts[1] == "api":
                repo, kind = "/".join(parts[3:5]), parts[2]
                if repo not in here.files:
                    return self.give({"error": "Repository not found"}, 404, "RepoNotFound")
                if "tree" in parts:
                    files = here.files[repo].items()
                    return self.give([{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in files])
                names = [{"rfilename": name} for name in here.files[repo]]
                return self.give({"id": repo, "sha": COMMIT, "siblings": names, "tags": [], "kind": kind})
            at = parts.index("resolve")
            repo, name = "/".join(parts[at - 2 : at]), "/".join(parts[at + 2 :])
            return self.send(here.files[repo][name], "application/octet-stream")

        def give(self, answer: object, status: int = 200, code: str = "") -> None:
            self.send(json.dumps(answer).encode(), "application/json", status, code)

        def send(self, content: bytes, kind: str, status: int = 200, code: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hash(content)}"')
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", here.address)
    template = f"{here.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", "a-token")
    yield here
    server.shutdown()
    server.server_close()


def left(folder: Path) -> list[str]:
    """What lies in the folder, locks apart."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_pushed_models_can_be_fetched_by_name(
    site: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_folder(SHIPPED_WEIGHTS / "model", tmp_path / "out")
    run = CliRunner().invoke(models.app, ["push", str(tmp_path / "out"), "me/my-music", "--private"])
    assert run.exit_code == 0, run.output
    assert run.stdout.strip() == f"{site.address}/me/my-music/commit/{COMMIT}"
    assert sorted(site.files["me/my-music"]) == ["README.md", "config.json", "model.safetensors"]
    assert site.private == ["me/my-music"] and site.tokens == {"Bearer a-token"}
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path / "models"))
    run = CliRunner().invoke(models.app, ["fetch", "me/my-music", "--json"])
    assert run.exit_code == 0, run.output
    (listed,) = json.loads(run.stdout)
    assert listed["licence"] == "Apache-2.0" and listed["model"] == "me/my-music"
    assert left(tmp_path / "models" / "me") == ["my-music"]
    assert loading.load("me/my-music", "cpu").backbone.config == loading.load("synthetic", "cpu").backbone.config


def test_folders_that_cannot_be_pushed_are_reported_in_one_line(
    site: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"has no README\.md; write the folder with plaudit models export first"):
        push_folder(SHIPPED_WEIGHTS / "model", "me/x")
    export_folder(SHIPPED_WEIGHTS / "model", tmp_path / "out")
    site.status = 403
    with pytest.raises(ModelError, match=r"me/x cannot be pushed \(.*403.*\); run this again"):
        push_folder(tmp_path / "out", "me/x")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ModelError, match="not logged in to the Hub"):
        push_folder(tmp_path / "out", "me/x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="offline mode is on"):
        push_folder(tmp_path / "out", "me/x")


def test_a_repository_that_is_no_model_folder_leaves_nothing(site: Hub, tmp_path: Path) -> None:
    site.files["me/other"] = {"README.md": b"hello", "pytorch_model.bin": b"\x80"}
    with pytest.raises(ModelError, match=r"me/other on the Hub is no model folder: it has no config\.json and"):
        fetch_folder("me/other", tmp_path / "models" / "me" / "other")
    assert left(tmp_path / "models" / "me") == []
    with pytest.raises(ModelError, match="the Hub has no me/nowhere"):
        fetch_folder("me/nowhere", tmp_path / "models" / "me" / "nowhere")


def test_a_dataset_is_fetched_by_its_pattern(site: Hub, tmp_path: Path) -> None:
    site.files["TuneJury/release-scores"] = {"scores/jamendo.csv": b"track_id,reward_score\n", "README.md": b"card"}
    folder = fetch_release(find("tunejury-scores"), tmp_path)["scores"]
    assert (folder / "scores" / "jamendo.csv").read_bytes() == b"track_id,reward_score\n"
    assert not (folder / "README.md").exists()
    site.files["TuneJury/release-scores"] = {"README.md": b"card"}
    with pytest.raises(ModelError, match=r"TuneJury/release-scores/\*\.csv: the Hub has no such files"):
        fetch_release(find("tunejury-scores"), tmp_path / "again")
