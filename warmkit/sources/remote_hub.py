"""Hub repositories, streamed: small files through the Hub's cache, weights from the addresses that the Hub names."""

from __future__ import annotations

from pathlib import Path

from warmkit.errors import CheckpointError, HubError
from warmkit.sources.beside import modules_of, weights_beside
from warmkit.sources.http_connections import Response
from warmkit.sources.http_file import HttpFile, Site
from warmkit.sources.hub import PATTERNS, parse_repository
from warmkit.sources.hub_client import absent, gated, patiently, without_bars
from warmkit.sources.remote import Remote, check_single, choose, read_mapping, several
from warmkit.sources.weight_names import SINGLE

SMALL = [pattern for pattern in PATTERNS if pattern != "*.safetensors"]


def open_hub(source: str) -> Remote:
    """Open a repository at one commit, which the revision names now; whatever is pushed meanwhile is not read.

    Raises:
        HubError: If the Hub refuses or cannot be reached.
        CheckpointError: If the repository holds no weights that can be streamed.
    """
    from huggingface_hub import HfApi, get_token, hf_hub_url, snapshot_download

    repo, revision = parse_repository(source)
    info = patiently(repo, revision, lambda: HfApi().model_info(repo, revision=revision))
    commit, names = info.sha or "main", [each.rfilename for each in info.siblings or ()]
    place = f"hf://{repo}@{revision or commit}"
    weights, index = choose(names, place)
    with without_bars():
        folder = Path(patiently(repo, revision, lambda: snapshot_download(repo, revision=commit, allow_patterns=SMALL)))
    mapping = read_mapping((folder / index).read_bytes(), f"{place}/{index}") if index else None
    check_single(names, mapping or {SINGLE: SINGLE}, place)
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    site = Site(headers, lambda response: _explain(repo, revision, response))

    def open_file(name: str) -> HttpFile:
        url = hf_hub_url(repo, name, revision=commit)
        return HttpFile(site, url, f"{place}/{name}", name, version=commit)

    files = several(open_file, sorted(set(mapping.values())) if mapping else weights)
    beside = weights_beside(names, [file.name for file in files], modules_of(folder), place)
    return Remote(source, folder, [*files], mapping, beside, [*several(open_file, beside.files)])


def _explain(repo: str, revision: str | None, response: Response) -> CheckpointError | None:
    code = response.headers.get("X-Error-Code")
    if code == "GatedRepo":
        return HubError(gated(repo))
    if code == "RevisionNotFound":
        return HubError(f"the Hub's {repo!r} has no revision {revision!r}")
    if response.status == 401:
        return HubError(absent(repo))
    return None
