"""The log of an attempt's driver: every line names the attempt, whose ID begins with its job's, and hides its token."""

import logging

from service.spec.secrets import HIDDEN, redact


class Lines(logging.Formatter):
    def __init__(self, template: str, token: str) -> None:
        super().__init__(template)
        self._token = token

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record).replace(self._token, HIDDEN))


def configure(attempt_id: str, token: str) -> None:
    """Log to stderr, which Ray keeps as the job's log. token: the attempt's."""
    handler = logging.StreamHandler()
    name = attempt_id.replace("%", "%%")
    handler.setFormatter(Lines(f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s", token))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
