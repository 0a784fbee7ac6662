"""Where prices come from: a file, an address that answers with the same as JSON, OpenCost. And where they are kept."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from berth.adapters.carbon.web import Web, secret
from berth.control.ports import Silent, Unusable
from berth.model.gpus import BoardModel
from berth.model.prices import KnownPrices, Place, Price, PriceBook

log = logging.getLogger(__name__)

WINDOW = "1d"  # that OpenCost's costs are summed over: it knows those of nodes that are gone as well
MOST_USD_PER_HOUR = 1e4  # of a board: more is in another currency, or no price

Read = Callable[[str, str], PriceBook]  # of a text and its name; a ValueError says what is wrong with it


@dataclass(frozen=True, slots=True)
class PriceFile:
    """Implements `control.ports.PriceSource`; a mounted ConfigMap is such a file."""

    path: Path
    read: Read
    name: str = "price file"

    async def book(self) -> PriceBook:
        """The file as it is now."""
        try:
            text = self.path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Silent(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error
        return _read(self.read, text, str(self.path))


@dataclass(frozen=True, slots=True)
class PriceUrl:
    """Implements `control.ports.PriceSource`. `credentials`: a folder with a bearer `token`, where one is needed."""

    web: Web
    path: str
    read: Read
    credentials: Path | None = None
    name: str = "price server"

    async def book(self) -> PriceBook:
        """What the address answers now."""
        headers = {"Authorization": f"Bearer {secret(self.credentials, 'token')}"} if self.credentials else {}
        answer = await self.web.get(self.path, msgspec.Raw, headers=headers)
        return _read(self.read, bytes(answer).decode(errors="replace"), self.path)


class _Properties(msgspec.Struct):
    name: str = ""


class _Asset(msgspec.Struct):
    type: str = ""
    properties: _Properties = msgspec.field(default_factory=_Properties)
    gpu_hours: float = msgspec.field(default=0.0, name="GPUHours")
    total_cost: float = msgspec.field(default=0.0, name="totalCost")


class _Assets(msgspec.Struct):
    data: list[dict[str, Any]] | dict[str, Any] | None  # one set, or several, by what names an asset


@dataclass(frozen=True, slots=True)
class OpenCost:
    """Implements `control.ports.PriceSource`: what whole nodes cost a day, shared among their boards.

    OpenCost cleans the names of labels, so which model a node has, and how and where it is paid for, comes from the
    node of that name.
    """

    web: Web
    nodes: Callable[[], Mapping[str, tuple[BoardModel, Place]]]  # those with boards, by name
    name: str = "OpenCost"

    async def book(self) -> PriceBook:
        """Dollars by model, region and capacity type, as far as nodes of these ran."""
        answer = await self.web.get("/assets", _Assets, query={"window": WINDOW})
        sets = answer.data if isinstance(answer.data, list) else [answer.data or {}]
        known = self.nodes()
        sums: dict[tuple[BoardModel, Place], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for raw in (asset for assets in sets for asset in assets.values()):
            asset = _asset(raw)
            if asset.type == "Node" and asset.gpu_hours > 0 and asset.properties.name in known:
                sums[known[asset.properties.name]][0] += asset.total_cost
                sums[known[asset.properties.name]][1] += asset.gpu_hours
        if not sums:
            raise Unusable("/assets: no node of this cluster with GPUs is in the answer")
        return PriceBook(tuple(_price(model, place, usd / hours) for (model, place), (usd, hours) in sums.items()))


def _asset(raw: Any) -> _Asset:
    try:
        return msgspec.convert(raw, _Asset)
    except msgspec.ValidationError as error:
        raise Unusable(f"/assets: {error}") from error


def _price(model: BoardModel, place: Place, usd: float) -> Price:
    if not isfinite(usd) or not 0 <= usd <= MOST_USD_PER_HOUR:
        raise Unusable(f"/assets: {usd:g} is no price of an hour of {model.name} in dollars")
    return Price(model.name, usd, place.region, place.capacity)


@dataclass(frozen=True, slots=True)
class FileStore:
    """Implements `control.ports.PriceStore`. A file that can't be read or written is told of, and done without."""

    file: Path

    def load(self) -> KnownPrices | None:
        """What was saved last."""
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=KnownPrices)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the prices kept in %s can't be read: %s", self.file, error)
            return None

    def save(self, known: KnownPrices) -> None:
        """Written aside and renamed: there is never half a file."""
        new = self.file.with_suffix(f".{os.getpid()}.new")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode(known))
            new.replace(self.file)
        except OSError as error:
            log.warning("prices can't be kept in %s: %s", self.file, error)


def _read(read: Read, text: str, name: str) -> PriceBook:
    try:
        return read(text, name)
    except ValueError as error:
        raise Unusable(str(error)) from error
