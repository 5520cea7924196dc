"""Options of the commands that ask a language model behind an endpoint: `label`, `sxs`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.cli.command import option
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.labeling.judge import EndpointJudge


@dataclass(eq=False, repr=False)
class EndpointOptions:
    """How an endpoint is asked."""

    endpoint: str | None = option(None, "Where chat completions are served: http://host/v1.", show_default=False)
    model: str | None = option(None, "The judge's name at the endpoint.", show_default=False)
    criteria: str | None = option(None, "What makes an answer better.", show_default="accuracy, coverage, clarity, no harm")
    concurrency: int = option(8, "Questions in flight at a time.", min=1)
    retries: int = option(5, "Attempts after the first, for each question.", min=0)
    timeout: float = option(60, "Seconds for one attempt.", min=0.001)
    backoff: float = option(1, "Seconds before a retry, doubled each time.", min=0)
    key_variable: str = option("OPENAI_API_KEY", "Environment variable with the endpoint's key.")
    cache: Path | None = option(None, "File that keeps the answers.", show_default="OUT.answers.sqlite")

    def check(self) -> None:
        """Refuse an endpoint without its model."""
        if (self.endpoint is None) != (self.model is None):
            raise UsageError("--endpoint and --model go together: where the judge answers, and its name there")

    def kept(self, output: Path) -> Path:
        """Return the file that keeps the answers, by default beside the result."""
        return self.cache or output.with_name(f"{output.stem}.answers.sqlite")

    @contextlib.contextmanager
    def judge(self, cache: Path) -> Generator[EndpointJudge]:
        """Open the endpoint, and the file that keeps its answers."""
        from warmkit.labeling.cache import Cache
        from warmkit.labeling.endpoint import Endpoint
        from warmkit.labeling.judge import CRITERIA, EndpointJudge

        assert self.endpoint is not None
        assert self.model is not None
        client = {name: getattr(self, name) for name in ("key_variable", "retries", "timeout", "backoff")}
        with Endpoint(self.endpoint, **client) as endpoint, Cache(cache) as answers:
            yield EndpointJudge(endpoint, self.model, answers, self.criteria or CRITERIA)
