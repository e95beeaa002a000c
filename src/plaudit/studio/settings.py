"""Settings of the studio, and the layout of its folder."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from plaudit.errors import ModelError, RunError
from plaudit.places import models_dir
from plaudit.settings import Settings, option
from plaudit.writing import create_file

LOOPBACK = ("127.0.0.1", "localhost", "::1")

Port = Annotated[int, Field(ge=0, le=65535)]


class StudioSettings(Settings):
    """Settings of `plaudit studio`."""

    folder: Path = Path("studio")
    host: str = option("127.0.0.1", "--host", help="Address to listen on; 0.0.0.0 admits other machines.")
    port: Port = option(8765, "--port", help="Port to listen on; 0 takes a free one.")
    database: str | None = option(
        None, "--database", help="URL of a database, such as postgresql+psycopg://... Default: SQLite in the folder."
    )
    runs: Path | None = option(None, "--runs", help="Folder of runs to show. Default: runs in the studio's folder.")
    device: str = option("auto", "--device", help="auto (a GPU where there is one), cpu, cuda or mps.")

    demo: bool = option(
        False, "--demo", help="Fill the studio with clips, votes of simulated listeners and a model tuned to them."
    )

    @property
    def layout(self) -> Layout:
        """The places in the folder."""
        return Layout(self.folder.resolve())

    @property
    def database_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database or f"sqlite:///{self.layout.root / 'studio.sqlite'}"

    @property
    def loopback_address(self) -> str:
        """The server's address from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def runs_folder(self) -> Path:
        """The folder whose runs are shown."""
        return self.layout.root / "runs" if self.runs is None else self.runs.resolve()

    def without_paths(self, value: Any) -> Any:
        """A message for a client, or JSON values with messages in them, in which files are called as the API calls
        them: clients don't learn where the folders are on this machine."""
        if isinstance(value, dict):
            return {key: self.without_paths(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.without_paths(one) for one in value]
        if isinstance(value, str):
            for place, name in self._places():
                value = value.replace(f"{place}{os.sep}", f"{name}/" if name else "").replace(str(place), name or ".")
        return value

    def _places(self) -> list[tuple[Path, str]]:
        """Folders that messages may name, and what clients call them; those inside others first."""
        places = [(self.runs_folder, "runs"), (self.layout.root, ""), (Path(__file__).parents[1], "plaudit")]
        try:
            places.append((models_dir(), "models"))
        except ModelError:
            pass  # a user without a home folder
        return sorted(places, key=lambda place: -len(str(place[0])))


class Layout:
    """Places in a studio's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clips = root / "clips"
        self.uploads = root / "uploads"
        self.tests = root / "tests"
        self.rewards = root / "rewards"
        self.runs = root / "runs"
        self.comparisons = root / "comparisons"
        self.cache = root / "cache"
        """Peaks and spectrograms; whatever is missing is made again."""
        self.incoming = root / "incoming"
        """Uploads that were not decoded yet."""
        self.logs = root / "logs"
        self.lock = root / "studio.lock"
        self.worker_lock = root / "worker.lock"
        self.key = root / "secret.key"

    def create(self) -> None:
        """Make the folders. RunError where the place can't be written."""
        try:
            for folder in (
                *(self.clips, self.uploads, self.tests, self.rewards, self.runs, self.comparisons),
                *(self.cache, self.incoming, self.logs),
            ):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.root} cannot be used as a studio's folder ({error.strerror})") from None

    def secret(self) -> str:
        """The key that signs cookies and links; made at the first start, readable by the owner alone."""
        if not self.key.exists():
            old = os.umask(0o077)
            try:
                create_file(self.key, secrets.token_urlsafe(48))
            except FileExistsError:
                pass
            finally:
                os.umask(old)
        key = self.key.read_text().strip()
        if len(key) < 32:
            raise RunError(f"{self.key} is damaged; remove it, and everybody has to log in again")
        return key
