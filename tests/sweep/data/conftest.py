"""What every data set's tests need."""

import pytest

from sweep.data import load
from sweep.errors import UserError


@pytest.fixture
def refused():
    """Asserts that a data set is refused in one line that matches."""

    def check(name, data_dir, match):
        with pytest.raises(UserError, match=match) as refusal:
            load(name, data_dir)
        assert "\n" not in str(refusal.value)

    return check
