"""Uploading a result to the Hub, after it was compared with its manifest."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.common.display import Displayed
from warmkit.common.progress import Advance
from warmkit.common.units import size
from warmkit.engine.manifest import MANIFEST, read_manifest
from warmkit.engine.replaceable import parts_of
from warmkit.errors import ChangedError, CheckpointError, HubError, UsageError
from warmkit.sources.file_identity import Identity, check_unchanged, identities_at
from warmkit.sources.hub_client import hub_errors, without_bars
from warmkit.sources.model_index import stays_inside
from warmkit.verbs.verify import verify

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


@dataclass(frozen=True, repr=False)
class Pushed(Displayed):
    """Upload to the Hub that was made: repository, commit and size.

    Attributes:
        repository: `owner/name`.
        commit: What the Hub calls the new state.
        url: Its page, or that of the pull request.
        files: How many.
        nbytes: All together.
    """

    repository: str
    commit: str
    url: str
    files: int
    nbytes: int

    def _facts(self) -> Mapping[str, object]:
        return {**super()._facts(), "nbytes": None, "size": size(self.nbytes)}


def push(
    output: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
    threads: int | None = None,
    advance: Advance | bool | None = None,
    stage: Callable[[str], None] = lambda name: None,
) -> Pushed:
    """Upload a result of warmkit with its card and manifest, in one commit.

    Every tensor and file is first compared with the manifest: what was altered since is not published as what the
    manifest describes. A repository or branch that does not exist is created. An upload that was interrupted sends only
    what the Hub does not have yet when the same command is run again.

    Args:
        output: A directory that warmkit wrote; of a sweep, one of its folders.
        repository: `owner/name`, or `hf://owner/name`.
        private: Create the repository as a private one; one that exists stays as it is.
        revision: Branch.
        message: Of the commit.
        create_pr: Open a pull request instead of writing to the branch.
        threads: Worker threads of the comparison.
        advance: Progress of the comparison, as of `verify`; without it, or a terminal, huggingface_hub draws no bars for the
            upload either.
        stage: Called with a name when the upload begins.

    Raises:
        VerificationError: If the result is not what was written.
        ChangedError: If it changes meanwhile.
        HubError: If the Hub refuses or cannot be reached.
    """
    folder, name = Path(output), repository.removeprefix("hf://")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"expected a repository like owner/name, found {repository!r}")
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise CheckpointError(f"{folder}: expected a directory that warmkit wrote, found {found}")
    if not (folder / MANIFEST).is_file() and (parts := parts_of(folder)):
        raise UsageError(f"{folder}: a sweep of {len(parts)} models; push one of them, {parts[0]} for instance")
    for path in folder.rglob("*"):
        if not stays_inside(path, folder):
            raise CheckpointError(f"{path}: is a link that leaves the directory, whose target would be published; remove it")
    before = identities_at(folder)
    method = read_manifest(folder)["method"]
    report = verify(folder, threads=threads, advance=advance)
    check_unchanged(before, before)
    stage("uploading")
    with contextlib.nullcontext() if advance and sys.stderr.isatty() else without_bars():
        done = _upload(folder, name, private, revision, message or f"{method} by warmkit", create_pr)
    _check_published(before, name)
    return Pushed(name, done.oid, str(done.pr_url or done.commit_url), report.files + 1, report.nbytes)


def _check_published(before: Mapping[Path, Identity], name: str) -> None:
    try:
        check_unchanged(before, before)
    except ChangedError as error:
        file = str(error).partition(": was ")[0]
        raise ChangedError(
            f"{file}: changed while it was uploaded, so {name} may hold another file than its manifest says; verify the result "
            "and push it again"
        ) from None


def _upload(folder: Path, name: str, private: bool, revision: str | None, message: str, create_pr: bool) -> CommitInfo:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise HubError("no token for the Hub; log in with `hf auth login`, or set HF_TOKEN to one that may write")
    api = HfApi()
    with hub_errors(name, revision):
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None and not create_pr:
            api.create_branch(name, branch=revision, exist_ok=True)
        return api.upload_folder(
            repo_id=name, folder_path=folder, revision=revision, commit_message=message, create_pr=create_pr
        )
