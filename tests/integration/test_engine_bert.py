"""Which encoders onnxruntime computes, and that llama.cpp computes the same, on a small BERT of chance weights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

from services.errors import ModelError, Transient
from services.gguf_header import GgufHeader, Tensor, read_header
from services.models import Model
from workers.engines import bert
from workers.engines.bert import onnxruntime_takes
from workers.engines.convert_minilm import convert_minilm
from workers.engines.embeddings import GgufEmbeddings
from workers.engines.llama_encoder import LlamaEncoder
from workers.engines.onnx_encoder import OnnxEncoder
from workers.engines.plan import Budget, Wish, plan_embedding

LAYERS, HEADS, WIDTH, WIDE, LONGEST = 3, 4, 64, 160, 96
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    chance = np.random.default_rng(7)
    tensors: dict[str, np.ndarray] = {}

    def put(part: str, *shape: int, around: float = 0, within: float = 0.2) -> None:
        tensors[part] = chance.normal(around, within, shape).astype(np.float32)

    def linear(part: str, outputs: int, inputs: int) -> None:
        put(f"{part}.weight", outputs, inputs)
        put(f"{part}.bias", outputs)

    def norm(part: str) -> None:
        put(f"{part}.weight", WIDTH, around=1)
        put(f"{part}.bias", WIDTH, within=0.05)

    for kind, rows in (("word", len(WORDS)), ("position", LONGEST), ("token_type", 2)):
        put(f"embeddings.{kind}_embeddings.weight", rows, WIDTH)
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{at}.attention.self.{part}", WIDTH, WIDTH)
        linear(f"{at}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{at}.attention.output.LayerNorm")
        linear(f"{at}.intermediate.dense", WIDE, WIDTH)
        linear(f"{at}.output.dense", WIDTH, WIDE)
        norm(f"{at}.output.LayerNorm")
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = {
        "num_hidden_layers": LAYERS, "max_position_embeddings": LONGEST, "hidden_size": WIDTH,
        "intermediate_size": WIDE, "num_attention_heads": HEADS, "layer_norm_eps": 1e-5, "type_vocab_size": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    convert_minilm(folder, folder / "bert.gguf")
    return folder / "bert.gguf"


def test_both_libraries_compute_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("bert", "embed", path, "0" * 64, path.stat().st_size, "", "bert", LONGEST, WIDTH, "", "")
    texts = [
        " ".join("abcdefghijklmnopqrstuvwxyz"[start : start + count]) for start in (0, 5, 9) for count in (1, 7, 15, 17)
    ]
    texts += [" ".join("q" * 94), "?", " ".join("zyx" * 20)]
    found = {}
    for kind in (OnnxEncoder, LlamaEncoder):
        if kind is LlamaEncoder:
            monkeypatch.setattr("workers.engines.plan.onnxruntime_takes", lambda _: False)
        engine = GgufEmbeddings.on_cpu(model, threads=2)
        assert isinstance(engine._encoder, kind)
        found[kind] = engine.embed(texts).vectors
        engine.close()
    assert (found[OnnxEncoder] * found[LlamaEncoder]).sum(axis=1).min() > 0.9999
    others = (found[OnnxEncoder] @ found[LlamaEncoder].T)[~np.eye(len(texts), dtype=bool)]
    assert others.max() < 0.999, "texts that cannot be told apart prove nothing"


def without(header: GgufHeader, name: str) -> GgufHeader:
    return replace(header, tensors=tuple(tensor for tensor in header.tensors if tensor.name != name))


def changed(header: GgufHeader, name: str, **values: object) -> GgufHeader:
    return replace(
        header,
        tensors=tuple(replace(each, **values) if each.name == name else each for each in header.tensors),
    )


def saying(header: GgufHeader, key: str, value: int | str | bool) -> GgufHeader:
    return replace(header, metadata={**header.metadata, key: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda header: saying(header, "general.architecture", "nomic-bert"),
        lambda header: saying(header, "bert.pooling_type", 2),
        lambda header: saying(header, "bert.attention.head_count", 0),
        lambda header: saying(header, "bert.attention.head_count", 5),
        lambda header: saying(header, "bert.block_count", 2**60),
        lambda header: replace(saying(header, "bert.block_count", 0), layer_bytes={}),
        lambda header: saying(header, "bert.context_length", LONGEST + 1),
        lambda header: without(header, "blk.1.ffn_up.bias"),
        lambda header: without(header, "token_types.weight"),
        lambda header: changed(header, "token_types.weight", shape=(WIDTH,)),
        lambda header: changed(header, "token_types.weight", shape=(WIDTH, 0)),
        lambda header: saying(header, "bert.attention.causal", True),
        lambda header: replace(header, tensors=(*header.tensors, header.tensors[-1])),
        lambda header: changed(header, "blk.2.ffn_down.weight", kind=1),
        lambda header: changed(header, "blk.0.attn_q.weight", shape=(WIDTH, WIDTH + 1)),
        lambda header: replace(header, tensors=(*header.tensors, Tensor("cls.weight", 0, (WIDTH, WIDTH), 0, 0))),
    ],
)
def test_what_differs_from_the_original_is_left_to_llama_cpp(
    path: Path, change: Callable[[GgufHeader], GgufHeader]
) -> None:
    header = read_header(path)
    assert onnxruntime_takes(header)
    assert not onnxruntime_takes(change(header))


def test_without_the_library_llama_cpp_computes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert._installed.cache_clear()
    monkeypatch.setattr(bert, "_LIBRARIES", ("onnx", "no_such_library"))
    try:
        assert not onnxruntime_takes(read_header(path))
    finally:
        bert._installed.cache_clear()


def test_what_the_library_refuses_says_nothing_of_the_text(path: Path) -> None:
    encoder = OnnxEncoder(path, read_header(path))
    with pytest.raises(Transient, match=r"failed on these texts \(\w+\)\.$") as raised:
        encoder.compute([[2, 123_456, 3]])
    assert raised.value.code == "engine_failed"


def test_the_library_has_nothing_that_sends_telemetry() -> None:
    folder = Path(onnxruntime.__file__).parent
    libraries = [
        file for file in folder.rglob("*") if file.suffix in (".so", ".pyd", ".dll", ".dylib") or ".so." in file.name
    ]
    assert libraries
    assert not [file.name for file in libraries if b"events.data.microsoft.com" in file.read_bytes()]


def test_where_it_does_not_fit_llama_cpp_computes(path: Path) -> None:
    header = read_header(path)
    wish = Wish(tokens=0, sequences=0, gpu_layers=0, cores=64)
    needed = plan_embedding(header, wish, Budget())
    assert needed.library == "onnxruntime"
    assert plan_embedding(header, wish, Budget(host=needed.total_bytes)).library == "onnxruntime"
    assert plan_embedding(header, wish, Budget(host=needed.total_bytes - 1)).library == "llama.cpp"


def test_a_file_of_another_width_than_was_installed_is_refused(path: Path) -> None:
    model = Model("bert", "embed", path, "0" * 64, path.stat().st_size, "", "bert", LONGEST, WIDTH + 1, "", "")
    with pytest.raises(ModelError, match="install it again"):
        GgufEmbeddings.on_cpu(model, threads=1)


def test_a_fault_of_the_engine_itself_reaches_who_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("bert", "embed", path, "0" * 64, path.stat().st_size, "", "bert", LONGEST, WIDTH, "", "")
    engine = GgufEmbeddings.on_cpu(model, threads=1)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(engine.meter, "embedded", lambda *_: 1 / 0)
            until = time.monotonic() + 20
            with pytest.raises(ZeroDivisionError):
                engine.embed(["a"], cancelled=lambda: time.monotonic() > until)
        assert engine.embed(["a"]).vectors.shape == (1, WIDTH), "its thread goes on"
    finally:
        engine.close()
