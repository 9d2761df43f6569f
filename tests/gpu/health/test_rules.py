"""The table of rules: whole, with a source for each row, and clear about what is wrong in a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.facts import Action, Event, Severity
from textnlp_fast.gpu.health.judging import judge_sxid, judge_xid, recovery_in
from textnlp_fast.gpu.health.rules import action_rank, load_rules, rules_schema, severity_rank, xid_catalogue

RULES = load_rules()

# What NVIDIA's catalogue says of some, typed from its page and not from our table.
CATALOGUE = {
    8: (Severity.WARNING, Action.RESTART_APP),
    13: (Severity.WARNING, Action.RESTART_APP),
    31: (Severity.WARNING, Action.RESTART_APP),
    43: (Severity.INFO, Action.NONE),
    45: (Severity.INFO, Action.NONE),
    46: (Severity.CRITICAL, Action.RESET_GPU),
    48: (Severity.CRITICAL, Action.RESET_GPU),
    54: (Severity.CRITICAL, Action.CONTACT_VENDOR),
    62: (Severity.CRITICAL, Action.RESET_GPU),
    63: (Severity.INFO, Action.NONE),
    64: (Severity.CRITICAL, Action.RESET_GPU),
    74: (Severity.CRITICAL, Action.RESET_GPU),
    79: (Severity.CRITICAL, Action.REBOOT),
    92: (Severity.INFO, Action.NONE),
    94: (Severity.WARNING, Action.RESTART_APP),
    95: (Severity.CRITICAL, Action.RESET_GPU),
    109: (Severity.CRITICAL, Action.RESET_GPU),
    119: (Severity.CRITICAL, Action.RESET_GPU),
    121: (Severity.INFO, Action.NONE),
    136: (Severity.CRITICAL, Action.RESET_GPU),
    140: (Severity.CRITICAL, Action.RESET_GPU),
    143: (Severity.CRITICAL, Action.RESET_GPU),
    151: (Severity.CRITICAL, Action.REBOOT),
    158: (Severity.CRITICAL, Action.RESET_GPU),
}


def xid(code: int, text: str = "") -> Event:
    return Event(machine="m", kind="xid", at_s=0.0, gpu="GPU-1", code=code, text=text)


def test_every_xid_of_the_catalogue_is_there_once() -> None:
    assert sorted(xid_catalogue()) == list(range(1, 173))
    assert len({row.mnemonic for row in xid_catalogue().values()}) == 172


@pytest.mark.parametrize("code", range(1, 173))
def test_every_xid_has_a_rule_with_a_source(code: int) -> None:
    judged = judge_xid(RULES, xid(code))
    assert judged.rule == f"xid-{code}"
    assert judged.source and all(name in RULES.sources for name in judged.source)
    assert f"XID {code}, " in judged.what
    # Nothing serious is without something to do, and nothing harmless asks for much.
    if judged.severity is Severity.CRITICAL:
        assert action_rank(judged.action) >= action_rank(Action.RESET_GPU)
    if judged.severity is Severity.INFO:
        assert judged.action is Action.NONE


@pytest.mark.parametrize(("code", "expected"), CATALOGUE.items())
def test_known_xids_are_judged_as_nvidia_does(code: int, expected: tuple[Severity, Action]) -> None:
    judged = judge_xid(RULES, xid(code))
    assert (judged.severity, judged.action) == expected


def test_every_bucket_of_the_catalogue_is_mapped() -> None:
    buckets = {row.immediate for row in xid_catalogue().values()} - {"", "XID_154"}
    assert buckets <= set(RULES.buckets)
    without = {code for code, row in xid_catalogue().items() if not row.immediate}
    assert without == set(range(162, 173)) == set(RULES.xids)


def test_disagreements_of_sources_are_those_that_the_decision_record_tells() -> None:
    differing = {
        code
        for code, row in xid_catalogue().items()
        if row.nvsentinel
        and row.immediate
        and row.nvsentinel != row.immediate
        and (row.immediate, row.nvsentinel)
        not in {("CONTACT_SUPPORT", "UNEXPECTED_ERR_REPORT_ISSUE"), ("XID_154", "FOLLOW_OTHER_XID")}
    }
    assert differing == {108, 160}
    record = next(Path("docs/decisions").glob("*-whose-word-on-an-xid.md")).read_text()
    for code in (*differing, 109, 162):
        assert f"XID {code}" in record or f"{code}" in record


def test_an_xid_in_no_catalogue_is_told_all_the_same() -> None:
    judged = judge_xid(RULES, xid(999))
    assert (judged.severity, judged.action) == (Severity.WARNING, Action.CONTACT_VENDOR)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (
            "Xid (PCI:0000:3b:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000 0x0)",
            Action.RESET_GPU,
        ),
        ("149, NETIR_BER_EVENT Nonfatal XC0 i0 Link 02 (0x00000266 0x00000001 0x0)", Action.NONE),
        ("145, RLW_REMAP Nonfatal XC1 i0 Link 03 (0x00000004 0x00000010 0x0)", Action.RESTART_APP),
        ("145, RLW_REMAP Nonfatal XC1 i0 Link 03 (0x00000004 0x80000000 0x0)", Action.NONE),
        ("145, RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x00000007 0x00000004 0x0)", Action.RESTART_APP),
        ("147, TREX Non-fatal XC0 i0 Link 00 (0x0000000e 0x80000000)", Action.NONE),
        ("a message without the word", Action.RESET_GPU),
    ],
)
def test_nvlink5_errors_are_judged_by_their_message(text: str, action: Action) -> None:
    code = 145 if "145" in text else 149
    assert judge_xid(RULES, xid(code, text)).action is action


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", Action.REBOOT),
        ("GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", Action.RESET_GPU),
        ("changed from 0x1 (GPU Reset Required) to 0x0 (None)", Action.NONE),
        ("changed from 0x0 (None) to 0x3 (Drain P2P)", Action.DRAIN),
        ("changed from 0x0 (None) to 0x4 (Drain and Reset)", Action.DRAIN),
        ("to 0x9 (Something New)", None),
        ("to 0x" + "9" * 5000 + " (None)", None),
        ("", None),
    ],
)
def test_xid_154_says_what_to_do(text: str, action: Action | None) -> None:
    assert recovery_in(text) is action


def test_groups_of_sxids_are_apart() -> None:
    seen: dict[int, str] = {}
    for name, group in RULES.sxids.items():
        for first, last in group.spans:
            for code in range(first, last + 1):
                assert code not in seen, f"{code} is in {seen.get(code)} and {name}"
                seen[code] = name
    assert len(seen) > 330


@pytest.mark.parametrize(
    ("code", "text", "severity", "action"),
    [
        (20034, "Fatal, Link 28 LTSSM Fault Up", Severity.CRITICAL, Action.RESET_GPU),
        (22003, "", Severity.CRITICAL, Action.REBOOT),
        (12020, "Fatal, ...", Severity.CRITICAL, Action.REBOOT),
        (19084, "Non-fatal, Link 29 AN1 Heartbeat Timeout Error (First)", Severity.WARNING, Action.REBOOT),
        (24001, "Non-fatal, Link 1", Severity.INFO, Action.NONE),
        (24001, "Fatal, Link 1", Severity.CRITICAL, Action.RESET_GPU),
        (28002, "", Severity.INFO, Action.NONE),
        (31337, "", Severity.WARNING, Action.CONTACT_VENDOR),
        (31337, "Fatal", Severity.CRITICAL, Action.RESET_GPU),
        (31337, "Non-fatal", Severity.INFO, Action.NONE),
    ],
)
def test_sxids_by_class_and_by_the_drivers_word(
    code: int, text: str, severity: Severity, action: Action
) -> None:
    judged = judge_sxid(RULES, Event(machine="m", kind="sxid", at_s=0, code=code, text=text))
    assert (judged.severity, judged.action) == (severity, action)


# --- files of one's own -------------------------------------------------------------------------------------


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "xids:\n  79: {severity: critical, action: replace}\npolled:\n  pcie-replays: {enabled: false}\n"
    )
    mine = load_rules(path)
    assert judge_xid(mine, xid(79)).action is Action.REPLACE
    assert not mine.polled["pcie-replays"].enabled
    assert mine.polled["pcie-width"] == RULES.polled["pcie-width"]
    assert mine.xids[171] == RULES.xids[171]
    as_json = tmp_path / "rules.json"
    as_json.write_text(json.dumps({"xids": {"79": {"severity": "critical", "action": "replace"}}}))
    assert judge_xid(load_rules(as_json), xid(79)).action is Action.REPLACE


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("polled: {pcie-replays: {levls: []}}", "polled.pcie-replays.levls"),
        ("polled: {pcie-replays: {for_s: -1}}", "polled.pcie-replays.for_s"),
        ("polled: {pcie-replays: {for_s: .nan}}", "polled.pcie-replays.for_s"),
        ("polled: {pcie-replays: {signal: vibes}}", "there is no signal 'vibes'"),
        ("polled: {pcie-replays: {levels: []}}", "polled.pcie-replays.levels"),
        ("polled: {temperature-margin: {clear: -5}}", "bad side"),
        ("xids: {79: {severity: awful, action: reboot}}", "xids.79.severity"),
        ("xids: {zero: {severity: info, action: none}}", "xids.zero"),
        ("xids: {0: {severity: info, action: none}}", "xids.0"),
        ("xids: {79: {severity: info, action: none, source: [my-cousin]}}", "my-cousin"),
        ("repeats: {bus: {ladder: [replace, reboot]}}", "upwards"),
        ("repeats: {bus: {every: 1}}", "repeats.bus.every"),
        ("sxids: {gpu: {codes: '5-3'}}", "backwards"),
        ("no_such_section: 1", "no_such_section"),
        ("version: 2", "version"),
        ("- a list", "holds no rules"),
        ("polled: [", "line"),
        ("{" * 5000, "neither YAML nor JSON: it is nested too deeply"),
        ("[1,2\n", "line 2 is neither YAML nor JSON: expected ',' or"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as raised:
        load_rules(path)
    assert named in str(raised.value)
    assert raised.value.hint is not None


def test_levels_have_to_get_worse(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    levels = [
        {"at": 5, "severity": "critical", "action": "drain"},
        {"at": 3, "severity": "warning", "action": "none"},
    ]
    path.write_text(yaml.safe_dump({"polled": {"temperature-margin": {"levels": levels}}}))
    with pytest.raises(InvalidInputError, match="milder"):
        load_rules(path)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read"):
        load_rules(tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (1 << 20) + b"\n\n")
    with pytest.raises(InvalidInputError, match="larger"):
        load_rules(large)
    large.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="neither YAML nor JSON"):
        load_rules(large)


def test_the_schema_takes_the_rules_that_ship() -> None:
    schema = rules_schema()
    Draft202012Validator.check_schema(schema)
    shipped = json.loads(RULES.model_dump_json(by_alias=True))
    Draft202012Validator(schema).validate(shipped)
    broken = {**shipped, "events": {**shipped["events"], "gpu-count": {"severity": "dire"}}}
    assert list(Draft202012Validator(schema).iter_errors(broken))


def test_severities_and_actions_are_in_order() -> None:
    assert [severity_rank(one) for one in Severity] == [0, 1, 2]
    assert action_rank(Action.NONE) == 0 and action_rank(Action.CONTACT_VENDOR) == 7
