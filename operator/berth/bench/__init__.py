"""Replays of public traces: comparators beside Berth's own packer. Of the programs, the command alone uses it."""
