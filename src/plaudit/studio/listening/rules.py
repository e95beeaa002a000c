"""Exclusion rules of a test. They are in a module of their own, which needs no SciPy: the server imports it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ExclusionRules(BaseModel):
    """Rules set before a test by which a listener's answers are left out; one that is None does not apply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_obvious: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="least fraction of obvious pairs answered right"
    )
    min_repeats: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="least fraction of hidden repeats answered the same again"
    )
    min_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="least median seconds to an answer"
    )
    min_listened: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="least median seconds heard of both sides together"
    )
    max_one_side: Annotated[float, Field(ge=0.5, le=1)] | None = Field(
        default=None,
        description="largest fraction of decided answers on one side, where it is no chance (binomial p < 0.01)",
    )
    min_answers: Annotated[int, Field(ge=0)] | None = Field(default=None, description="least number of answers")
