"""Publication of a result: config, tokenizer, index, card and manifest, written before it is renamed into place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmkit.common.whole_files import writing
from warmkit.engine.card import model_card
from warmkit.engine.container_copy import ContainerCopy
from warmkit.engine.manifest import mean_angle, write_manifest
from warmkit.engine.merge_options import OutputOptions
from warmkit.engine.prepare import Prepared
from warmkit.engine.result import report_groups
from warmkit.engine.staging import Staging
from warmkit.engine.stream import Stream
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import DType, parse_output_dtype
from warmkit.layouts.companions import copy_companions, copy_tokenizer
from warmkit.layouts.text_ends import write_ends
from warmkit.layouts.tokenizer import write_template
from warmkit.sources.weight_names import INDEX


def write_small_files(
    prepared: Prepared, staging: Staging, stream: Stream, options: OutputOptions, extra: Mapping[str, Any]
) -> None:
    """Write what lies beside the weights of every output; the manifest last."""
    dtype = parse_output_dtype(name) if (name := options.get("dtype")) else None
    for place, folder in enumerate(prepared.folders):
        target = staging.result / folder
        description = _describe(prepared, place, dtype, extra)
        groups = report_groups(prepared, stream, place)
        with writing(staging.destination):
            copy_companions(prepared.companions, prepared.small_files, target, dtype)
            write_ends(prepared.ends, prepared.companions, target)
            prepared.matched.finish(target)
            if prepared.tokenizer is not None:
                copy_tokenizer(prepared.tokenizer, target)
            if prepared.chat_template is not None:
                write_template(prepared.chat_template, target)
            if prepared.plan.index is not None:
                (target / INDEX).write_bytes(prepared.plan.index)
            card = model_card(staging.destination.name, description, mean_angle(groups))
            (target / "README.md").write_text(card, "utf-8", "backslashreplace")
            rows = [row.name for row in prepared.job.rows]
            write_manifest(target, description, rows, groups, stream.digests, place, options.get("sha256", False))


def write_copies(
    prepared: Prepared,
    copy: ContainerCopy,
    staging: Staging,
    stream: Stream,
    options: OutputOptions,
    extra: Mapping[str, Any],
) -> None:
    """Write every output in the container that is copied, in place of what was merged; the manifest last."""
    merged = staging.result
    result = staging.begin_anew()
    for place, folder in enumerate(prepared.folders):
        target = result / folder
        copy.write(merged / folder, target)
        description = _describe(prepared, place, None, {**copy.described, **extra})
        groups = report_groups(prepared, stream, place)
        with writing(staging.destination):
            card = model_card(staging.destination.name, description, mean_angle(groups))
            (target / "README.md").write_text(card, "utf-8", "backslashreplace")
            rows = [row.name for row in prepared.job.rows]
            write_manifest(target, description, rows, groups, stream.digests, place, options.get("sha256", False))


def _describe(prepared: Prepared, output: int, dtype: DType | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    def source(checkpoint: Checkpoint) -> dict[str, Any]:
        versions = {"versions": checkpoint.versions()} if checkpoint.streamed else {}
        named = {"state_dict": checkpoint.state_dict, "layout": checkpoint.layout}
        asked = {key: value for key, value in named.items() if value is not None}
        return {"source": checkpoint.source, **asked, "files": checkpoint.sizes(), **versions}

    return {
        "method": prepared.spec.name,
        "parameters": {**prepared.spec.described(output), "dtype": dtype.torch_name if dtype else None},
        "init": source(prepared.init) if prepared.init else None,
        "models": [source(model) for model in prepared.models],
        **({"vocabulary": prepared.matched.notes} if prepared.matched.notes else {}),
        **_described_choice(prepared),
        **({"heads": sorted(prepared.heads)} if prepared.heads else {}),
        **extra,
    }


def _described_choice(prepared: Prepared) -> dict[str, Any]:
    only, exclude = prepared.patterns
    if not prepared.kept:
        return {}
    where = {"source": prepared.donor.source, "tensors": sorted(prepared.kept)}
    return {"kept": {"only": list(only), "exclude": list(exclude), **where}}
