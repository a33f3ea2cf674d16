"""`python -m pixa.app.bench`."""

import sys

from pixa.app.bench.pictures import main

sys.exit(main())
