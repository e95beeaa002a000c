"""Steps that several tests of the studio take: a test of the synthetic world that is open, and listeners' votes."""

from __future__ import annotations

from typing import Any

from plaudit.corpus.sources import synthetic_source
from tests.studio.conftest import Opened, done

SETTINGS = {"pairs_per_listener": 6, "repeats": 0, "obvious": 0, "practice": 0, "minimum_listening": 0}


def steps_test(prompts: int = 8, steps: tuple[int, ...] = (1, 2), **changes: Any) -> dict[str, Any]:
    """The request of a test of the distilled model with different numbers of steps."""
    systems = [
        {"name": f"{n} steps", "source": {"model": "synthetic-distilled", "sampling": {"steps": n}, "seconds": 3}}
        for n in steps
    ]
    texts = synthetic_source(5.0).held_out(prompts).prompts
    return {"name": "steps", "systems": systems, "prompts": texts, **SETTINGS, **changes}


def opened_test(studio: Opened, owner: Any, **changes: Any) -> str:
    """The id of such a test, prepared and open."""
    test = str(done(owner.post("tests", json=steps_test(**changes)), 202)["test"]["id"])
    studio.work()
    done(owner.patch(f"tests/{test}", json={"status": "open"}))
    return test


def invitation_of(owner: Any, test: str) -> str:
    """The token of a new invitation."""
    return str(done(owner.post(f"tests/{test}/invitations", json={"label": "them"}), 201)["token"])
