"""The log for machines: one JSON object a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

_log = logging.getLogger("jaxserve")


class JsonFormatter(logging.Formatter):
    """Time with its zone, level, logger; then the record's own `fields` if it has any, else its message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        line |= getattr(record, "fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def use_json() -> None:
    """Has everything that is logged, warnings too, written as JSON."""
    logging.captureWarnings(True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter())


class LoggedProgress:
    """Start-up stages and the summary as log lines, where bars would not be JSON."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Logs a stage that is done."""
        if done == total:
            _log.info("%s: done", stage)

    def finish(self, summary: dict[str, str], last: str, invitation: Sequence[str] = ()) -> None:
        """Logs the start-up summary; nobody pastes from a log for machines."""
        _log.info(last, extra={"fields": {"message": last, **summary}})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
