"""Settings of the control plane, read from the environment (prefix PLUMBLINE_)."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _home() -> Path:
    return Path.home() / ".plumbline"


def _fits_a_header(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", key.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return key


class EndpointKey(BaseModel):
    """A key for a server outside. It is sent nowhere but to its origin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origin: str = Field(description="Scheme, host and port, such as https://api.openai.com.")
    key: Annotated[SecretStr, AfterValidator(_fits_a_header)]
    projects: list[str] | None = Field(None, description="Projects that may use it; by default all.")


class Settings(BaseSettings):
    """One object for API, controller and CLI; what `plumbline up` needs is derived from `home`."""

    model_config = SettingsConfigDict(env_prefix="PLUMBLINE_", frozen=True)

    # Where things are
    home: Path = Field(default_factory=_home, description="Local data of `plumbline up`: database, key, storage.")
    storage: Path | None = Field(None, description="Root shared with the cluster; by default `home`/storage.")
    files_url: str | None = Field(
        None,
        pattern=r"^s3://[^/]+(/.*)?$",
        description="Object store for uploads, such as s3://bucket/plumbline; by default they are in `storage`/files.",
    )
    models_url: str | None = Field(
        None,
        pattern=r"^s3://[^/]+(/.*)?$",
        description="Object store for published models, such as s3://bucket/models; the storage then holds copies.",
    )
    database_url: str | None = Field(None, description="SQLAlchemy async URL; by default SQLite in `home`.")
    model_roots: list[Path] = Field(
        default_factory=list, description="Directories that models may be named in, besides the storage root."
    )
    data_roots: list[Path] = Field(
        default_factory=list, description="Directories that training files may be named in, as the cluster sees them."
    )
    allow_private_urls: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="Networks that https:// training files may come from, and webhooks go to, although they are "
        'private, such as ["10.20.0.0/16"]. To them alone webhooks may also go by http://.',
    )

    allowed_hub: list[str] = Field(
        default_factory=lambda: ["*"],
        description="Patterns of owner/name that models and datasets on the Hugging Face Hub must match one of, such "
        'as ["Qwen/*"].',
    )
    allowed_urls: list[str] = Field(
        default_factory=lambda: ["*"],
        description="Patterns of scheme://host or scheme://bucket that training files must come from, such as "
        '["s3://team-data", "https://*.example.org"]; a redirect must match too.',
    )
    share_reference_store: bool | None = Field(
        None,
        description="Whether projects share reference log-probs. A hit tells that somebody else had the same rows, so "
        "by default only in development.",
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
    upload_lifetime_s: float = Field(
        24 * 3600, ge=60, description="From the creation of an upload in parts to its expiry."
    )
    max_download_bytes: int = Field(
        64 * 2**30, ge=1, description="Of training data that an attempt fetches by https://."
    )
    download_timeout_s: float = Field(3600, gt=0, description="For all of that download.")
    max_body_bytes: int = Field(2**20, ge=1024, description="JSON bodies.")
    body_silence_s: float = Field(30, gt=0, description="Seconds without a byte of a request's body before it ends.")
    max_streams: int = Field(
        2000, ge=1, description="Event streams that one project may have open, on each process of the API."
    )
    max_previews: int = Field(
        2,
        ge=1,
        description="Files that each process of the API looks at before there is a job, at one time; of several, one "
        "project takes all but one.",
    )
    preview_timeout_s: float = Field(
        60, gt=0, description="Longest look at a file, the wait for a turn and for a copy included."
    )
    preview_memory_bytes: int = Field(3 * 2**30, ge=2**28, description="What the process that looks may hold.")
    max_running_jobs: int = Field(1, ge=1, description="Jobs on the cluster at one time; the others queue.")
    requests_per_minute: int = Field(
        12_000,
        ge=1,
        description="Of one key to one replica of the API, in the long run; as many at once after a minute of silence.",
    )
    max_attempts: int = Field(
        3, ge=1, description="Failures on our side in a row, without a checkpoint between them, that end a job."
    )
    queue_patience_s: float = Field(
        4 * 3600,
        gt=0,
        description="A job that has waited longer goes first, and nothing passes it that would delay it.",
    )
    fair_share_window_s: float = Field(
        24 * 3600, gt=0, description="The project that used the fewest GPU-seconds within this time has the next turn."
    )
    project_shares: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Shares of projects, by ID: one with 2 may use twice as much as one with 1."
    )
    autoscaling: bool = Field(
        False, description="Nodes are added on demand: a pool without room or nodes keeps no job from being started."
    )
    gpu_memory_gib: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Memory of GPU types, by Ray's name of them, besides those that are known."
    )

    # Rhythm of the controller and the attempts, in seconds
    reconcile_every_s: float = Field(1.0, gt=0)
    lease_s: float = Field(
        6, ge=1, description="A controller that the database has not heard of for so long is replaced by another one."
    )
    heartbeat_every_s: float = Field(2.0, gt=0)
    heartbeat_timeout_s: float = Field(
        300, gt=0, description="Silence of a running attempt, while the API is reachable, before it is stopped."
    )
    cluster_view_every_s: float = Field(10, gt=0, description="Between two looks at the cluster's nodes.")
    cluster_view_max_age_s: float = Field(
        120, gt=0, description="What was seen longer ago counts as unknown: then only `max_running_jobs` limits."
    )
    start_timeout_s: float = Field(900, gt=0, description="From submission to the attempt's first word.")
    retry_backoff_s: float = Field(
        5, gt=0, description="From a failure on our side to the next attempt; doubled with each further one in a row."
    )
    retry_backoff_max_s: float = Field(600, gt=0, description="The longest wait before an attempt.")
    pause_grace_s: float = Field(
        600, gt=0, description="From a pause to stopping by force: enough for a step and for writing a checkpoint."
    )
    cancel_grace_s: float = Field(8, gt=0, description="From a cancel to stopping the attempt's driver by force.")
    session_lifetime_s: float = Field(
        7 * 24 * 3600, ge=60, description="From a browser's sign-in to the end of its session."
    )
    stream_lifetime_s: float = Field(300, gt=0, description="An SSE stream ends with a `reconnect` event after this.")

    # Webhooks
    webhook_timeout_s: float = Field(10, gt=0, description="Of one request to a receiver, all in all.")
    webhook_retry_base_s: float = Field(
        5, gt=0, description="Wait before the second attempt of a delivery; four times as long before each further one."
    )
    webhook_max_wait_s: float = Field(6 * 3600, gt=0, description="Longest wait between two attempts of a delivery.")
    webhook_max_attempts: int = Field(16, ge=1, description="Attempts before a delivery is given up.")
    webhook_disable_after_s: float = Field(
        3 * 86400, gt=0, description="A webhook that nothing has reached for so long is disabled."
    )

    # Evaluations
    evaluation_origins: list[str] = Field(
        default_factory=list,
        description="Origins of servers outside that evaluations may ask, such as "
        '["https://api.openai.com", "http://10.20.0.7:8000"]; each exactly as it is written here.',
    )
    evaluation_keys: dict[str, EndpointKey] = Field(
        default_factory=dict,
        description="Keys that evaluations name by `secret`, each with the one origin that it is sent to, such as "
        '{"openai": {"origin": "https://api.openai.com", "key": "sk-..."}}.',
    )
    evaluation_concurrency: int = Field(16, ge=1, description="Requests of one evaluation to one server at one time.")
    evaluation_timeout_s: float = Field(300, gt=0, description="Of one request to a model or judge, all in all.")
    evaluation_max_tries: int = Field(
        6, ge=1, description="Requests for one answer before it counts as failed; only what may pass is tried again."
    )

    # Retention, in days; what is not set is kept for ever
    keep_events_days: float | None = Field(None, ge=7, description="Events of a finished job.")
    keep_metrics_days: float | None = Field(None, ge=1, description="Metrics of a finished job.")
    keep_uploads_days: float | None = Field(
        None, ge=1, description="Uploaded files, since the last job on them has finished."
    )
    keep_checkpoints_days: float | None = Field(
        30, gt=0, description="Working files of a finished job: checkpoints, prepared rows, fetched data."
    )
    keep_model_copies_days: float | None = Field(
        None,
        ge=1,
        description="Copies on the storage of models that the object store of `models_url` has, since their last use.",
    )
    keep_deliveries_days: float | None = Field(30, ge=7, description="The delivery log of webhooks.")
    retention_every_s: float = Field(600, gt=0, description="Between two looks for what is to be removed.")

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
    wandb_project: str | None = Field(None, min_length=1, description="W&B project that the controller tells of jobs.")
    wandb_entity: str | None = Field(None, description="The W&B team or user of the project; by default the key's.")
    wandb_url: str | None = Field(None, description="W&B server, if it is not W&B's own.")
    wandb_offline: bool = Field(False, description="Write runs to `storage`/wandb only, for `wandb sync`.")
    wandb_api_key: SecretStr | None = Field(None, description="W&B API key.")

    # Serving
    serving_device: Literal["cpu", "gpu"] | None = Field(
        None,
        description="What engines run on, if it is known: `cpu` refuses what vLLM's CPU lacks; `gpu` gives one to each "
        "engine, and to each worker whose job does not say, also where the nodes are yet to come.",
    )
    engine_kwargs: dict[str, object] = Field(default_factory=dict, description="Passed on to vLLM's engine.")
    share_engines: bool = Field(
        True, description="LoRA adapters are served on one engine with their base; if not, each merged on its own."
    )
    max_lora_rank: int = Field(
        64, ge=1, le=512, description="Of adapters on a shared engine, which sets memory aside; others are merged."
    )
    max_running_exports: int = Field(
        1, ge=1, description="Checkpoints that are made into models at one time, each in the memory of a control node."
    )
    serving_idle_s: float | None = Field(
        1800, ge=60, description="Models that nobody has asked for so long give up their engines until they are asked."
    )
    wake_wait_s: float = Field(
        60, ge=0, description="How long a request waits for a sleeping model before it is told to come again."
    )

    @model_validator(mode="after")
    def _safe_in_production(self) -> "Settings":
        if self.environment == "production":
            for name in ("secret", "database_url", "storage", "api_url"):
                if getattr(self, name) is None:
                    raise ValueError(f"PLUMBLINE_{name.upper()} must be set when PLUMBLINE_ENVIRONMENT=production")
        return self

    @property
    def shares_reference_store(self) -> bool:
        return self.environment == "development" if self.share_reference_store is None else self.share_reference_store

    @property
    def unset_gpus(self) -> float:
        """GPUs that an engine counts for in quotas, and a worker if its job does not say."""
        return 0 if self.serving_device == "cpu" else 1

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
