"""A version made in parts is the version that one push makes; what comes between makes it void, and nothing half."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta.models import WINDOW, Model, files_of, models, nudged, successors, tree, weights, write
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    SafetensorsError,
    UnsafeFileError,
    VersionExistsError,
)
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.garbage.collecting import CollectionOptions
from textnlp_fast.storage.joint_push import CodedPart, JointPush, code_part
from textnlp_fast.storage.publication import OvertakenError
from textnlp_fast.storage.pull_record import RECORD_NAME
from textnlp_fast.storage.push import PushRequest
from textnlp_fast.storage.version_manager import VersionManager

OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)


def begun(repository: Repository, version: str, name: str = "m") -> JointPush:
    request = PushRequest(path="", name=name, version=version)
    return JointPush(repository.store, VersionManager(repository.store), request, OPTIONS)


def coded(repository: Repository, joint: JointPush, root: Path, paths: Sequence[str]) -> CodedPart:
    """A part as another process makes it, which gets and gives plain data."""
    task = pickle.loads(pickle.dumps(joint.task))
    made = code_part(
        repository.store, VersionManager(repository.store), task, {path: root / path for path in paths}
    )
    return pickle.loads(pickle.dumps(made))  # type: ignore[no-any-return]


def opened(root: Path) -> Repository:
    return Repository.open(root / "repo", create=True, window_bytes=WINDOW, options=OPTIONS)


@given(data=st.data())
@settings(max_examples=12)
def test_parts_make_the_version_that_a_push_makes(data: st.DataObject) -> None:
    old = data.draw(models())
    new = data.draw(successors(old))
    with TemporaryDirectory() as folder:
        root = Path(folder)
        repository = opened(root)
        repository.push(write(old, root / "old"), "m", "1.0.0")
        write(new, root / "new")
        joint = begun(repository, "1.1.0")
        groups: dict[int, list[str]] = {}
        for path in new:
            groups.setdefault(data.draw(st.integers(0, 2)), []).append(path)
        report = joint.finish([coded(repository, joint, root / "new", paths) for paths in groups.values()])
        assert (report.parent, report.already_there) == ("m@1.0.0", False)
        assert repository.verify().ok
        repository.pull("m", "1.1.0", root / "out")
        found = {path: content for path, content in tree(root / "out").items() if path != RECORD_NAME}
        assert found == files_of(new)
        # The same files from one process are the same version.
        assert Repository(repository.store, OPTIONS).push(root / "new", "m", "1.1.0").already_there


def two_files(seed: int) -> Model:
    return {f"{name}.safetensors": {f"{name}.w": weights(seed + number)} for number, name in enumerate("ab")}


def test_a_part_that_is_coded_again_uploads_nothing(tmp_path: Path) -> None:
    repository = opened(tmp_path)
    source = write(two_files(1), tmp_path / "m")
    joint = begun(repository, "1.0.0")
    first = coded(repository, joint, source, ["a.safetensors"])
    again = coded(repository, joint, source, ["a.safetensors"])
    assert [shard.digest for shard in first.shards] == [shard.digest for shard in again.shards]
    assert all(shard.uploaded for shard in first.shards) and not any(s.uploaded for s in again.shards)
    assert repository.models() == {}
    joint.finish([again, coded(repository, joint, source, ["b.safetensors"])])
    assert (
        begun(repository, "1.0.0")
        .finish([coded(repository, begun(repository, "1.0.0"), source, list(two_files(1)))])
        .already_there
    )


def test_what_any_version_has_is_not_stored_again(tmp_path: Path) -> None:
    repository = opened(tmp_path)
    old = write(two_files(1), tmp_path / "old")
    repository.push(old, "other", "1.0.0")
    joint = begun(repository, "1.0.0")
    report = joint.finish([coded(repository, joint, old, [path]) for path in two_files(1)])
    assert (report.parent, report.new_contents, report.uploaded_bytes, report.stored_bytes) == (None, 0, 0, 0)
    # One file of it, and one that nobody has; the version that was known is gone by then.
    mixed = write(
        {"a.safetensors": two_files(1)["a.safetensors"], "c.safetensors": {"c": weights(9)}}, tmp_path / "new"
    )
    joint = begun(repository, "1.0.0", "third")
    parts = [coded(repository, joint, mixed, ["a.safetensors"])]
    repository.collect_garbage(CollectionOptions(versions=[("other", "1.0.0")], delete=True, grace_s=0))
    parts.append(coded(repository, joint, mixed, ["c.safetensors"]))
    report = joint.finish(parts)
    assert (report.new_contents, report.reused_contents) == (len(parts[1].contents), len(parts[0].contents))
    assert repository.verify().ok
    repository.pull("third", "1.0.0", tmp_path / "out")
    found = {path: content for path, content in tree(tmp_path / "out").items() if path != RECORD_NAME}
    assert found == tree(mixed)


def test_what_is_refused(tmp_path: Path) -> None:
    repository = opened(tmp_path)
    source = write(two_files(1), tmp_path / "m")
    joint = begun(repository, "1.0.0")
    part = coded(repository, joint, source, ["a.safetensors"])
    with pytest.raises(InvalidInputError, match="twice"):
        joint.finish([part, part])
    with pytest.raises(InvalidInputError, match="no files"):
        joint.finish([])
    (source / "m.pt").write_bytes(b"\x80\x02}q\x00.")
    (source / "broken.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UnsafeFileError):
        coded(repository, joint, source, ["m.pt"])
    with pytest.raises(SafetensorsError):
        coded(repository, joint, source, ["broken.safetensors"])
    for path in ("none.safetensors", "none.json"):
        with pytest.raises(InvalidInputError):
            coded(repository, joint, source, [path])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(b"a")
    versions = VersionManager(repository.store)
    for path in ("../a", ".git/a", "/a", ""):
        with pytest.raises(InvalidInputError):
            code_part(repository.store, versions, joint.task, {path: tmp_path / "other" / "a"})
    joint.finish([part])
    other = begun(repository, "1.0.0")
    with pytest.raises(VersionExistsError):
        other.finish([coded(repository, other, source, ["b.safetensors"])])


def test_another_writer_was_first(tmp_path: Path) -> None:
    repository = opened(tmp_path)
    source = write(two_files(1), tmp_path / "m")
    one, two, three = (begun(repository, "1.0.0") for _ in range(3))
    parts = [coded(repository, one, source, [path]) for path in two_files(1)]
    assert not one.finish(parts).already_there
    assert two.finish(parts).already_there
    with pytest.raises(VersionExistsError):
        three.finish(parts[:1])


def test_a_collection_that_comes_between_voids_it(tmp_path: Path) -> None:
    repository = opened(tmp_path)
    source = write(two_files(1), tmp_path / "m")
    joint = begun(repository, "1.0.0")
    parts = [coded(repository, joint, source, [path]) for path in two_files(1)]
    # Objects that nothing names, looked at twice with no time to wait: they go.
    for _ in range(3):
        repository.collect_garbage(CollectionOptions(delete=True, grace_s=0, push_grace_s=0))
    with pytest.raises(OvertakenError):
        joint.finish(parts)
    assert repository.models() == {}
    again = begun(repository, "1.0.0")
    again.finish([coded(repository, again, source, [path]) for path in two_files(1)])
    assert repository.verify().ok


def test_a_version_that_lost_objects_is_not_told_it_is_there(tmp_path: Path) -> None:
    repository = opened(tmp_path)
    source = write(two_files(1), tmp_path / "m")
    repository.push(source, "m", "1.0.0")
    next(path for path in (tmp_path / "repo" / "objects").rglob("*") if path.is_file()).unlink()
    with pytest.raises(CorruptDataError, match="lost objects"):
        begun(repository, "1.0.0")


def test_only_what_changed_is_stored(tmp_path: Path) -> None:
    old = two_files(1)
    repository = opened(tmp_path)
    repository.push(write(old, tmp_path / "old"), "m", "1.0.0")
    tensors = old["a.safetensors"]
    assert isinstance(tensors, dict)
    new: Model = {**old, "a.safetensors": {name: nudged(each, 1) for name, each in tensors.items()}}
    source = write(new, tmp_path / "new")
    joint = begun(repository, "1.1.0")
    report = joint.finish([coded(repository, joint, source, [path]) for path in new])
    assert report.new_contents == 1 and report.stored_bytes < 4096
    manifest = repository.manifest("m", "1.1.0")
    assert sum(1 for content in manifest.contents.values() if content.base is not None) == 1
