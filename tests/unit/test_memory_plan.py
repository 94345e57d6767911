"""What a model takes of memory by its header, and how it is loaded into a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.errors import ModelError
from services.gguf_header import GgufHeader, read_header
from tests.shaped_model import GEMMA_4B, LLAMA_8B, QWEN_7B, write_shaped_model
from workers.engines.dry_run import read_log
from workers.engines.memory import Shape, cache_bytes, memory_of
from workers.engines.plan import Budget, Wish, plan_context

GIB = 2**30
MIB = 2**20


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GgufHeader]:
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {"llama": LLAMA_8B, "gemma": GEMMA_4B, "qwen": QWEN_7B}
    return {name: read_header(write_shaped_model(folder / f"{name}.gguf", shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("model", "shape", "mib"),
    [
        ("llama", Shape(4096, 1, 512, 1), 512.0),
        ("llama", Shape(65536, 16, 512, 16), 8192.0),
        ("llama", Shape(65536, 16, 512, 16, "q8_0"), 4352.0),
        ("llama", Shape(16384, 16, 512, 16, "q8_0", unified=True), 1088.0),
        ("gemma", Shape(65536, 16, 512, 16), 4064.0),
        ("gemma", Shape(65536, 16, 512, 16, "q8_0"), 2159.0),
        ("gemma", Shape(65536, 16, 512, 16, unified=True), 3194.0),
        ("gemma", Shape(65536, 16, 128, 16), 3600.0),
        ("qwen", Shape(131072, 4, 512, 4), 7168.0),
    ],
)
def test_the_cache_is_what_llama_cpp_reserves(
    headers: dict[str, GgufHeader], model: str, shape: Shape, mib: float
) -> None:
    """The figures are llama.cpp's own, by a dry run of release 0.3.36 of the binding."""
    assert cache_bytes(headers[model], shape) == mib * MIB


def test_layers_move_from_the_end_and_take_their_cache_along(headers: dict[str, GgufHeader]) -> None:
    header = headers["llama"]
    whole = memory_of(header, Shape(4096, 1, 512, 1))[1]
    for layers in (1, 9, 33, -1):
        gpu, host = memory_of(header, Shape(4096, 1, 512, 1, gpu_layers=layers))
        moved = 32 if layers == -1 else layers - 1
        assert gpu.weights + host.weights == whole.weights == header.tensor_bytes
        assert gpu.weights == header.output_bytes + moved * header.layer_bytes[31]
        assert (gpu.cache, host.cache) == (moved * whole.cache // 32, (32 - moved) * whole.cache // 32)


def test_a_tied_output_is_there_twice_once_it_moves(headers: dict[str, GgufHeader]) -> None:
    header = headers["gemma"]
    gpu, host = memory_of(header, Shape(4096, 1, 512, 1, gpu_layers=-1))
    assert gpu.weights + host.weights == header.tensor_bytes + header.input_bytes


@pytest.mark.parametrize(
    ("model", "gib", "expected"),
    [
        ("llama", 141, (-1, 16, "f16", 2048)),
        ("llama", 12, (-1, 16, "q8_0", 2048)),
        ("llama", 8, (-1, 8, "q8_0", 2048)),
        ("gemma", 6, (-1, 16, "q8_0", 1024)),
        ("qwen", 12, (-1, 16, "f16", 2048)),
    ],
)
def test_a_step_and_then_precision_give_way_before_sequences(
    headers: dict[str, GgufHeader], model: str, gib: int, expected: tuple[int, int, str, int]
) -> None:
    plan = plan_context(headers[model], Wish(4096, 16), Budget(gib * GIB, 32 * GIB, gpu_margin=GIB))
    assert (plan.gpu_layers, plan.sequences, plan.kv_type, plan.batch) == expected
    assert (plan.tokens, plan.unified, plan.cells) == (4096, False, 4096 * plan.sequences)
    assert plan.total_bytes + plan.margin_bytes <= gib * GIB


def test_layers_move_to_main_memory_at_last(headers: dict[str, GgufHeader]) -> None:
    plan = plan_context(headers["llama"], Wish(4096, 16), Budget(4 * GIB, 32 * GIB, gpu_margin=GIB))
    assert 10 < plan.gpu_layers < 33
    assert plan.sequences == 4
    assert plan.total_bytes <= 3 * GIB
    assert plan.host_bytes > GIB
    more = plan_context(headers["llama"], Wish(4096, 16), Budget(5 * GIB, 32 * GIB, gpu_margin=GIB))
    assert more.gpu_layers > plan.gpu_layers
    none = plan_context(headers["llama"], Wish(4096, 16), Budget(GIB // 2, 32 * GIB, gpu_margin=GIB))
    assert (none.gpu_layers, none.sequences, none.host_bytes) == (0, 16, 0)


def test_sequences_share_a_cache_only_where_that_is_allowed(headers: dict[str, GgufHeader]) -> None:
    budget = Budget(8 * GIB, 32 * GIB, gpu_margin=GIB)
    shared = plan_context(headers["llama"], Wish(4096, 16, shared=True), budget)
    assert (shared.unified, shared.sequences, shared.cells, shared.tokens) == (True, 16, 32768, 4096)
    assert not plan_context(headers["llama"], Wish(4096, 16), budget).unified


def test_what_was_asked_for_is_kept(headers: dict[str, GgufHeader]) -> None:
    roomy = Budget(141 * GIB, 64 * GIB)
    assert plan_context(headers["llama"], Wish(4096, 16, kv_type="q8_0"), roomy).kv_type == "q8_0"
    assert plan_context(headers["llama"], Wish(4096, 16, gpu_layers=5), roomy).gpu_layers == 5
    assert plan_context(headers["llama"], Wish(4096, 16, gpu_layers=0), roomy).gpu_layers == 0
    assert plan_context(headers["qwen"], Wish(10**6, 2), roomy).tokens == QWEN_7B.context
    slow = plan_context(headers["llama"], Wish(4000, 4), Budget())
    assert (slow.gpu_layers, slow.tokens, slow.sequences, slow.batch) == (0, 4096, 4, 32)


def test_q8_0_is_only_for_heads_that_fill_its_blocks(tmp_path: Path) -> None:
    odd = read_header(write_shaped_model(tmp_path / "odd.gguf", replace(LLAMA_8B, head_width=80)))
    assert plan_context(odd, Wish(4096, 16), Budget(12 * GIB, gpu_margin=GIB)).kv_type == "f16"
    with pytest.raises(ModelError) as caught:
        plan_context(odd, Wish(4096, 16, kv_type="q8_0"), Budget(141 * GIB))
    assert caught.value.code == "kv_type_unfit"


def test_what_is_left_of_the_budget_is_told(headers: dict[str, GgufHeader]) -> None:
    plan = plan_context(headers["llama"], Wish(4096, 16), Budget(24 * GIB, gpu_margin=GIB))
    assert plan.spare_bytes == 23 * GIB - plan.total_bytes
    less = plan_context(headers["llama"], Wish(4096, 16), Budget(24 * GIB, gpu_margin=GIB).less(GIB, gpu=True))
    assert less.spare_bytes == plan.spare_bytes - GIB
    assert plan_context(headers["llama"], Wish(4096, 16), Budget(host=32 * GIB)).spare_bytes > 0


def test_what_cannot_fit_says_what_it_needs(headers: dict[str, GgufHeader]) -> None:
    with pytest.raises(ModelError) as caught:
        plan_context(headers["llama"], Wish(4096, 16), Budget(2 * GIB, 2 * GIB))
    assert caught.value.code == "memory_exceeded"
    assert "at least 4.5 GiB" in caught.value.detail
    assert "4.0 GiB are there" in caught.value.detail


def test_a_log_is_read_by_place() -> None:
    lines = [
        "llama_context:  CUDA_Host  output buffer size =    16.00 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =     0.00 MiB",
        "llama_kv_cache: size =  192.00 MiB (  4096 cells,   3 layers, 16/16 seqs), K (f16):   96.00 MiB",
        "llama_kv_cache: size =  240.50 MiB (  1024 cells,  15 layers, 16/16 seqs), K (f16):  120.00 MiB",
        "sched_reserve:      CUDA0 compute buffer size =    22.50 MiB",
        "sched_reserve:  CUDA_Host compute buffer size =     6.25 MiB",
    ]
    found = read_log(lines)
    assert (found.cache, found.gpu_compute) == (432.5 * MIB, 22.5 * MIB)
    assert (found.host_compute, found.outputs) == (6.25 * MIB, 16 * MIB)


def test_hostile_numbers_end_in_an_answer_or_a_refusal(tmp_path: Path) -> None:
    header = read_header(write_shaped_model(tmp_path / "x.gguf", LLAMA_8B))
    for key, value in (("attention.head_count", 0), ("context_length", 2**64 - 1), ("attention.key_length", -(2**31)),
                       ("feed_forward_length", 2**64 - 1), ("attention.head_count_kv", float("nan"))):  # fmt: skip
        header.metadata[f"llama.{key}"] = value
        try:
            plan = plan_context(header, Wish(4096, 16), Budget(8 * GIB, 8 * GIB))
            assert plan.total_bytes >= 0
        except ModelError as error:
            assert error.code == "memory_exceeded"
