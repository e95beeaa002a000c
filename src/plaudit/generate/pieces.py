"""What a piece asks of the sampler beyond one pass of one network: windows, a loop, a second checkpoint.

A Plan is made from settings and a model; `planned_velocity` makes of the velocities of networks that of the piece.
"""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.errors import RecipeError
from plaudit.flow.solvers import Velocity
from plaudit.flow.trajectories import hand_over_step, shared
from plaudit.flow.windows import Windows, plan_windows, windowed
from plaudit.generate.settings import SamplingSettings
from plaudit.types import Codec


@dataclass(frozen=True)
class Plan:
    """How the latents of a piece are sampled.

    windows: over the piece; None is one pass. second: the network that shares the trajectory as the settings say.
    at_once: windows of every clip that are evaluated as one batch, None all.
    """

    windows: Windows | None = None
    second: FluxAudio | None = None
    at_once: int | None = None

    @property
    def count(self) -> int:
        """Passes that a clip is made in at each evaluation."""
        return 1 if self.windows is None else len(self.windows)


PLAIN = Plan()
"""One network, one pass."""


def piece_frames(settings: SamplingSettings, seconds: float, codec: Codec) -> int:
    """Latent frames of a clip: the whole ones within its seconds, or of a loop as near to them as whole frames come.

    seconds: of a clip whose settings name none. RecipeError for less than a frame.
    """
    wanted = settings.piece.seconds or seconds
    exact = wanted * codec.sample_rate / codec.hop
    frames = round(exact) if settings.piece.loop else int(exact + 1e-9)
    if frames < 1:
        raise RecipeError(f"{wanted:g} s is less than one latent frame of {codec.hop / codec.sample_rate:.3g} s")
    return frames


def plan_piece(settings: SamplingSettings, seconds: float, codec: Codec, second: FluxAudio | None = None) -> Plan:
    """The plan of clips under `settings`, from a model trained on clips of `seconds`.

    RecipeError where a second checkpoint comes without a trajectory, or a trajectory without one.
    """
    if (second is None) != (settings.trajectory is None):
        missing = "a second model" if second is None else "settings of how to share it (sampling.trajectory)"
        raise RecipeError(f"two checkpoints on one trajectory need {missing}")
    piece, frames = settings.piece, piece_frames(settings, seconds, codec)
    length = max(1, int((piece.window or seconds) * codec.sample_rate / codec.hop + 1e-9))
    if frames <= length and not piece.loop:
        return Plan(None, second)
    overlap = max(1, min(round(piece.overlap * length), length - 1))
    return Plan(plan_windows(frames, length, overlap, piece.loop), second)


def planned_velocity(first: Velocity, second: Velocity | None, settings: SamplingSettings, plan: Plan) -> Velocity:
    """The velocity of whole pieces from those of the plan's networks, which take any number of windows of each clip."""
    velocity = first
    if second is not None and settings.trajectory is not None:
        velocity = shared(first, second, settings.trajectory, settings.steps)
    return velocity if plan.windows is None else windowed(velocity, plan.windows, plan.at_once)


def velocity_jumps(settings: SamplingSettings) -> set[int]:
    """Steps at which the velocity becomes another function: where guidance goes on or off, and at a hand-over."""
    jumps = settings.guidance.switches(settings.steps)
    if settings.trajectory is not None and settings.trajectory.mode == "hand_over":
        jumps.add(hand_over_step(settings.trajectory.at, settings.steps))
    return jumps
