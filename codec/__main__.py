"""`python -m pixa`."""

import sys

from pixa.cli.program import main

sys.exit(main())
