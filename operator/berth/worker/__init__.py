"""What training code imports: progress, saves on time, requests and resuming, by docs/checkpoints.md.

Standard library only. It works outside Berth too: what the environment does not say is left out.

    from berth.worker import Worker

    with Worker() as berth:
        found = berth.resume()
        first = load(found.path) if found else 1
        for step in range(first, last + 1):
            loss = train(step)
            berth.step(step, save, total=last, metrics={"loss": loss})  # save(folder) writes files into it
"""

from __future__ import annotations

from berth.worker.loop import EXIT_SAVED, EXIT_UNSAVED, Wish, Worker
from berth.worker.manifest import Manifest
from berth.worker.resume import Checkpoint, newest
from berth.worker.store import SaveFailed, Store

__all__ = ["EXIT_SAVED", "EXIT_UNSAVED", "Checkpoint", "Manifest", "SaveFailed", "Store", "Wish", "Worker", "newest"]
