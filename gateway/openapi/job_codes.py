"""What each code means that a job can fail with: it stands in the job's ``problem``, and who waits is answered it."""

from __future__ import annotations

from typing import Final

from gateway.openapi.codes import Code

READING: Final[dict[str, Code]] = {
    "document_type_unknown": Code(
        415,
        "The file is of no type that is known.",
        "The file is neither text nor of a type that Casemill knows. It reads PDF, DOCX, EML, RTF, HTML and plain "
        "text: send it as one of these.",
    ),
    "document_type_unsupported": Code(
        415,
        "The file is of a type that is known and not read.",
        'The file is a mailbox with several messages. Save the messages as separate ".eml" files.',
    ),
    "document_encrypted": Code(
        422,
        "The document asks for a password.",
        "The document is encrypted. Remove its password and send it again.",
    ),
    "document_damaged": Code(
        422,
        "The document cannot be taken apart.",
        "The PDF is damaged. Ask for the file again, or open it and save it anew.",
    ),
    "document_empty": Code(422, "The document has no bytes or no text.", "The document holds no text."),
    "document_needs_ocr": Code(
        422,
        "The pages are pictures, and there is no text recognition here.",
        "The PDF is a scan: no page has any text. Run it through OCR (text recognition) and send the result, or "
        "install tesseract on the machines of the workers that read documents.",
    ),
    "document_too_many_pages": Code(
        422,
        "The document has more pages than are read.",
        "The document has 6,200 pages, more than the 5,000 allowed. Split it, or raise CASEMILL_MAX_PAGES.",
    ),
    "document_text_too_long": Code(
        422,
        "The document has more text than is read.",
        "The document holds more than 20,000,000 characters of text. Split it, or raise CASEMILL_MAX_TEXT_CHARS.",
    ),
    "document_expands_too_much": Code(
        422,
        "The file unpacks to far more than a document has.",
        "The document unpacks to far more than a document holds. If it is sound, save it as PDF and send that.",
    ),
    "document_nested_too_deep": Code(
        422, "The message holds messages without end.", "The message nests its parts deeper than any mail program does."
    ),
    "bank_line_invalid": Code(
        422,
        "A clause bank has a line that is no clause.",
        'Line 3 of the clause bank cannot be used: it has no text. Each line is {"id": "…", "text": "…"}.',
    ),
    "document_missing": Code(
        404, "The bytes of the document are gone.", "The document's file is gone. Upload it again."
    ),
    "reader_timeout": Code(
        422,
        "Reading took too long.",
        "Reading the document took longer than 120 s and was stopped. Split it, save it anew, or raise "
        "CASEMILL_READER_SECONDS.",
    ),
    "reader_crashed": Code(
        422,
        "The document made its reader fail.",
        "The program that reads documents failed on this one (signal 11). Open it, save it anew or print it to PDF, "
        "and send that.",
    ),
    "reader_out_of_memory": Code(
        422,
        "The document needs more memory than its reader may have.",
        "The document needs more memory than its reader may have. Split it, or raise CASEMILL_READER_MEMORY_BYTES.",
    ),
}
"""Codes of what reads documents: of ``extract``, and of the first step of other jobs."""

MODELS: Final[dict[str, Code]] = {
    "context_exceeded": Code(
        422,
        "The prompt, or a text, is longer than the model takes.",
        "The prompt has 9120 tokens and the limit is 8192. Shorten it or split it; nothing was cut off.",
    ),
    "token_unknown": Code(
        422, "A token is none of the model's.", "Input 0 has the token 262145; the model's ids go from 0 to 262,143."
    ),
    "model_kind": Code(
        422,
        "The model is for other work.",
        "minilm-l6-v2 is a model to embed, not to generate. `casemill models list` shows the others.",
    ),
    "model_missing": Code(
        422,
        "The model's file is gone.",
        "The file of model gemma3-270m is gone: /models/gemma3-270m.gguf. Put it back or remove and add the model "
        "again.",
    ),
    "model_damaged": Code(
        422, "The model's file is damaged.", "The model gemma3-270m cannot be used: its file is damaged."
    ),
    "model_unusable": Code(
        422, "The model computes nothing of use.", "The model computed no usable number for the next token."
    ),
    "catalog_damaged": Code(
        422,
        "The list of installed models cannot be read.",
        "/models/catalog.json cannot be read (Expecting value). Move it away and add the models again.",
    ),
    "memory_exceeded": Code(
        422,
        "The worker has too little memory for the model.",
        "There is not enough memory for the model's context: lower CASEMILL_SEQUENCES or CASEMILL_CONTEXT_TOKENS.",
    ),
    "memory_busy": Code(
        503,
        "Other models are in use and leave no memory for this one.",
        "There is no memory for gemma3-270m: all loaded models have been in use for 60 s. Try again later, or give "
        "models more memory (CASEMILL_MEMORY_BYTES).",
    ),
    "model_load_timeout": Code(
        503,
        "Loading the model took too long.",
        "Loading gemma3-270m took longer than 300 s; the machine may be busy or its disk slow.",
    ),
    "kv_type_unfit": Code(
        422,
        "The worker is set to a cache type that does not fit the model.",
        "The heads of this model do not fill the blocks of a q8_0 cache: set CASEMILL_KV_TYPE=f16 or auto.",
    ),
    "engine_missing": Code(
        422,
        "The worker has no engine for models.",
        "llama-cpp-python is not installed: `uv sync --extra worker` builds it (a C++ compiler is needed).",
    ),
    "engine_failed": Code(503, "The engine failed on this text.", "llama.cpp failed on this text (code -3)."),
    "engine_closed": Code(503, "The worker ended meanwhile.", "This worker is shutting down; try again."),
    "engine_stalled": Code(503, "The engine hangs.", "The engine of gemma3-270m hangs; try again."),
}
"""Codes of what runs models: of ``generate`` and ``embed``, and of the steps of other jobs that use one."""

GENERATING: Final[dict[str, Code]] = {
    "prompt_empty": Code(422, "There is no prompt.", "The prompt is empty."),
    "messages_invalid": Code(
        422, "The model's chat template refuses the messages.", "Message 1 needs a role and a text content."
    ),
    "chat_template_broken": Code(
        422,
        "The model's own chat template fails.",
        "The model's chat template fails: 'tools' is undefined. Send a plain prompt instead.",
    ),
    "sampling_invalid": Code(
        422, "A sampling value is out of range.", "Sampling: top_p must be above 0 and at most 1."
    ),
    "grammar_invalid": Code(
        422, "The grammar or regular expression cannot be followed.", "The regex cannot be held to: unclosed group."
    ),
    "schema_invalid": Code(
        422,
        "The JSON schema is none.",
        "The JSON schema is invalid: 'strin' is not valid under any of the given schemas.",
    ),
    "schema_unsupported": Code(
        422,
        "The JSON schema says something that generation cannot be held to.",
        "The JSON schema cannot be held to: `not` is not supported.",
    ),
    "schema_violated": Code(
        422, "The text broke off before it fitted its form.", "The generated text ends before its grammar does."
    ),
}
"""Codes of text generation alone."""

EMBEDDING: Final[dict[str, Code]] = {
    "input_empty": Code(422, "A text is empty.", "Input 2 is empty."),
    "dimensions_invalid": Code(
        422,
        "The model's vectors are not so wide.",
        "dimensions must be 1 to 384, the width of minilm-l6-v2, not 1024.",
    ),
}
"""Codes of embeddings alone."""

ANALYSING: Final[dict[str, Code]] = {
    "schema_broken": Code(
        422, "The model did not answer in the form that it was held to.", "gemma3-270m broke the JSON schema"
    ),
    "playbook_too_large": Code(
        422,
        "The playbook's patterns need tables that are too large.",
        "a pattern of the playbook makes a table too large for the GPU; shorten it or ask for the CPU",
    ),
    "search_too_large": Code(
        422,
        "The documents of a search have too many clauses.",
        "the documents have more than 500,000 clauses; search them in several parts",
    ),
    "documents_failed": Code(422, "Of a run: no document succeeded.", "none of the documents succeeded"),
    "document_deleted": Code(
        503, "A document was erased while it was worked on.", "a document was deleted while it was compared"
    ),
    "gpu_limit": Code(
        422,
        "The GPU cannot hold what this needs.",
        "the GPU llvmpipe binds 134217728 bytes at most, 402653184 are needed",
    ),
    "gpu_memory": Code(503, "The GPU's memory is full.", "the GPU llvmpipe has no memory left: out of memory"),
    "gpu_not_found": Code(
        422,
        "The worker finds no GPU.",
        "no GPU adapter was found; install the GPU's Vulkan driver (Debian's software one is mesa-vulkan-drivers) or "
        "ask for the CPU",
    ),
    "gpu_refused": Code(422, "The GPU refused the work.", "the GPU llvmpipe refused the work: validation error"),
    "gpu_timeout": Code(
        503, "The GPU does not answer any more.", "the GPU llvmpipe has not answered for 60 s; the worker ends"
    ),
    "gpu_lost": Code(503, "The GPU was lost.", "the GPU llvmpipe was lost; the worker ends: device removed"),
}
"""Codes of the steps that analyse documents."""

ANY_JOB: Final[dict[str, Code]] = {
    "worker_lost": Code(
        500,
        "The worker died with the job each time that it was tried.",
        "the worker was lost 3 times while it ran this job",
    ),
    "document_erased": Code(
        410, "What the job was about was erased.", "The document or matter that it was about was erased."
    ),
    "job_ended": Code(404, "The job was ended while it was worked on.", "the job was ended while it was worked on"),
    "job_cancelled": Code(409, "The job was cancelled.", "the job was cancelled"),
    "job_expired": Code(409, "The job did not end in its time.", "the job was expired"),
    "cancelled": Code(409, "Reading was cancelled with the job.", "Reading the document was cancelled."),
    "task_unknown": Code(
        503,
        "A worker of an older version met the job.",
        "this worker has no task 'compare': it runs an older version; restart it",
    ),
}
"""Codes of any job."""

BATCHES: Final[dict[str, Code]] = {
    "batch_invalid": Code(
        422, "Lines of a batch's file are wrong.", "lines of the file are invalid; correct them and create a new batch"
    ),
    "stream_unsupported": Code(
        422, "A line of a batch asks for a stream.", "a batch streams nothing; leave `stream` out"
    ),
}
"""Codes of batches and of their lines."""

DELIVERING: Final[dict[str, Code]] = {
    "webhook_gone": Code(
        422, "The receiver answered 410.", "the receiver answered 410 Gone; the webhook is disabled now"
    ),
    "webhook_status": Code(503, "The receiver did not accept the message.", "the receiver answered 502"),
    "webhook_timeout": Code(503, "The receiver took too long.", "the receiver did not answer in time"),
    "webhook_tls": Code(
        503,
        "The receiver's certificate is not good.",
        "TLS with cases.firm.example failed: certificate has expired",
    ),
    "webhook_unreachable": Code(
        503, "The receiver cannot be reached.", "cases.firm.example does not answer as HTTP (ConnectError)"
    ),
    "webhook_resting": Code(
        503,
        "The receiver hangs and was left alone.",
        "the receiver let another message time out a moment ago and was not asked",
    ),
}
"""Codes of messages to webhooks, in the log of their deliveries."""

JOB_CODES: Final[dict[str, Code]] = (
    READING | MODELS | GENERATING | EMBEDDING | ANALYSING | ANY_JOB | BATCHES | DELIVERING
)
