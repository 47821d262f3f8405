"""Console: counts, terms, the audit log, and the indexes by which a story is told."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "counts",
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("width", "bucket", "measure", "source", "destination"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "terms",
        sa.Column("event", sa.BigInteger(), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event", "term"),
        sqlite_with_rowid=False,
    )
    op.create_index("terms_by_term", "terms", ["term"], unique=False)
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_by_action", "audit", ["action", "id"], unique=False)
    op.create_index("notifications_by_delivery", "notifications", ["delivery"], unique=False)
    op.create_index("notifications_listed", "notifications", ["outcome", "source", "type", "id"], unique=False)
    op.create_index("events_by_notification", "events", ["notification"], unique=False)
    op.create_index("duplicates_by_notification", "duplicates", ["notification"], unique=False)
    op.create_index("duplicates_by_event", "duplicates", ["event"], unique=False)
