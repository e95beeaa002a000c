"""Without Playwright these tests are skipped."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")
