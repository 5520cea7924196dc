"""A server on this machine that speaks as much of the Hub's protocol as streaming and pushing need."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from tests.unit.sources.web import Web, WebHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "89abcdef0123456789abcdef0123456789abcdef"
TOKEN = "hf_a-token-of-a-test"


class Hub(Web):
    """Serves every folder under `root` as the repository `team/<folder>`; `<folder>@v1` is its revision `v1`.

    Weights are redirected to the same server under another name, at an address that is signed; that one refuses tokens.

    Attributes:
        private: Repositories that need the token.
        gated: Repositories that nobody may read.
        busy: How many requests of the API are answered with 429 first.
        signature: Part of signed addresses; others are not valid any more.
        created: Bodies of requests that created repositories and branches.
        pushed: What was uploaded: files by name.
        commits: Their summaries.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, HubHandler)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.asked.clear()
        self.retry_after = "0"
        self.private, self.gated = set[str](), set[str]()
        self.busy, self.signature = 0, "first"
        self.created: list[Any] = []
        self.pushed: dict[str, bytes] = {}
        self.commits: list[dict[str, Any]] = []
        self.blobs: dict[str, bytes] = {}


class HubHandler(WebHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.answer(body)

    def do_PUT(self) -> None:
        self.server.blobs[self.path.rsplit("/", 1)[1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(200, {"ETag": '"stored"'}, b"")

    def answer(self, body: bytes = b"") -> None:
        path, _, query = self.path.partition("?")
        self.server.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[0] == "signed":
            if self.headers.get("Authorization"):
                self.reply(400, {}, b"a token was given to a stranger")
            elif query != self.server.signature:
                self.reply(403, {}, b"expired")
            else:
                self.send_file(self.server.root / "/".join(parts[1:]))
        elif self.server.busy:
            self.server.busy -= 1
            self.reply(429, {"Retry-After": self.server.retry_after}, b"slowly")
        elif "resolve" in parts:
            self.resolve(parts)
        elif self.command == "POST":
            self.write(parts, json.loads(body.splitlines()[0] or b"{}"), body)
        elif parts[:2] == ["api", "models"]:
            self.describe(parts)
        else:
            self.refuse(404, "RepoNotFound")

    def refuse(self, status: int, code: str) -> None:
        self.reply(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")

    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def folder(self, name: str, revision: str) -> Path | None:
        """Return the folder of a revision; answer and return None where there is none."""
        folder = self.server.root / (f"{name}@v1" if revision in ("v1", OLDER) else name)
        if not (self.server.root / name).is_dir() or (name in self.server.private and not self.known()):
            self.refuse(404 if self.known() else 401, "RepoNotFound")
        elif revision not in ("main", COMMIT, "v1", OLDER) or not folder.is_dir():
            self.refuse(404, "RevisionNotFound")
        else:
            return folder
        return None

    def describe(self, parts: list[str]) -> None:
        revision = parts[5] if len(parts) > 5 else "main"
        folder = self.folder(parts[3], revision)
        if folder is None:
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [str(path.relative_to(folder)) for path in files]
        sha = OLDER if folder.name.endswith("@v1") else COMMIT
        answer: object = {"id": f"team/{parts[3]}", "sha": sha, "siblings": [{"rfilename": name} for name in names], "tags": []}
        if "tree" in parts:
            sizes = [path.stat().st_size for path in files]
            answer = [{"type": "file", "path": name, "size": size, "oid": sha} for name, size in zip(names, sizes)]
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def resolve(self, parts: list[str]) -> None:
        place = parts.index("resolve")
        folder = self.folder(parts[place - 1], parts[place + 1])
        if folder is None:
            return
        file = folder / "/".join(parts[place + 2 :])
        if parts[place - 1] in self.server.gated:
            self.refuse(403, "GatedRepo")
        elif not file.is_file():
            self.refuse(404, "EntryNotFound")
        else:
            tag = hashlib.sha256(file.read_bytes()).hexdigest()
            headers = {"X-Repo-Commit": OLDER if folder.name.endswith("@v1") else COMMIT, "ETag": f'"{tag}"'}
            if file.suffix == ".safetensors":
                elsewhere = self.server.address.replace("127.0.0.1", "localhost")
                location = f"{elsewhere}/signed/{file.relative_to(self.server.root)}?{self.server.signature}"
                size = str(file.stat().st_size)
                self.reply(302, {**headers, "X-Linked-Etag": f'"{tag}"', "X-Linked-Size": size, "Location": location}, b"")
            else:
                self.reply(200, headers, file.read_bytes())

    # ---- uploads -------------------------------------------------------------------------------------------------------

    def write(self, parts: list[str], said: dict[str, Any], body: bytes) -> None:
        if not self.known():
            self.refuse(401, "")
        elif parts[:2] == ["api", "validate-yaml"]:
            self.say({"errors": [], "warnings": []})
        elif "create" in parts or "branch" in parts:
            if said.get("organization") == "others":
                self.refuse(403, "")
                return
            self.server.created.append(said or parts[-1])
            self.say({"url": f"{self.server.address}/team/new", "name": "new", "id": "team/new"})
        elif "preupload" in parts:
            modes = [(each["path"], "lfs" if each["path"].endswith(".safetensors") else "regular") for each in said["files"]]
            self.say(
                {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None} for path, mode in modes]}
            )
        elif parts[-1] == "batch" and "full.git" in parts:
            self.refuse(413, "")
        elif parts[-1] == "batch":
            self.say({"transfer": "basic", "objects": [self.place(each) for each in said["objects"]]})
        elif "commit" in parts:
            self.commit(body)
        else:
            self.refuse(404, "")

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.server.blobs:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{self.server.address}/lfs/{wanted['oid']}", "header": {}}}}

    def commit(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append({**value, "path": self.path})
            elif line["key"] == "file":
                self.server.pushed[value["path"]] = base64.b64decode(value["content"])
            else:
                self.server.pushed[value["path"]] = self.server.blobs[value["oid"]]
        self.say(
            {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"{self.server.address}/team/new/commit/{COMMIT}",
                **({"pullRequestUrl": f"{self.server.address}/team/new/discussions/1"} if "create_pr=1" in self.path else {}),
            }
        )

    def say(self, answer: dict[str, Any]) -> None:
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
