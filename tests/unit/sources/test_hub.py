"""Hub repositories, fetched from a server on this machine that speaks the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Family, Run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves every folder under `root` as the repository `team/<folder>`."""

    root: Path
    asked: list[str]

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.describe(parts[2], parts[3], tree="tree" in parts)
        elif "resolve" in parts and parts[0] == "team":
            self.send(self.root / parts[1] / "/".join(parts[parts.index("resolve") + 2 :]), body)
        else:
            self.missing()

    def describe(self, owner: str, name: str, tree: bool) -> None:
        folder = self.root / name
        if owner != "team" or not folder.is_dir():
            self.missing()
            return
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [str(path.relative_to(folder)) for path in paths]
        answer: object = {"id": f"team/{name}", "sha": COMMIT, "siblings": [{"rfilename": each} for each in names], "tags": []}
        if tree:
            sizes = [path.stat().st_size for path in paths]
            answer = [{"type": "file", "path": each, "size": size, "oid": COMMIT} for each, size in zip(names, sizes)]
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def send(self, file: Path, body: bool) -> None:
        if not file.is_file():
            self.missing()
            return
        content = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self.reply(200, headers, content, body)

    def missing(self) -> None:
        self.reply(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}")

    def reply(self, status: int, headers: dict[str, str], content: bytes, body: bool = True) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body and self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[type[Hub]]:
    handler = type("Repositories", (Hub,), {"root": tmp_path, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def environment(hub: type[Hub], tmp_path: Path) -> dict[str, str]:
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    return {**settings, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


def test_a_repository_is_fetched_and_merged(family: Family, hub: type[Hub], run: Run, tmp_path: Path) -> None:
    (family.a / "pytorch_model.bin").write_text("never fetched")
    env = environment(hub, tmp_path)
    remote = run("merge", "--init", "hf://team/sft", "team/a", f"hf://team/b@{COMMIT}", "-o", "out", "--json", env=env)
    assert remote.returncode == 0, remote.stderr
    local = run("merge", "--init", family.init, family.a, family.b, "-o", "local", "--json")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "local" / "model.safetensors").read_bytes()
    assert local.returncode == 0
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert manifest["rows"] == ["hf://team/sft", "team/a", f"hf://team/b@{COMMIT}"]
    assert "`hf://team/sft`" in (tmp_path / "out" / "README.md").read_text()


def test_pickles_are_fetched_only_where_there_is_nothing_else_and_they_are_allowed(
    family: Family, hub: type[Hub], run: Run, tmp_path: Path
) -> None:
    torch.save(load_file(family.a / "model.safetensors"), family.a / "pytorch_model.bin")
    (family.a / "optimizer.bin").write_text("never fetched")
    (family.a / "model.safetensors").unlink()
    env = environment(hub, tmp_path)
    refused = run("inspect", "team/a", env=env)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "team/a: only pickle files (pytorch_model.bin)" in refused.stderr
    assert "--allow-pickle" in refused.stderr
    assert not any(".bin" in path for path in hub.asked)
    merge = ["merge", "--method", "lerp", "--allow-pickle", "-o"]
    remote = run(*merge, "out", "team/a", "team/b", env=env)
    assert remote.returncode == 0, remote.stderr
    assert not any("optimizer.bin" in path for path in hub.asked)
    assert run(*merge, "local", family.a, family.b).returncode == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "local" / "model.safetensors").read_bytes()
    again = run(*merge, "again", "team/a", "team/b", env={**env, "HF_HUB_OFFLINE": "1"})
    assert again.returncode == 0, again.stderr


def test_a_repository_that_is_not_there_is_named(hub: type[Hub], run: Run, tmp_path: Path) -> None:
    done = run("inspect", "team/nothing", env=environment(hub, tmp_path))
    assert done.returncode == 1
    assert "no local path 'team/nothing', and the Hub has no repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_cannot_be_reached_is_an_error(run: Run, tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    done = run("inspect", "hf://team/a", env=env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    done = run("inspect", "hf://team/a", env={**env, "HF_HUB_OFFLINE": "1"})
    assert (done.returncode, "not in the local cache" in done.stderr) == (1, True), done.stderr
