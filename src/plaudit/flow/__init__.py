"""Rectified flow: the path and its loss, guidance, and solvers. No network in here."""

from plaudit.flow.guidance import Branch, Guidance, branches, combine
from plaudit.flow.path import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.flow.solvers import SOLVERS, Solver, Velocity, integrate, time_grid
from plaudit.flow.trajectories import Trajectory, shared
from plaudit.flow.windows import Windows, plan_windows, windowed

__all__ = [
    "SOLVERS",
    "Branch",
    "Guidance",
    "Solver",
    "Trajectory",
    "Velocity",
    "Windows",
    "branches",
    "combine",
    "flow_loss",
    "integrate",
    "interpolate",
    "logit_normal_time",
    "plan_windows",
    "shared",
    "time_grid",
    "velocity",
    "windowed",
]
