"""Certificate authorities of the progress endpoint, and the certificates that they sign. Pure but for the keys."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = 86400.0
AUTHORITY_SECONDS = 365 * DAY  # that an authority is valid
RENEW_SECONDS = 240 * DAY  # a new one is made when the newest is that old
PUBLISHED_SECONDS = DAY  # before a new one signs, so that every running job has its certificate: kubelets take minutes
SERVER_SECONDS = 7 * DAY  # that the server's certificate is valid; it is made anew every day, and at every start
SKEW_SECONDS = 3600.0  # that clocks of nodes may be behind


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    @property
    def made(self) -> float:
        """When it was made, in seconds since the epoch."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_before_utc.timestamp() + SKEW_SECONDS


def new_authority(now: float) -> Authority:
    """An authority of its own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Berth progress endpoint, {datetime.fromtimestamp(now, UTC):%Y-%m-%d}")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _certificate(name, name, key.public_key(), now, AUTHORITY_SECONDS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True).add_extension(identifier, critical=False)
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def rotated(authorities: Sequence[Authority], now: float) -> tuple[Authority, ...]:
    """Those still valid, oldest first, with a new one where the newest grows old."""
    valid = sorted((a for a in authorities if now < a.made + AUTHORITY_SECONDS), key=lambda a: a.made)
    if not valid or now >= valid[-1].made + RENEW_SECONDS:
        valid.append(new_authority(now))
    return tuple(valid)


def signing(authorities: Sequence[Authority], now: float) -> Authority:
    """The one that signs: the newest that has been known to all for a day, else the oldest."""
    known = [a for a in authorities if now >= a.made + PUBLISHED_SECONDS]
    return known[-1] if known else authorities[0]


def bundle(authorities: Sequence[Authority]) -> str:
    """The certificates of all: what clients are to trust."""
    return "".join(a.certificate.decode() for a in authorities)


def issue(authority: Authority, hosts: Sequence[str], now: float) -> bytes:
    """A server's certificate for these names, and its key, as one PEM."""
    root = x509.load_pem_x509_certificate(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = _certificate(_name("berth-progress"), root.subject, key.public_key(), now, SERVER_SECONDS)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(above, critical=False)
    return _pem(builder.sign(signer, hashes.SHA256())) + _key_pem(key)


def to_data(authorities: Sequence[Authority]) -> dict[str, str]:
    """A Secret's data."""
    pairs = [(f"{number}.crt", a.certificate) for number, a in enumerate(authorities)]
    pairs += [(f"{number}.key", a.key) for number, a in enumerate(authorities)]
    return {name: base64.b64encode(value).decode() for name, value in pairs}


def from_data(data: Mapping[str, str]) -> tuple[Authority, ...]:
    """The inverse of `to_data`. Raises ValueError or KeyError where it holds anything else."""
    names = sorted(name.removesuffix(".crt") for name in data if name.endswith(".crt"))
    found = [Authority(*(base64.b64decode(data[f"{name}.{kind}"]) for kind in ("crt", "key"))) for name in names]
    return tuple(sorted(found, key=lambda a: a.made))


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, seconds: float
) -> x509.CertificateBuilder:
    begins = datetime.fromtimestamp(now - SKEW_SECONDS, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(seconds=seconds + SKEW_SECONDS))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
