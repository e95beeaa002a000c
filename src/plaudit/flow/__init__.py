"""Rectified flow: the path and its loss, guidance, and solvers. No network in here."""

from plaudit.flow.guidance import Branch, Guidance, branches, combine
from plaudit.flow.path import flow_loss, interpolate, logit_normal_time, velocity
from plaudit.flow.solvers import SOLVERS, Solver, integrate, time_grid

__all__ = [
    "SOLVERS",
    "Branch",
    "Guidance",
    "Solver",
    "branches",
    "combine",
    "flow_loss",
    "integrate",
    "interpolate",
    "logit_normal_time",
    "time_grid",
    "velocity",
]
