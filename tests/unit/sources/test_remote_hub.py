"""Hub repositories streamed, and results pushed, against a server on this machine that speaks the Hub's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import warmkit
from tests.conftest import Family, Run, make_family, save, weights
from tests.unit.sources.hub_server import COMMIT, OLDER, TOKEN, Hub
from tests.unit.sources.web import serving

Command = Callable[..., "tuple[int, str]"]

# one process for many commands: huggingface_hub reads its address when it is imported, and importing takes seconds
COMMANDS = """
import json, os, sys
from typer.testing import CliRunner
from warmkit.cli.app import app
for line in sys.stdin:
    arguments, token, folder = json.loads(line)
    os.environ["HF_TOKEN"] = token
    os.chdir(folder)
    done = CliRunner().invoke(app, arguments)
    bug = repr(done.exception) if done.exception and not isinstance(done.exception, SystemExit) else ""
    print(json.dumps([done.exit_code, done.stdout, done.stderr, bug]), flush=True)
"""


def settings(address: str, home: Path) -> dict[str, str]:
    own = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    return {**own, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path, subprocess.Popen[str]]]:
    folder = tmp_path_factory.mktemp("hub")
    with serving(Hub(folder)) as server:
        environment = {**os.environ, **settings(server.address, folder / "cache"), "COLUMNS": "120"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", COMMANDS], text=True, env=environment, **pipes) as child:  # type: ignore[call-overload]
            yield server, folder / "cache", child  # type: ignore[misc]
            child.kill()


@pytest.fixture
def hub(process: tuple[Hub, Path, subprocess.Popen[str]], tmp_path: Path) -> Hub:
    hub = process[0]
    hub.reset()
    hub.root = tmp_path
    return hub


@pytest.fixture
def command(hub: Hub, process: tuple[Hub, Path, subprocess.Popen[str]], tmp_path: Path) -> Command:
    """Run a command that talks to the server; return its exit code and what it said."""

    def call(*arguments: object, token: str | None = None) -> tuple[int, str]:
        child = process[2]
        assert child.stdin is not None
        assert child.stdout is not None
        print(json.dumps([list(map(str, arguments)), token or "", str(tmp_path)]), file=child.stdin, flush=True)
        code, said, diagnosis, bug = json.loads(child.stdout.readline())
        assert not bug
        assert not diagnosis or (code and diagnosis.startswith("error: "))
        return code, said + diagnosis

    return call


def test_a_repository_is_streamed_at_one_commit_and_its_weights_stay_there(
    family: Family, hub: Hub, command: Command, process: tuple[Hub, Path, subprocess.Popen[str]], tmp_path: Path
) -> None:
    save(tmp_path / "b@v1", weights(7), shards=2)
    hub.private.add("a")
    merge = ["merge", "--method", "slerp", "--init", "hf://team/sft", "team/a", "hf://team/b@v1", "-o", "out", "--stream"]
    code, said = command(*merge, token=TOKEN)
    assert code == 0, said
    warmkit.merge([family.a, tmp_path / "b@v1"], tmp_path / "local", init=family.init)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "local" / "model.safetensors").read_bytes()
    assert list(process[1].rglob("config.json"))
    assert not list(process[1].rglob("*.safetensors"))
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert [model["source"] for model in manifest["models"]] == ["team/a", "hf://team/b@v1"]
    assert set(manifest["models"][0]["versions"].values()) == {COMMIT}
    assert set(manifest["models"][1]["versions"].values()) == {OLDER}
    assert (tmp_path / "out" / "config.json").read_bytes() == (family.init / "config.json").read_bytes()


def test_a_local_path_stays_one_with_stream(family: Family, hub: Hub, command: Command) -> None:
    assert command("merge", "--method", "lerp", family.a, "hf://team/b", "-o", "out", "--stream")[0] == 0
    assert not any("/a/" in path for path in hub.asked)


def test_a_busy_hub_is_waited_for(family: Family, hub: Hub, command: Command) -> None:
    hub.busy = 3
    code, said = command("merge", "--method", "lerp", "hf://team/a", "hf://team/b", "-o", "out", "--stream")
    assert code == 0, said
    hub.busy, hub.retry_after = 99, "900"
    code, said = command("merge", "--method", "lerp", "hf://team/a", "hf://team/b", "-o", "more", "--stream")
    assert code == 1
    assert "HTTP 429, and asks for a pause of 900 s" in said
    hub.busy, hub.retry_after = 2, "0"
    code, said = command("merge", "--method", "lerp", "hf://team/a", "hf://team/b", "-o", "fetched")
    assert code == 0, said


@pytest.mark.parametrize("more", [["--stream"], []], ids=["streamed", "fetched"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf://team/nothing", "the Hub has no repository 'team/nothing', or it is private (log in with `hf auth login`)"),
        ("team/secret", "the Hub has no repository 'team/secret', or it is private"),
        ("hf://team/a@v9", "the Hub's 'team/a' has no revision 'v9'"),
        ("hf://team/gate", "'team/gate' is gated: ask for access on its page on the Hub"),
        ("hf://nonsense", "no such file or directory"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    source: str, said: str, more: list[str], family: Family, hub: Hub, command: Command, tmp_path: Path
) -> None:
    save(tmp_path / "secret", weights(1))
    save(tmp_path / "gate", weights(1))
    hub.private.add("secret")
    hub.gated.add("gate")
    code, told = command("merge", "--method", "lerp", "hf://team/a", source, "-o", "out", *more)
    assert code == 1
    assert said in told
    assert not (tmp_path / "out").exists()


def test_pickles_are_not_streamed(family: Family, hub: Hub, command: Command, tmp_path: Path) -> None:
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    code, said = command("inspect", "hf://team/pickled", "--stream")
    assert (code, "only pickle files (pytorch_model.bin), which cannot be streamed" in said) == (1, True)


def test_a_hub_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    env = settings("http://127.0.0.1:9", tmp_path / "cache")
    done = run("compare", "--init", "hf://team/sft", "hf://team/a", "--stream", "-q", env=env)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "the Hub cannot be reached" in done.stderr


def test_an_address_that_was_signed_for_a_time_is_asked_for_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warmkit.sources.http_file import HttpFile, Site

    make_family(tmp_path)
    site = Site({"Authorization": f"Bearer {TOKEN}"})
    file = HttpFile(site, f"{hub.address}/team/a/resolve/main/model.safetensors", "a", "model.safetensors", version=COMMIT)
    hub.signature = "second"
    part = bytearray(1000)
    file.read(2000, memoryview(part))
    assert part == (tmp_path / "a" / "model.safetensors").read_bytes()[2000:3000]
    asked = [path for path in hub.asked if "resolve" in path]
    file.read(3000, memoryview(part))
    assert len(asked) == 2
    assert [path for path in hub.asked if "resolve" in path] == asked, "where it led is remembered"


# ---- push --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def result(family: Family, tmp_path: Path) -> Path:
    return warmkit.merge([family.a, family.b], tmp_path / "result", init=family.init).path


def test_a_result_is_pushed_with_card_and_manifest(result: Path, hub: Hub, command: Command) -> None:
    code, said = command("push", result, "team/new", "--private", "--revision", "merged", "--json", token=TOKEN)
    assert code == 0, said
    assert hub.pushed == {path.name: path.read_bytes() for path in result.iterdir()}
    assert {"README.md", "warmkit.json", "model.safetensors", "config.json"} <= hub.pushed.keys()
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert "/commit/merged" in hub.commits[0]["path"]
    assert hub.commits[0]["summary"] == "slerp by warmkit"
    document = json.loads(said)
    assert (document["repository"], document["commit"], document["files"]) == ("team/new", COMMIT, len(hub.pushed))
    code, said = command("push", result, "hf://team/new", "--create-pr", "--message", "Better", token=TOKEN)
    assert code == 0, said
    assert "/discussions/1" in said
    assert hub.commits[1]["summary"] == "Better"


def test_a_result_that_changes_while_it_is_pushed_is_said(result: Path, hub: Hub, command: Command) -> None:
    class Pushed(dict[str, bytes]):
        def __setitem__(self, name: str, body: bytes) -> None:
            super().__setitem__(name, body)
            os.utime(result / "config.json", (0, 0))

    hub.pushed = Pushed()
    code, said = command("push", result, "team/new", token=TOKEN)
    assert code == 1
    assert "config.json: changed while it was uploaded, so team/new may hold another file" in " ".join(said.split())


def test_a_result_that_was_altered_is_not_pushed(result: Path, hub: Hub, command: Command) -> None:
    with (result / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    code, said = command("push", result, "team/new", token=TOKEN)
    assert (code, "was altered" in said) == (1, True), said
    assert not hub.asked


@pytest.mark.parametrize(
    ("repository", "token", "status", "said"),
    [
        ("team/new", None, 1, "no token for the Hub"),
        ("team/new", "hf_unknown", 1, "the Hub does not know who asks for 'team/new'"),
        ("team/full", TOKEN, 1, "the Hub refused what was asked for 'team/full'"),
        ("others/new", TOKEN, 1, "the Hub does not let this account do that with 'others/new'"),
        ("new", TOKEN, 2, "expected a repository like owner/name"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(
    repository: str, token: str | None, status: int, said: str, result: Path, hub: Hub, command: Command
) -> None:
    code, told = command("push", result, repository, token=token)
    assert (code, hub.pushed) == (status, {})
    assert said in told


def test_what_warmkit_did_not_write_is_not_pushed(family: Family, command: Command) -> None:
    code, said = command("push", family.a, "team/new", token=TOKEN)
    assert (code, "was not written by warmkit" in said) == (1, True)


def test_of_a_sweep_one_model_is_pushed(family: Family, command: Command, tmp_path: Path) -> None:
    warmkit.liti(family.a, tmp_path / "sweep", init=family.init, eta=[0.3, 1])
    code, said = command("push", "sweep", "team/new", token=TOKEN)
    assert (code, "a sweep of 2 models; push one of them" in said) == (2, True), said
