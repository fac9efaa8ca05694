"""The logs of an attempt's processes: every line names the attempt, whose ID begins with its job's. The driver's hides
the attempt's token, which the others do not have."""

import logging

from service.spec.secrets import HIDDEN, redact


class Lines(logging.Formatter):
    def __init__(self, template: str, token: str | None) -> None:
        super().__init__(template)
        self._token = token

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return redact(line.replace(self._token, HIDDEN) if self._token else line)


def configure(attempt_id: str, token: str | None = None) -> None:
    """Log to stderr, which Ray keeps: the driver's as the job's log, those of its actors' processes by process, and
    with a prefix in the job's log too. A process that logs somewhere already is left as it is. token: the attempt's,
    in its driver."""
    handler = logging.StreamHandler()
    name = attempt_id.replace("%", "%%")
    handler.setFormatter(Lines(f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s", token))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
