"""What memory a model may take now: of the setting what others have left, or of what the device has free."""

from __future__ import annotations

from typing import Final

import psutil

from services.settings import Settings
from workers.engines.llama_api import free_gpu_memory
from workers.engines.plan import MARGIN_BYTES, Budget

# Main memory is shared with readers, the queue and the system, so a part of what is free stays free.
_HOST_PART: Final = 4
_UNKNOWN: Final = 2**62


def budget_of(settings: Settings, *, gpu: bool, held: int, loading: int) -> Budget:
    """The budget of one more model.

    ``held`` bytes belong to all engines of this process, ``loading`` of them are promised and not yet taken.
    """
    free = int(psutil.virtual_memory().available)
    margin = max(MARGIN_BYTES, free // _HOST_PART)
    if not gpu:
        if settings.memory_bytes is not None:
            return Budget(host=settings.memory_bytes - held)
        return Budget(host=free - loading, host_margin=margin)
    if settings.memory_bytes is not None:
        return Budget(max(1, settings.memory_bytes - held), free, host_margin=margin)
    there = free_gpu_memory()
    known = _UNKNOWN if there is None else there - loading
    return Budget(max(1, known), free, MARGIN_BYTES, margin)
