"""`plaudit reward`: training rewards and measuring them."""

from __future__ import annotations

import typer

from plaudit.cli import reward_training

app = typer.Typer(help="Train rewards on votes, and measure them.", no_args_is_help=True)
reward_training.add_to(app)
