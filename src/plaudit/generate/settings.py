"""Settings of sampling, execution, noise optimization and post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from plaudit.audio_format import AudioFormat
from plaudit.settings import (
    MOST,
    MOST_SECONDS,
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    Score,
    Seconds,
    Settings,
    option,
    validated,
)

MOST_STEPS = 10_000
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
"""Solver steps of a clip; more make no audible difference (ours)."""


SAMPLING, POST, FILES, OPTIMIZATION = "Sampling", "Post-processing", "Files", "Noise optimization"
"""Headings of the options in a command's help."""


Solver = Literal["euler", "heun", "midpoint", "ab2", "heun-euler"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)

SamplingPrecision = Literal["bf16", "tf32", "no"]
"""bfloat16 autocast; float32 with TF32 products on CUDA; float32."""

Boundaries = Literal["exact", "published"]
"""How the ends of a guidance interval and a switch of models fall on steps; see SamplingSettings."""


class Guidance(Settings):
    """Guidance by text and score.

    mode "joint" (published): weight v(text, score) + (1 - weight) v(negative); with a weight of 1 or less only the
    conditional pass is run.
    mode "separate" (ours): v(negative) + text_weight (v(text) - v(negative))
    + reward_weight (v(text, score) - v(text)).
    schedule: "constant"; "linear", from the weights at the first step to `floor` at the last; "interval", on while
    `start` <= progress < `stop` and at `floor` outside. Progress runs from 0 at noise to 1 at music.
    floor: the weights at the end of a linear schedule and outside an interval; 1 (published) is the conditional pass
    alone.
    rescale: how far the standard deviation over a clip of the latents that a step predicts is brought back to that of
    the conditional pass's, 0 not at all, 1 wholly (Lin et al., arXiv 2305.08891).
    """

    weight: NotNegative = option(4.0, "--guidance", help="Guidance weight.", panel=SAMPLING)
    mode: Literal["joint", "separate"] = "joint"
    text_weight: NotNegative = 4.0
    reward_weight: NotNegative = 4.0
    schedule: Literal["constant", "linear", "interval"] = "constant"
    start: Fraction = 0.0
    stop: Fraction = 1.0
    floor: NotNegative = 1.0
    rescale: Fraction = 0.0

    @model_validator(mode="after")
    def _starts_before_it_stops(self) -> Guidance:
        if self.start >= self.stop:
            raise ValueError(f"the guidance interval must start before it stops, not {self.start} to {self.stop}")
        return self

    def at(self, progress: float, boundaries: Boundaries = "exact") -> Guidance:
        """The constant guidance in force at `progress` in [0, 1)."""
        if self.schedule == "constant":
            return self
        strength = float(self._is_inside(progress, boundaries)) if self.schedule == "interval" else 1 - progress
        weights = ("weight", "text_weight", "reward_weight")
        changes = {name: self.floor + strength * (getattr(self, name) - self.floor) for name in weights}
        return self.model_copy(update={**changes, "schedule": "constant"})

    def switches(self, progress: Sequence[float], boundaries: Boundaries = "exact") -> set[int]:
        """The steps, which begin at these values of progress, at which an interval of guidance begins or ends."""
        if self.schedule != "interval":
            return set()
        on = [self._is_inside(one, boundaries) for one in progress]
        return {step for step in range(1, len(on)) if on[step] != on[step - 1]}

    def _is_inside(self, progress: float, boundaries: Boundaries) -> bool:
        if boundaries == "published":
            return self.start <= progress <= self.stop
        return self.start <= progress < self.stop


class Trajectory(Settings):
    """The use of a second model in sampling.

    mode "switch": the first model gives the velocity while progress is below `at`, the second from there on. Progress
    runs from 0 at noise to 1 at music, in steps, as for guidance; a step is entirely of one model.
    mode "average": the velocity is an average of both, the second's with weight `weight`.
    second_score: the second model's conditioning score; None is that of the first.
    """

    mode: Literal["switch", "average"] = option(
        "switch", "--average", value="average", help="Average the velocities of both models.", panel=SAMPLING
    )
    at: Fraction = option(
        0.5, "--switch-at", help="Progress at which --second-model takes over. Default: 0.5.", panel=SAMPLING
    )
    weight: Fraction = 0.5
    second_score: Score | None = option(
        None, "--second-score", help="Conditioning score of --second-model. Default: --score.", panel=SAMPLING
    )

    @model_validator(mode="after")
    def _uses_every_setting(self) -> Trajectory:
        if self.mode == "average" and self.at != 0.5:
            raise ValueError("give one of --switch-at and --average (an average has no `at`)")
        if self.mode == "switch" and self.weight != 0.5:
            raise ValueError("a switch between two models has no `weight`; use mode average")
        return self


class PieceSettings(Settings):
    """The length of a clip, and the windows of one that is longer than the network was trained on.

    seconds: None is the model's default. loop: the end continues into the start; the length is then a whole number of
    latent frames. window: seconds that the network sees at once, None the length it was trained on; a window longer
    than the clip is one pass. overlap: the least fraction of a window that the next one repeats, see plaudit.flow.
    """

    seconds: Seconds | None = option(
        None, "--seconds", help="Length of a clip; one longer than the model's default is sampled in windows.",
        panel=SAMPLING,
    )  # fmt: skip
    loop: bool = option(False, "--loop", help="Make a clip whose end continues into its start.", panel=SAMPLING)
    window: Seconds | None = None
    overlap: float = Field(default=0.25, gt=0, lt=1)


class SamplingSettings(Settings):
    """Solver, guidance, conditioning score, and text besides the prompt.

    solver: "heun-euler" (published) is Heun's method with an Euler step at the end. score: in the reward's own units;
    None is the null embedding, or for a model that takes no score. prefix, suffix: before and after every prompt.
    negative_prompt: the text of the negative pass; "" is the empty string's encoding. shift: of the time grid, see
    plaudit.flow.time_grid. precision: "bf16" runs the network under bfloat16 autocast, "tf32" (published) in float32
    with TF32 products on CUDA, "no" in float32. noise: whose numbers a seed stands for, those of PyTorch's generator on
    the CPU or (published) on CUDA; the latter are computed on any device. boundaries: how a guidance interval and a
    switch of models fall on steps, see plaudit.flow.step_progress and switch_step. trajectory: how a second model takes
    part, where there is one.
    """

    steps: Steps = option(25, "--steps", help="Solver steps.", panel=SAMPLING)
    solver: Solver = option("euler", "--solver", help="Solver of the flow's differential equation.", panel=SAMPLING)
    shift: Positive = 1.0
    guidance: Guidance = Guidance()
    score: Score | None = option(None, "--score", help="Conditioning score, in units of the reward.", panel=SAMPLING)
    prefix: str = ""
    suffix: str = ""
    negative_prompt: str = option(
        "noise, distortion, low quality, static, hum, hiss, clipping, muffled, amateur recording",
        "--negative", help="Negative prompt: what the music should avoid.", panel=SAMPLING,
    )  # fmt: skip
    precision: SamplingPrecision = option(
        "bf16", "--precision", help="bf16, tf32 (float32 with TF32 products on CUDA), or no for float32.",
        panel=SAMPLING,
    )  # fmt: skip
    noise: Literal["cpu", "cuda"] = "cpu"
    boundaries: Boundaries = "exact"
    piece: PieceSettings = PieceSettings()
    trajectory: Trajectory | None = None

    def text_of(self, prompt: str) -> str:
        """The text that is encoded for a prompt."""
        return self.prefix + prompt + self.suffix

    def changed(self, **changes: Any) -> SamplingSettings:
        """These settings with some replaced; `weight` is the guidance's, and None leaves a setting unchanged.

        RecipeError, in one line, for a bad value.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        values = self.model_dump()
        if "weight" in changes:
            values["guidance"]["weight"] = changes.pop("weight")
        return validated(SamplingSettings, values | changes, "sampling")


class Execution(Settings):
    """Execution on the device, which changes clips at most by rounding.

    batch: clips sampled at once; None takes as many as `memory` allows and the device profits from.
    memory: GiB that the network may take while sampling, besides its weights; None is a fraction of the device's.
    compile: "default" compiles the network with torch.compile, "graphs" also replays it as CUDA graphs: minutes before
    the first clip on a machine that has not done it before, worth it for many clips.
    """

    batch: Count | None = option(
        None, "--batch", help="Clips sampled at once. Default: as many as memory and device allow.", panel=SAMPLING
    )
    memory: Positive | None = option(None, "--memory", help="GiB for sampling, besides the weights.", panel=SAMPLING)
    compile: Literal["no", "default", "graphs"] = option(
        "no", "--compile", help="Compile the network, with CUDA graphs too: slow to start, for many clips.",
        panel=SAMPLING,
    )  # fmt: skip


class NoiseOptimization(Settings):
    """Adam on the initial noise (published: 5 iterations at 0.05).

    keep_norm: after each iteration the noise is scaled back to its initial norm (ours), since the network has only
    been trained on noise of about that norm.
    """

    iterations: Count = option(5, "--iterations", help="Steps of --optimize.", panel=OPTIMIZATION)
    learning_rate: Positive = option(0.05, "--learning-rate", help="Learning rate of --optimize.", panel=OPTIMIZATION)
    keep_norm: bool = True


class SeparationSettings(Settings):
    """Passes of source separation, each over the result of the last; see plaudit.generate.separation.

    passes: 0 leaves it out (published: 3). model: a name that the demucs package has, `hf://NAMESPACE/NAME` on the Hub,
    or a folder of models. keep: the stems that are summed; None is all but vocals. stop_below: a pass that removes
    less than so many LU relative to the clip is the last; None runs all passes. segment: seconds that the network sees
    at once, which bounds its memory; None is the model's default. overlap: the fraction of a segment that the next one
    repeats.
    """

    passes: CountOrZero = option(0, "--separate", help="Passes of source separation to remove vocals.", panel=POST)
    model: Annotated[str, Field(min_length=1)] = option(
        "mdx_extra", "--separator", help="A demucs model or a folder of one.", panel=POST
    )
    keep: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    stop_below: Annotated[float, Field(ge=-MOST, le=0)] | None = None
    segment: Positive | None = None
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.25


class PostSettings(Settings):
    """Post-processing of generated clips; see plaudit.generate.postprocess for the order.

    chain: "limiter" is this package's, which reaches the loudness under a true-peak ceiling. "published" is that of the
    paper's scripts: each pass of separation takes the clip as it is, with one random shift, and scales it to a peak of
    0.95; then comes the gain to the loudness, and where a sample exceeds 0.99 the clip is scaled to a peak of 0.95 and
    so misses the loudness. It does not use the settings of the limiter, of edges and of segments.
    rate: in Hz, None keeps the model's. remove_dc: remove a constant offset. seconds: of the result; a longer clip is
    cut and a shorter one padded with silence; None keeps the length. fade_ms: at both ends. loudness in LUFS, None
    keeps it. ceiling of the true peak in dBTP.
    """

    chain: Literal["limiter", "published"] = option(
        "limiter", "--chain", help="Post-processing: limiter, or published, the paper's.", panel=POST
    )
    rate: Annotated[int, Field(ge=8000, le=192000)] | None = option(
        None, "--rate", help="Sample rate in Hz. Default: the model's.", panel=FILES
    )
    separate: SeparationSettings = SeparationSettings()
    remove_dc: bool = True
    seconds: Seconds | None = None
    fade_ms: Annotated[float, Field(ge=0, le=MOST_SECONDS * 1000)] = 10.0
    loudness: Annotated[float, Field(ge=-40, le=-5)] | None = option(
        -16.5, "--loudness", help="Integrated loudness in LUFS; null leaves it as it is.", panel=POST
    )
    ceiling: Annotated[float, Field(ge=-20, le=0)] = option(-1.0, "--ceiling", help="True peak in dBTP.", panel=POST)

    @model_validator(mode="after")
    def _published_chain_uses_every_setting(self) -> PostSettings:
        if self.chain == "published":
            sections: tuple[tuple[str, Settings, tuple[str, ...]], ...] = (
                ("", self, ("remove_dc", "fade_ms", "ceiling")),
                ("separate.", self.separate, ("stop_below", "segment", "overlap")),
            )
            for prefix, section, names in sections:
                for name in names:
                    if getattr(section, name) != type(section).model_fields[name].default:
                        raise ValueError(f"chain published has no {prefix}{name}; leave it out")
        return self


class GenerationSettings(Settings):
    """Settings of sampling, post-processing and file format."""

    sampling: SamplingSettings = SamplingSettings()
    post: PostSettings = PostSettings()
    file: AudioFormat = AudioFormat()

    def fitted(self, seconds: float) -> GenerationSettings:
        """With the sampled length (by default `seconds`) as that of the result, unless that is set.

        A loop is not faded and has the length of its latents.
        """
        piece = self.sampling.piece
        changes = {"fade_ms": 0.0} if piece.loop else {"seconds": self.post.seconds or piece.seconds or seconds}
        return self.model_copy(update={"post": self.post.model_copy(update=changes)})
