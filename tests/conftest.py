"""Property tests run without a deadline: a slow machine is no failure. Commands print as into a file of 80 columns."""

import os

from hypothesis import settings

settings.register_profile("berth", deadline=None)
settings.load_profile("berth")

for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH", "TTY_COMPATIBLE"):
    os.environ.pop(name, None)  # these would have rich and typer print as onto a terminal
os.environ["COLUMNS"] = "80"
