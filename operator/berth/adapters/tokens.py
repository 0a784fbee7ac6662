"""Which pod a bearer token was made for, by TokenReview."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from berth.control.checkpoints import AUDIENCE
from berth.control.ports import TOKEN_REVIEWS, Api, Clock
from berth.control.progress import Caller

REMEMBERED_SECONDS = 60.0  # a pod that is gone is none of the picture's by then, whatever its token
MOST_REMEMBERED = 10_000
POD_NAME, POD_UID = (f"authentication.kubernetes.io/pod-{what}" for what in ("name", "uid"))
ACCOUNT = "system:serviceaccount:"


@dataclass
class Tokens:
    """Asks the API server about each token once a minute. Keeps digests of tokens only."""

    api: Api
    clock: Clock
    _known: dict[bytes, tuple[float, Caller | None]] = field(default_factory=dict)

    async def caller(self, token: str) -> Caller | None:
        """The pod that holds the token; None where it is not valid, not for us or not a pod's. Raises ApiError."""
        key = hashlib.sha256(token.encode()).digest()
        known = self._known.get(key)
        if known is not None and self.clock() - known[0] < REMEMBERED_SECONDS:
            return known[1]
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        found = _caller((await self.api.create(TOKEN_REVIEWS, "", body)).get("status") or {})
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (self.clock(), found)
        return found


def _caller(status: Mapping[str, Any]) -> Caller | None:
    user = status.get("user") or {}
    extra, name = user.get("extra") or {}, user.get("username") or ""
    pods, uids = list(extra.get(POD_NAME) or ()), list(extra.get(POD_UID) or ())
    if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
        return None
    if not name.startswith(ACCOUNT) or len(pods) != 1 or len(uids) != 1:
        return None
    return Caller(name.removeprefix(ACCOUNT).partition(":")[0], pods[0], uids[0])
