"""The models of the API that several areas and the client share; those of one area lie beside its code."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Role = Literal["owner", "editor", "listener"]
JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
ClipStatus = Literal["new", "kept", "discarded"]

MOST_ITEMS = 200
"""Items of a page of a list."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_-]+$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]


class Model(BaseModel):
    """Base of what the API takes and gives: unknown keys are errors, numbers finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Problem(Model):
    """An error: one line, and a code for programs."""

    detail: str
    code: str


Item = TypeVar("Item")


class Page(Model, Generic[Item]):
    """Part of a list, newest first. next: the cursor of the following part; None at the end."""

    items: list[Item]
    next: str | None = None


class Health(Model):
    """Whether the studio works."""

    status: Literal["ok"]
    version: str
    worker: bool = Field(description="Whether the worker process is up.")


class SessionRequest(Model):
    """A token to log in with: an owner's or editor's, or that of the link that the command prints."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"token": "AbCdEf123456.c2VjcmV0"}]})

    token: Annotated[str, StringConstraints(min_length=1, max_length=512)]


class SessionInfo(Model):
    """Who is logged in. csrf: to be sent as X-CSRF-Token with every request that changes something."""

    role: Role
    name: str
    csrf: str | None = None


class TokenRequest(Model):
    """A token to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "laptop", "role": "editor"}]})

    name: Name
    role: Literal["owner", "editor"]


class TokenInfo(Model):
    """A token without its secret."""

    id: str
    name: str
    role: Role
    created_at: str
    revoked: bool


class NewToken(TokenInfo):
    """A token just made; it is shown this once."""

    token: str


class JobProgress(Model):
    """Progress of a job: `done` of `total` items, and of the present item `step` of `steps`."""

    done: int = 0
    total: int = 0
    step: int | None = None
    steps: int | None = None
    seconds_left: float | None = None
    label: str | None = None


class JobInfo(Model):
    """A job."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "AbCdEf123456", "kind": "generate", "status": "running", "result": None, "error": None,
                    "request": {"prompts": ["slow sad piano in a minor key"], "count": 4},
                    "progress": {
                        "done": 1, "total": 4, "step": 7, "steps": 16, "seconds_left": 5.2, "label": None
                    },
                    "cancel_requested": False, "parent_id": None, "created_at": "2026-01-01T12:00:00.000Z",
                    "started_at": "2026-01-01T12:00:01.000Z", "finished_at": None, "attempts": 1,
                }
            ]
        },
    )  # fmt: skip

    id: str
    kind: str
    status: JobStatus
    request: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    progress: JobProgress | None
    cancel_requested: bool
    parent_id: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempts: int


class ClipInfo(Model):
    """A clip. seed: as text, since seeds have up to 64 bits. loudness in LUFS, peak in dBTP; reward and clap (the CLAP
    score) are those of its job's models."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "AbCdEf123456", "job_id": "GhIjKl789012", "test_id": None, "position": 0,
                    "prompt": "slow sad piano in a minor key", "model": "synthetic", "seed": "1",
                    "settings": {"model": "synthetic", "guidance": 4.0}, "duration": 10.0, "sample_rate": 16000,
                    "reward": 0.82, "clap": 0.41, "status": "new", "loudness": -16.5, "peak": -1.2,
                    "created_at": "2026-01-01T12:00:03.000Z",
                }
            ]
        },
    )  # fmt: skip

    id: str
    job_id: str | None
    test_id: str | None
    position: int | None
    prompt: str
    model: str | None
    seed: str | None
    settings: dict[str, Any] | None
    duration: float | None
    sample_rate: int | None
    reward: float | None
    clap: float | None
    status: ClipStatus
    loudness: float | None
    peak: float | None
    created_at: str


class ClipChange(Model):
    """What of a clip can be changed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "kept"}]})

    status: ClipStatus


class Peaks(Model):
    """Least and largest sample of equal parts of a clip, alternating, for drawing."""

    duration: float
    peaks: list[float]


PartName = Annotated[
    str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
]
"""The name of a model or reward: never a path outside the studio, nor code."""

PromptText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]

MOST_CLIPS = 1000
"""Clips and candidates of one generation."""


class GenerationRequest(Model):
    """Clips to generate. What is null is the model's own setting; a seed that is null is drawn."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompts": ["slow sad piano in a minor key"], "model": "synthetic", "count": 2, "seed": 1}]
        }
    )

    prompts: Annotated[list[PromptText], Field(min_length=1, max_length=100)]
    model: PartName = "synthetic"
    score: Annotated[float, Field(ge=-1e6, le=1e6)] | None = Field(
        None, description="Conditioning score, in units of the reward."
    )
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    seconds: Annotated[float, Field(ge=0.5, le=600)] | None = None
    negative_prompt: Annotated[str, StringConstraints(max_length=2000)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = Field(
        None, description="Seed of the first clip, from which the others count on."
    )
    count: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Clips of each prompt.")
    best_of: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Candidates for each clip, of which the reward keeps the best."
    )
    reward: PartName = Field("synthetic", description="Scores every clip, and chooses the best.")
    clap: PartName = Field("synthetic", description="Gives the CLAP score beside each clip.")

    @model_validator(mode="after")
    def _not_too_many(self) -> GenerationRequest:
        clips = len(self.prompts) * self.count * self.best_of
        if clips > MOST_CLIPS:
            raise ValueError(f"{clips} clips and candidates are more than {MOST_CLIPS}; ask for fewer at once")
        return self


class ModelInfo(Model):
    """A text-to-music model, with the settings it samples with where a request leaves them out."""

    name: str
    source: Literal["shipped", "installed", "run"]
    seconds: float
    licence: str
    takes_score: bool
    steps: int | None
    guidance: float | None
    score: float | None
    negative_prompt: str | None


class RewardInfo(Model):
    """A reward. id: of one that was trained in the studio."""

    name: str
    source: Literal["shipped", "installed", "studio"]
    id: str | None = None
    job_id: str | None = None
    metrics: dict[str, Any] | None = None
    created_at: str | None = None


class RecipeInfo(Model):
    """A recipe of the package."""

    name: str
    description: str


class Models(Model):
    """All models."""

    items: list[ModelInfo]


class Rewards(Model):
    """All rewards."""

    items: list[RewardInfo]


class Recipes(Model):
    """All recipes."""

    items: list[RecipeInfo]


class UploadAccepted(Model):
    """An upload that arrived: where its clips will be, and the job that decodes them."""

    folder: str
    job: JobInfo


class FolderInfo(Model):
    """A folder of clips. path: as POST /scores and systems of a test take it."""

    path: str
    kind: Literal["upload", "generation", "run"]
    name: str
    clips: int


class Folders(Model):
    """All folders of clips."""

    items: list[FolderInfo]


FolderPath = Annotated[str, StringConstraints(min_length=1, max_length=500)]
"""A folder of clips as GET /folders lists them: uploads/ID, clips/JOB, runs/RUN/FOLDER."""


class ScoreRequest(Model):
    """Clips to score: those of a folder, or by their ids. prompt: of all; null takes each clip's own."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"folder": "uploads/AbCdEf123456", "reward": "synthetic"}]}
    )

    folder: FolderPath | None = None
    clips: Annotated[list[Id], Field(min_length=1, max_length=MOST_CLIPS)] | None = None
    reward: PartName = "synthetic"
    prompt: Annotated[str, StringConstraints(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _folder_or_clips(self) -> ScoreRequest:
        if (self.folder is None) == (self.clips is None):
            raise ValueError("give one of folder and clips")
        return self


class RunStep(Model):
    """A step of a run."""

    name: str
    finished: bool
    seconds: float | None


class RunInfo(Model):
    """A run. models: as POST /generations takes them. report: its address, where there is one."""

    name: str
    recipe: str | None
    steps: list[RunStep]
    models: list[str]
    folders: list[str]
    report: str | None


class Runs(Model):
    """All runs."""

    items: list[RunInfo]


SystemName = Annotated[
    str,
    StringConstraints(
        max_length=300, pattern=r"^(runs|clips|uploads)/[A-Za-z0-9_][A-Za-z0-9._/-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?$"
    ),
]
"""runs/NAME, runs/NAME:STAGE, or a folder of clips."""


class ComparisonRequest(Model):
    """Two systems to compare on the prompts that they share; a is the baseline."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"a": "runs/smoke:sft", "b": "runs/smoke:crpo"}]})

    a: SystemName
    b: SystemName
    shared_prompts: bool = Field(True, description="Compare the prompts that both have, and leave out others.")
