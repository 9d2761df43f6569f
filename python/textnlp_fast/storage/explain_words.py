"""Says in a paragraph what an update did."""

from __future__ import annotations

from collections.abc import Sequence

from textnlp_fast.storage.explain import Change, Explanation, Line, lines_of, total_of

__all__ = ["headline_of", "summary_of"]

_NAMED = 3


def summary_of(explanation: Explanation) -> str:
    """One paragraph in plain words; what needs no words gets none."""
    total = total_of(explanation)
    changed = [change for change in explanation.changes if change.status not in ("same", "renamed")]
    if not changed and not any(change.status == "renamed" for change in explanation.changes):
        return (
            f"Nothing changed: all {_count(total.tensors, 'tensor')} of {explanation.new}, "
            f"{_number(total.elements)} weights, are bit for bit those of {explanation.old}."
        )
    sentences = [*_amount(total), *_where(explanation, total), *_structure(explanation), *_trouble(total)]
    sentences += _bytes(explanation, total)
    return " ".join(sentences)


def headline_of(explanation: Explanation) -> str:
    """The totals in one line: what changed, and what it takes."""
    total = total_of(explanation)
    if not total.sums.elements:
        return f"{_count(total.tensors, 'tensor')}, none of which both models have"
    parts = [
        f"{_percent(total.sums.changed / total.sums.elements)} of {_number(total.sums.elements)} weights changed"
    ]
    parts.append(f"{total.changed_tensors} of {_count(total.tensors, 'tensor')}")
    if total.stored_bytes:
        about = "about " if total.estimated else ""
        bits = 8 * total.stored_bytes / total.elements if total.elements else 0
        parts.append(f"{about}{_size(total.stored_bytes)}, {bits:.3g} bits for each weight of the model")
    return "   |   ".join(parts)


def _amount(total: Line) -> list[str]:
    sums = total.sums
    if not sums.elements:
        return ["No tensor is in both, so there is nothing to compare."]
    if not sums.changed:
        return [f"None of the {_number(sums.elements)} weights that both have changed."]
    fraction = sums.changed / sums.elements
    text = f"{_percent(fraction)} of {_number(sums.elements)} weights changed"
    if sums.max_ulp is not None and sums.ulps:
        steps = sum(sums.ulps)
        single = sums.ulps[1] / steps if len(sums.ulps) > 1 else 0.0
        if sums.max_ulp == 1:
            text += ", each by one ULP"
        elif single >= 0.5:
            text += f", {_percent(single)} of those by one ULP, the farthest by {sums.max_ulp:,}"
        else:
            text += f", half of those by {_median(sums.ulps)}, the farthest by {sums.max_ulp:,}"
    text += "."
    if sums.relative_norm:
        text += f" The change is {_percent(sums.relative_norm)} of the changed tensors' norm."
    if total.rank_fraction is not None:
        text += " " + _directions(total.rank_fraction)
    return [text]


def _directions(fraction: float) -> str:
    if fraction < 0.05:
        return f"It is of low rank: {_percent(fraction)} of the directions that it could take."
    how = "few" if fraction < 0.25 else "many" if fraction < 0.6 else "most"
    return f"It takes {how} directions ({_percent(fraction)} of full rank)."


def _median(ulps: Sequence[int]) -> str:
    half, seen = sum(ulps) / 2, 0
    for bits, count in enumerate(ulps):
        seen += count
        if seen >= half:
            return f"no more than {(1 << bits) - 1:,} ULPs" if bits > 1 else "one ULP"
    return "few ULPs"


def _where(explanation: Explanation, total: Line) -> list[str]:
    """The kinds that have most of the changes, if there is more than one kind to tell apart."""
    if not total.sums.changed:
        return []
    kinds = [line for line in lines_of(explanation, "kind") if line.sums.elements]
    if len(kinds) < 2:
        return []
    ranked = sorted(kinds, key=lambda line: -line.sums.changed)
    first, share = ranked[0], ranked[0].sums.changed / total.sums.changed
    quiet = [line.label for line in kinds if not line.sums.changed]
    if share > 0.9:
        text = f"Nearly all changes are in {first.label} ({_percent(share)})"
    else:
        text = "Most changes are in " + _listed(
            [
                f"{line.label} ({_percent(line.sums.changed / total.sums.changed)})"
                for line in ranked[:2]
                if line.sums.changed
            ]
        )
    return [f"{text}; none in {_listed(quiet)}." if quiet else f"{text}."]


def _structure(explanation: Explanation) -> list[str]:
    """Tensors that came, went, or are no longer what they were."""
    words = {
        "added": "is new",
        "removed": "is gone",
        "renamed": "has a new name and the same bytes",
        "reshaped": "has another shape",
        "retyped": "has another dtype",
    }
    plural = {
        "added": "are new",
        "removed": "are gone",
        "renamed": "have new names and the same bytes",
        "reshaped": "have other shapes",
        "retyped": "have other dtypes",
    }
    sentences = []
    for status, what in words.items():
        found = [change for change in explanation.changes if change.status == status]
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            names = ", ".join(_named(change) for change in found[:_NAMED])
            verb = what if len(found) == 1 else plural[status]
            sentences.append(f"{_count(len(found), 'tensor')} {verb}: {names}{more}.")
    return sentences


def _named(change: Change) -> str:
    old, new = change.old, change.new
    if old is None or new is None:
        return change.side.name
    if change.status == "renamed":
        return f"{old.name} -> {new.name}"
    if change.status == "reshaped":
        return f"{new.name} {list(old.shape)} -> {list(new.shape)}"
    return f"{new.name} {old.dtype} -> {new.dtype}"


def _trouble(total: Line) -> list[str]:
    sentences = []
    if total.sums.became_nonfinite:
        sentences.append(f"{_count(total.sums.became_nonfinite, 'weight')} became NaN or infinite.")
    if total.sums.became_finite:
        sentences.append(f"{_count(total.sums.became_finite, 'weight')} stopped being NaN or infinite.")
    return sentences


def _bytes(explanation: Explanation, total: Line) -> list[str]:
    if not total.stored_bytes:
        return []
    verb = "takes" if explanation.bytes_of == "repository" else "would take"
    about = "about " if total.estimated else ""
    text = f"It {verb} {about}{_size(total.stored_bytes)}"
    if total.elements:
        text += f", {8 * total.stored_bytes / total.elements:.3g} bits for each of the model's weights"
    text += f": {_times(total.size / total.stored_bytes)} smaller than the model."
    return [text + (" That is an estimate from a part of each tensor." if total.estimated else "")]


# --- figures -----------------------------------------------------------------------------------------------


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    if percent >= 99.95 and fraction < 1:
        return "nearly 100 %"
    return f"{percent:.3g} %" if percent < 10 else f"{percent:.0f} %"


def _number(count: int) -> str:
    for size, unit in ((10**12, " T"), (10**9, " G"), (10**6, " M")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:,}"


def _size(size: int) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
