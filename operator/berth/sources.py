"""From the configuration to feeds of carbon intensity and of prices."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from kubernetes.config import ConfigException

from berth.adapters.carbon import carbon_aware, electricity_maps, uk, watttime
from berth.adapters.carbon.hours import HoursFile
from berth.adapters.carbon.store import FolderStore
from berth.adapters.carbon.web import Web
from berth.adapters.kube import connect
from berth.adapters.prices import FileStore, OpenCost, PriceUrl
from berth.api.config import CarbonSetting, PricesSetting
from berth.api.price_book import price_book
from berth.control.carbon_feed import CarbonFeed, FeedRules
from berth.control.ports import CarbonSource, PriceSource, Silent
from berth.control.price_feed import PriceFeed, PriceRules
from berth.model.carbon import CarbonForecast
from berth.model.gpus import BoardModel
from berth.model.prices import Place, PriceBook


@asynccontextmanager
async def feed(setting: CarbonSetting, kubeconfig: str | None) -> AsyncIterator[CarbonFeed]:
    """The feed that a configuration describes."""
    kept = Path(setting.kept_folder) if setting.kept_folder else _usual_folder() / "carbon"
    rules = FeedRules(
        setting.poll_seconds,
        setting.stale_seconds,
        setting.timeout_seconds,
        {zone.zone: zone.grams_per_kwh for zone in setting.zones if zone.grams_per_kwh is not None},
    )
    async with _source(setting, kubeconfig) as source:
        yield CarbonFeed(source, FolderStore(kept), time.time, random.random, rules)


@asynccontextmanager
async def _source(setting: CarbonSetting, kubeconfig: str | None) -> AsyncIterator[CarbonSource | None]:
    if setting.source == "azureConfigMap":
        try:
            async with connect(kubeconfig) as api:
                yield carbon_aware.AzureExporter(api)
        except ConfigException as error:
            yield _Absent("Azure carbon intensity exporter", str(error))
        return
    timeout = aiohttp.ClientTimeout(total=setting.timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield _told_directly(setting, session)


def _told_directly(setting: CarbonSetting, session: aiohttp.ClientSession) -> CarbonSource | None:
    folder = Path(setting.credentials_folder) if setting.credentials_folder else None

    def web(usual: str) -> Web:
        return Web(session, (setting.url or usual).rstrip("/"))

    match setting.source:
        case "electricityMaps":
            return electricity_maps.ElectricityMaps(web(electricity_maps.URL), folder)
        case "wattTime":
            return watttime.WattTime(web(watttime.URL), folder)
        case "ukCarbonIntensity":
            return uk.UnitedKingdom(web(uk.URL))
        case "carbonAwareSdk":
            return carbon_aware.CarbonAwareSdk(web(""))
        case "file":
            return HoursFile(Path(setting.file))
        case _:
            return None


@asynccontextmanager
async def prices(
    setting: PricesSetting,
    nodes: Callable[[], Mapping[str, tuple[BoardModel, Place]]],
    tell: Callable[[PriceBook], None],
    aged: Callable[[float], None],
) -> AsyncIterator[PriceFeed]:
    """The feed of live prices that a configuration describes; `nodes` are those with boards, by name."""
    folder = Path(setting.kept_folder) if setting.kept_folder else _usual_folder() / "prices"
    rules = PriceRules(setting.poll_seconds, setting.stale_seconds, setting.timeout_seconds)
    timeout = aiohttp.ClientTimeout(total=setting.timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        store = FileStore(folder / "prices.json")
        source = _price_source(setting, session, nodes)
        yield PriceFeed(source, setting.url, store, tell, aged, time.time, random.random, rules)


def _price_source(
    setting: PricesSetting,
    session: aiohttp.ClientSession,
    nodes: Callable[[], Mapping[str, tuple[BoardModel, Place]]],
) -> PriceSource:
    if setting.source == "openCost":
        return OpenCost(Web(session, setting.url.rstrip("/")), nodes)
    parts = urlsplit(setting.url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    folder = Path(setting.credentials_folder) if setting.credentials_folder else None
    return PriceUrl(Web(session, f"{parts.scheme}://{parts.netloc}"), path, price_book, folder)


class _Absent:
    """A source that can't be reached at all: what is known without it still serves."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why

    async def forecast(self, zone: str, now: float) -> CarbonForecast:
        """Nothing."""
        raise Silent(self.why)


def _usual_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth"
