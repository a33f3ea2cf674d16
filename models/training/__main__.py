"""`python -m pixa.models.training`."""

import sys

from pixa.models.training.program import main

sys.exit(main())
