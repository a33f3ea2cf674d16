"""`python -m pixa.native` compiles the kernels in place."""

from pixa.native.build import build

print(build())
