"""The bitstream: container, headers, integer tables, entropy coder. FORMAT.md is its normative description."""
