"""The few llama.cpp functions that the engines use, behind typed signatures that are checked when first loaded.

llama-cpp-python's ctypes bindings follow llama.cpp, whose functions and structures change between releases; a change in
what is used here is found at start-up and named, instead of crashing later.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import threading
from functools import cache
from pathlib import Path
from typing import Any, Final

from services.errors import ModelError, Transient

log = logging.getLogger("casemill.llama")

_FUNCTIONS: Final = {
    "llama_backend_init": 0,
    "llama_supports_gpu_offload": 0,
    "llama_log_set": 2,
    "llama_model_default_params": 0,
    "llama_context_default_params": 0,
    "llama_model_load_from_file": 2,
    "llama_model_free": 1,
    "llama_init_from_model": 2,
    "llama_free": 1,
    "llama_model_get_vocab": 1,
    "llama_model_n_ctx_train": 1,
    "llama_model_n_embd": 1,
    "llama_model_meta_val_str": 4,
    "llama_model_has_encoder": 1,
    "llama_model_has_decoder": 1,
    "llama_vocab_n_tokens": 1,
    "llama_vocab_bos": 1,
    "llama_vocab_eos": 1,
    "llama_vocab_is_eog": 2,
    "llama_vocab_get_attr": 2,
    "llama_tokenize": 7,
    "llama_token_to_piece": 6,
    "llama_get_memory": 1,
    "llama_memory_seq_rm": 4,
    "llama_memory_seq_pos_min": 2,
    "llama_memory_clear": 2,
    "llama_state_seq_get_size": 2,
    "llama_state_seq_get_data": 4,
    "llama_state_seq_set_data": 4,
    "llama_decode": 2,
    "llama_get_logits": 1,
    "llama_get_embeddings": 1,
    "llama_get_embeddings_seq": 2,
    "llama_set_sampler": 3,
    "llama_sampler_init": 2,
    "llama_sampler_chain_init": 1,
    "llama_sampler_chain_add": 2,
    "llama_sampler_free": 1,
    "llama_get_sampled_logits_ith": 2,
    "llama_get_sampled_logits_count_ith": 2,
    "llama_get_sampled_candidates_ith": 2,
    "llama_n_ctx_seq": 1,
}
_MODEL_FIELDS: Final = {"n_gpu_layers", "check_tensors", "use_extra_bufts", "no_alloc", "load_mode"}
_CONTEXT_FIELDS: Final = {
    "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_outputs_max", "n_threads", "n_threads_batch", "embeddings",
    "n_outputs_max_per_seq", "kv_unified", "pooling_type", "swa_full", "type_k", "type_v", "flash_attn_type",
    "samplers", "n_samplers",
}  # fmt: skip
# Names of values in llama.cpp's enumerations, read from the binding so that a renumbering does no harm.
_CONSTANTS: Final = (
    "GGML_TYPE_F16", "GGML_TYPE_Q8_0", "LLAMA_FLASH_ATTN_TYPE_AUTO", "LLAMA_FLASH_ATTN_TYPE_DISABLED",
    "LLAMA_FLASH_ATTN_TYPE_ENABLED", "LLAMA_LOAD_MODE_NONE",
)  # fmt: skip
_SAMPLER_FIELDS: Final = {"name", "apply", "backend_init", "backend_apply", "backend_reset"}
_BATCH_FIELDS: Final = ["n_tokens", "token", "embd", "pos", "n_seq_id", "seq_id", "logits"]
_LOG_LEVELS: Final = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING}

POOL_NONE: Final = 0
POOL_MEAN: Final = 1
# ggml's numbers for a GPU of its own memory and for one that shares the processor's.
_GPU_DEVICES: Final = (1, 2)

_start = threading.Lock()
_keep: list[Any] = []


@cache
def _checked() -> Any:
    try:
        native: Any = importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise ModelError(
            "llama-cpp-python is not installed: `uv sync --extra worker` builds it (a C++ compiler is needed).",
            code="engine_missing",
        ) from error
    except (OSError, RuntimeError) as error:
        raise ModelError(f"llama.cpp's library does not load: {error}. Reinstall it.", code="engine_missing") from error
    wrong = [
        name
        for name, count in _FUNCTIONS.items()
        if len(getattr(getattr(native, name, None), "argtypes", None) or ()) != count or not hasattr(native, name)
    ]
    for name, fields in (
        ("llama_model_params", _MODEL_FIELDS),
        ("llama_context_params", _CONTEXT_FIELDS),
        ("llama_sampler_i", _SAMPLER_FIELDS),
    ):
        there = {field[0] for field in getattr(native, name)._fields_}
        wrong += [f"{name}.{field}" for field in sorted(fields - there)]
    if [field[0] for field in native.llama_batch._fields_] != _BATCH_FIELDS:
        wrong.append("llama_batch")
    wrong += [name for name in _CONSTANTS if not isinstance(getattr(native, name, None), int)]
    if wrong:
        raise ModelError(
            f"This llama-cpp-python does not fit Casemill ({', '.join(wrong)} differ): install the version in uv.lock.",
            code="engine_missing",
        )

    @native.llama_log_callback
    def to_log(level: int, text: bytes, _data: object) -> None:
        if level in _LOG_LEVELS and log.isEnabledFor(_LOG_LEVELS[level]):
            log.log(_LOG_LEVELS[level], "%s", text.decode("utf-8", "replace").rstrip())

    # llama.cpp keeps the callback's address, so the object must live as long as the process.
    _keep.append(to_log)
    native.llama_log_set(to_log, ctypes.c_void_p(0))
    native.llama_backend_init()
    return native


def native_llama() -> Any:
    """The checked ``llama_cpp.llama_cpp`` module. Raises ``ModelError`` ``engine_missing``."""
    with _start:
        return _checked()


def _devices() -> list[tuple[int, int]] | None:
    """The devices of ggml and their kinds; ``None`` where this build cannot tell."""
    library: Any = getattr(native_llama(), "_lib", None)
    try:
        count, get, kind = (getattr(library, f"ggml_backend_dev_{name}") for name in ("count", "get", "type"))
    except AttributeError:
        return None
    count.restype, get.restype, kind.restype = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    get.argtypes, kind.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    return [(device, kind(device)) for device in map(get, range(count()))]


def gpus() -> list[int] | None:
    """The GPUs that this process sees, as ``ggml_backend_dev_t``; ``None`` where this build cannot tell."""
    devices = _devices()
    return None if devices is None else [device for device, kind in devices if kind in _GPU_DEVICES]


def free_gpu_memory() -> int | None:
    """Bytes free on the GPUs that this process sees, 0 without one; ``None`` where this build cannot tell."""
    found = gpus()
    if found is None:
        return None
    memory: Any = native_llama()._lib.ggml_backend_dev_memory
    memory.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)]
    memory.restype = None
    together = 0
    for device in found:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        together += free.value
    return together


class LlamaModel:
    """Loaded weights and their vocabulary. Tokenizing is safe from any thread; close it after its contexts."""

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int,
        check_tensors: bool = False,
        extra_buffers: bool = True,
        weightless: bool = False,
    ) -> None:
        """Load ``path``. Raises ``ModelError`` ``model_damaged`` where llama.cpp refuses it.

        ``extra_buffers`` lets llama.cpp repack weights for the CPU's own matrix instructions. ``weightless`` reads the
        header and the vocabulary alone, to tokenize or to learn what contexts would take.
        """
        self._native = native_llama()
        params = self._native.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.check_tensors = check_tensors
        params.use_extra_bufts = extra_buffers
        if weightless:
            params.no_alloc = True
            params.load_mode = self._native.LLAMA_LOAD_MODE_NONE
        self._model: Any = self._native.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ModelError(
                f"llama.cpp cannot load {path.name}: the file is damaged, or its architecture is unknown to this "
                f"version. Compare its sha256, then fetch it again.",
                code="model_damaged",
            )
        self.vocab: Any = self._native.llama_model_get_vocab(self._model)
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self.vocab_size = int(self._native.llama_vocab_n_tokens(self.vocab))
        self.context_tokens = int(self._native.llama_model_n_ctx_train(self._model))
        self.dimensions = int(self._native.llama_model_n_embd(self._model))
        self.bos = int(self._native.llama_vocab_bos(self.vocab))
        self.eos = int(self._native.llama_vocab_eos(self.vocab))
        self.encoder_only = bool(
            self._native.llama_model_has_encoder(self._model) and not self._native.llama_model_has_decoder(self._model)
        )

    @property
    def pooling(self) -> int:
        """How the model makes one vector of a text's, such as ``POOL_MEAN``; ``POOL_NONE`` where it says nothing."""
        arch = self._metadata("general.architecture")
        return int(self._metadata(f"{arch}.pooling_type") or POOL_NONE)

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = int(self._native.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer)))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else ""

    @property
    def handle(self) -> Any:
        """llama.cpp's pointer."""
        if not self._model:
            raise Transient("The model was closed; try again.", code="engine_closed")
        return self._model

    def tokenize(self, text: str, *, special: bool, start: bool) -> list[int]:
        """Token ids of ``text``. ``start`` adds what a prompt begins (and ends) with, where the model asks for it.

        ``special`` reads control tokens written out in the text; without it they are plain text, as in documents.
        """
        self.handle  # noqa: B018 - raises where closed
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            buffer = (ctypes.c_int32 * room)()
            count = int(self._native.llama_tokenize(self.vocab, data, len(data), buffer, room, start, special))
            if count >= 0:
                return buffer[:count]
            room = -count

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of ``token``, which may be a part of a character; control tokens have some only if ``special``."""
        # Remembered: a call gives up the interpreter's lock, which a busy process takes long to give back.
        known = None if special else self._pieces.get(token)
        if known is not None:
            return known
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = int(self._native.llama_token_to_piece(self.vocab, token, buffer, room, 0, special))
            if count >= 0:
                break
            room = -count
        piece = buffer.raw[:count]
        if not special:
            self._pieces[token] = piece
        return piece

    def is_control(self, token: int) -> bool:
        """Whether ``token`` is no text: a control token, or an added one that is spelled like one."""
        attributes = int(self._native.llama_vocab_get_attr(self.vocab, token))
        added = attributes & int(self._native.LLAMA_TOKEN_ATTR_USER_DEFINED)
        if added:
            spelled = self.piece(token, special=True)
            return spelled.startswith(b"<") and spelled.endswith(b">")
        return bool(attributes & int(self._native.LLAMA_TOKEN_ATTR_CONTROL))

    @property
    def tokenize_address(self) -> int:
        """Address of llama.cpp's ``llama_tokenize``, for libraries that call it themselves."""
        return int(ctypes.cast(self._native.llama_tokenize, ctypes.c_void_p).value or 0)

    def ends(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""
        known = self._ends.get(token)
        if known is None:
            known = self._ends[token] = bool(self._native.llama_vocab_is_eog(self.vocab, token))
        return known

    def close(self) -> None:
        """Free the weights."""
        if self._model:
            model, self._model = self._model, None
            self._native.llama_model_free(model)
