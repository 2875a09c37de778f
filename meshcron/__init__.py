"""meshcron: cron for a whole LAN, with nothing to configure."""

__version__ = "0.1.0"
