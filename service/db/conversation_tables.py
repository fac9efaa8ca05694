"""The table of what people asked several models side by side."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables import Base


class Conversation(Base):
    """Questions with the answers that each model gave; of one person in a project, and nobody else's to see."""

    __tablename__ = "conversations"
    __table_args__ = (
        Index("ix_conversations_project_id_owner_id_id", "project_id", "owner_id", "id"),
        Index("ix_conversations_idempotency_key", "project_id", "owner_id", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    owner_id: Mapped[str] = mapped_column(String(40))  # the user's ID, or the key's if it is no user's
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_sha256: Mapped[str | None] = mapped_column(String(64))  # as first kept; none: from before there were keys
    start: Mapped[str] = mapped_column(String(200))  # of the first question
    models: Mapped[list[str]] = mapped_column(JSON)
    num_turns: Mapped[int] = mapped_column(Integer)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)  # service.conversations.content.Content
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
