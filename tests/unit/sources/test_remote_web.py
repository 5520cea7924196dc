"""Checkpoints behind a web server: the same bytes as from disk, nothing of them kept, whatever the server does."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import warmkit
from tests import forks
from tests.conftest import CONFIG, Run, save
from tests.unit.sources.web import Fault, Web, WebHandler, serving
from warmkit.engine import lookahead
from warmkit.errors import CheckpointError, FormatError, TransferError, UsageError
from warmkit.layouts.opening import open_checkpoint
from warmkit.sources import http_file, prefetch, remote_file
from warmkit.sources.files import Files
from warmkit.sources.http_file import Site, origin
from warmkit.verbs.slices import LayerRange, Slice, merge_slices

MEGABYTE = 1 << 20
HIDDEN = 512


def megabytes(seed: int) -> dict[str, torch.Tensor]:
    """Return seven megabytes: layers of one megabyte and of a few bytes, integers, a scalar and an empty tensor."""
    own = torch.Generator().manual_seed(seed)
    base = torch.Generator().manual_seed(99)
    tensors = {}
    for layer in range(6):
        for name, shape in (("mlp.weight", (HIDDEN, HIDDEN)), ("norm.weight", (HIDDEN,))):
            value = torch.randn(shape, generator=base) + 0.1 * (seed > 0) * torch.randn(shape, generator=own)
            tensors[f"model.layers.{layer}.{name}"] = value
    tensors["model.positions"] = torch.arange(HIDDEN * 100)
    tensors["model.scale"] = torch.tensor(1.0 + seed)
    tensors["model.nothing"] = torch.empty(0, 3)
    return tensors


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("sft", "a", "b")):
        save(folder / name, megabytes(seed), shards=1 + 2 * (name == "b"))
        (folder / name / "tokenizer_config.json").write_text('{"model_max_length": 7}')
    return folder


@pytest.fixture
def web(models: Path) -> Iterator[Web]:
    with serving(Web(models)) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Retry at once, fetch in small pieces, and keep temporary files where the test can look."""
    monkeypatch.setattr(remote_file, "BACKOFF", 0.001)
    monkeypatch.setattr(prefetch, "PIECE", MEGABYTE // 4)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def expected(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    warmkit.merge([models / "a", models / "b"], folder / "slerp", init=models / "sft")
    warmkit.merge([models / "a", models / "b"], folder / "lerp", method="lerp")
    return {name: weights(folder / name) for name in ("slerp", "lerp")}


def weights(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))


def merge(web: Web, output: Path, method: str = "lerp", **options: object) -> warmkit.MergeResult:
    init = f"{web.address}/sft" if method == "slerp" else None
    return warmkit.merge([f"{web.address}/a", f"{web.address}/b/"], output, init=init, method=method, **options)  # type: ignore[arg-type]


# ---- what arrives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lerp", "slerp"])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_streamed_merge_is_the_merge_from_disk(
    method: str, threads: int, web: Web, expected: dict[str, bytes], tmp_path: Path
) -> None:
    result = merge(web, tmp_path / "out", method, threads=threads)
    assert weights(tmp_path / "out") == expected[method]
    assert result.bytes_streamed == result.bytes_read
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == CONFIG
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()
    warmkit.verify(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert manifest["models"][1]["source"] == f"{web.address}/b"
    assert all(manifest["models"][1]["versions"].values())


def test_nothing_of_the_weights_touches_the_disk(web: Web, tmp_path: Path) -> None:
    opened = [open_checkpoint(f"{web.address}/{name}") for name in ("a", "b")]
    merge(web, tmp_path / "out")
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "out")]
    assert {path.name for path in kept} == {"config.json", "tokenizer_config.json"}
    folders = [checkpoint.path for checkpoint in opened]
    del opened
    assert not any(folder.exists() for folder in folders), "the folder of a checkpoint goes with it"


def test_every_byte_is_asked_for_once_by_a_method_of_one_pass(web: Web, models: Path, tmp_path: Path) -> None:
    merge(web, tmp_path / "out")
    asked = sum(stop - start for _, start, stop in web.ranges)
    there = sum(path.stat().st_size for name in "ab" for path in (models / name).glob("*.safetensors"))
    assert there <= asked <= there * 1.1


def test_a_group_that_fits_is_asked_for_once_by_a_method_of_two_passes(web: Web, tmp_path: Path) -> None:
    result = merge(web, tmp_path / "out", "slerp")
    asked = sum(stop - start for _, start, stop in web.ranges)
    assert asked < result.bytes_streamed * 0.6


def test_a_small_window_and_few_buffers_change_no_byte(
    web: Web, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookahead.Lookahead.__init__, "__defaults__", (MEGABYTE,))
    monkeypatch.setattr(prefetch.Prefetcher.__init__, "__defaults__", (MEGABYTE // 2, 2))
    merge(web, tmp_path / "out", "slerp", threads=4)
    assert weights(tmp_path / "out") == expected["slerp"]


def test_requests_overlap_each_other(web: Web, tmp_path: Path) -> None:
    web.latency = 0.05
    merge(web, tmp_path / "out")
    moments = web.moments[4:]  # those of opening four files come first
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert sorted(gaps)[len(gaps) // 2] < web.latency / 2, "each request waited for the one before it"


def test_one_file_is_a_checkpoint(web: Web, models: Path) -> None:
    checkpoint = open_checkpoint(f"{web.address}/a/model.safetensors?signature=secret")
    assert checkpoint.directory is None
    assert "secret" not in checkpoint.source
    name = "model.layers.3.mlp.weight"
    assert torch.equal(checkpoint[name].load(), open_checkpoint(models / "a")[name].load())


def test_comparing_and_liti_stream_too(web: Web, models: Path, tmp_path: Path) -> None:
    local = warmkit.compare([models / "a", models / "b"], init=models / "sft")
    remote = warmkit.compare([f"{web.address}/a", f"{web.address}/b"], init=f"{web.address}/sft")
    assert [g.pairs[0].task_vector_angle for g in remote.groups] == [g.pairs[0].task_vector_angle for g in local.groups]
    warmkit.liti(models / "a", tmp_path / "local", init=models / "sft", eta=0.3)
    warmkit.liti(models / "a", tmp_path / "mixed", init=f"{web.address}/sft", eta=0.3)
    assert weights(tmp_path / "mixed") == weights(tmp_path / "local")


def test_a_dry_run_says_what_would_be_transferred_and_reads_no_weights(web: Web, run: Run) -> None:
    done = run("merge", "--method", "lerp", f"{web.address}/a", f"{web.address}/b", "-o", "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "over the network" in done.stdout
    assert all(start == 0 for _, start, _ in web.ranges)


def test_a_long_header_is_read_to_its_end(web: Web, models: Path) -> None:
    many = {f"layers.{n}.{'long' * 20}.weight": torch.zeros(1) for n in range(2000)}
    save(models / "many", many, config=None)
    assert len(open_checkpoint(f"{web.address}/many")) == 2000
    assert (web.ranges[-1][1], web.ranges[-1][2]) > (1 << 16, 1 << 17)


# ---- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults", [["drop"] * 6, ["early"] * 3, [500, 500], [503, "drop", 502], [429, 429], ["short"] * 5], ids=str
)
def test_what_passes_is_tried_again(faults: list[Fault], web: Web, expected: dict[str, bytes], tmp_path: Path) -> None:
    web.faults.extend(faults)
    merge(web, tmp_path / "out")
    assert not web.faults
    assert weights(tmp_path / "out") == expected["lerp"]


def test_a_dropped_connection_goes_on_at_the_byte_where_it_stopped(web: Web, models: Path) -> None:
    checkpoint = open_checkpoint(f"{web.address}/a")
    entry = checkpoint.entries["model.layers.3.mlp.weight"]
    web.faults.append("drop")
    web.ranges.clear()
    buffer = bytearray(entry.nbytes)
    with Files() as files:
        entry.read(files, 0, memoryview(buffer))
    (_, start, stop), second, *_ = web.ranges
    assert second[1:] == (start + (stop - start) // 2, stop)
    assert bytes(buffer) == open_checkpoint(models / "a")["model.layers.3.mlp.weight"].load().numpy().tobytes()


def test_a_pause_that_the_server_asks_for_is_kept_by_all_connections(web: Web, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(f"{web.address}/a")
    web.faults.append(429)
    web.retry_after = "1"
    web.moments.clear()
    entry = checkpoint.entries["model.layers.3.mlp.weight"]
    with Files() as files:
        entry.read(files, 0, memoryview(bytearray(MEGABYTE // 8)))
    assert web.moments[-1] - web.moments[0] >= 0.99


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("whole", "answers with the whole file (HTTP 200) where a part was asked for; download the file instead"),
        ("range", "were asked for, it gave"),
        ("length", "announces"),
        (403, "access denied (HTTP 403)"),
        (500, "HTTP 500 Internal Server Error (8 attempts)"),
        (429, "HTTP 429 Too Many Requests"),
        ("early", "the server ended"),
    ],
)
def test_what_does_not_pass_is_one_line_and_keeps_the_work(fault: Fault, said: str, web: Web, tmp_path: Path) -> None:
    web.always = fault
    with pytest.raises(TransferError) as raised:
        merge(web, tmp_path / "out")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{web.address}/")
    assert str(raised.value).endswith("the same command goes on where this one stopped")
    assert (tmp_path / ".out.warmkit" / "journal.jsonl").exists()
    web.always = None
    merge(web, tmp_path / "out")


def test_kill_9_in_the_middle_costs_only_what_was_not_written(web: Web, expected: dict[str, bytes], tmp_path: Path) -> None:
    arguments = ["merge", "--method", "lerp", f"{web.address}/a", f"{web.address}/b", "-o", "out", "--json"]
    web.latency = 0.1
    slowly = (
        "from warmkit.engine import sink; from warmkit.sources import prefetch; "
        "sink.FLUSH_BYTES = 1 << 18; prefetch.PIECE = 1 << 18; "
        "prefetch.Prefetcher.__init__.__defaults__ = (1 << 19, 1); from warmkit.cli.app import main; main()"
    )
    victim = forks.Popen([sys.executable, "-c", slowly, *arguments, "--threads", "1"], cwd=tmp_path)
    journal = tmp_path / ".out.warmkit" / "journal.jsonl"
    while not (journal.exists() and journal.read_text().count('"tensor"') > 2):
        assert victim.poll() is None
        time.sleep(0.01)
    victim.kill()
    victim.wait()
    assert not (tmp_path / "out").exists()
    web.latency = 0
    web.ranges.clear()
    done = forks.run([sys.executable, "-c", slowly, *arguments], cwd=tmp_path, text=True)
    assert json.loads(done.stdout)["resumed"] > 2
    assert weights(tmp_path / "out") == expected["lerp"]
    assert sum(stop - start for _, start, stop in web.ranges) < json.loads(done.stdout)["bytes_read"]


def test_an_interrupt_does_not_wait_for_a_server_that_says_nothing(web: Web, tmp_path: Path) -> None:
    arguments = ["merge", "--method", "lerp", f"{web.address}/a", f"{web.address}/b", "-o", "out"]
    command = [sys.executable, "-m", "warmkit", *arguments]
    web.hang = True
    with forks.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as victim:
        while not web.hanging:
            assert victim.poll() is None
            time.sleep(0.01)
        victim.send_signal(signal.SIGINT)
        _, said = victim.communicate(timeout=20)  # a connection waits for 30 seconds
    assert victim.returncode == 130
    assert said == "error: interrupted; the same command goes on where this one stopped\n"


def test_an_input_that_changed_between_the_two_runs_starts_over(models: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    for seed, name in enumerate("ab"):
        save(served / name, megabytes(seed))
    with serving(Web(served)) as web:
        web.always = 403
        with pytest.raises(TransferError):
            merge(web, tmp_path / "out")
        journal = tmp_path / ".out.warmkit" / "journal.jsonl"
        before = journal.read_text().splitlines()[0]
        save(served / "a", megabytes(2))
        with pytest.raises(TransferError):
            merge(web, tmp_path / "out")
        assert journal.read_text().splitlines()[0] != before


def test_a_pause_of_hours_is_not_waited_for(web: Web, tmp_path: Path) -> None:
    web.faults.append(429)
    web.retry_after = "7200"
    with pytest.raises(TransferError, match="asks for a pause of 7200 s"):
        merge(web, tmp_path / "out")


def test_a_file_that_is_replaced_while_it_is_read_is_an_error_and_no_mixture(web: Web, tmp_path: Path) -> None:
    web.faults.extend(["drop"] * 2 + ["stranger"])
    with pytest.raises(CheckpointError, match="was replaced while it was read"):
        merge(web, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_was_replaced_really_is_noticed(models: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    for name in "ab":
        save(served / name, megabytes(1))
    with serving(Web(served)) as web:
        checkpoint = open_checkpoint(f"{web.address}/a")
        save(served / "a", megabytes(2))
        with pytest.raises(CheckpointError, match="was replaced while it was read"):
            checkpoint["model.layers.3.mlp.weight"].load()


def test_a_server_that_goes_away_is_one_line(models: Path, tmp_path: Path) -> None:
    with serving(Web(models)) as web:
        address = web.address
        checkpoint = open_checkpoint(f"{address}/a")
    with pytest.raises(TransferError, match=r"gives no answer: Connection refused \(8 attempts\)"):
        checkpoint["model.layers.3.mlp.weight"].load()
    with pytest.raises(TransferError, match="gives no answer"):
        open_checkpoint(f"{address}/a")


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("nothing", CheckpointError, "expected model.safetensors or model.safetensors.index.json, the server has neither"),
        ("a/other.safetensors", CheckpointError, r"not there \(HTTP 404\)"),
        ("empty/model.safetensors", FormatError, "found 0 bytes"),
        ("torn", FormatError, "truncated"),
        ("page", FormatError, "its header claims"),
        ("outside", FormatError, "is no safetensors file of this model"),
        ("lying", FormatError, "disagrees with its files"),
    ],
)
def test_what_is_no_checkpoint_is_named(path: str, kind: type[Exception], said: str, models: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    save(served / "a", {"weight": torch.zeros(3)})
    (served / "empty").mkdir()
    (served / "empty" / "model.safetensors").touch()
    save(served / "torn", {"weight": torch.zeros(300)})
    os.truncate(served / "torn" / "model.safetensors", 900)
    (served / "page").mkdir()
    (served / "page" / "model.safetensors").write_text("<html>this is no model at all</html>")
    for name, mapping in (("outside", {"weight": "../a/model.safetensors"}), ("lying", {"other": "part.safetensors"})):
        save(served / name, {"weight": torch.zeros(3)})
        (served / name / "model.safetensors").rename(served / name / "part.safetensors")
        (served / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    with serving(Web(served)) as web, pytest.raises(kind, match=said) as raised:
        open_checkpoint(f"{web.address}/{path}")
    assert str(raised.value).startswith(web.address)


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(UsageError, match="without user and password"):
        open_checkpoint("http://me:secret@127.0.0.1/model")


def test_a_signature_reaches_no_card_manifest_note_or_error(web: Web, models: Path, tmp_path: Path) -> None:
    base = f"{web.address}/a?sig=S3CRET"
    added = tmp_path / "ad"
    added.mkdir()
    factors = {"A": torch.ones(2, HIDDEN), "B": torch.ones(HIDDEN, 2)}
    names = {f"base_model.model.model.layers.0.mlp.lora_{part}.weight": factor for part, factor in factors.items()}
    save_file(names, added / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "https://elsewhere/x?sig=S3CRET"}
    (added / "adapter_config.json").write_text(json.dumps(config))
    pair = f"{base}+{added}"
    result = warmkit.merge([pair, f"{web.address}/b?sig=S3CRET"], tmp_path / "out", init=base)
    sliced = merge_slices([Slice((LayerRange(base, 0, 2),)), Slice((LayerRange(base, 0, 6),))], tmp_path / "stacked")
    for folder in (tmp_path / "out", tmp_path / "stacked"):
        assert not [file for file in folder.iterdir() if b"S3CRET" in file.read_bytes()]
    assert "S3CRET" not in repr((result, sliced))
    sources = [each["source"] for each in json.loads((tmp_path / "out" / "warmkit.json").read_text())["models"]]
    assert sources == [f"{web.address}/a+{added}", f"{web.address}/b"]
    for wrong in (f"{web.address}/none?sig=S3CRET", f"{web.address}/a.bin?sig=S3CRET"):
        with pytest.raises(CheckpointError) as error:
            open_checkpoint(wrong)
        assert "S3CRET" not in str(error.value)


class Elsewhere(WebHandler):
    """Leads to the address that the server's `target` names."""

    def answer(self) -> None:
        self.reply(302, {"Location": self.server.target}, b"")  # type: ignore[attr-defined]


def test_a_token_does_not_follow_to_another_port_or_to_plain_http(models: Path, tmp_path: Path) -> None:
    for target in ("//127.0.0.1:{port}/a/config.json", "http://localhost:{port}/a/config.json"):
        with serving(Web(models)) as web, serving(Web(models, Elsewhere)) as first:
            first.target = target.format(port=web.server_address[1])  # type: ignore[attr-defined]
            Site({"Authorization": "Bearer T"}).small_file("x", f"{first.address}/x")
            assert "Authorization" not in web.headers["/a/config.json"]
    assert origin("https://host/a") == origin("https://HOST:443/b")
    assert len({origin(each) for each in ("https://h/a", "http://h/a", "https://h:8/a", "https://other/a")}) == 4


@pytest.mark.parametrize("target", ["http://127.0.0.1:99999/", "http://[::1", "ftp://127.0.0.1/x"])
def test_a_redirect_to_no_web_address_is_one_line(target: str, models: Path) -> None:
    with serving(Web(models, Elsewhere)) as web:
        web.target = target  # type: ignore[attr-defined]
        with pytest.raises(TransferError, match="which is no web address"):
            open_checkpoint(f"{web.address}/a")


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999/a", "http://", "http://[::1/a", "https:///x"])
def test_what_is_no_web_address_is_one_line(address: str) -> None:
    with pytest.raises(TransferError, match="web address"):
        open_checkpoint(address)


def test_letters_beyond_ascii_in_a_path_are_quoted(web: Web, models: Path) -> None:
    shutil.copytree(models / "a", models / "%D0%BC", dirs_exist_ok=True)
    assert open_checkpoint(f"{web.address}/м").nbytes == open_checkpoint(models / "a").nbytes


def test_small_files_have_one_bound_together(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_file, "LARGEST_SMALL_FILE", 100)
    with pytest.raises(CheckpointError, match="the small files beside the weights have more than"):
        open_checkpoint(f"{web.address}/b")


def test_a_proxy_of_the_environment_is_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.address.replace("http://", "http://me:secret@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    checkpoint = open_checkpoint("http://models.example.org/a")
    assert checkpoint["model.scale"].load() == 2
    assert web.headers["/a/model.safetensors"]["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
    assert checkpoint.source == "http://models.example.org/a"


@pytest.fixture
def certificate(web: Web, tmp_path: Path) -> Path:
    """Make the server speak https, with a certificate that nobody vouches for."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs openssl")
    file, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    asked = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=warmkit"]
    asked += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(file)]
    subprocess.run([openssl, *asked], check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_bytes(file.read_bytes() + key.read_bytes())
    web.speak_tls(both)
    return file


def test_https_streams_the_same_bytes(
    certificate: Path, web: Web, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    merge(web, tmp_path / "out")
    assert weights(tmp_path / "out") == expected["lerp"]


@pytest.mark.usefixtures("certificate")
def test_a_certificate_that_nobody_vouches_for_is_one_line(web: Web, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"127\.0\.0\.1: its certificate is not accepted: .*SSL_CERT_FILE") as raised:
        merge(web, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_greedy_soup_does_not_stream(web: Web, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is streamed; fetch it first"):
        warmkit.greedy_soup([f"{web.address}/a", f"{web.address}/b"], tmp_path / "out", score="echo {}")
