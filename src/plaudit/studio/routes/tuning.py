"""From votes to a model: rewards trained on tests, models tuned with them, and before against after as a new test."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from plaudit.settings import MOST_SEED
from plaudit.studio import catalogue, jobs
from plaudit.studio.app_state import StudioOf
from plaudit.studio.auth import Editor, Owner
from plaudit.studio.database import Job, Test, by_id
from plaudit.studio.errors import Conflict, Unprocessable
from plaudit.studio.idempotency import keep
from plaudit.studio.listening import administration
from plaudit.studio.listening.schemas import PromptText, Source, SystemRequest, TestJob, TestRequest
from plaudit.studio.schemas import Id, JobInfo, Model, Name, PartName

router = APIRouter(tags=["tuning"])


class RewardRequest(Model):
    """A reward to train on the votes of tests."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "our taste", "tests": ["a8Xk2m0PqLwz"], "with_shipped": True}]}
    )

    name: Name = "reward"
    tests: list[Id] = Field(min_length=1, max_length=100)
    with_shipped: bool = Field(
        True, description="Train the shipped reward further, which knows the shipped votes; false starts from nothing."
    )
    fine_tune: PartName | None = Field(None, description="Another reward to train further instead, by name or id.")
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0


class TuningRequest(Model):
    """A model to tune with a reward."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reward": "our taste", "model": "synthetic-base", "size": "small"}]}
    )

    name: Name = Field("tuned", description="Of the run; where it is taken, a number follows it.")
    reward: PartName = "synthetic"
    model: PartName = "synthetic-base"
    recipe: Literal["expert_iteration", "crpo", "nft"] = "expert_iteration"
    size: Literal["smoke", "small", "full"] = "small"
    seconds: float | None = Field(None, ge=2.5, le=60, description="Length of the clips; by default the size's.")
    seed: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class TuningTestRequest(Model):
    """The blind test of a tuning: its prompts, by default ones that the tuning did not use."""

    name: Name | None = None
    prompts: list[PromptText] | None = Field(None, min_length=1, max_length=500)
    takes: int = Field(1, ge=1, le=20)
    pairs_per_listener: int = Field(12, ge=1, le=500)


@router.post("/rewards", status_code=202)
def train_reward(body: RewardRequest, principal: Editor, studio: StudioOf) -> JobInfo:
    """Train a reward on votes: a job of kind `train-reward`, whose result has its id and metrics."""
    start = body.fine_tune or ("synthetic" if body.with_shipped else None)
    if start is not None:
        catalogue.resolve_reward(studio.settings, studio.database, start)
    request = {"name": body.name, "tests": body.tests, "start_from": start, "seed": body.seed}
    with studio.database.transaction() as session:
        for test_id in body.tests:
            if by_id(session, Test, test_id).kind != "preference":
                raise Unprocessable("a reward learns from votes; name tests of preferences")
        answer = jobs.info(jobs.enqueue(session, "train-reward", request))
        keep(session, answer, 202)
        return answer


@router.post("/tunings", status_code=202)
def create_tuning(body: TuningRequest, principal: Editor, studio: StudioOf) -> JobInfo:
    """Tune a model with a reward: a job of kind `tune`. The tuned model is listed under GET /models when it is done."""
    catalogue.resolve_reward(studio.settings, studio.database, body.reward)
    catalogue.resolve_model(studio.settings, body.model)
    if body.model == "synthetic-distilled":
        raise Unprocessable("synthetic-distilled samples in few steps and is not trained further; tune synthetic-base")
    with studio.database.transaction() as session:
        request = {**body.model_dump(mode="json"), "name": _run_name(session, studio.settings.runs_folder, body.name)}
        answer = jobs.info(jobs.enqueue(session, "tune", request))
        keep(session, answer, 202)
        return answer


def _run_name(session: Session, runs: Path, name: str) -> str:
    """A name for a run's folder that neither a run nor another tuning has."""
    wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("-._") or "tuned"
    taken = {request.get("name") for request in session.scalars(select(Job.request).where(Job.kind == "tune"))}
    candidates = (wanted if number == 1 else f"{wanted}-{number}" for number in count(1))
    return next(candidate for candidate in candidates if candidate not in taken and not (runs / candidate).exists())


@router.post("/tunings/{job_id}/test", status_code=202)
def compare_tuning(job_id: str, body: TuningTestRequest, principal: Editor, studio: StudioOf) -> TestJob:
    """Make a blind test of a finished tuning: the model before against after, with the same seeds."""
    with studio.database.transaction() as session:
        job = by_id(session, Job, job_id)
        if job.kind != "tune":
            raise Unprocessable("this job is not a tuning; name one of kind tune")
        if job.status != "done" or job.result is None:
            raise Conflict(f"the tuning is {job.status}; its test can be made when it is done")
        result = job.result
        systems = [
            SystemRequest(name=name, source=Source.model_validate({"model": model, "seconds": result["seconds"]}))
            for name, model in (("before", result["before"]), ("after", result["model"]))
        ]
        request = TestRequest.model_validate(
            {
                "name": body.name or f"{job.request['name']}: before against after",
                "systems": [system.model_dump() for system in systems],
                "prompts": body.prompts or result["prompts"],
                "takes": body.takes,
                "pairs_per_listener": body.pairs_per_listener,
            }
        )
        test, preparation = administration.create(session, request)
        answer = TestJob(test=administration.info(session, test, studio.settings.layout.root), job=preparation.id)
        keep(session, answer, 202)
        return answer


class SimulationRequest(Model):
    """Simulated listeners of the synthetic world to send through a test, whose prompts must be that world's."""

    test: Id
    listeners: int = Field(20, ge=1, le=1000)
    votes: int | None = Field(None, ge=1, le=100_000, description="Stop after so many; by default when all are done.")
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0


@router.post("/simulations", status_code=202)
def create_simulation(body: SimulationRequest, principal: Owner, studio: StudioOf) -> JobInfo:
    """Send simulated listeners through an open test: a job of kind `simulate`, which votes over the API."""
    with studio.database.transaction() as session:
        by_id(session, Test, body.test)
        answer = jobs.info(jobs.enqueue(session, "simulate", body.model_dump(mode="json")))
        keep(session, answer, 202)
        return answer
