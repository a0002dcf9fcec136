"""Where the bundled program begins; `python -m sidecar` is its twin."""

import gc
import sys

# Python looks for garbage after every 700 new objects. While our modules load there is none, and
# looking takes a tenth of the time.
gc.set_threshold(10_000)

from sidecar.cli import main  # noqa: E402

sys.exit(main())
