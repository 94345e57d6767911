"""The ids that stand in all examples: what a path parameter of this name looks like."""

from __future__ import annotations

from typing import Final

EXAMPLE_IDS: Final[dict[str, str]] = {
    "document_id": "doc_7f3c9a1be04d52c86e17a9f0b3d4c5e68a90717f6b2c3d4e5f60718293a4b5c6",
    "other_document_id": "doc_18e2b7d95a6c40f3b1d28e7c905f4a6b3c2d1e0f98a7b6c5d4e3f2a1b0c9d8e7",
    "job_id": "job_019a3f6be2404c1d9e5b7a80f2c3d4e5",
    "failed_job_id": "job_019a3f6be31172b8c05d9e4f1a6b7c8d",
    "run_id": "run_019a3f6be5a2b0c94d7e81f3a25c6d70",
    "schedule_id": "sch_019a3f6be6d3a5f27c8b904e1d6f3a52",
    "webhook_id": "wh_019a3f6be8149d0c7b5a6f2e3c81d4b9",
    "delivery_id": "dlv_5d0c7b1e9a3f48269c84b7e2d1f06a35",
    "file_id": "file-019a3f6bea559c3d8e7f60a1b2c4d5e6",
    "batch_id": "batch_019a3f6beb7e5a4c9d1b8f2e3a6c7d80",
    "key_id": "4be1d09a7c53",
    "playbook": "lease",
    "matter": "M-2041",
    "model_id": "qwen2.5-1.5b-instruct-q4-k-m",
    "embedding_model_id": "all-minilm-l6-v2",
    "kind": "documents",
}
