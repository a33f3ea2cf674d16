"""`python -m pixa.cli`."""

import sys

from pixa.cli.program import main

sys.exit(main())
