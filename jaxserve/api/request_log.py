"""What is remembered of one HTTP request: for its log line and its metrics. Never prompts, outputs or keys."""

from __future__ import annotations

import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from jaxserve.api.errors import shortened
from jaxserve.api.usage import Ledger

_log = logging.getLogger("jaxserve.requests")
_SCOPE_KEY = "jaxserve.record"
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

PROBES = ("health", "ready", "metrics")
"""Endpoints that somebody asks every few seconds."""

_MAX_TEXT = 256
_MAX_ENTRIES = 16
"""What a log line holds of a client's text, and of a client's dictionary: both are as long as the client likes."""

CLIENT_GONE = 499
"""Status in log and metrics of a request whose client went away before its answer was complete."""


@dataclass
class Record:
    """One HTTP request."""

    request_id: str
    method: str
    path: str
    received: float = field(default_factory=time.monotonic)
    status: int = 0
    client: str | None = None
    """Address of the client, or of the proxy before it."""
    endpoint: str = "other"
    """Route as it is labelled in metrics."""
    model: str | None = None
    stream: bool = False
    user: str | None = None
    metadata: Mapping[str, str] | None = None
    ledger: Ledger | None = None
    error: str | None = None
    """Code of the error that the client got."""
    traceparent: str | None = None
    """The client's span that the request belongs to, as its header says."""

    def log(self) -> None:
        """Writes the request's one line of JSON, of a bounded length; what probes ask is for DEBUG only."""
        level = logging.DEBUG if self.endpoint in PROBES else logging.INFO
        if not _log.isEnabledFor(level):
            return
        line: dict[str, Any] = {
            "request_id": self.request_id,
            "client": self.client,
            "method": shortened(self.method, _MAX_TEXT),
            "path": shortened(self.path, _MAX_TEXT),
            "status": self.status,
            "duration": round(time.monotonic() - self.received, 6),
            "error": self.error,
            "model": short(self.model),
            "user": short(self.user),
            "metadata": short_entries(self.metadata),
        }
        if self.ledger is not None:
            line |= {"stream": self.stream, "finish_reasons": dict(self.ledger.finish_reasons)}
            line |= self.ledger.usage()
            if self.ledger.first_token is not None:
                line["time_to_first_token"] = round(self.ledger.first_token - self.received, 6)
        fields = {key: value for key, value in line.items() if value is not None}
        _log.log(level, json.dumps(fields), extra={"fields": fields})


def short(text: str | None) -> str | None:
    """A client's text, cut."""
    return None if text is None else shortened(text, _MAX_TEXT)


def short_entries(entries: Mapping[str, str] | None) -> dict[str, str] | None:
    """A client's dictionary, cut."""
    if entries is None:
        return None
    shown = itertools.islice(entries.items(), _MAX_ENTRIES)
    return {shortened(key, _MAX_TEXT): shortened(value, _MAX_TEXT) for key, value in shown}


def new_id() -> str:
    """An id for a request that came with none."""
    return f"req-{secrets.token_hex(12)}"


def new_record(scope: MutableMapping[str, Any]) -> Record:
    """Makes the record of a request and keeps it in its scope. A sane `x-request-id` of the client is taken over."""
    headers = dict(reversed(scope["headers"]))  # of several equal ones the first
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    request_id = given if _SANE_ID.fullmatch(given) else new_id()
    client = scope.get("client")
    record = Record(request_id, scope["method"], scope["path"], client=None if client is None else client[0])
    if (parent := headers.get(b"traceparent")) is not None:
        record.traceparent = parent.decode("latin-1")
    scope[_SCOPE_KEY] = record
    return record


def record_of(scope: Mapping[str, Any]) -> Record:
    """The record of the request that `scope` belongs to."""
    record: Record = scope[_SCOPE_KEY]
    return record
