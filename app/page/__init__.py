"""The Gradio page; everything that can be told without it lies in `pixa.app`."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # what is set here is read when the libraries are imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("SVT_LOG", "1")  # errors only
