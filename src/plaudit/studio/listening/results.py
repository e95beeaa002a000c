"""Results of a test from its answers: `results_of` computes them, `Calculator` does it in a process beside the
server's.

Bootstraps take a second or two of computing; in the server's process votes would wait for it. The process reads a
request a line and writes an answer a line, and ends when the server does.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from plaudit.errors import RunError
from plaudit.studio.listening.schemas import TestSettings


def results_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a test as plain values: of `votes` or `ratings` (records), under `settings`, for `systems`."""
    settings = TestSettings.model_validate(request["settings"])
    if request["kind"] == "rating":
        return _plain(_rating_results(request["ratings"], request["systems"], settings))
    return _plain(_preference_results(request["votes"], request["systems"], settings))


def _preference_results(
    votes: Sequence[Mapping[str, Any]], systems: Sequence[str], settings: TestSettings
) -> dict[str, Any]:
    from itertools import combinations

    from plaudit.studio.listening import statistics as st

    answers = [
        st.Answer(
            listener=vote["listener"], pair=vote["pair"], prompt=vote["prompt"], a=vote["a"], b=vote["b"],
            system_a=vote["system_a"], system_b=vote["system_b"], winner=vote["winner"], kind=vote["kind"],
            swapped=vote["swapped"], expected="a" if vote["kind"] == "obvious" else None,
            listened_a=vote["listened_a"], listened_b=vote["listened_b"], response_ms=vote["response_ms"],
        )
        for vote in votes
    ]  # fmt: skip
    pairs = list(combinations(systems, 2))
    summary = st.summarize(
        answers, settings.exclusion_rules, systems, pairs, margin=settings.margin, power=settings.power
    )
    rewards = {vote[side]: vote[f"reward_{side}"] for vote in votes for side in ("a", "b")}
    kept = st.counted(answers, summary.excluded)
    result = asdict(summary)
    result["intransitivity"]["rate"] = summary.intransitivity.rate
    for row, strength in zip(result["board"]["strengths"], summary.board.strengths, strict=True):
        row["arena_score"] = strength.arena_score
    result["reward"] = asdict(st.reward_opinion(kept, rewards.get)) if settings.reward is not None else None
    # Reviewers ask what the exclusions change.
    everybody = st.counted(answers) if summary.excluded else []
    result["without_exclusion"] = [asdict(row) for row in st.win_rates(everybody)]
    return result


def _rating_results(
    ratings: Sequence[Mapping[str, Any]], systems: Sequence[str], settings: TestSettings
) -> dict[str, Any]:
    from plaudit.studio.listening import rating

    pages: dict[tuple[str, str], dict[str, int]] = {}
    prompts: dict[str, str] = {}
    for one in ratings:
        pages.setdefault((one["listener"], one["page"]), {})[one["system"]] = one["value"]
        prompts[one["page"]] = one["prompt"]
    rated = [rating.RatedPage(listener, prompts[page], values) for (listener, page), values in pages.items()]
    return asdict(rating.summarize(rated, [*systems, rating.ANCHOR], settings.reference))


def _plain(value: Any) -> Any:
    """Values for JSON: infinite and undefined numbers are None."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Calculator:
    """The process that computes results, started when it is needed first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def results(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`results_of` of a request; RunError where the process fails twice."""
        line = json.dumps(request) + "\n"
        with self._lock:
            for _ in range(2):
                answer = self._ask(line)
                if answer is not None:
                    if "error" in answer:
                        raise RunError(f"the results could not be computed: {answer['error']}")
                    return dict(answer["results"])
        raise RunError("the results could not be computed: the process that does it was ended; try again")

    def _ask(self, line: str) -> dict[str, Any] | None:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "plaudit.studio.listening.results"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer.endswith("\n"):
            self._process.kill()
            self._process.wait()
            self._process = None
            return None
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None:
                assert self._process.stdin is not None and self._process.stdout is not None
                self._process.stdin.close()
                self._process.wait()
                self._process.stdout.close()
                self._process = None


def main() -> None:
    """Answer requests until standard input ends."""
    os.nice(5)
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = {"results": results_of(json.loads(line))}
        except Exception as error:  # the next request may be a better one
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
