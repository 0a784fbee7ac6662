"""Metadata services of clouds: what each says of the machine that it is asked from.

None of them is asked through a proxy or by a name: they answer on a link-local address, to this machine alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import aiohttp

from berth.adapters.metadata import aws, azure, gce
from berth.adapters.metadata.service import Service
from berth.control.notices import Notices
from berth.control.ports import Clock

ADDRESS = "http://169.254.169.254"  # of all three


class Cloud(StrEnum):
    """A cloud whose metadata service announces the end of a machine."""

    AWS = "aws"
    GCE = "gce"
    AZURE = "azure"


def cloud_of(provider_id: str) -> Cloud | None:
    """The cloud that a Node's spec.providerID names; None: another one, or none.

    >>> cloud_of("aws:///eu-west-1a/i-0123456789abcdef0"), cloud_of("kind://podman/berth/berth-worker")
    (<Cloud.AWS: 'aws'>, None)
    """
    return next((cloud for cloud in Cloud if provider_id.startswith(f"{cloud}://")), None)


def notices(cloud: Cloud, session: aiohttp.ClientSession, clock: Clock, address: str = ADDRESS) -> Sequence[Notices]:
    """What to listen to in a cloud."""
    service = Service(session, address.rstrip("/"))
    if cloud is Cloud.AWS:
        return aws.notices(service, clock)
    return gce.notices(service, clock) if cloud is Cloud.GCE else azure.notices(service, clock)
