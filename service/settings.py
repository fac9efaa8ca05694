"""Settings of the control plane, read from the environment (prefix PLUMBLINE_)."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _home() -> Path:
    return Path.home() / ".plumbline"


class Settings(BaseSettings):
    """One object for API, controller and CLI; what `plumbline up` needs is derived from `home`."""

    model_config = SettingsConfigDict(env_prefix="PLUMBLINE_", frozen=True)

    # Where things are
    home: Path = Field(default_factory=_home, description="Local data of `plumbline up`: database, key, storage.")
    storage: Path | None = Field(None, description="Root shared with the cluster; by default `home`/storage.")
    database_url: str | None = Field(None, description="SQLAlchemy async URL; by default SQLite in `home`.")
    model_roots: list[Path] = Field(
        default_factory=list, description="Directories that models may be named in, besides the storage root."
    )
    data_roots: list[Path] = Field(
        default_factory=list, description="Directories that training files may be named in, as the cluster sees them."
    )
    allow_private_urls: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="Networks that https:// training files may come from although they are private, such as "
        '["10.20.0.0/16"].',
    )

    # How parts reach each other
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8700, ge=1, le=65535, description="Port the API listens on.")
    api_url: str | None = Field(None, description="The API as attempts on the cluster reach it.")
    ray_url: str = Field("http://127.0.0.1:8265", description="Ray's dashboard: Job Submission and Serve REST API.")
    ray_token: SecretStr | None = Field(None, description="Ray's auth token, if the cluster asks for one.")
    serve_url: str = Field("http://127.0.0.1:8000", description="Serve's HTTP proxy as the API reaches it.")
    serve_host: str = Field("127.0.0.1", description="Address Serve's proxy listens on; it has no auth of its own.")

    # Secrets
    secret: SecretStr | None = Field(None, description="Signs attempt tokens; `plumbline up` makes one in `home`.")
    environment: Literal["development", "production"] = "development"

    # Limits
    max_upload_bytes: int = Field(2 * 2**30, ge=1)
    max_body_bytes: int = Field(2**20, ge=1024, description="JSON bodies.")
    max_running_jobs: int = Field(1, ge=1, description="Jobs on the cluster at one time; the others queue.")
    max_attempts: int = Field(3, ge=1, description="Attempts of a job before a failure on our side becomes final.")

    # Rhythm of the controller and the attempts, in seconds
    reconcile_every_s: float = Field(1.0, gt=0)
    heartbeat_every_s: float = Field(2.0, gt=0)
    heartbeat_timeout_s: float = Field(
        300, gt=0, description="Silence of a running attempt, while the API is reachable, before it is stopped."
    )
    start_timeout_s: float = Field(900, gt=0, description="From submission to the attempt's first word.")
    cancel_grace_s: float = Field(8, gt=0, description="From a cancel to stopping the attempt's driver by force.")
    stream_lifetime_s: float = Field(300, gt=0, description="An SSE stream ends with a `reconnect` event after this.")

    # What operators see (docs/observability.md)
    log_format: Literal["json", "text"] | None = Field(None, description="By default JSON in production.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_token: SecretStr | None = Field(
        None, description="What GET /metrics of the API asks for; in production there are no metrics without it."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port on `host` where the controller answers GET /metrics; asks for no token."
    )

    # Experiment trackers
    mlflow_url: str | None = Field(None, description="MLflow tracking URI that the controller tells of jobs.")
    mlflow_experiment: str = Field("plumbline", min_length=1, description="The experiment that its runs are in.")

    # Serving
    serving_device: Literal["cpu", "gpu"] | None = Field(
        None, description="What the serving pool's engines run on, if it is known: `cpu` refuses what vLLM's CPU lacks."
    )
    engine_kwargs: dict[str, object] = Field(default_factory=dict, description="Passed on to vLLM's engine.")

    @model_validator(mode="after")
    def _safe_in_production(self) -> "Settings":
        if self.environment == "production":
            for name in ("secret", "database_url", "storage", "api_url"):
                if getattr(self, name) is None:
                    raise ValueError(f"PLUMBLINE_{name.upper()} must be set when PLUMBLINE_ENVIRONMENT=production")
        return self

    @property
    def storage_root(self) -> Path:
        return self.storage or self.home / "storage"

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.home / 'plumbline.sqlite3'}"

    @property
    def public_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def callback_url(self) -> str:
        return self.api_url or self.public_url
