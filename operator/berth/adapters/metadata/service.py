"""One request to a metadata service, with every mishap named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import msgspec

from berth.control.notices import NoAnswer

REQUEST_SECONDS = 5.0  # these services answer within milliseconds, or not at all
MOST_BYTES = 2**20  # of an answer: the documented ones have some kilobytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content without blanks around it."""
        return self.content.decode(errors="replace").strip()

    def read(self, kind: type[T]) -> T:
        """The content as JSON. Raises NoAnswer."""
        try:
            return msgspec.json.decode(self.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NoAnswer(f"an answer that can't be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Service:
    """A metadata service."""

    session: aiohttp.ClientSession
    address: str  # without a slash at its end

    async def request(
        self,
        path: str,
        headers: Mapping[str, str],
        *,
        seconds: float,
        method: str = "GET",
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer, whatever its status. Raises NoAnswer."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self.session.request(
                method, self.address + path, headers=headers, params=query, timeout=timeout, allow_redirects=False
            ) as response:
                content = b""
                while len(content) <= MOST_BYTES and (more := await response.content.readany()):
                    content += more
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NoAnswer(f"{path}: {str(error) or type(error).__name__}") from error
        if len(content) > MOST_BYTES:
            raise NoAnswer(f"{path}: more than {MOST_BYTES} bytes")
        return Answer(response.status, response.headers, content)


def expect(answer: Answer, path: str, *statuses: int) -> Answer:
    """The answer, if it has one of these statuses. Raises NoAnswer."""
    if answer.status not in statuses:
        raise NoAnswer(f"{path}: status {answer.status}")
    return answer
