"""What a push tells the policy about its tensors is what the policy would be told of whole versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.contents.entries import FileEntry, file_digest
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.storage.anchor_costs import Prices, Readers, VersionSizes
from textnlp_fast.storage.anchoring import MAX_LINEAGE, decide, read_lineage, stored_versions
from textnlp_fast.storage.anchors import StoredVersion, choose_base
from textnlp_fast.storage.manifest import Anchor, Content, Extent, Manifest, closure
from textnlp_fast.storage.sampling import SampledSizes

TENSOR_BYTES = 10_000_000
PRICES = Prices(
    usd_per_stored_gb_month=0.023,
    retention_months=3,
    usd_per_moved_gb=0.01,
    usd_per_restore_s=0.005,
    bandwidth_gb_per_s=1.25,
    decode_gb_per_s=4,
)


@dataclass(frozen=True)
class Step:
    """A version: the base it was stored against, its bytes so, and those of the delta to the version before."""

    base: int | None
    stored_bytes: int
    step_bytes: int


def digest(text: str) -> str:
    return text.encode().hex().rjust(64, "0")


def name(version: int) -> str:
    return f"1.{version}.0"


def manifests(steps: Sequence[Step]) -> list[Manifest]:
    """The versions as a repository has them: two tensors, both new in every version, and a header that stays."""
    contents: dict[str, Content] = {
        digest("h"): Content(digest("h"), "OPAQUE", 8, "frames", None, (Extent(digest("o"), 0, 8),))
    }
    made: list[Manifest] = []
    for number, step in enumerate(steps):
        for tensor, share in (
            ("v", step.stored_bytes // 3),
            ("w", step.stored_bytes - step.stored_bytes // 3),
        ):
            own = digest(f"{tensor}{number}")
            base = None if step.base is None else Whole(digest(f"{tensor}{step.base}"), TENSOR_BYTES)
            extents = (Extent(digest("o"), 0, share),)
            contents[own] = Content(own, "BF16", TENSOR_BYTES, "frames", base, extents)
        parts = (digest("h"), digest(f"v{number}"), digest(f"w{number}"))
        entry = FileEntry(
            "a.safetensors", 2 * TENSOR_BYTES + 8, "safetensors", file_digest(parts), parts, ("v", "w")
        )
        parent = ("m", name(number - 1)) if number else None
        usual = step.base == number - 1
        anchor = Anchor(None if step.base is None else ("m", name(step.base)), 1, step.step_bytes, "")
        made.append(
            Manifest(
                "m",
                name(number),
                parent,
                "",
                "",
                1 << 24,
                (entry,),
                closure(contents, parts),
                {digest("o"): 10**12, digest(f"new{number}"): step.stored_bytes},
                frozenset({digest(f"new{number}")}),
                anchor=None if number == 0 or (usual and number % 2) else anchor,
            )
        )
    return made


def needed_for(parent: Manifest) -> dict[str, Content]:
    return closure(parent.contents, parent.files[0].parts[1:])


def find_in(made: Sequence[Manifest], reads: list[str] | None = None) -> object:
    located: Mapping[tuple[str, str], Manifest] = {(one.model, one.version): one for one in made}

    def find(model: str, version: str) -> Manifest | None:
        if reads is not None:
            reads.append(version)
        return located.get((model, version))

    return find


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Versions whose bases lie in the chain of the one before, as the policy leaves them."""
    steps = [Step(None, draw(st.integers(1, 20_000_000)), 0)]
    chain = [0]
    for number in range(1, draw(st.integers(1, 14))):
        step_bytes = draw(st.integers(1, 20_000_000))
        base = draw(st.sampled_from([None, *chain]))
        stored = step_bytes if base == number - 1 else draw(st.integers(1, 20_000_000))
        steps.append(Step(base, stored, step_bytes))
        chain = [] if base is None else chain[: chain.index(base) + 1]
        chain.append(number)
    return steps


readers = st.builds(
    lambda reads, share, second: Readers(
        reads_per_version=reads, behind=(share, (1 - share) * second * 0.99)
    ),
    st.floats(0, 50),
    st.floats(0, 1),
    st.floats(0, 1),
)


@settings(max_examples=150, deadline=None)
@given(
    steps=histories(),
    readers=readers,
    whole=st.integers(1, 20_000_000),
    delta=st.integers(1, 20_000_000),
    months=st.floats(0, 50),
    max_bases=st.integers(1, 12),
)
def test_pushing_decides_as_the_policy_does(
    steps: list[Step], readers: Readers, whole: int, delta: int, months: float, max_bases: int
) -> None:
    prices = replace(PRICES, retention_months=months)
    made = manifests(steps)
    needed = needed_for(made[-1])
    lineage = read_lineage(find_in(made), made[-1], needed)  # type: ignore[arg-type]
    sampled = SampledSizes(2 * TENSOR_BYTES, whole, delta)
    decision = decide(lineage, needed, sampled, prices, readers, max_bases=max_bases)

    # All versions from the first on, straight from the figures: the policy skips what lies before the chain's root.
    history = [
        StoredVersion(
            VersionSizes(
                model_bytes=2 * TENSOR_BYTES,
                snapshot_bytes=step.stored_bytes,
                delta_bytes={}
                if number == 0
                else {number - 1: step.step_bytes}
                | ({} if step.base is None else {step.base: step.stored_bytes}),
            ),
            step.base,
        )
        for number, step in enumerate(steps)
    ]
    new = VersionSizes(
        model_bytes=2 * TENSOR_BYTES, snapshot_bytes=whole, delta_bytes={len(steps) - 1: delta}
    )
    expected = choose_base(history, new, prices, readers, max_bases=max_bases)
    costs = {
        None if one.base is None else lineage[one.base].version: one.expected_usd
        for one in decision.candidates
    }
    wanted = {None if one.base is None else name(one.base): one.expected_usd for one in expected.candidates}
    assert costs == pytest.approx(wanted)
    chosen = None if decision.base is None else lineage[decision.base].version
    assert wanted[chosen] == pytest.approx(expected.candidates[0].expected_usd)


@settings(max_examples=50, deadline=None)
@given(steps=histories(), keep=st.integers(1, 14))
def test_the_links_add_up_however_little_can_be_read(steps: list[Step], keep: int) -> None:
    made = manifests(steps)
    needed = needed_for(made[-1])
    lineage = read_lineage(find_in(made[-keep:]), made[-1], needed)  # type: ignore[arg-type]
    assert lineage == made[-len(lineage) :]
    history = stored_versions(lineage, needed)
    total = decoded = 0
    following: int | None = len(history) - 1
    while following is not None:
        version = history[following]
        total += version.sizes.bytes_against(version.base)
        decoded += version.sizes.model_bytes
        following = version.base
    assert total == sum(content.coded_bytes for content in needed.values())
    assert decoded == sum(content.size for content in needed.values())


def test_few_manifests_are_read() -> None:
    made = manifests([Step(None, 100, 0)] + [Step(0, 10, 10) for _ in range(80)])
    reads: list[str] = []
    lineage = read_lineage(find_in(made, reads), made[-1], needed_for(made[-1]))  # type: ignore[arg-type]
    assert len(lineage) == MAX_LINEAGE
    assert len(reads) == MAX_LINEAGE - 1
    # Whole right before: nothing else has to be looked at.
    made = manifests([Step(None, 100, 0)] * 5)
    reads.clear()
    assert read_lineage(find_in(made, reads), made[-1], needed_for(made[-1])) == made[-1:]  # type: ignore[arg-type]
    assert not reads


def test_ancestors_that_cannot_be_read_end_the_lineage() -> None:
    made = manifests([Step(None, 100, 0)] + [Step(number, 10, 10) for number in range(6)])

    def find(model: str, version: str) -> Manifest | None:
        if version == name(3):
            raise CorruptDataError("the manifest is damaged")
        return next((one for one in made if (one.model, one.version) == (model, version)), None)

    assert read_lineage(find, made[-1], needed_for(made[-1])) == made[4:]


def test_parents_in_a_circle_end_somewhere() -> None:
    made = manifests([Step(None, 100, 0), Step(0, 10, 10), Step(1, 10, 10)])
    made[1] = replace(made[1], parent=("m", name(2)))
    lineage = read_lineage(find_in(made), made[2], needed_for(made[2]))  # type: ignore[arg-type]
    assert [one.version for one in lineage] == [name(1), name(2)]


def test_sizes_beyond_belief_are_priced_all_the_same() -> None:
    made = manifests([Step(None, 100, 0), Step(0, 10, 10)])
    size = 1 << 52
    needed = {
        digest(str(n)): Content(digest(str(n)), "U8", size, "frames", None, (Extent(digest("o"), 0, size),))
        for n in range(400)
    }
    huge = Anchor(None, size, size, "")
    lineage = [made[0], replace(made[1], anchor=huge)]
    decision = decide(
        lineage,
        needed,
        SampledSizes(10**9, 10**9, 10**8),
        PRICES,
        Readers(reads_per_version=8),
        max_bases=8,
    )
    assert len(decision.candidates) == 3
