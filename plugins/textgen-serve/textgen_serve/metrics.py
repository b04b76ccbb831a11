"""Figures of GET /metrics, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

MODEL: Final = "textgen.model"
"""Under this name, the scope of a request has the name of its model once that is known."""
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


class Metrics:
    """Counts of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "textgen_requests", "Answers", ["endpoint", "status", "model"], registry=self._registry
        )
        self._begun = Histogram(
            "textgen_answer_seconds",
            "Time until an answer begins, for POST /v1/completions",
            ["model"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self.first_token = Histogram(
            "textgen_first_event_seconds",
            "Time until the first event of a stream",
            ["model"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self.prompt_tokens = Counter(
            "textgen_prompt_tokens", "Tokens of prompts", ["model"], registry=self._registry
        )
        self.new_tokens = Counter(
            "textgen_generated_tokens", "Tokens generated", ["model"], registry=self._registry
        )
        self.texts = Gauge(
            "textgen_texts",
            "Texts that are generated or wait, each as often as it has lanes",
            ["model"],
            registry=self._registry,
        )
        self.left = Counter(
            "textgen_clients_left",
            "Requests whose client went away before the end",
            ["model"],
            registry=self._registry,
        )
        self.changes = Counter(
            "textgen_run_changes",
            "Changes of run directories, by what came of them: loaded, failed or removed",
            ["model", "outcome"],
            registry=self._registry,
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answer that begins."""
        endpoint = getattr(scope.get("endpoint"), "name", "other")
        model = scope.get(MODEL, "")
        self._requests.labels(endpoint, status, model).inc()
        if endpoint == "completions":
            self._begun.labels(model).observe(seconds)

    def page(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
