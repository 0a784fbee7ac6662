"""`berth bench joint`: spot, on-demand and carbon at once, in one pool or free to move between several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from berth.bench.carbon_data import HOUR, CarbonHours
from berth.bench.spot_data import Window
from berth.bench.spot_run import Floats, Terms, Track
from berth.bench.tables import TraceError

# Cloud regions and the grid that they are on. Source: Electricity Maps' zones, by the places of the data centres.
GRIDS = {
    "us-east-1": "US-MIDA-PJM",
    "us-east-2": "US-MIDA-PJM",
    "us-west-1": "US-CAL-CISO",
    "us-west-2": "US-NW-PACW",
    "eu-central-1": "DE",
    "eu-west-2": "GB",
    "eu-west-3": "FR",
    "eu-north-1": "SE-SE3",
}


def chosen(windows: Sequence[Window], zones: Mapping[str, str]) -> list[Window]:
    """The windows of the pools that `zones` names (all, where it names none). TraceError names those unknown."""
    pools = {window.pool for window in windows}
    unknown = [pool for pool in zones if pool not in pools]
    if unknown:
        raise TraceError(f"no window of {', '.join(unknown)}; there are {', '.join(sorted(pools))}")
    return [window for window in windows if not zones or window.pool in zones]


def grid(pool: str, zones: Mapping[str, str]) -> str:
    """The carbon zone of a pool: as `zones` says, or that of the region with which its name begins."""
    found = zones.get(pool) or next((grid for region, grid in GRIDS.items() if pool.startswith(region)), None)
    if found is None:
        raise TraceError(f"no carbon zone is known for pool {pool}: name it, as in --zones {pool}=DE")
    return found


def settled_tracks(
    windows: Sequence[Window], carbon: CarbonHours, zones: Mapping[str, str], terms: Terms
) -> list[Track]:
    """Each window with the carbon of its own hours, as a job that stays in its pool meets it."""
    return [
        Track(window.pool, window.gap_hours, np.array([window.available]), _grams(window, carbon, zones, terms)[None])
        for window in windows
    ]


def free_tracks(windows: Sequence[Window], carbon: CarbonHours, zones: Mapping[str, str], terms: Terms) -> list[Track]:
    """Windows of the same number side by side, as a job that may move meets them; each pool in turn is its home."""
    found = []
    for turn, number in enumerate(sorted({window.number for window in windows})):
        beside = [window for window in windows if window.number == number]
        shapes = {(window.gap_hours, len(window.available), window.start) for window in beside}
        if len(shapes) > 1:
            raise TraceError(f"windows {number} of the pools differ in start, gap or length: without --move, they may")
        grams = np.stack([_grams(window, carbon, zones, terms) for window in beside])
        available = np.array([window.available for window in beside])
        home = turn % len(beside)
        found.append(Track(beside[home].pool, beside[0].gap_hours, available, grams, home))
    return found


def _grams(window: Window, carbon: CarbonHours, zones: Mapping[str, str], terms: Terms) -> Floats:
    """g/kWh in each step until the deadline: of the same calendar hours of the file's year, which goes round."""
    if window.start is None:
        raise TraceError(f"window {window.number} of {window.pool} has no start: its hours of carbon are unknown")
    hours = carbon.of(grid(window.pool, zones))
    since = (window.start.replace(year=carbon.start.year) - carbon.start) / HOUR
    steps = int(np.ceil(terms.deadline_hours / window.gap_hours))
    at = np.floor(since + np.arange(steps) * window.gap_hours).astype(int)
    found: Floats = hours[at % len(hours)]
    return found
