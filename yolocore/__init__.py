"""The training core: knows files, tensors and events; nothing of web, Redis, SQL or Celery."""
