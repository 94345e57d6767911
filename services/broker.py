"""The Celery application that workers and Flower share: where tickets travel, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from celery import Celery
from kombu.entity import Queue

from services.keys import Keys
from services.settings import Settings


def broker_url(redis_url: str) -> str:
    """The URL as kombu reads it, which names a unix socket and its database in its own way."""
    if not redis_url.startswith("unix://"):
        return redis_url
    socket, _, query = redis_url.removeprefix("unix://").partition("?")
    options = {{"db": "virtual_host"}.get(name, name): value for name, value in parse_qsl(query)}
    return f"redis+socket://{socket}" + (f"?{urlencode(options)}" if options else "")


def create_celery(settings: Settings) -> Any:
    """The configured application; it knows no task until a worker registers the ticket."""
    app: Any = Celery("casemill", broker=broker_url(settings.redis_url), set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # A lost ticket is harmless and the caretaker replaces it; with the emulation, losing the server under
            # late acknowledgements ends the worker ("NoneType" in restore_unacked).
            "ack_emulation": False,
            "global_keyprefix": Keys(settings.prefix).ticket_prefix,
            "priority_steps": list(range(10)),
            "queue_order_strategy": "round_robin",
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    return app


def read_own_queues(app: Any, names: Sequence[str]) -> None:
    """Let a worker read queues of its own; they are not declared, so kombu leaves no key of theirs behind."""
    for name in names:
        app.amqp.queues.add(Queue(name, no_declare=True))
