"""Reading exporters: the format against Prometheus' own parser, hostile text, and what fields and XIDs mean."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fakes.loopback_http import Said, loopback
from textnlp_fast.errors import CorruptDataError, ProviderUnavailableError
from textnlp_fast.gpu.health.engine import HealthEngine
from textnlp_fast.gpu.health.facts import Event, Reading
from textnlp_fast.gpu.health.prometheus_text import samples
from textnlp_fast.gpu.health.sources.dcgm import DcgmSource, DcgmXids, facts_of

UUIDS = ("GPU-aaaa", "GPU-bbbb")


def exported(**fields: object) -> str:
    """What dcgm-exporter answers for two GPUs; a list gives each its own value."""
    lines = []
    for name, value in fields.items():
        kind = "counter" if name.endswith("TOTAL") else "gauge"
        lines += [f"# HELP {name} Some text.", f"# TYPE {name} {kind}"]
        for index, uuid in enumerate(UUIDS):
            one = value[index] if isinstance(value, list) else value
            if one is None:
                continue
            labels = (
                f'gpu="{index}",UUID="{uuid}",pci_bus_id="00000000:0{index}:00.0",device="nvidia{index}",'
                'modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",container="",namespace="",pod=""'
            )
            lines.append(f"{name}{{{labels}}} {one}")
    return "\n".join(lines) + "\n"


# --- the format ---------------------------------------------------------------------------------------------

names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True)
# Names that begin with two underscores are Prometheus' own.
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,10}", fullmatch=True)
label_values = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"),
    max_size=12,
)
values = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)


@given(st.lists(st.tuples(names, st.dictionaries(label_names, label_values, max_size=4), values), max_size=8))
def test_samples_are_read_as_prometheus_reads_them(wanted: list[tuple[str, dict[str, str], float]]) -> None:
    lines = []
    for name, labels, value in wanted:
        quoted = ",".join(
            '{}="{}"'.format(k, v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\""))
            for k, v in labels.items()
        )
        lines.append(f"{name}{{{quoted}}} {value!r}" if labels else f"{name} {value!r}")
    text = "\n".join(lines) + "\n"
    mine = [(one.name, dict(one.labels), one.value) for one in samples(text)]
    assert mine == [(name, labels, float(value)) for name, labels, value in wanted]
    oracle = [
        (one.name, one.labels, float(one.value))
        for family in text_string_to_metric_families(text)
        for one in family.samples
    ]
    assert sorted(map(repr, mine)) == sorted(map(repr, oracle))


@given(st.text(max_size=200) | st.text(alphabet='{}",=\\ \nab1.', max_size=60))
def test_any_text_is_samples_or_one_error(text: str) -> None:
    try:
        for sample in samples(text):
            assert sample.name and isinstance(sample.value, float)
    except CorruptDataError as error:
        assert "line" in str(error) or "samples" in str(error)


def test_special_values_comments_and_times() -> None:
    text = '# HELP a b\n\n a 1 1700000000\nb +Inf\nc NaN # {trace="x"} 1\nd -Inf\ne{a="\\\\\\n\\"",} 2e3\r\n'
    got = {one.name: one.value for one in samples(text)}
    assert (got["a"], got["b"], got["d"], got["e"]) == (1.0, math.inf, -math.inf, 2000.0)
    assert math.isnan(got["c"])
    assert next(one for one in samples(text) if one.name == "e").labels == {"a": '\\\n"'}


@pytest.mark.parametrize(
    "line",
    ["a", "a{", 'a{b="c}', "a{b=c} 1", 'a{b="c" 1', "1a 1", "a 1_000", "a ١", "a x", "{} 1", 'a{b="1",b="2"} 1',
     "a" * 70000 + " 1", "a{" + ",".join(f'l{n}="x"' for n in range(100)) + "} 1"],
)  # fmt: skip
def test_what_is_no_sample_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(CorruptDataError, match="line 2"):
        list(samples(f"ok 1\n{line}\n"))


# --- what it means ------------------------------------------------------------------------------------------


def test_a_scrape_is_a_reading_of_each_gpu() -> None:
    text = exported(
        DCGM_FI_DEV_GPU_TEMP=[41, 77],
        DCGM_FI_DEV_MEMORY_TEMP=60,
        DCGM_FI_DEV_GPU_UTIL=93,
        DCGM_FI_DEV_POWER_USAGE=310.5,
        DCGM_FI_DEV_SM_CLOCK=1980,
        DCGM_FI_DEV_FB_USED=1024,
        DCGM_FI_DEV_FB_FREE=80000,
        DCGM_FI_DEV_PCIE_REPLAY_COUNTER=3,
        DCGM_FI_DEV_ROW_REMAP_FAILURE=[0, 1],
        DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS=2,
        DCGM_FI_DEV_ECC_DBE_VOL_TOTAL=0,
        DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL=4,
        DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL=5,
        DCGM_FI_DEV_CLOCK_THROTTLE_REASONS=4,
        DCGM_FI_DEV_XID_ERRORS=0,
    )
    facts = facts_of(text, machine="m", at_s=5.0, xids=DcgmXids())
    assert all(isinstance(one, Reading) for one in facts)
    first, second = facts
    assert isinstance(first, Reading) and isinstance(second, Reading)
    assert (first.gpu, first.index, first.name, first.temperature_c) == (
        "GPU-aaaa",
        0,
        "NVIDIA H100 80GB HBM3",
        41.0,
    )
    assert (second.index, second.temperature_c, second.remap_failed, first.remap_failed) == (
        1,
        77.0,
        True,
        False,
    )
    assert (first.memory_used_bytes, first.memory_total_bytes) == (1 << 30, 81024 << 20)
    assert (first.nvlink_errors, first.pcie_replays, first.throttle_reasons) == (9, 3, 4)
    assert first.temperature_margin_c is None and not first.lost


def test_blank_and_missing_values_are_unknown() -> None:
    text = exported(
        DCGM_FI_DEV_GPU_TEMP=[2147483632, "NaN"],
        DCGM_FI_DEV_ECC_DBE_VOL_TOTAL=9223372036854775794,
        DCGM_FI_DEV_POWER_USAGE=140737488355328,
        DCGM_FI_DEV_SM_CLOCK=100,
    )
    facts = facts_of(text, machine="m", at_s=0.0, xids=DcgmXids())
    for one in facts:
        assert isinstance(one, Reading)  # the clock can be used: nothing is wrong with what is told
        assert (one.temperature_c, one.ecc_uncorrected, one.power_w, one.sm_clock_mhz) == (
            None,
            None,
            None,
            100.0,
        )


@pytest.mark.parametrize("value", ["NaN", "+Inf", 9223372036854775794, 2147483632, -40])
def test_a_gpu_without_one_usable_value_is_not_known_to_be_well(value: object) -> None:
    engine, xids = HealthEngine(), DcgmXids()
    fields = ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL")

    def scraped(at_s: float, one: object) -> list[tuple[str | None, str, str, int]]:
        text = exported(**{name: [one, 40 if name == fields[0] else 0] for name in fields})
        engine.observe(facts_of(text, machine="m", at_s=at_s, xids=xids), now_s=at_s)
        return [(one.gpu, one.rule, one.action.value, one.count) for one in engine.findings()]

    found = [("GPU-aaaa", "telemetry-unusable", "check", 1)]
    assert scraped(0.0, value) == found
    xids = DcgmXids(json.loads(json.dumps(xids.document())))
    assert scraped(15.0, value) == found
    assert scraped(30.0, 0) == [] and scraped(45.0, 0) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("DCGM_FI_DEV_XID_ERRORS", -1), ("DCGM_FI_DEV_GPU_UTIL", 4294967295), ("DCGM_FI_DEV_POWER_USAGE", -3),
     ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", -1), ("DCGM_FI_DEV_ROW_REMAP_FAILURE", -1), ("DCGM_FI_DEV_FB_USED", -5)],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_said_beside_good_ones(name: str, value: int) -> None:
    text = exported(DCGM_FI_DEV_GPU_TEMP=40, **{name: [value, 0]})
    facts = facts_of(text, machine="m", at_s=0.0, xids=DcgmXids())
    (event,) = [one for one in facts if isinstance(one, Event)]
    assert (event.kind, event.gpu, event.text) == ("telemetry-unusable", "GPU-aaaa", f"{name} is {value:g}")
    first = facts[0]
    assert isinstance(first, Reading) and first.temperature_c == 40.0
    assert (first.ecc_uncorrected, first.power_w, first.remap_failed, first.memory_used_bytes) == (None,) * 4


def xids_in(text: str, xids: DcgmXids) -> list[tuple[str | None, int | None]]:
    facts = facts_of(text, machine="m", at_s=0.0, xids=xids)
    return [(one.gpu, one.code) for one in facts if isinstance(one, Event) and one.kind == "xid"]


def test_an_xid_is_told_when_the_gauge_changes_and_stays_told() -> None:
    xids = DcgmXids()
    assert xids_in(exported(DCGM_FI_DEV_XID_ERRORS=0), xids) == []
    assert xids_in(exported(DCGM_FI_DEV_XID_ERRORS=[0, 79]), xids) == [("GPU-bbbb", 79)]
    assert xids_in(exported(DCGM_FI_DEV_XID_ERRORS=[0, 79]), xids) == []
    # A monitor that is started again has not forgotten.
    again = DcgmXids(json.loads(json.dumps(xids.document())))
    assert xids_in(exported(DCGM_FI_DEV_XID_ERRORS=[0, 79]), again) == []
    assert xids_in(exported(DCGM_FI_DEV_XID_ERRORS=[0, 31]), again) == [("GPU-bbbb", 31)]
    # The exporter was started again: nothing happened.
    assert xids_in(exported(DCGM_FI_DEV_XID_ERRORS=0), again) == []
    assert xids_in(exported(DCGM_FI_DEV_XID_ERRORS=[0, 31]), again) == [("GPU-bbbb", 31)]


def test_an_xid_from_before_the_first_scrape_is_told_with_a_word() -> None:
    facts = facts_of(exported(DCGM_FI_DEV_XID_ERRORS=[48, 0]), machine="m", at_s=0.0, xids=DcgmXids())
    (event,) = [one for one in facts if isinstance(one, Event)]
    assert "before the first scrape" in event.text


def test_counted_xids_are_told_by_their_growth_and_not_twice() -> None:
    def text(count: int, last: int) -> str:
        labels = 'gpu="0",UUID="GPU-aaaa",xid="94",window_size_in_ms="300000"'
        return exported(DCGM_FI_DEV_XID_ERRORS=[last, 0]) + f"DCGM_EXP_XID_ERRORS_COUNT{{{labels}}} {count}\n"

    xids = DcgmXids()
    assert xids_in(text(0, 0), xids) == []
    assert xids_in(text(1, 94), xids) == [("GPU-aaaa", 94)]
    assert xids_in(text(1, 94), xids) == []
    assert xids_in(text(2, 94), xids) == [("GPU-aaaa", 94)]  # the gauge alone would not tell
    assert xids_in(text(0, 94), xids) == []


def test_a_gpu_that_is_scraped_no_more_is_missing_until_it_is_back() -> None:
    engine = HealthEngine()
    xids = DcgmXids()
    both, one = exported(DCGM_FI_DEV_GPU_TEMP=40), exported(DCGM_FI_DEV_GPU_TEMP=[40, None])
    found = []
    for at_s, text in enumerate([both, one, one, both, both]):
        if at_s == 2:  # started again in between
            xids = DcgmXids(json.loads(json.dumps(xids.document())))
        engine.observe(facts_of(text, machine="m", at_s=float(at_s), xids=xids), now_s=float(at_s))
        found.append([(finding.rule, finding.evidence) for finding in engine.findings()])
    missing = [("gpu-count", "1 of 2 GPUs are there")]
    assert found == [[], missing, missing, [], []]


def test_mig_slices_and_strange_series_are_passed_over() -> None:
    text = exported(DCGM_FI_DEV_GPU_TEMP=40) + (
        'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-aaaa",GPU_I_ID="1"} 99\nup 1\n'
        'DCGM_FI_DEV_NEW_THING{gpu="0",UUID="GPU-aaaa"} 1\n'
        'DCGM_FI_DEV_GPU_TEMP{gpu="7"} 40\nDCGM_EXP_XID_ERRORS_COUNT{gpu="0",UUID="GPU-aaaa",xid="x"} 1\n'
    )
    facts = facts_of(text, machine="m", at_s=0.0, xids=DcgmXids())
    assert len(facts) == 2 and all(
        isinstance(one, Reading) and one.utilisation_percent is None for one in facts
    )


async def test_an_exporter_over_http_and_its_failures() -> None:
    said = Said(200, exported(DCGM_FI_DEV_GPU_TEMP=40).encode())
    with loopback(lambda _: said) as server:
        source = DcgmSource("m", server.url, headers={"Authorization": "Bearer x"})
        assert len(await source.read()) == 2
        assert server.asked[0].path == "/metrics" and server.asked[0].headers["authorization"] == "Bearer x"
        said = Said(503)
        with pytest.raises(ProviderUnavailableError, match="503"):
            await source.read()
        said = Said(200, b"up 1\n")
        with pytest.raises(ProviderUnavailableError, match="no GPU"):
            await source.read()
        said = Said(200, b"\xff\xfe<html>")
        with pytest.raises(CorruptDataError):
            await source.read()
