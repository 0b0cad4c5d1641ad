"""API keys: hashed, bound to workloads, followed while the gateway runs."""

import json
import stat
import threading
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.serve.gateway.keys import KeyRing, NewKey, create_key, read_keys, revoke_key


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "gateway-keys.json"


def make(path: Path, name: str = "ward-7", *workloads: str) -> NewKey:
    return create_key(path, name=name, workloads=workloads or ("triage",))


def test_the_file_holds_no_token_and_only_its_owner_reads_it(path: Path) -> None:
    made = make(path)
    assert len(made.token) >= 46  # 256 bits in base64, and a prefix
    assert made.token not in path.read_text() and made.token[3:] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(path.parent.glob("*.tmp"))


def test_a_token_finds_its_key_and_nothing_else_does(path: Path) -> None:
    made, other = make(path), make(path, "ward-8", "*")
    ring = KeyRing(path)
    assert ring.find(made.token) == made.key and ring.find(other.token) == other.key
    for wrong in (
        "",
        made.token[:-1],
        made.token + "x",
        made.key.sha256,
        made.key.key_id,
        "\ud800",
    ):
        assert ring.find(wrong) is None


def test_a_key_opens_its_workloads_only(path: Path) -> None:
    narrow, wide = make(path).key, make(path, "all", "*").key
    assert narrow.opens("triage") and not narrow.opens("billing")
    assert wide.opens("triage") and wide.opens("billing")


def test_without_a_file_the_gateway_is_open_and_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert KeyRing(path).is_open
    assert "OPEN" in caplog.text and "flywheel keys create" in caplog.text


def test_a_running_gateway_follows_the_file(path: Path) -> None:
    clock = Clock()
    ring = KeyRing(path, clock=clock)
    made = make(path)
    assert ring.is_open  # looked a moment ago
    clock.now += 0.3
    assert not ring.is_open and ring.find(made.token) == made.key
    revoke_key(path, "ward-7")
    clock.now += 0.3
    found = ring.find(made.token)
    assert found is not None and found.revoked_at is not None


def test_a_clock_that_jumps_back_does_not_keep_a_revoked_key_alive(path: Path) -> None:
    made, clock = make(path), Clock()
    ring = KeyRing(path, clock=clock)
    revoke_key(path, made.key.key_id)
    clock.now -= 500
    found = ring.find(made.token)
    assert found is not None and found.revoked_at is not None


@pytest.mark.parametrize("damage", [None, "{", '{"keys": [{"name": "x"}]}', '{"version": 2}'])
def test_a_file_that_is_lost_or_damaged_leaves_the_old_keys_in_force(
    path: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    made, clock = make(path), Clock()
    ring = KeyRing(path, clock=clock)
    path.unlink() if damage is None else path.write_text(damage)
    clock.now += 1
    assert not ring.is_open and ring.find(made.token) == made.key
    assert "stay in force" in caplog.text
    again = make_anew(path)
    clock.now += 1
    assert ring.find(again.token) is not None and ring.find(made.token) is None


def make_anew(path: Path) -> NewKey:
    path.unlink(missing_ok=True)
    return make(path, "new")


def test_a_damaged_file_closes_a_gateway_that_was_open(path: Path) -> None:
    clock = Clock()
    ring = KeyRing(path, clock=clock)
    path.parent.mkdir(parents=True)
    path.write_text("half a fi")
    clock.now += 1
    assert not ring.is_open


def test_a_gateway_does_not_start_on_a_damaged_file(path: Path) -> None:
    make(path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ConfigError, match=r"gateway-keys\.json"):
        KeyRing(path)


def test_the_error_of_a_damaged_file_does_not_repeat_its_content(path: Path) -> None:
    made = make(path)
    content = json.loads(path.read_text())
    content["keys"][0]["workloads"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        read_keys(path)
    assert made.key.sha256 not in str(caught.value) and "workloads" in str(caught.value)


def test_a_name_is_taken_until_its_key_is_revoked(path: Path) -> None:
    make(path)
    with pytest.raises(ConfigError, match="another name"):
        make(path)
    revoke_key(path, "ward-7")
    with pytest.raises(ConfigError, match="in force; there are: none"):
        revoke_key(path, "ward-7")
    make(path)
    assert len(read_keys(path)) == 2


def test_keys_made_at_once_are_all_kept(path: Path) -> None:
    threads = [threading.Thread(target=make, args=(path, f"key-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read_keys(path)} == {f"key-{n}" for n in range(8)}


def test_a_limit_below_one_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="requests_per_minute"):
        create_key(path, name="x", workloads=["triage"], requests_per_minute=0)
    with pytest.raises(ConfigError, match="workloads"):
        create_key(path, name="x", workloads=[])
    assert not path.exists()


def test_a_leftover_of_a_killed_command_is_not_in_the_way(path: Path) -> None:
    make(path)
    leftover = path.with_suffix(".tmp")
    leftover.write_text("half")
    leftover.chmod(0o644)
    make(path, "second")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(read_keys(path)) == 2
