"""Engines: the only place where weights are loaded and run; task threads submit, an engine thread computes."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress

# llama.cpp's OpenMP threads otherwise spin while they wait, which slows them several times over wherever another
# process wants a core. It counts only when set before the library loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# CUDA builds of llama.cpp crash at model load where numpy was imported first, so it comes before all else here.
# Where it is not installed, `llama_api` says so when a model is asked for; the fake engine works without it.
with suppress(ImportError):
    importlib.import_module("llama_cpp")
