"""What holds for every test: property tests are judged by their result, not by the machine's load."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.postgres import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]

settings.register_profile("trainshed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trainshed")
