"""Every setting, read once at the start: defaults, then ``.env``, then the environment.

Only app, supervisor and cli import this; inside, everything gets values. ``env.example`` lists
the same.
"""

from booking_worker.config.explain import Explained, explain
from booking_worker.config.settings import Settings, Source, load

__all__ = ["Explained", "Settings", "Source", "explain", "load"]
