"""Deployment facts: paths, URLs, secrets. Read once, at an entry point, and passed down.

Every field is an environment variable with the prefix `FLYWHEEL_` (`FLYWHEEL_HOME`,
`FLYWHEEL_LAKE_URI`, …). What belongs to a task and not to a deployment is in `workload.py`.
"""

import json
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flywheel.errors import ConfigError


class Settings(BaseSettings):
    """Where things are in this deployment."""

    model_config = SettingsConfigDict(
        env_prefix="FLYWHEEL_", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    home: Path = Path(".flywheel")
    """Folder everything below defaults into."""
    lake_uri: str = ""
    """Root of the lake: a folder, or s3://…, gs://…, az://… . Default: <home>/lake."""
    lake_storage_options: dict[str, str] = Field(default_factory=dict)
    """Credentials and endpoints of an object store, as delta-rs names them (JSON)."""
    cache_dir: Path = Path("~/.cache/flywheel")
    """Converted base models; shared between homes."""
    mlflow_tracking_uri: str = ""
    """Default: sqlite:///<home>/mlflow/mlflow.db. A server: http://…"""
    engine_urls: tuple[str, ...] = ("http://127.0.0.1:8100",)
    """Every replica of the model server (JSON list). An adapter is loaded on each."""
    gateway_url: str = "http://127.0.0.1:8080"
    gateway_admin_url: str = "http://127.0.0.1:8081"
    prefect_api_url: str = ""
    """Where `flywheel run nightly` shows, unless PREFECT_API_URL says. Empty, or not answering: a
    temporary server that keeps its database in <home>/prefect."""
    admin_token: SecretStr = SecretStr("")
    """Bearer token of the gateway's admin port. Empty: the one in <home>/admin-token."""
    subject_key_secret: SecretStr = SecretStr("")
    """Key of the HMAC that makes `subject_key` of a subject's identifier. Empty: none is stored."""
    prices: Path | None = None
    """The price table, YAML. Without one every cost is unknown, and no budget is ever spent."""

    @classmethod
    def load(cls, *, home: Path | None = None) -> Self:
        """Reads the environment; `home` wins over FLYWHEEL_HOME.

        What `flywheel up` wrote to <home>/deployment.json stands in for variables that are not set.

        Raises:
            ConfigError: with every variable that does not hold.
        """
        try:
            settings = cls(home=home) if home is not None else cls()
            path = settings.deployment_file
            if not path.is_file():
                return settings
            facts = json.loads(path.read_text(encoding="utf-8"))
            unset = {name: facts[name] for name in facts if name not in settings.model_fields_set}
            return cls(**{"home": settings.home, **unset})
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise ConfigError(
                "deployment.json", [f"not what `flywheel up` writes: {error}; remove it"]
            ) from error
        except ValidationError as error:
            problems = [
                f"FLYWHEEL_{str(problem['loc'][0]).upper()}: {problem['msg']}"
                for problem in error.errors()
            ]
            raise ConfigError("environment", problems) from error

    @property
    def root(self) -> Path:
        """`home`, absolute."""
        return self.home.expanduser().absolute()

    @property
    def deployment_file(self) -> Path:
        """Where `flywheel up` says on which ports its servers listen."""
        return self.root / "deployment.json"

    @property
    def lake_root(self) -> str:
        """The lake's root URI or absolute folder."""
        return self.lake_uri or str(self.root / "lake")

    @property
    def spool_dir(self) -> Path:
        """Where the gateway appends what it captures."""
        return self.root / "spool"

    @property
    def gateway_keys_file(self) -> Path:
        """The gateway's API keys, hashed. While there is no such file the gateway is open."""
        return self.root / "gateway-keys.json"

    @property
    def gateway_dir(self) -> Path:
        """What each gateway process has spent today."""
        return self.root / "gateway"

    @property
    def adapter_dir(self) -> Path:
        """The adapter store: the only folder a model server may load from."""
        return self.root / "adapters"

    @property
    def judge_cache_dir(self) -> Path:
        """What judges answered, and the accounts of their runs."""
        return self.root / "judge-cache"

    @property
    def snapshot_dir(self) -> Path:
        """Datasets, a folder each."""
        return self.root / "snapshots"

    @property
    def runs_dir(self) -> Path:
        """Training output and checkpoints, and what a night has finished."""
        return self.root / "runs"

    @property
    def models_dir(self) -> Path:
        """Base models converted for serving, in the cache."""
        return self.cache_dir.expanduser().absolute() / "models"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    def read_admin_token(self) -> str:
        """The admin token: the setting, else the content of <home>/admin-token, else empty."""
        token = self.admin_token.get_secret_value()
        path = self.root / "admin-token"
        if not token and path.is_file():
            token = path.read_text(encoding="utf-8").strip()
        return token
