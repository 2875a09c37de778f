"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# An example is not wrong for being slow: how long it takes is the machine's affair, and Hypothesis gives it 200 ms.
settings.register_profile("meshcron", deadline=None)
settings.load_profile("meshcron")
