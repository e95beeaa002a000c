"""What holds for every test: property tests try the same examples each time, so that a failure is never an accident.

`HYPOTHESIS_PROFILE=explore` tries new ones.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
