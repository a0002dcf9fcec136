"""Where the bundled program begins; `python -m sidecar` is its twin."""

import sys

from sidecar.cli import main

sys.exit(main())
