"""Settings: the environment, then what `flywheel up` wrote, then defaults."""

import json
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.settings import Settings


def test_everything_defaults_into_home(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path)
    assert settings.lake_root == str(tmp_path / "lake")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_a_running_deployment_is_found_through_home(tmp_path: Path) -> None:
    facts = {"engine_urls": ["http://127.0.0.1:9"], "gateway_url": "http://127.0.0.1:8"}
    (tmp_path / "deployment.json").write_text(json.dumps(facts))
    settings = Settings.load(home=tmp_path)
    assert settings.engine_urls == ("http://127.0.0.1:9",)
    assert settings.gateway_url == "http://127.0.0.1:8"


def test_the_environment_wins_over_a_running_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deployment.json").write_text(json.dumps({"gateway_url": "http://127.0.0.1:8"}))
    monkeypatch.setenv("FLYWHEEL_GATEWAY_URL", "http://127.0.0.1:7")
    assert Settings.load(home=tmp_path).gateway_url == "http://127.0.0.1:7"


def test_a_damaged_deployment_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "deployment.json").write_text('{"gateway_url": "http')
    with pytest.raises(ConfigError, match="deployment.json"):
        Settings.load(home=tmp_path)


def test_a_wrong_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_LAKE_STORAGE_OPTIONS", '{"a": [1]}')
    with pytest.raises(ConfigError, match="FLYWHEEL_LAKE_STORAGE_OPTIONS"):
        Settings.load(home=tmp_path)


def test_the_admin_token_is_read_from_home_and_never_printed(tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("sesame\n")
    assert Settings.load(home=tmp_path).read_admin_token() == "sesame"
    assert "sesame" not in repr(Settings(home=tmp_path, admin_token="sesame"))
