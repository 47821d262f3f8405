"""Alembic's entry: runs the versions on the connection that `migrate` opened."""

from alembic import context

from relay.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
