"""The hub's cache, filled by its own client, comes in; and what goes out, its own client and transformers find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from storage.hub.fake_hub import COMMIT, hub_serving
from storage.sharding.shard_models import files_below, llama, write_model
from textnlp_fast.cli.program import group
from textnlp_fast.errors import ConflictError, CorruptDataError, InvalidInputError, ModelNotFoundError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.hub import export_snapshot, exporting, import_snapshot
from textnlp_fast.storage.hub.cache import default_cache, hub_model

REPO_ID = "some-org/tiny.model"


def by_the_hubs_client(cache: Path, files: dict[str, bytes]) -> Path:
    """A cache as huggingface_hub makes it: in a process of its own, for it reads its settings when it is imported."""
    pytest.importorskip("huggingface_hub")
    script = (
        "import sys; from pathlib import Path; from huggingface_hub import hf_hub_download as get\n"
        "repo_id, cache, endpoint, *names = sys.argv[1:]\n"
        "for name in names:\n"
        "    path = get(repo_id, name, cache_dir=cache, endpoint=endpoint)\n"
        "print(Path(cache, *Path(path).relative_to(cache).parts[:3]))"
    )
    with hub_serving(REPO_ID, files) as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", script, REPO_ID, str(cache), endpoint, *files],
            env={
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "PATH": "/usr/bin",
                "HOME": str(cache),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.open(tmp_path / "repository", create=True)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return {**files_below(write_model(tmp_path / "source", llama(), files=2)), "original/params.json": b"{}"}


def test_a_cache_of_the_hubs_client_comes_in_checked(
    tmp_path: Path, repository: Repository, files: dict[str, bytes]
) -> None:
    snapshot = by_the_hubs_client(tmp_path / "cache", files)
    assert snapshot.name == COMMIT
    report = import_snapshot(repository, REPO_ID, cache_dir=tmp_path / "cache")
    assert (report.model, report.version, report.commit) == (REPO_ID, "1.0.0", COMMIT)
    assert (report.checked_files, report.unchecked_files) == (len(files), 0)
    repository.pull(REPO_ID, "1.0.0", tmp_path / "out")
    assert files_below(tmp_path / "out") == files
    again = import_snapshot(repository, REPO_ID, cache_dir=tmp_path / "cache", revision=COMMIT)
    assert (again.version, again.push) == ("1.0.0", None)
    assert repository.models() == {REPO_ID: ["1.0.0"]}


def test_what_came_from_the_hub_goes_back_under_its_commit(
    tmp_path: Path, repository: Repository, files: dict[str, bytes]
) -> None:
    snapshot = by_the_hubs_client(tmp_path / "cache", files)
    import_snapshot(repository, REPO_ID, cache_dir=tmp_path / "cache")
    report = export_snapshot(repository, REPO_ID, None, REPO_ID, cache_dir=tmp_path / "other")
    assert report.commit == COMMIT
    mine = tmp_path / "other" / snapshot.relative_to(tmp_path / "cache")
    for name in files:
        assert (mine / name).readlink() == (snapshot / name).readlink()


def test_the_hubs_client_and_transformers_find_what_goes_out(tmp_path: Path, repository: Repository) -> None:
    hub = pytest.importorskip("huggingface_hub")
    source = write_model(tmp_path / "source", llama(), files=2)
    (source / "sub").mkdir()
    (source / "sub" / "more.txt").write_text("more")
    repository.push(source, "tiny", "1.0.0")
    cache = tmp_path / "cache"
    report = export_snapshot(repository, "tiny", "1.0.0", REPO_ID, cache_dir=cache)
    found = Path(hub.snapshot_download(REPO_ID, cache_dir=cache, local_files_only=True))
    assert found == Path(report.path)
    assert {
        path.relative_to(found).as_posix(): path.read_bytes() for path in found.rglob("*") if path.is_file()
    } == (files_below(source))
    one = hub.try_to_load_from_cache(REPO_ID, "sub/more.txt", cache_dir=cache)
    assert isinstance(one, str) and Path(one).read_text() == "more"
    assert all(path.is_symlink() for path in found.rglob("*") if path.is_file())
    (repo,) = hub.scan_cache_dir(cache).repos
    assert (repo.repo_id, {revision.commit_hash for revision in repo.revisions}) == (REPO_ID, {report.commit})
    assert export_snapshot(repository, "tiny", "1.0.0", REPO_ID, cache_dir=cache).new_blobs == 0


def test_transformers_loads_an_exported_version(tmp_path: Path, repository: Repository) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "source")
    repository.push(tmp_path / "source", "tiny", "1.0.0")
    export_snapshot(repository, "tiny", None, REPO_ID, cache_dir=tmp_path / "cache")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        REPO_ID, cache_dir=tmp_path / "cache", local_files_only=True
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_the_next_export_moves_the_ref_and_keeps_the_last_snapshot(
    tmp_path: Path, repository: Repository
) -> None:
    source = write_model(tmp_path / "source", llama())
    repository.push(source, "tiny", "1.0.0")
    (source / "tokenizer.json").write_text("{}")
    repository.push(source, "tiny", "1.1.0")
    reports = [
        export_snapshot(repository, "tiny", version, REPO_ID, cache_dir=tmp_path / "cache")
        for version in ("1.0.0", "1.1.0")
    ]
    assert reports[0].commit != reports[1].commit
    assert [report.new_blobs for report in reports] == [3, 1]  # the weights and the configuration are there
    model = hub_model(REPO_ID, tmp_path / "cache")
    assert model.commit_of("main") == reports[1].commit
    assert Path(reports[0].path, "config.json").is_file()


@pytest.mark.parametrize("moment", range(5))
def test_an_export_that_is_cut_off_does_no_harm(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """At each of the steps that others can see: blobs, snapshot, note, ref."""
    source = write_model(tmp_path / "source", llama())
    repository.push(source, "tiny", "1.0.0")
    (source / "tokenizer.json").write_text("{}")
    repository.push(source, "tiny", "1.1.0")
    cache = tmp_path / "cache"
    first = export_snapshot(repository, "tiny", "1.0.0", REPO_ID, cache_dir=cache)
    steps = ("_move_blobs", "_link", "_note", "_write", "Path.rename")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if steps[moment] == "Path.rename":
            patch.setattr(Path, "rename", cut)
        elif steps[moment] == "_write":  # of the note and of the ref: the second
            write = exporting._write
            calls: list[Path] = []

            def second(path: Path, data: bytes) -> None:
                calls.append(path)
                if len(calls) == 2:
                    raise KeyboardInterrupt
                write(path, data)

            patch.setattr(exporting, "_write", second)
        else:
            patch.setattr(exporting, steps[moment], cut)
        with pytest.raises(KeyboardInterrupt):
            export_snapshot(repository, "tiny", "1.1.0", REPO_ID, cache_dir=cache)
    model = hub_model(REPO_ID, cache)
    assert model.commit_of("main") == first.commit
    assert all(path.is_file() for path in Path(first.path).iterdir())
    again = export_snapshot(repository, "tiny", "1.1.0", REPO_ID, cache_dir=cache)
    assert model.commit_of("main") == again.commit != first.commit
    assert files_below(Path(again.path)) == files_below(source)


def test_a_ref_from_elsewhere_is_left_alone(
    tmp_path: Path, repository: Repository, files: dict[str, bytes]
) -> None:
    snapshot = by_the_hubs_client(tmp_path / "cache", files)
    repository.push(write_model(tmp_path / "mine", llama(seed=5)), "mine", "1.0.0")
    before = files_below(tmp_path / "cache")
    with pytest.raises(ConflictError, match="not exported here"):
        export_snapshot(repository, "mine", None, REPO_ID, cache_dir=tmp_path / "cache")
    assert files_below(tmp_path / "cache") == before
    report = export_snapshot(repository, "mine", None, REPO_ID, cache_dir=tmp_path / "cache", revision="mine")
    assert Path(report.path) != snapshot
    assert hub_model(REPO_ID, tmp_path / "cache").commit_of("main") == COMMIT


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "tokenizer.json"])
def test_a_blob_that_rotted_is_found(
    tmp_path: Path, repository: Repository, files: dict[str, bytes], name: str
) -> None:
    snapshot = by_the_hubs_client(tmp_path / "cache", files)
    blob = (snapshot / name).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(CorruptDataError, match="not what its name says"):
        import_snapshot(repository, REPO_ID, cache_dir=tmp_path / "cache")
    assert repository.models() == {}


def test_what_the_cache_does_not_have_is_said(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(ModelNotFoundError, match="the cache has no") as caught:
        import_snapshot(repository, REPO_ID, cache_dir=tmp_path / "cache")
    assert "hf download" in caught.value.hint


@pytest.mark.parametrize("repo_id", ["", "a/b/c", "../x", "a--b", "a/../b", "/x", "a b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, repo_id: str) -> None:
    with pytest.raises(InvalidInputError):
        hub_model(repo_id, tmp_path)


@pytest.mark.parametrize("revision", ["../../x", "/etc", ".."])
def test_revisions_that_lead_elsewhere_are_refused(
    tmp_path: Path, repository: Repository, revision: str
) -> None:
    repository.push(write_model(tmp_path / "source", llama()), "m", "1.0.0")
    with pytest.raises(InvalidInputError):
        export_snapshot(repository, "m", None, REPO_ID, cache_dir=tmp_path / "cache", revision=revision)
    with pytest.raises(InvalidInputError):
        import_snapshot(repository, REPO_ID, cache_dir=tmp_path / "cache", revision=revision)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert default_cache() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert default_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert default_cache() == Path("/c")


def test_from_the_command_line(tmp_path: Path, files: dict[str, bytes]) -> None:
    by_the_hubs_client(tmp_path / "cache", files)

    def run(*words: object) -> str:
        result = CliRunner().invoke(group, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    place = ("--repo", tmp_path / "repository", "--cache-dir")
    said = run("import-hub", REPO_ID, *place, tmp_path / "cache", "--as", "tiny@2.0.0")
    assert "as tiny@2.0.0" in said and f"{len(files)} files checked" in said
    document = json.loads(run("export-hub", "tiny", "me/tiny", *place, tmp_path / "mine", "--json"))
    assert document["revision"] == "main"
    assert "already" in run("import-hub", REPO_ID, *place, tmp_path / "cache", "--as", "tiny@2.0.0")
