import os
import re
from pathlib import Path

import pytest

from collect.errors import UserError
from collect.file_lock import take_lock


def test_one_holder_at_a_time_and_closing_releases(tmp_path: Path) -> None:
    path = tmp_path / "job.lock"
    held = take_lock(path)
    with pytest.raises(UserError, match=re.escape(f"Another process is writing {tmp_path}")):
        take_lock(path)
    with pytest.raises(UserError, match=r"^Not now\.$"):
        take_lock(path, "Not now.")
    os.close(held)
    os.close(take_lock(path))
