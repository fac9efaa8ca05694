"""What clients see of their conversations with models."""

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from api.views import View
from service.conversations.content import Content

if TYPE_CHECKING:
    from service.db.conversation_tables import Conversation


class ConversationSummary(View):
    id: str = Field(examples=["conv-019316f0a6b2f3c1d4e5a"])
    object: Literal["conversation"] = "conversation"
    start: str = Field(description="Of the first question, at most 200 characters.")
    models: list[str]
    num_turns: int
    created_at: datetime
    updated_at: datetime


class ConversationView(ConversationSummary):
    content: Content

    @classmethod
    def of(cls, conversation: "Conversation") -> "ConversationView":
        return cls.model_validate(conversation)


class ConversationPage(View):
    data: list[ConversationSummary]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")
