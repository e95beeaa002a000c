"""`plaudit studio`: what it prints, and errors in one line; nothing of it imports PyTorch."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plaudit.cli.main import app
from plaudit.errors import RunError
from plaudit.studio.server import serve
from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened


def test_a_new_token_is_an_owners(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["studio", str(tmp_path / "new"), "--new-token"])
    assert result.exit_code == 0, result.output
    opened = Opened(StudioSettings(folder=tmp_path / "new"))
    assert opened.client(result.stdout.strip()).get("tokens").status_code == 200
    opened.close()


def test_a_port_or_folder_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(RunError, match="cannot listen on"):
        serve(StudioSettings(folder=tmp_path, port=other.getsockname()[1]), browser=False)
    opened = Opened(StudioSettings(folder=tmp_path))
    with pytest.raises(RunError, match="another studio works in"):
        serve(StudioSettings(folder=tmp_path, port=0), browser=False)
    opened.close()


def test_the_server_imports_no_pytorch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from plaudit.studio.app import create_app; "
        "from plaudit.studio.settings import StudioSettings; import plaudit.cli.main; import plaudit.studio.server; "
        f"app = create_app(StudioSettings(folder=Path({str(tmp_path)!r})), worker=False); app.openapi(); "
        "from plaudit.studio import catalogue, files; studio = app.state.studio; "
        "assert len(catalogue.list_models(studio.settings)) >= 3; "
        "files.list_folders(studio.settings, studio.database); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
