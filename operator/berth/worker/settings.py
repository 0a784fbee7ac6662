"""What the environment says, by docs/checkpoints.md."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from berth.worker.schedule import UNKNOWN_MTBF_SECONDS

log = logging.getLogger("berth.worker")


@dataclass(frozen=True)
class Settings:
    """Where to save, what to resume from, how often, and whom to tell."""

    folder: Path | None = None  # CHECKPOINT_DIR; None: nothing is saved
    resume_from: tuple[Path, ...] = ()  # RESUME_FROM, newest attempt first
    interval_seconds: float | None = None  # CHECKPOINT_INTERVAL; None: automatic
    mtbf_seconds: float = UNKNOWN_MTBF_SECONDS  # CHECKPOINT_MTBF_SECONDS
    grace_seconds: float | None = None  # CHECKPOINT_GRACE_SECONDS; None: unknown
    rank: int = 0
    local_rank: int = 0
    server_url: str = ""  # KUBEFLOW_TRAINER_SERVER_URL; "": nobody is told
    server_ca: Path | None = None  # KUBEFLOW_TRAINER_SERVER_CA_CERT, a file
    server_token: Path | None = None  # KUBEFLOW_TRAINER_SERVER_TOKEN, a file

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Settings:
        """The settings of an environment. What is no number is named in the log, and left out.

        >>> Settings.of({"CHECKPOINT_DIR": "/c/3", "RESUME_FROM": "/c/2:/c/1"}).resume_from
        (PosixPath('/c/2'), PosixPath('/c/1'))
        """
        interval = environ.get("CHECKPOINT_INTERVAL", "auto")
        folder = environ.get("CHECKPOINT_DIR", "")
        ca, token = (environ.get(f"KUBEFLOW_TRAINER_SERVER_{name}", "") for name in ("CA_CERT", "TOKEN"))
        return cls(
            folder=Path(folder) if folder else None,
            resume_from=tuple(Path(part) for part in environ.get("RESUME_FROM", "").split(":") if part),
            interval_seconds=None if interval in ("", "auto") else _seconds(environ, "CHECKPOINT_INTERVAL"),
            mtbf_seconds=_seconds(environ, "CHECKPOINT_MTBF_SECONDS") or UNKNOWN_MTBF_SECONDS,
            grace_seconds=_seconds(environ, "CHECKPOINT_GRACE_SECONDS"),
            rank=_whole(environ, "RANK"),
            local_rank=_whole(environ, "LOCAL_RANK"),
            server_url=environ.get("KUBEFLOW_TRAINER_SERVER_URL", ""),
            server_ca=Path(ca) if ca else None,
            server_token=Path(token) if token else None,
        )


def _seconds(environ: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(environ.get(name) or "nan")
    except ValueError:
        value = -1.0
    if math.isnan(value):
        return None
    if value <= 0 or math.isinf(value):
        log.warning("%s=%s is no number of seconds above 0: it is left out", name, environ[name])
        return None
    return value


def _whole(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name, "")
    return int(value) if value.isdigit() else 0
