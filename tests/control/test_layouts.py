"""The note that Berth keeps on a node, which anybody may have written."""

from __future__ import annotations

import pytest

from berth.control.layouts import Note, note_from
from berth.model.gpus import model_of_product

H100 = model_of_product("NVIDIA-H100-80GB-HBM3")


@pytest.mark.parametrize(
    "text",
    ["no JSON", "[]", '{"laid": {"0": NaN}}', '{"trouble": {"times": 1, "until": 1e999, "why": "for ever"}}'],
)
def test_a_note_that_states_no_moment_says_nothing(text: str) -> None:
    assert note_from(text, H100) == Note()
