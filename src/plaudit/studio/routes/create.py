"""Generation, and the models, rewards and recipes there are."""

from __future__ import annotations

import secrets

from fastapi import APIRouter

from plaudit.studio import catalogue, jobs
from plaudit.studio.app_state import StudioOf
from plaudit.studio.auth import Editor
from plaudit.studio.idempotency import keep
from plaudit.studio.schemas import GenerationRequest, JobInfo, Models, Recipes, Rewards

router = APIRouter(tags=["create"])


@router.get("/models")
def list_models(principal: Editor, studio: StudioOf) -> Models:
    """Text-to-music models: shipped, installed, and of runs."""
    return Models(items=catalogue.list_models(studio.settings))


@router.get("/rewards")
def list_rewards(principal: Editor, studio: StudioOf) -> Rewards:
    """Rewards: shipped, installed, and trained in the studio."""
    return Rewards(items=catalogue.list_rewards(studio.database))


@router.get("/recipes")
def list_recipes(principal: Editor) -> Recipes:
    """Recipes of the package."""
    return Recipes(items=catalogue.list_recipes())


@router.post("/generations", status_code=202)
def create_generation(body: GenerationRequest, principal: Editor, studio: StudioOf) -> JobInfo:
    """Generate clips: a job of kind `generate`, whose clips appear as they are done (GET /clips?job=ID)."""
    catalogue.resolve_model(studio.settings, body.model)
    catalogue.resolve_reward(studio.settings, studio.database, body.reward)
    catalogue.resolve_clap(body.clap)
    if body.seed is None:
        body = body.model_copy(update={"seed": secrets.randbelow(2**31)})
    with studio.database.transaction() as session:
        answer = jobs.info(jobs.enqueue(session, "generate", body.model_dump(mode="json")))
        keep(session, answer, 202)
        return answer
