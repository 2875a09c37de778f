"""HUP: the configuration is read again while the agent runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import structlog

from meshcron.config import KEYS, Config
from meshcron.errors import MeshcronError

RELOADED = frozenset({"tag"})
"""The keys that count at once; all others need a start."""

Tell = Callable[[dict[str, str]], None]
"""What is to be done with new tags."""

log = structlog.get_logger("meshcron")


class Reload:
    """The configuration as it holds, and the way to a newer one."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        """`reread` gives the configuration anew."""
        self._config = config
        self._reread = reread
        self._tell: Tell | None = None
        self._waiting = False

    def start(self, tell: Tell) -> None:
        """There is an agent to tell now; a HUP that came before is done."""
        self._tell = tell
        if self._waiting:
            self.hang_up()

    def hang_up(self) -> None:
        """Read it again. What is wrong with it is said, and changes nothing."""
        if self._tell is None:
            self._waiting = True
            return
        try:
            config = self._reread()
        except MeshcronError as error:
            log.warning("the configuration is wrong, the old one holds", why=str(error))
            return
        self._tell(dict(config.tag))
        differ = (key.name for key in KEYS.values() if self._differs(config, key.attribute))
        need_a_start = [name for name in differ if name not in RELOADED]
        self._config = dataclasses.replace(self._config, tag=config.tag)
        tags = ", ".join(f"{name}={value}" for name, value in sorted(config.tag.items()))
        more = {"need_a_restart": ", ".join(need_a_start)} if need_a_start else {}
        log.info("the configuration was read again", tags=tags, **more)

    def _differs(self, config: Config, attribute: str) -> bool:
        return bool(getattr(config, attribute) != getattr(self._config, attribute))
