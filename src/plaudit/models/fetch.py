"""Downloading released files: whole or not at all, continued where they broke off, checked by their digest."""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub import errors as hub_errors

from plaudit.errors import ModelError, is_no_room
from plaudit.models.releases import RELEASES, Release, ReleasedFile
from plaudit.places import models_dir
from plaudit.published import labelled_digest
from plaudit.reporting import Progress
from plaudit.storage import WholeFolder, read_json
from plaudit.writing import hidden_beside, locked, sync

FOLDER_FILES = ("config.json", "model.safetensors", "README.md", "tokenizer/*")
"""What a model folder can hold."""

CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds without an answer after which an address is given up."""


def fetch_release(
    release: Release, cache: Path | None, progress: Progress = lambda done, total: None
) -> dict[str, Path]:
    """The files of a release by their local names, downloaded where they are not in the cache yet.

    cache: a folder for all files; without one, files of the Hub are kept in huggingface_hub's cache and others in
    `downloads` beside the user's models.

    ModelError, in one line, where a model is gated, an address does not answer, a file is not what its digest says, the
    disk is full, or HF_HUB_OFFLINE is set and a file is not in the cache.
    """
    downloads = cache or models_dir() / "downloads"
    return {
        file.name: from_address(file, downloads, progress) if file.url else from_hub(file, release, cache)
        for file in release.files
    }


def missing_releases(releases: list[Release], here: Callable[[str], bool]) -> list[Release]:
    """The releases, then those that they need, directly or not, and that are not `here` yet."""
    missing = list(releases)
    for release in missing:
        missing += [RELEASES[name] for name in release.needs if RELEASES[name] not in missing and not here(name)]
    return missing


def from_hub(file: ReleasedFile, release: Release, cache: Path | None) -> Path:
    """One file of a Hub repository, or the folder of those that fit a pattern, kept as huggingface_hub keeps them.

    They are in `cache`/hub, or in its default cache.
    """
    where = f"{file.repo}/{file.path}"
    folder = cache / "hub" if cache else None
    with hub_answers(release.id, file.repo, where, file.revision):
        if file.many:
            snapshot = snapshot_download(
                file.repo, repo_type=file.of, revision=file.revision, cache_dir=folder, allow_patterns=[file.path]
            )
            return complete_file(Path(snapshot), file, where)
        path = Path(hf_hub_download(file.repo, file.path, repo_type=file.of, revision=file.revision, cache_dir=folder))
    _check_digest(path.resolve(), file, where)
    return path


def check_replaceable(folder: Path) -> None:
    """ModelError where a folder holds files but is no model folder: a new model would take their place."""
    if folder.is_dir() and any(folder.iterdir()):
        try:
            config = read_json(folder / "config.json")
        except ModelError:
            config = None
        if not isinstance(config, dict) or "provenance" not in config:
            raise ModelError(f"{folder} holds files and is no model folder of plaudit's; choose another folder with -o")
    elif os.path.lexists(folder) and not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; choose another with -o")


def complete_file(folder: Path, file: ReleasedFile, where: str) -> Path:
    """The folder of files that fit the file's pattern; ModelError where none is there."""
    if not any(file.fits(str(path.relative_to(folder))) for path in folder.rglob("*")):
        raise ModelError(f"{where}: the Hub has no such files; check the dataset's page")
    return folder


def fetch_folder(repo: str, folder: Path, revision: str = "main") -> None:
    """Download a model folder from the Hub to `folder`, whole or not at all.

    Taken are its configuration, weights, tokenizer and card; nothing in it is run. ModelError in one line where it is
    not there, is no model folder of ours, or cannot be fetched.
    """
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        locked(hidden_beside(folder, "lock")),
        hub_answers(repo, repo, repo, revision),
        WholeFolder(folder).draft(resume=True) as draft,
    ):
        snapshot_download(repo, revision=revision, local_dir=draft, allow_patterns=list(FOLDER_FILES))
        if missing := [name for name in ("config.json", "model.safetensors") if not (draft / name).is_file()]:
            shutil.rmtree(draft)
            raise ModelError(f"{repo} on the Hub is no model folder: it has no {' and no '.join(missing)}")
        shutil.rmtree(draft / ".cache", ignore_errors=True)


def dataset_from_hub(repository: str, folder: Path) -> None:
    """All files of a data set of the Hub in `folder`, in its layout; files that are there are not fetched again.

    ModelError in one line, as for a model.
    """
    with hub_answers(repository, f"datasets/{repository}", repository):
        snapshot_download(repository, repo_type="dataset", local_dir=folder)


@contextmanager
def hub_answers(
    identifier: str, repo: str, where: str, revision: str = "main", doing: str = "fetched"
) -> Iterator[None]:
    """Converts huggingface_hub's exceptions to a ModelError of one line with advice."""
    try:
        yield
    except ModelError:
        raise
    except hub_errors.GatedRepoError:
        page = f"https://huggingface.co/{repo}"
        raise ModelError(f"{identifier} is gated: accept its terms at {page}, then run hf auth login") from None
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled):
        state = "offline mode is on (HF_HUB_OFFLINE)" if offline() else "the Hub does not answer"
        raise ModelError(f"{where} is not in the cache and {state}; try again with a network") from None
    except (hub_errors.RepositoryNotFoundError, hub_errors.EntryNotFoundError, hub_errors.RevisionNotFoundError):
        raise ModelError(f"the Hub has no {where} at {revision}, or not for you; check the model's page") from None
    except Exception as error:  # errors of the Hub's HTTP library have no common base
        full = is_no_room(error)
        raise _no_room(where, error) if full else ModelError(_failed(where, error, doing)) from None


def from_address(file: ReleasedFile, cache: Path, progress: Progress = lambda done, total: None) -> Path:
    """One file of a release address, in `cache`/files under its address; what a broken download left is continued.

    Processes that fetch the same file wait for each other, and the later ones find it there.
    """
    address = urllib.parse.urlsplit(file.url)
    path = cache / "files" / address.netloc.replace(":", "_") / address.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(hidden_beside(path, "lock")):
        if path.exists():
            return path
        if offline():
            raise ModelError(f"{file.url} is not in the cache and offline mode is on (HF_HUB_OFFLINE)")
        partial = path.with_name(f"{path.name}.partial")
        try:
            _download(file.url, partial, progress)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if is_no_room(error):
                partial.unlink(missing_ok=True)
                raise _no_room(file.url, error) from None
            raise ModelError(_failed(file.url, error)) from None
        _check_digest(partial, file, file.url)
        os.replace(partial, path)
    return path


def _check_digest(path: Path, file: ReleasedFile, where: str) -> None:
    """Removes a file that is not the released one; ModelError."""
    if file.digest and labelled_digest(path, file.digest.split(":")[0]) != file.digest:
        path.unlink()
        raise ModelError(
            f"{where} is not the released file (its digest differs) and was removed; fetch it again, or, if its "
            "authors have replaced it, download it yourself and use plaudit models import --unverified"
        )


def offline() -> bool:
    """Whether HF_HUB_OFFLINE is set."""
    return bool(constants.HF_HUB_OFFLINE)


def _download(url: str, partial: Path, progress: Progress) -> None:
    """All of `url` into `partial`, after what is already there; ConnectionError where the address breaks off."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing lies beyond what we have, so that is whole or wrong
            raise
        partial.unlink()
        return _download(url, partial, progress)
    with answer:
        if answer.status != 206:  # this address cannot continue
            have = 0
        if answer.headers["Content-Length"] is None:
            raise ConnectionError("it does not say how long the file is")
        total = have + int(answer.headers["Content-Length"])
        with partial.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress(have, total)
    sync(partial)
    if have != total:
        raise ConnectionError(f"it broke off after {have} of {total} bytes")


def _failed(where: str, error: Exception, doing: str = "fetched") -> str:
    reason = (str(getattr(error, "reason", "") or error) or type(error).__name__).splitlines()[0]
    return f"{where} cannot be {doing} ({reason}); run this again to continue"


def _no_room(where: str, error: Exception) -> ModelError:
    return ModelError(f"no room for {where} ({error}); free some space, or give another folder with --cache")
