"""Programs on the public API. They tell nobody what they do, and leave no file behind that was not asked for."""

import os
import tempfile

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # of huggingface_hub, which Gradio imports
if "MPLCONFIGDIR" not in os.environ:  # where matplotlib keeps its list of fonts: otherwise in the home folder
    FONTS = tempfile.TemporaryDirectory(prefix="pixa-fonts-")
    os.environ["MPLCONFIGDIR"] = FONTS.name
