"""What a status says is read back, however it was written."""

from __future__ import annotations

import pytest

from berth.control.status import ranks_from


@pytest.mark.parametrize("text", ["0-99999999999", "5-3", "-1", "x", ""])
def test_what_states_no_ranks_is_refused_before_it_fills_the_memory(text: str) -> None:
    with pytest.raises(ValueError, match=r"ranks|invalid literal"):
        ranks_from(text)
