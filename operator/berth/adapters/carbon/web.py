"""What all sources that are asked over HTTP share: requests with every mishap named, credentials, times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from berth.control.ports import Busy, Denied, Silent, SourceError, Unusable
from berth.model.carbon import Point, hourly

MOST_BYTES = 8 * 2**20  # of an answer; three days in steps of five minutes are 0.1 MiB
MOST_GRAMS = 3000.0  # gCO2eq/kWh: the worst oil plants emit about half, so more is in another unit
MOST_WORDS = 200  # characters of a server's own words in a message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Web:
    """A server that answers in JSON. Its time-out is the session's."""

    session: aiohttp.ClientSession
    base: str  # without a slash at its end

    async def get(
        self,
        path: str,
        kind: type[T],
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """The answer to one request. Raises a SourceError, whose message has no credential in it."""
        try:
            async with self.session.get(
                self.base + path, params=query, headers=headers, allow_redirects=False
            ) as response:
                content = await response.content.read(MOST_BYTES)
                while len(content) < MOST_BYTES and (more := await response.content.read(MOST_BYTES)):
                    content += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Silent(f"{path}: {str(error) or type(error).__name__}") from error
        if response.status != 200:
            raise _problem(path, response, content)
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unusable(f"{path}: {error}") from error


def _problem(path: str, response: aiohttp.ClientResponse, content: bytes) -> SourceError:
    message = f"{path}: status {response.status}"
    if response.status in (401, 403):
        return Denied(message)  # without the server's words, which may repeat the credential
    if said := " ".join(content.decode(errors="replace").split())[:MOST_WORDS]:
        message += f": {said}"
    after = retry_after(response.headers.get("Retry-After", ""))
    if response.status == 429 or (response.status == 503 and after is not None):
        return Busy(message, after)
    return Silent(message) if response.status >= 500 else Unusable(message)


def retry_after(header: str) -> float | None:
    """Seconds until another request is welcome; None where the header says nothing that can be read.

    >>> retry_after("120"), retry_after("soon")
    (120.0, None)
    """
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def secret(folder: Path | None, name: str) -> str:
    """A credential from a mounted Secret, read anew each time since Secrets are rotated. Raises Denied."""
    if folder is None:
        raise Denied(f"needs a credential {name!r}: set credentialsFolder to where its Secret is mounted")
    try:
        found = (folder / name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Denied(f"credential {folder / name}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise Denied(f"credential {folder / name}: the file is empty")
    return found


def seconds_of(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; one without a zone is in UTC. Raises Unusable.

    >>> seconds_of("1970-01-01T01:00+01:00") == seconds_of("1970-01-01T00:00Z") == seconds_of("1970-01-01T00:00")
    True
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Unusable(f"{text!r} is no time") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def iso(time: float) -> str:
    """The time as sources are asked with it, in UTC, to the minute.

    >>> iso(0.0)
    '1970-01-01T00:00Z'
    """
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%MZ")


def hours_of(points: Iterable[tuple[str, float, float | None]]) -> dict[int, float]:
    """The hours that points (time, seconds, grams) make up; nulls are left out. Raises Unusable where nothing is left.

    A negative value, or one that no plant emits, means another unit: nothing of such an answer is believed.
    """
    found: list[Point] = []
    for text, seconds, grams in points:
        time = seconds_of(text)
        if grams is None:
            continue
        if not isfinite(grams) or not 0 <= grams <= MOST_GRAMS:
            raise Unusable(f"{grams:g} at {text} is not in gCO2eq/kWh")
        found.append(Point(time, seconds, grams))
    if not found:
        raise Unusable("the answer has no value")
    return hourly(found)
