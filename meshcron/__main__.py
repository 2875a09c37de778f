"""`python -m meshcron` is `meshcron`."""

from __future__ import annotations

from meshcron.cli import main

if __name__ == "__main__":
    main()
