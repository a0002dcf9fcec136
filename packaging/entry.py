"""Where the bundled program begins; `python -m sidecar` is its twin."""

import sys

import held_archive

held_archive.hold()

from sidecar.cli import main  # noqa: E402

sys.exit(main())
