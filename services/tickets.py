"""The ticket: a Celery message that says only "there is work", rendered once so that a Lua script can publish it.

The envelope is made by Celery and kombu themselves over their in-memory transport, so it follows their format; the
scripts fill in the queue and a serial number.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

TASK = "casemill.work"
QUEUE_MARK = "@@QUEUE@@"
ID_MARK = "@@ID@@"


def ticket_queue(lane: str, device: str, worker: str | None = None) -> str:
    """Name of the Celery queue whose tickets wake slots for a lane and device class, of any worker or of one."""
    return f"{lane}.{device}.{worker}" if worker else f"{lane}.{device}"


@cache
def ticket_envelope() -> str:
    """The message as kombu's Redis transport would store it, JSON with the two marks in it."""
    app: Any = Celery("casemill", broker="memory://", set_as_current=False)
    app.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)
    with Connection("memory://") as connection:
        channel: Any = connection.default_channel
        queue: Any = Queue(QUEUE_MARK, Exchange(QUEUE_MARK, "direct"), QUEUE_MARK)
        queue(channel).declare()
        with app.amqp.Producer(channel) as producer:
            app.send_task(TASK, task_id=ID_MARK, queue=queue, priority=0, producer=producer)
        message = channel._get(QUEUE_MARK)
    message["properties"]["delivery_tag"] = ID_MARK
    return json.dumps(message)
