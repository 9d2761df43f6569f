"""Versions are read and compared as `packaging` does it, an independent reading of the same numbers."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version as Oracle

from textnlp_fast.gpu.cuda_setup.versions import Version, find_version

# Small numbers, too, so that equal and nearly equal ones come up.
NUMBERS = st.integers(0, 2) | st.integers(0, 999_999_999)
RELEASES = st.lists(NUMBERS, min_size=1, max_size=6).map(lambda parts: ".".join(map(str, parts)))


def parsed(text: str) -> Version:
    version = Version.parse(text)
    assert version is not None, text
    return version


@example("12.4", "12.4.0")
@example("580", "580.0.0")
@given(RELEASES, RELEASES)
def test_releases_compare_as_by_packaging(one: str, other: str) -> None:
    a, b = parsed(one), parsed(other)
    x, y = Oracle(one), Oracle(other)
    assert (a < b, a == b, a > b) == (x < y, x == y, x > y)
    assert (a <= b, a >= b) == (x <= y, x >= y)
    if a == b:
        assert hash(a) == hash(b)


@given(RELEASES)
def test_numbers_are_those_of_packaging(text: str) -> None:
    assert parsed(text).parts == Oracle(text).release


@given(RELEASES, st.sampled_from(["+cu128", "rc1", ".post1", ".dev20250101", "a0+gitabc", "-1ubuntu2", "b2"]))
def test_what_follows_a_release_is_left_out(text: str, tail: str) -> None:
    assert parsed(text + tail) == parsed(text)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("550.54.14", "550.54.15"),
        ("570.26", "570.124.06"),  # not as decimals, nor as text
        ("535.54.03", "535.104.05"),
        ("575.57.08", "580.65.06"),
        ("9.0", "10.0"),
        ("12.9.1", "13.0"),
    ],
)
def test_drivers_compare_by_number(older: str, newer: str) -> None:
    assert parsed(older) < parsed(newer)


def test_leading_zeros_are_of_no_matter_but_are_shown() -> None:
    assert parsed("450.80.02") == parsed("450.80.2")
    assert str(parsed("450.80.02")) == "450.80.02"


@pytest.mark.parametrize(
    "text", ["", "abc", ".5", "-1", "v12", "9" * 10, "1." * 9 + "1", "1.9999999999", "٣.٤"]
)
def test_what_is_no_version_is_none(text: str) -> None:
    assert Version.parse(text) is None


@pytest.mark.parametrize(
    ("number", "text"), [(12040, "12.4"), (13000, "13.0"), (11080, "11.8"), (9020, "9.2"), (12090, "12.9")]
)
def test_cuda_s_own_numbers(number: int, text: str) -> None:
    assert str(Version.of_number(number)) == text


@given(st.integers(5, 30), st.integers(0, 9))
def test_cuda_s_own_numbers_are_1000_majors_and_10_minors(major: int, minor: int) -> None:
    version = Version.of_number(major * 1000 + minor * 10)
    assert (version.major, version.minor, version.short) == (major, minor, f"{major}.{minor}")


@given(st.text(), st.text(max_size=5))
def test_any_text_can_be_searched(text: str, after: str) -> None:
    version = find_version(text, after=after)
    assert version is None or version.text in text


def test_a_version_is_found_behind_words() -> None:
    assert str(find_version("Cuda compilation tools, release 12.4, V12.4.131", after="release")) == "12.4"
    assert find_version("nothing here", after="release") is None
    assert find_version("release without a number", after="release") is None
