"""`python -m pixa.models.export`."""

from pixa.models.export.driver import main

main()
