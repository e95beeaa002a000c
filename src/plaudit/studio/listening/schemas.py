"""What the API takes and gives about listening tests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from plaudit.settings import MOST_SEED
from plaudit.studio.listening.rules import ExclusionRules
from plaudit.studio.schemas import Id, Model, Name

TestKind = Literal["preference", "rating"]
TestStatus = Literal["preparing", "draft", "open", "closed"]
Screening = Literal["none", "huggins", "antiphase"]
Pairing = Literal["random", "active"]
Side = Literal["left", "right"]
Choice = Literal["left", "right", "tie", "both_bad"]

Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=10_000)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Comment = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000)]
PromptText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=500)]

QUESTION: dict[TestKind, str] = {
    "preference": "Which of the two clips do you prefer?",
    "rating": "How good is each clip?",
}
INSTRUCTIONS: dict[TestKind, str] = {
    "preference": (
        "Use headphones and a quiet room. Set a comfortable volume once and leave it. Listen to both clips, as often "
        "as you like, then choose. There are no right or wrong answers: your own preference counts."
    ),
    "rating": (
        "Use headphones and a quiet room. Set a comfortable volume once and leave it. Listen to all clips, as often as "
        "you like, and give each a value from 0 (bad) to 100 (excellent)."
    ),
}
CONSENT = (
    "Taking part is voluntary, and you can stop at any time by closing this page. Your answers, the times they took "
    "and the name of your browser are stored under a random number, and used to compare ways of generating music. No "
    "name, address or IP address is stored."
)
MOST_SYSTEMS = 20
MOST_PROMPTS = 2_000


class Source(Model):
    """Where a system's clips are from: a stage of a run, a model that generates them, or a folder of clips."""

    run: Path | None = Field(None, description="A run, by its name in the list of runs.")
    stage: str | None = Field(None, max_length=100, description="The stage of the run, such as sft.")
    model: Path | None = Field(None, description="A known model or a model folder; clips are generated.")
    sampling: dict[str, Any] | None = Field(None, description="Changes to the model's sampling settings.")
    seconds: float | None = Field(None, gt=0, le=600, description="Length of the clips that the model generates.")
    seed: int = Field(0, ge=0, le=MOST_SEED, description="Seed of the first generated clip of each prompt.")
    folder: Path | None = Field(None, description="A folder of clips, by its path as GET /folders lists it.")

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if sum(value is not None for value in (self.run, self.model, self.folder)) != 1:
            raise ValueError("give one of run (with stage), model or folder")
        if (self.run is None) != (self.stage is None):
            raise ValueError("a run needs a stage, and a stage a run")
        if self.model is None and (self.sampling is not None or self.seconds is not None):
            raise ValueError("sampling and seconds are for a model")
        return self


class SystemRequest(Model):
    """One of the systems compared."""

    name: Name
    source: Source


class TestSettings(Model):
    """How a test is carried out."""

    takes: int = Field(1, ge=1, le=100, description="Clips of each system for each prompt, at most.")
    pairs_per_listener: int = Field(20, ge=1, le=500, description="Pairs, or rating pages, that a listener gets.")
    pairing: Pairing = Field(
        "random",
        description=(
            "Which pairs a listener of a preference test gets. random: those that fewest others had, drawn when "
            "listening begins. active: each is chosen when its turn comes, about the two systems whose comparison is "
            "expected to tell most about the ranking after the votes so far; for three systems or more."
        ),
    )
    repeats: int = Field(2, ge=0, le=50, description="Hidden repeats among them, on exchanged sides.")
    obvious: int = Field(2, ge=0, le=50, description="Attention checks: a clip against a degraded version of itself.")
    practice: int = Field(1, ge=0, le=10, description="Pairs at the beginning that don't count.")
    minimum_listening: float = Field(3.0, ge=0, le=600, description="Seconds of each side before a vote counts.")
    screening: Screening = Field("none", description="Headphone screening.")
    screening_attempts: int = Field(2, ge=1, le=10, description="How often a listener may try the screening.")
    ties: bool = Field(True, description="Whether a listener may answer that both are equally good.")
    both_bad: bool = Field(True, description="Whether a listener may answer that both are bad.")
    strength: bool = Field(False, description="Whether to ask how strong the preference is (1 to 3).")
    comment: bool = Field(False, description="Whether to offer a field for a comment.")
    show_prompt: bool = Field(True, description="Whether listeners see the prompt.")
    loudness: float = Field(-23.0, ge=-60, le=-5, description="LUFS that all clips are brought to by a gain.")
    reward: str | None = Field(None, max_length=500, description="A reward to compare with the votes.")
    reference: Name | None = Field(None, description="Rating tests: the system whose clips are the reference.")
    exclusion_rules: ExclusionRules = Field(ExclusionRules(), description="When a listener's answers are left out.")
    margin: float = Field(0.1, gt=0, lt=0.5, description="Least difference of a win rate from one half that matters.")
    power: float = Field(0.8, gt=0, lt=1, description="Probability of finding a difference of the margin.")


class TestRequest(TestSettings):
    """A listening test to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "CRPO against SFT",
                    "systems": [
                        {"name": "sft", "source": {"run": "smoke", "stage": "sft"}},
                        {"name": "crpo", "source": {"run": "smoke", "stage": "crpo"}},
                    ],
                    "pairs_per_listener": 20,
                    "screening": "huggins",
                    "exclusion_rules": {"min_obvious": 1.0, "min_seconds": 4},
                }
            ]
        }
    )

    name: Name
    kind: TestKind = "preference"
    systems: list[SystemRequest] = Field(min_length=1, max_length=MOST_SYSTEMS)
    prompts: list[PromptText] | None = Field(
        None, min_length=1, max_length=MOST_PROMPTS, description="Only these; needed where every system is a model."
    )
    question: Line | None = None
    instructions: Text | None = None
    consent: Text | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> TestRequest:
        names = [system.name for system in self.systems]
        if len(set(names)) < len(names):
            raise ValueError("two systems have one name")
        if self.kind == "preference" and len(names) < 2:
            raise ValueError("a preference test compares at least two systems")
        if self.kind == "rating" and self.takes > 1:
            raise ValueError("a rating page has one clip of each system; leave takes out")
        if self.kind == "rating" and self.pairing == "active":
            raise ValueError("active pairing is for preference tests; a rating page has all systems")
        if self.reference is not None and self.kind != "rating":
            raise ValueError("a reference is for rating tests")
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"the reference {self.reference!r} is none of the systems")
        if self.prompts is None and all(system.source.model is not None for system in self.systems):
            raise ValueError("models need prompts to generate clips of")
        if self.prompts is not None and len(set(self.prompts)) < len(self.prompts):
            raise ValueError("a prompt is given twice")
        return self


class TestChange(Model):
    """A change of a test. All but name and status are fixed once the test was opened."""

    status: Literal["open", "closed"] | None = None
    name: Name | None = None
    question: Line | None = None
    instructions: Text | None = None
    consent: Text | None = None
    pairs_per_listener: int | None = Field(default=None, ge=1, le=500)
    pairing: Pairing | None = None
    minimum_listening: float | None = Field(default=None, ge=0, le=600)
    screening: Screening | None = None
    exclusion_rules: ExclusionRules | None = None
    margin: float | None = Field(default=None, gt=0, lt=0.5)
    power: float | None = Field(default=None, gt=0, lt=1)


class SystemInfo(Model):
    """A system of a test."""

    id: str
    name: str
    source: dict[str, Any]


class Registration(Model):
    """What was fixed when the test was first opened. digest: SHA-256 of the settings, rules and texts as JSON."""

    at: str
    digest: str


class TestInfo(Model):
    """A listening test."""

    id: str
    name: str
    kind: TestKind
    status: TestStatus
    question: str
    instructions: str
    consent: str
    settings: TestSettings
    systems: list[SystemInfo]
    prompts: int
    pairs: int
    listeners: int = Field(description="Those who gave their consent.")
    completed: int
    votes: int = Field(description="Votes, or rated pages, of all kinds.")
    prepared: bool = Field(description="Whether its clips are ready; only then can it be opened.")
    job: str | None = Field(description="The job that prepares it.")
    problem: str | None = Field(description="Why it could not be prepared, or which clips are gone.")
    notes: list[str] = Field(description="What preparing it found, such as clips that were cut.")
    registered: Registration | None
    created_at: str


class TestJob(Model):
    """A test that is being prepared, and the job that does it."""

    test: TestInfo
    job: str


class InvitationRequest(Model):
    """A link to a test. One for a single listener can be opened on any device and continues there."""

    label: Name = "listeners"
    max_listeners: int | None = Field(None, ge=1, le=100_000)


class InvitationInfo(Model):
    """A link to a test. url: relative to the studio's address."""

    id: str
    label: str
    max_listeners: int | None
    listeners: int
    revoked: bool
    token: str
    url: str
    created_at: str


class Enrolment(Model):
    """A listener who opened an invitation. token: for clients without cookies; csrf: for those with them."""

    listener: str
    token: str
    csrf: str
    session: ListenerSession


class ScreeningState(Model):
    """The headphone screening of a listener. audio: one address per trial, none once it is over."""

    kind: Screening
    question: str
    sounds: int
    audio: list[str]
    attempts_left: int
    passed: bool | None


class ScreeningAnswers(Model):
    """The number of the sound in each trial, from 0."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"answers": [0, 2, 1, 1, 0, 2]}]})

    answers: list[Annotated[int, Field(ge=0, le=2)]] = Field(min_length=6, max_length=6)


class ListenerSession(Model):
    """Where a listener is. state: what comes next.

    consent, then screening where the test has one, then listening, then completed. screened-out: the screening was
    failed. closed: the test is closed; what was answered is kept.
    """

    state: Literal["consent", "screening", "listening", "completed", "screened-out", "closed"]
    kind: TestKind
    question: str
    instructions: str
    consent: str
    screening: Screening
    minimum_listening: float
    ties: bool
    both_bad: bool
    strength: bool
    comment: bool
    answered: int
    total: int
    completion_code: str | None


class NextPair(Model):
    """The next pair of clips; addresses of their audio."""

    kind: Literal["pair"] = "pair"
    assignment: str
    position: int = Field(description="From 1.")
    total: int
    practice: bool
    prompt: str | None
    left: str
    right: str
    seconds: float
    minimum_listening: float


class RatedClip(Model):
    """A clip of a rating page."""

    id: str
    audio: str


class NextPage(Model):
    """The next rating page. reference: the address of the reference, which is also among the clips."""

    kind: Literal["page"] = "page"
    assignment: str
    position: int = Field(description="From 1.")
    total: int
    prompt: str | None
    reference: str | None
    clips: list[RatedClip]
    seconds: float
    minimum_listening: float


class Completed(Model):
    """Nothing is left to answer."""

    kind: Literal["completed"] = "completed"
    completion_code: str


class VoteRequest(Model):
    """An answer about a pair. listened: seconds heard of each side; response_ms: from the time both could be played."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "assignment": "a8Xk2m0PqLwz",
                    "choice": "left",
                    "listened_left": 8.2,
                    "listened_right": 7.9,
                    "response_ms": 21_500,
                }
            ]
        }
    )

    assignment: Id
    choice: Choice
    strength: int | None = Field(None, ge=1, le=3)
    comment: Comment | None = None
    listened_left: float = Field(ge=0, le=86_400)
    listened_right: float = Field(ge=0, le=86_400)
    response_ms: int = Field(ge=0, le=86_400_000)


class RatingsRequest(Model):
    """The values of a rating page by clip id, all of them, from 0 to 100."""

    assignment: Id
    values: dict[Annotated[str, StringConstraints(max_length=40)], Annotated[int, Field(ge=0, le=100)]] = Field(
        max_length=50
    )
    listened: dict[Annotated[str, StringConstraints(max_length=40)], Annotated[float, Field(ge=0, le=86_400)]] = Field(
        {}, max_length=50
    )


class Acknowledgement(Model):
    """The answer is stored on the disk. A repeated request gets the same."""

    assignment: str
    answered: int
    total: int
    completed: bool


class CompletionInfo(Model):
    """The code that shows that a listener completed the test."""

    completion_code: str


class ListenerInfo(Model):
    """A listener of a test, for those who run it."""

    id: str
    invitation: str
    consented_at: str | None
    completed_at: str | None
    completion_code: str | None
    answered: int
    total: int
    screening: dict[str, Any] | None
    excluded: list[str]


Enrolment.model_rebuild()


class Span(Model):
    """An estimate with its 95 % interval; an end that is unknown is null."""

    mean: float
    low: float | None
    high: float | None


class SystemStrength(Model):
    """A system's Bradley-Terry strength (logits), and as arenas publish it. ranks: places that its interval leaves
    open."""

    system: str
    strength: Span
    arena_score: float
    rank: int
    ranks: tuple[int, int]
    votes: int


class StrengthTable(Model):
    """Systems by strength, the strongest first. groups: systems of different groups were never compared."""

    strengths: list[SystemStrength]
    votes: int
    ties: int
    both_bad: int
    resampled: Literal["listeners", "votes"]
    groups: list[list[str]]
    tie: float | None


class WinRate(Model):
    """Votes between two systems. rate: the share won by `first`, a tie counting half."""

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    both_bad: int
    rate: Span | None


class ListenerAgreement(Model):
    """alpha: Krippendorff's. agreeing: the fraction of two listeners' answers about a pair that is the same."""

    alpha: float | None
    agreeing: Span | None
    pairs: int


class Triads(Model):
    """Circular triads, a over b over c over a; by chance a quarter is circular. cycles: of systems, by majority."""

    triads: int
    circular: int
    rate: float | None
    system_triads: int
    cycles: list[tuple[str, str, str]]


class ListenerAttention(Model):
    """Time and attention of a listener. obvious, repeats: right, or the same again, and how many there were."""

    listener: str
    answers: int
    ties: int
    both_bad: int
    seconds: float | None
    listened: float | None
    obvious: tuple[int, int]
    repeats: tuple[int, int]
    left: float | None
    p_side: float | None


class ComparisonState(Model):
    """The comparison of two systems now, by a confidence sequence: valid however often it is looked at.

    needed: how many more votes until it is decided, with the power asked for; null where no sensible number would do or
    nothing is known. planned: votes that a test of fixed size needs for the margin.
    """

    first: str
    second: str
    votes: int
    listeners: int
    rate: Span
    verdict: Literal["first", "second", "equivalent", "open"]
    needed: int | None
    planned: int


class RewardAccuracy(Model):
    """How often the reward prefers the clip that listeners preferred, on how many votes."""

    accuracy: Span | None
    votes: int


class PreferenceResults(Model):
    """Figures of a preference test. without_exclusion: win rates with the excluded listeners' votes, where there are
    any."""

    answers: int
    counted: int
    board: StrengthTable
    win_rates: list[WinRate]
    agreement: ListenerAgreement
    repeats: Span | None
    intransitivity: Triads
    listeners: list[ListenerAttention]
    excluded: dict[str, list[str]]
    decisions: list[ComparisonState]
    reward: RewardAccuracy | None
    without_exclusion: list[WinRate]


class SystemMean(Model):
    """A system's mean rating."""

    system: str
    mean: Span
    ratings: int
    listeners: int


class MeanDifference(Model):
    """The mean rating of `second` minus that of `first`."""

    first: str
    second: str
    difference: Span
    listeners: int


class RatingResults(Model):
    """Figures of a rating test. alpha: Krippendorff's, of intervals. listeners: pages that each answered."""

    pages: int
    counted: int
    systems: list[SystemMean]
    differences: list[MeanDifference]
    alpha: float | None
    listeners: dict[str, int]
    excluded: dict[str, list[str]]


class LookInfo(Model):
    """A time at which the results were looked at: after how many votes, and which comparisons were decided then."""

    at_votes: int
    created_at: str
    verdicts: dict[str, str]


class SystemUtility(Model):
    """The true utility of a system's clips, with its interval over prompts."""

    system: str
    utility: Span


class TestResults(Model):
    """Results of a test so far. One of preference and rating is there, by the test's kind.

    While a test is open, they are computed again as often as their cost allows, and may lack the last votes.
    """

    test: str
    kind: TestKind
    at_votes: int = Field(description="The number of votes, or rating pages, that these results were computed from.")
    votes: int = Field(description="The number of votes, or rating pages, by now.")
    computed_at: str = Field(description="When these results were computed.")
    refresh_after: float | None = Field(
        description="Seconds after which newer results can be had; null where these have every vote."
    )
    listeners: int
    completed: int
    registered: Registration | None
    rules: ExclusionRules
    preference: PreferenceResults | None = None
    rating: RatingResults | None = None
    screened_out: dict[str, list[str]] = Field(description="Listeners who failed the screening.")
    looks: list[LookInfo] = Field(description="The last looks at the results.")
    number_of_looks: int
    true_utilities: list[SystemUtility] | None = Field(
        None, description="Of a test of the synthetic world that simulated listeners took part in."
    )

    @property
    def exclusions(self) -> dict[str, list[str]]:
        """Listeners whose answers are left out, with the reasons."""
        figures = self.preference or self.rating
        return {} if figures is None else figures.excluded
