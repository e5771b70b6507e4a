"""``python -m storagering``."""

import sys

from storagering.cli import main

sys.exit(main())
