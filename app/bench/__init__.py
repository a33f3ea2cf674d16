"""The benchmark: rivals, metrics, measurements, curves and reports."""
