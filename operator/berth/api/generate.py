"""Writes the CustomResourceDefinitions: `python -m berth.api.generate crds/`; `--check` tells if they are stale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from berth.api.crd import GROUP
from berth.api.gpu_node import GPU_NODE
from berth.api.inference_service import INFERENCE_SERVICE
from berth.api.queue import QUEUE
from berth.api.training_job import TRAINING_JOB

RESOURCES = (TRAINING_JOB, INFERENCE_SERVICE, QUEUE, GPU_NODE)
HEADER = "# Generated from the models in operator/berth/api by `make crds`; edit those instead.\n"


def manifests() -> dict[str, str]:
    """File names and their YAML."""
    return {
        f"{GROUP}_{resource.plural}.yaml": HEADER + yaml.dump(resource.definition(), sort_keys=False, width=120)
        for resource in RESOURCES
    }


def stale(folder: Path) -> list[str]:
    """Names of files under `folder` that differ from what the models say, or that no model stands for."""
    wanted = manifests()
    found = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or check them. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the CustomResourceDefinitions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    options = parser.parse_args(arguments)
    if options.check:
        for name in (names := stale(options.folder)):
            print(f"{options.folder / name} is stale: run `make crds`", file=sys.stderr)
        return 1 if names else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, content in manifests().items():
        (options.folder / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
