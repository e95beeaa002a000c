"""Alembic's environment: the connection comes from `plaudit.studio.migrations`."""

from alembic import context

from plaudit.studio.database import Base

if (connection := getattr(context, "config", None) and context.config.attributes.get("connection")) is not None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    context.run_migrations()
