"""One contract for all sources of carbon intensity: what they make of good answers, and of every kind of bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from berth.adapters.carbon.carbon_aware import AzureExporter
from berth.adapters.carbon.hours import HoursFile
from berth.control.ports import Busy, CarbonSource, Denied, Silent, SourceError, Unusable
from berth.model.carbon import CarbonForecast
from tests.adapters.carbon.world import (
    EXPORTER,
    HOUR,
    NOW,
    SUBJECTS,
    WITH_CREDENTIALS,
    Server,
    Subject,
    Values,
    at,
    body,
    serving,
    silence,
    status,
)

ALL = [*SUBJECTS, EXPORTER]
asked_over_http = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
told_in_json = pytest.mark.parametrize("subject", ALL, ids=str)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mounted Secret."""
    for name in ("token", "username", "password"):
        (tmp_path / name).write_text(f"the-{name}\n")
    return tmp_path


async def told(subject: Subject, folder: Path, server: Server) -> CarbonForecast:
    async with serving(server) as web:
        return await subject.make(web, folder).forecast(subject.zone, NOW)


def rounded(forecast: CarbonForecast) -> dict[int, float]:
    """By hours from the current one."""
    return {hour - HOUR: round(grams, 6) for hour, grams in forecast.hours.items()}


@told_in_json
@pytest.mark.parametrize(
    ("values", "hours"),
    [
        ([302, 280.5, 260], {0: 302, 1: 280.5, 2: 260}),
        ([302, None, 260], {0: 302, 2: 260}),  # nulls are gaps
        ([0, 0, 0], {0: 0, 1: 0, 2: 0}),
    ],
)
async def test_tells_the_hours(subject: Subject, folder: Path, values: Values, hours: dict[int, float]) -> None:
    found = await told(subject, folder, Server(subject.answers(values, 0)))
    assert rounded(found) == hours
    assert NOW - 3600 < found.issued_at <= NOW


@told_in_json
@pytest.mark.parametrize("offset", [-8, 2, 10])
async def test_times_may_be_of_any_zone(subject: Subject, folder: Path, offset: int) -> None:
    assert rounded(await told(subject, folder, Server(subject.answers([100, 200], offset)))) == {0: 100, 1: 200}


@told_in_json
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([None, None], "no value"),
        ([302_000, 302_000], "302000 at .* is not in gCO2eq/kWh"),
        ([-5, 10], "-5 at .* is not in gCO2eq/kWh"),
    ],
)
async def test_values_that_can_not_be_are_not_believed(
    subject: Subject, folder: Path, values: Values, complaint: str
) -> None:
    with pytest.raises(Unusable, match=complaint):
        await told(subject, folder, Server(subject.answers(values, 0)))


@asked_over_http
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"data": [', "truncated|Expected"),
        (b"<html>", "malformed"),
        (b'{"zone": 1}', "Expected|missing"),
        (b"\xff\xfe", "malformed|utf|UTF"),
    ],
)
async def test_an_answer_that_is_something_else_is_told_of(
    subject: Subject, folder: Path, content: bytes, complaint: str
) -> None:
    with pytest.raises(Unusable, match=complaint):
        await told(subject, folder, Server(mishaps=[body(content)]))


@asked_over_http
@pytest.mark.parametrize(
    ("code", "headers", "kind"),
    [
        (401, {}, Denied),
        (403, {}, Denied),
        (404, {}, Unusable),
        (302, {"Location": "/elsewhere"}, Unusable),
        (429, {}, Busy),
        (500, {}, Silent),
        (503, {}, Silent),
        (503, {"Retry_After": "9"}, Busy),
    ],
)
async def test_errors_of_servers_say_what_to_do(
    subject: Subject, folder: Path, code: int, headers: dict[str, str], kind: type[SourceError]
) -> None:
    with pytest.raises(kind, match=f"status {code}") as caught:
        await told(subject, folder, Server(mishaps=[status(code, **headers)] * 2))
    assert "the-" not in str(caught.value)  # no credential
    assert kind is not Denied or "secret" not in str(caught.value)


@asked_over_http
@pytest.mark.parametrize(
    ("header", "seconds"), [("90", 90), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("-3", None)]
)
async def test_who_is_too_busy_may_say_when_to_come_back(
    subject: Subject, folder: Path, header: str, seconds: float | None
) -> None:
    with pytest.raises(Busy) as caught:
        await told(subject, folder, Server(mishaps=[status(429, Retry_After=header)]))
    assert caught.value.retry_after_seconds == seconds


@asked_over_http
async def test_a_slow_server_is_given_up(subject: Subject, folder: Path) -> None:
    async with serving(Server(mishaps=[silence]), patience=0.05) as web:
        with pytest.raises(Silent, match="Timeout"):
            await subject.make(web, folder).forecast(subject.zone, NOW)


@pytest.mark.parametrize("subject", WITH_CREDENTIALS, ids=str)
async def test_a_missing_credential_is_named_and_nothing_is_asked(subject: Subject, tmp_path: Path) -> None:
    server = Server(subject.answers([1, 2], 0))
    for folder, complaint in ((tmp_path, "No such file"), (tmp_path / "no-folder", "No such file")):
        with pytest.raises(Denied, match=complaint):
            await told(subject, folder, server)
    (tmp_path / "token").touch()
    (tmp_path / "username").touch()
    with pytest.raises(Denied, match="the file is empty"):
        await told(subject, tmp_path, server)
    assert server.requests == []


async def test_electricity_maps_is_asked_as_documented(folder: Path) -> None:
    server = Server(SUBJECTS[0].answers([1, 2], 0))
    await told(SUBJECTS[0], folder, server)
    assert [(r.path, dict(r.query), r.headers["auth-token"]) for r in server.requests] == [
        (f"/carbon-intensity/{which}", {"zone": "DE"}, "the-token") for which in ("history", "forecast")
    ]


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_electricity_maps_without_forecasts_tells_the_past(folder: Path, code: int) -> None:
    server = Server(SUBJECTS[0].answers([120, 130], 0))
    server.answers["/carbon-intensity/forecast"] = status(code)
    assert rounded(await told(SUBJECTS[0], folder, server)) == {0: 120}


async def test_watttime_is_asked_as_documented_and_logs_in_once(folder: Path) -> None:
    server, subject = Server(SUBJECTS[1].answers([1, 2], 0)), SUBJECTS[1]
    async with serving(server) as web:
        source = subject.make(web, folder)
        for later in (0, 60, 1800):
            await source.forecast(subject.zone, NOW + later)
    assert [r.path for r in server.requests] == ["/login", *["/v3/forecast"] * 2, "/login", "/v3/forecast"]
    assert server.requests[0].headers["Authorization"] == "Basic dGhlLXVzZXJuYW1lOnRoZS1wYXNzd29yZA=="
    assert server.requests[1].headers["Authorization"] == "Bearer t"
    assert dict(server.requests[1].query) == {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "horizon_hours": "72",
    }


async def test_watttime_logs_in_anew_when_its_token_is_taken_back(folder: Path) -> None:
    server, subject = Server(SUBJECTS[1].answers([1, 2], 0)), SUBJECTS[1]
    async with serving(server) as web:
        source = subject.make(web, folder)
        await source.forecast(subject.zone, NOW)
        server.mishaps.append(status(401))
        assert rounded(await source.forecast(subject.zone, NOW + 60)) == {0: 1, 1: 2}
    assert [r.path for r in server.requests[2:]] == ["/v3/forecast", "/login", "/v3/forecast"]


async def test_watttime_in_other_units_is_not_believed(folder: Path) -> None:
    server = Server(SUBJECTS[1].answers([1, 2], 0))
    server.answers["/v3/forecast"]["meta"]["units"] = "percentile"
    with pytest.raises(Unusable, match="values are in percentile"):
        await told(SUBJECTS[1], folder, server)


@pytest.mark.parametrize("zone", ["DE", "GB-", "GB-London", ""])
async def test_the_uk_knows_its_own_zones_only(zone: str, folder: Path) -> None:
    async with serving(Server()) as web:
        with pytest.raises(Unusable, match="wanted GB, or GB-13"):
            await SUBJECTS[2].make(web, folder).forecast(zone, NOW)


async def test_a_location_that_was_not_asked_for_is_not_believed(folder: Path) -> None:
    async with serving(Server(EXPORTER.answers([1, 2], 0))) as web:
        with pytest.raises(Unusable, match="tells of westus, not of eastus"):
            await EXPORTER.make(web, folder).forecast("eastus", NOW)


@pytest.mark.parametrize(
    ("answer", "kind", "complaint"),
    [
        (None, Silent, "not found"),
        ({"data": {}}, Unusable, "data"),
        ({"binaryData": {"data": "%%%"}}, Unusable, "binaryData.data"),
        ({"binaryData": {"data": "e30="}}, Unusable, "Expected `array`"),
    ],
)
async def test_a_config_map_that_is_no_forecast_is_told_of(
    folder: Path, answer: object, kind: type[SourceError], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        await told(EXPORTER, folder, Server({"configmaps/carbon-intensity": answer}))


def a_file(folder: Path, *lines: str) -> CarbonSource:
    (folder / "hours.csv").write_text("\n".join(lines))
    return HoursFile(folder / "hours.csv")


async def test_a_file_of_hours_tells_them(tmp_path: Path) -> None:
    source = a_file(tmp_path, "datetime_utc,DE,FR", f"{at(0)},302,50", f"{at(1)},,51", f"{at(2, 0, 5)},260,52")
    assert rounded(await source.forecast("DE", NOW)) == {0: 302, 2: 260}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (("datetime_utc,FR", "2022-01-01T00:00Z,5"), "has no column 'DE'"),
        (("time,DE", "2022-01-01T00:00Z,5"), "has no column 'datetime_utc'"),
        (("datetime_utc,DE", "yesterday,5"), "'yesterday' is no time"),
        (("datetime_utc,DE", "2022-01-01T00:00Z,much"), "'much' is no number"),
        (("datetime_utc,DE", "2022-01-01T00:00Z,nan"), "nan at .* is not in gCO2eq/kWh"),
        (("datetime_utc,DE",), "no value"),
    ],
)
async def test_a_file_of_something_else_is_told_of(tmp_path: Path, lines: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(Unusable, match=complaint):
        await a_file(tmp_path, *lines).forecast("DE", NOW)


async def test_a_file_that_is_not_there_may_come_later(tmp_path: Path) -> None:
    with pytest.raises(Silent, match="No such file"):
        await HoursFile(tmp_path / "none.csv").forecast("DE", NOW)


def test_the_exporter_is_read_where_it_writes() -> None:
    fields = AzureExporter.__dataclass_fields__
    assert (fields["namespace"].default, fields["config_map"].default) == ("kube-system", "carbon-intensity")
