"""The Celery application and the Redis client, configured in one place for the side that sends nudges and the
side that receives them.

A message carries nothing: it says "look into the book". Celery and redis are imported when first needed, so
that whoever only reads the book pays for neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.domain import wire
from api.domain.settings import Settings

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

HEALTH_CHECK_S = 30


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings: early acks, JSON only, one message in hand, no chatter between workers."""
    return {
        "broker_url": settings.broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_retry": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": transport_options(settings),
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": settings.queue,
        "task_create_missing_queues": True,
        "task_publish_retry": False,
        "worker_pool": "threads",
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
    }


def transport_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the Redis connection that carries messages.

    The visibility timeout only concerns messages that were taken and never acknowledged, which early acks
    leave to the instant between the two; the dispatcher sends those again anyway.
    """
    options: dict[str, Any] = {
        "global_keyprefix": wire.PREFIX,
        "socket_timeout": settings.redis_timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "health_check_interval": max(1, min(HEALTH_CHECK_S, round(2 * settings.redis_timeout_s))),
        "visibility_timeout": 3600,
        "retry_on_timeout": True,
    }
    if not settings.redis_url.startswith("unix://"):
        options["socket_keepalive"] = True
    return options


def celery_app(settings: Settings) -> Celery:
    """Build the Celery application both sides use; it defines no tasks itself."""
    from celery import Celery

    app = Celery("trainshed", set_as_current=False, fixups=[])
    app.conf.update(celery_config(settings))
    return app


def open_redis(settings: Settings) -> Redis:
    """Open a synchronous client: bytes in and out, timeouts set, one quick retry."""
    from redis import Redis
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry

    return Redis.from_url(
        settings.redis_url,
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        health_check_interval=HEALTH_CHECK_S,
        retry=Retry(ConstantBackoff(0.05), 1),
    )
