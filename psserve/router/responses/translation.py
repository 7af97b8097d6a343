"""A request to `/v1/responses`, there and back."""

from __future__ import annotations

from psserve.router.checks import Body
from psserve.router.dialect import Document, Events
from psserve.router.responses.answer import response_of
from psserve.router.responses.request import chat_body
from psserve.router.responses.stream import ResponseEvents


class ResponsesTranslation:
    """See dialect.Translation."""

    def __init__(self, body: Body) -> None:
        """Raises RequestError (400) where `body` is not of the API's form."""
        self._body = body
        self.chat = chat_body(body)

    def answer(self, document: Document) -> Document:
        return response_of(self._body, document)

    def events(self) -> Events:
        return ResponseEvents(self._body)
