"""`make run`'s promises, with the real launcher and real processes over the fake models."""

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.options import DEFAULT_PORTS, MODEL_SERVICES
from launcher.preflight import check_ports

from .suite_process import ROOT, SuiteProcess, free_ports

FAKE = ROOT / "models/fake.yaml"
CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "one two three"}]}
RECOVERY_SECONDS = 30.0


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suite") / "state"


@pytest.fixture(scope="module")
def suite(state: Path) -> Iterator[SuiteProcess]:
    with SuiteProcess(state, catalogue=FAKE, ports=free_ports()) as running:
        running.until_ready()
        yield running


@pytest.fixture(scope="module")
def key(suite: SuiteProcess) -> str:
    return suite.until_ready()


def test_it_prints_a_key_that_chats(suite: SuiteProcess, key: str) -> None:
    status, answer = suite.request("/v1/chat/completions", key=key, body=CHAT)
    assert status == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["total_tokens"] > 0


def test_it_prints_what_to_type_first(suite: SuiteProcess, key: str) -> None:
    for path in (
        *("v1/chat/completions", "v1/audio/speech", "v1/audio/transcriptions"),
        *("api/text-to-image", "api/image-to-image", "api/image-to-text"),
    ):
        suite.until(re.escape(f"curl {suite.address}/{path} -H 'Authorization: Bearer {key}' \\"))


def test_no_key_no_answer(suite: SuiteProcess) -> None:
    status, _ = suite.request("/v1/chat/completions", body=CHAT)
    assert status == 401


def test_secrets_are_their_owners_alone(suite: SuiteProcess, state: Path, key: str) -> None:
    assert (state / "dev.key").read_text().strip() == key
    assert (state).stat().st_mode & 0o077 == 0
    for name in ("dev.key", "service.credential", "jwt.secret", "key.pepper"):
        assert (state / name).stat().st_mode & 0o777 == 0o600, name


def test_a_second_one_on_the_same_ports_is_one_line(suite: SuiteProcess, tmp_path: Path) -> None:
    with SuiteProcess(tmp_path / "other", catalogue=FAKE, ports=suite.ports) as second:
        assert second.wait() == 1
        [line] = second.output.splitlines()
    assert line.startswith("atrium: ports ")
    assert f"{suite.ports['ATRIUM_GATEWAY_PORT']} (ATRIUM_GATEWAY_PORT)" in line


def test_a_second_one_on_the_same_state_is_one_line(suite: SuiteProcess, state: Path) -> None:
    with SuiteProcess(state, catalogue=FAKE, ports=free_ports()) as second:
        assert second.wait() == 1
        [line] = second.output.splitlines()
    assert line.startswith(f"atrium: Atrium already runs on {state}")


def test_a_killed_service_shows_in_health_and_comes_back(suite: SuiteProcess, key: str) -> None:
    suite.child("atrium_llm").send_signal(signal.SIGKILL)
    _until_llm_is(suite, "down")
    status, health = suite.request("/health")
    assert (status, health["status"]) == (503, "degraded")
    assert health["services"]["stt"]["status"] == "ready"
    status, answer = suite.request("/v1/chat/completions", key=key, body=CHAT)
    assert status == 503
    assert set(answer["error"]) == {"message", "type", "param", "code"}

    # What health says is what the next call meets: no second try here.
    _until_llm_is(suite, "ready")
    status, _ = suite.request("/v1/chat/completions", key=key, body=CHAT)
    assert status == 200
    suite.until(r"atrium +\| llm was ended by SIGKILL; starting it again in 1 s")


def _until_llm_is(suite: SuiteProcess, wanted: str) -> None:
    deadline = time.monotonic() + RECOVERY_SECONDS
    while (state := suite.request("/health")[1]["services"]["llm"]["status"]) != wanted:
        assert time.monotonic() < deadline, f"llm is {state}, not {wanted}"
        time.sleep(0.02)


def test_ctrl_c_stops_everything_and_the_next_start_keeps_the_key(tmp_path: Path) -> None:
    ports = free_ports()
    with SuiteProcess(tmp_path / "state", catalogue=FAKE, ports=ports) as first:
        key = first.until_ready()
        family = first.family()
        assert len(family) == 1 + len(MODEL_SERVICES)
        first.interrupt()
        assert first.wait() == 0
        assert re.search(r"^atrium +\| stopped$", first.output, re.M)
        assert not [each for each in family if each.is_running()]
    check_ports(ports)

    with SuiteProcess(tmp_path / "state", catalogue=FAKE, ports=ports, services="llm") as second:
        assert second.until_ready() == key
        status, _ = second.request("/v1/chat/completions", key=key, body=CHAT)
        assert status == 200
        second.process.send_signal(signal.SIGTERM)
        assert second.wait() == 0


def test_a_lost_database_gets_a_new_key(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "dev.key").write_text("atr_unknown_unknown\n")
    with SuiteProcess(state, catalogue=FAKE, ports=free_ports(), services="llm") as running:
        key = running.until_ready()
        assert key != "atr_unknown_unknown"
        assert running.request("/v1/models", key=key)[0] == 200


def test_nothing_outlives_a_killed_launcher(tmp_path: Path) -> None:
    ports = free_ports()
    with SuiteProcess(tmp_path / "state", catalogue=FAKE, ports=ports, services="llm") as running:
        running.until_ready()
        family = running.family()
        running.process.kill()
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
    check_ports(ports)


def test_ctrl_c_before_it_is_ready_leaves_nothing(tmp_path: Path) -> None:
    with SuiteProcess(tmp_path / "state", catalogue=FAKE, ports=free_ports()) as running:
        running.until(rf"^({'|'.join(MODEL_SERVICES)}) +\|")
        family = running.family()
        assert family
        running.interrupt()
        assert running.wait() == 0
        assert not [each for each in family if each.is_running()]


@pytest.mark.parametrize(
    ("catalogue", "why"),
    [
        ("models: [{id: x, service: llm}]\n", "broken.yaml"),
        (None, "there is no catalogue"),
    ],
)
def test_a_wrong_catalogue_is_one_line(tmp_path: Path, catalogue: str | None, why: str) -> None:
    path = tmp_path / "broken.yaml"
    if catalogue is not None:
        path.write_text(catalogue)
    with SuiteProcess(tmp_path / "state", catalogue=path, ports=free_ports()) as running:
        assert running.wait() == 1
        [line] = running.output.splitlines()
    assert why in line


def test_a_service_that_dies_at_start_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    ports = free_ports()
    # The port is taken after the launcher has looked: the service is the one that fails.
    with SuiteProcess(tmp_path / "state", catalogue=FAKE, ports=ports, services="llm") as running:
        running.until(r"^(llm|atrium) ", seconds=60)
        with socket.socket() as thief:
            try:
                thief.bind(("127.0.0.1", ports["ATRIUM_GATEWAY_PORT"]))
                thief.listen()
            except OSError:
                pytest.fail("the gateway was faster than this test")
            assert running.wait(seconds=60) == 1
        assert "atrium: gateway stopped with exit status" in running.output.splitlines()[-1]
        assert not running.family()


def test_the_default_ports_are_the_documented_ones() -> None:
    page = (ROOT / "README.md").read_text()
    for port in DEFAULT_PORTS.values():
        assert str(port) in page, port
