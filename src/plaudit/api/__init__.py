"""The Python API: one function per command, with the command's options as settings.

    plaudit.generate("slow sad piano in a minor key", count=4, best_of=8, output="out")

Settings are given as an object, by name, or both: what is named changes the object's. Sections are mappings, as in
`sampling={"steps": 10}`.
"""

from plaudit.api.comparison import CompareSettings, SystemComparison, compare
from plaudit.api.evaluation import (
    ConceptsSettings,
    EvaluateSettings,
    EvaluatorSettings,
    evaluate,
    load_references,
    measure_detector,
)
from plaudit.api.generation import (
    GeneratedClip,
    GenerateSettings,
    generate,
    generation_settings,
    sampling_of,
    stream_generate,
)
from plaudit.api.runs import RunSettings, run
from plaudit.api.scoring import Ranking, RankSettings, Score, ScoreSettings, rank, score

__all__ = [
    "CompareSettings",
    "ConceptsSettings",
    "EvaluateSettings",
    "EvaluatorSettings",
    "GenerateSettings",
    "GeneratedClip",
    "RankSettings",
    "Ranking",
    "RunSettings",
    "Score",
    "ScoreSettings",
    "SystemComparison",
    "compare",
    "evaluate",
    "generate",
    "generation_settings",
    "load_references",
    "measure_detector",
    "rank",
    "run",
    "sampling_of",
    "score",
    "stream_generate",
]
