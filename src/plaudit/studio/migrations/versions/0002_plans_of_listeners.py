"""Plans of listeners whose pairs are chosen while the test runs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("listeners", sa.Column("plan", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("listeners", "plan")
