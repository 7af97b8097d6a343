"""A request to `/v1/messages`, there and back."""

from __future__ import annotations

from psserve.router.checks import Body
from psserve.router.dialect import Document, Events
from psserve.router.messages.answer import message_of
from psserve.router.messages.request import chat_body
from psserve.router.messages.stream import MessageEvents


class MessagesTranslation:
    """See dialect.Translation."""

    def __init__(self, body: Body) -> None:
        """Raises RequestError (400) where `body` is not of Anthropic's form."""
        self.chat = chat_body(body)

    def answer(self, document: Document) -> Document:
        return message_of(document)

    def events(self) -> Events:
        return MessageEvents()
