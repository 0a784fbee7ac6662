"""The certificate authority: made once, replaced before it ends, known before it signs."""

from __future__ import annotations

import ssl
import time

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from berth.adapters.certificates import (
    AUTHORITY_SECONDS,
    DAY,
    Authority,
    bundle,
    from_data,
    issue,
    new_authority,
    rotated,
    signing,
    to_data,
)
from berth.adapters.trust import SECRET, CertificateAuthority, _context, _load
from berth.control.checkpoints import CONFIG_MAP
from berth.control.ports import CONFIG_MAPS, SECRETS, Conflict
from tests.control.fakes import FakeApi, HandClock

NOW = 1_800_000_000.0


def handshake(server: ssl.SSLContext, trusted: str, host: str = "berth.local") -> None:
    """Connect in memory. Raises ssl.SSLError where the client does not trust the server."""
    client = ssl.create_default_context(cadata=trusted)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname=host), server.wrap_bio(there, back, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_what_it_signs_is_trusted_for_its_names_alone() -> None:
    authority, context = new_authority(time.time()), _context()
    _load(context, issue(authority, ["berth.local", "berth"], time.time()))
    handshake(context, bundle([authority]))
    handshake(context, bundle([authority]), "berth")
    with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
        handshake(context, bundle([authority]), "elsewhere")
    with pytest.raises(ssl.SSLError):
        handshake(context, bundle([new_authority(time.time())]))


def test_its_certificates_say_what_they_are_for() -> None:
    authority = new_authority(NOW)
    root = x509.load_pem_x509_certificate(authority.certificate)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.not_valid_after_utc.timestamp() == NOW + AUTHORITY_SECONDS
    leaf = x509.load_pem_x509_certificate(issue(authority, ["berth"], NOW))
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert leaf.not_valid_after_utc.timestamp() == NOW + 7 * DAY
    assert leaf.not_valid_before_utc.timestamp() < NOW, "clocks of nodes may be behind"


def test_over_ten_years_one_always_signs_that_clients_have_known_for_a_day_and_that_outlives_what_it_signs() -> None:
    held: tuple[Authority, ...] = ()
    known: dict[bytes, float] = {}
    makers = set()
    for day in range(0, 3650, 5):
        now = NOW + day * DAY
        held = rotated(held, now)
        assert 1 <= len(held) <= 2
        for authority in held:
            known.setdefault(authority.certificate, now)
        signer = signing(held, now)
        assert day == 0 or now - known[signer.certificate] >= DAY
        assert signer.made + AUTHORITY_SECONDS >= now + 7 * DAY
        makers.add(signer.certificate)
    assert len(makers) == 16


def test_a_secret_gives_back_what_it_was_given() -> None:
    held = rotated(rotated((), NOW), NOW + 250 * DAY)
    assert len(held) == 2
    assert from_data(to_data(held)) == held


class Office:
    """An authority on an API server in memory."""

    def __init__(self) -> None:
        self.clock = HandClock(NOW)
        self.api = FakeApi(self.clock)
        self.namespaces = ["team"]

    async def started(self) -> CertificateAuthority:
        """The authority as an operator's start finds it."""
        authority = CertificateAuthority(self.api, self.clock, "berth-system", ["berth.local"], lambda: self.namespaces)
        await authority.start()
        return authority

    def published(self, namespace: str = "team") -> str | None:
        """What clients of a namespace trust."""
        found = self.api.find(CONFIG_MAPS, CONFIG_MAP, namespace)
        return found["data"]["ca.crt"] if found else None


async def test_a_restarted_operator_is_trusted_by_the_pods_that_run() -> None:
    office = Office()
    first = await office.started()
    await first.publish("team")
    trusted = office.published()
    assert trusted is not None
    second = await office.started()
    assert bundle(second._authorities) == trusted


async def test_a_namespace_is_written_once_and_again_where_somebody_deleted_it() -> None:
    office = Office()
    authority = await office.started()
    for _ in range(3):
        await authority.publish("team")
    assert office.api.said("apply") == [f"apply configmaps {CONFIG_MAP}"]
    office.api.remove(CONFIG_MAPS, "team", CONFIG_MAP)
    await authority.renew()
    assert office.published() is not None


async def test_a_namespace_that_was_deleted_and_made_again_is_written_again() -> None:
    office = Office()
    authority = await office.started()
    await authority.publish("team")
    office.namespaces = ["other"]
    await authority.publish("other")
    await authority.publish("team")
    assert len(office.api.said("apply")) == 3


async def test_a_new_authority_is_known_everywhere_before_it_signs() -> None:
    office = Office()
    authority = await office.started()
    await authority.publish("team")
    office.clock.advance(241 * DAY)
    await authority.renew()
    assert office.published() == bundle(authority._authorities)
    old, new = authority._authorities
    assert signing((old, new), office.clock()) == old
    office.clock.advance(2 * DAY)
    await authority.renew()
    assert signing(authority._authorities, office.clock()) == new


async def test_of_two_that_start_at_once_both_use_the_same() -> None:
    office = Office()
    office.api.fail(f"create secrets {SECRET}", Conflict("somebody was first"), applied=True)
    one = await office.started()
    other = await office.started()
    assert one._authorities == other._authorities


async def test_a_secret_that_holds_nonsense_is_replaced() -> None:
    office = Office()
    metadata = {"name": SECRET, "namespace": "berth-system"}
    office.api.put(SECRETS, {"metadata": metadata, "data": {"0.crt": "bm9uc2Vuc2U=", "x": "eA=="}})
    authority = await office.started()
    found = office.api.find(SECRETS, SECRET, "berth-system")
    assert found is not None
    assert from_data(found["data"]) == authority._authorities


async def test_a_running_server_takes_a_new_certificate_without_a_restart() -> None:
    office = Office()
    office.clock.now = time.time()  # which the ssl module goes by
    authority = await office.started()
    office.clock.advance(-8 * DAY)
    authority._issue()
    trusted = bundle(authority._authorities)
    with pytest.raises(ssl.SSLError, match="expired"):
        handshake(authority.context, trusted)
    office.clock.advance(8 * DAY)
    await authority.renew()
    handshake(authority.context, trusted)
