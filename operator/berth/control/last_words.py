"""The last lines of a pod's log, for the message that says how it ended: with the pod goes its log."""

from __future__ import annotations

import asyncio
import logging

from berth.control.ports import Api, ApiError
from berth.model.workloads import Pod, Ref

log = logging.getLogger(__name__)

HEADING = "\nThe last lines of its log:\n"
LINES = 5
MOST_CHARACTERS = 1000  # in all; of a line not more than a third, so that no long one hides the others
MOST_BYTES = 64 * 1024  # that are read: progress bars write long lines
WAIT_SECONDS = 5.0  # for a kubelet that may be gone


async def with_last_words(api: Api, ref: Ref, message: str, pod: Pod | None) -> str:
    """The message, with what the pod said last where that can be read: it is never worth a failure."""
    if pod is None:
        return message
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            text = await api.log(ref.namespace, pod.name, container=pod.container, lines=LINES, most_bytes=MOST_BYTES)
    except (ApiError, TimeoutError) as error:
        log.info("no log of pod %s/%s: %s", ref.namespace, pod.name, error or type(error).__name__)
        return message
    lines = tail(text)
    return f"{message}{HEADING}{lines}" if lines else message


def without_last_words(message: str) -> str:
    """The message, without what a pod said."""
    return message.partition(HEADING)[0]


def tail(text: str) -> str:
    """The last lines, as far as they can be read.

    >>> tail("one\\n\\n 10%\\r 99%\\r\\ntwo\\x1b[0m\\n")
    'one\\n 99%\\ntwo[0m'
    """
    lines = (_readable(line) for line in text.split("\n"))
    kept = [line[: MOST_CHARACTERS // 3] for line in lines if line][-LINES:]
    while len("\n".join(kept)) > MOST_CHARACTERS:
        kept.pop(0)
    return "\n".join(kept)


def _readable(line: str) -> str:
    """What of a line would be left on a terminal."""
    shown = line.rstrip().rpartition("\r")[2]
    return "".join(c for c in shown if c.isprintable() or c == "\t")
