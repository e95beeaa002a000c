"""`python -m plaudit` is the `plaudit` command."""

from plaudit.cli.main import main

main()
