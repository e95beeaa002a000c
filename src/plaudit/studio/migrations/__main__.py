"""`python -m plaudit.studio.migrations MESSAGE`."""

import sys

from plaudit.studio.migrations import write_migration

write_migration(" ".join(sys.argv[1:]) or "change")
