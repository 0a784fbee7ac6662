"""What can go wrong with a cluster for tests.

ClusterError
└── BuildError    (binaries) a program could not be built
"""

from __future__ import annotations


class ClusterError(Exception):
    """A cluster could not be made, reached or removed; the message says why, with the log's tail if there is one."""


class BuildError(ClusterError):
    """A program of the cluster could not be built; the message says what to do or ends with the log's tail."""
