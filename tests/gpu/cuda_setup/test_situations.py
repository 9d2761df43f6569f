"""Every situation gets the verdicts and the commands that it should, and every rule is needed for some of them."""

from __future__ import annotations

import ast
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from fakes.cuda_machine import CudaMachine
from fakes.cuda_machine.situations import SITUATIONS, Situation
from textnlp_fast.gpu.cuda_setup import Facts, Level, Report, Verdict, diagnose
from textnlp_fast.gpu.cuda_setup import rules as rules_package
from textnlp_fast.gpu.cuda_setup.probes.gathering import gather
from textnlp_fast.gpu.cuda_setup.rules import RULES, Rule

_RULE_FILES = sorted(
    path for path in Path(str(rules_package.__file__)).parent.glob("*.py") if path.name != "__init__.py"
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    """The facts of every situation, as the probes found them."""
    found = {}
    for name, situation in SITUATIONS.items():
        base = tmp_path_factory.mktemp("machine")
        (base / "root").mkdir()
        (base / "site").mkdir()
        fake = CudaMachine(base / "root", base / "site")
        situation.build(fake)
        found[name] = gather(fake.machine())
    return found


def differences(
    situation: Situation, verdicts: Iterable[Verdict], rules: Iterable[Rule] = RULES
) -> list[str]:
    """What rules say otherwise than they should."""
    verdicts, names = list(verdicts), {rule.name for rule in rules}
    wrong = Counter((one.rule, one.level.value) for one in verdicts if one.level is not Level.OK)
    expected = Counter(entry for entry in situation.wrong if entry[0] in names)
    found = [f"{rule} should not be {level}" for rule, level in wrong - expected]
    found += [f"{rule} should be {level}" for rule, level in expected - wrong]
    for rule in names.intersection(situation.fine):
        if not any(one.rule == rule and one.level is Level.OK for one in verdicts):
            found.append(f"{rule} should be ok")
    for rule in names.intersection(situation.commands):
        commands = "\n".join(line for one in verdicts if one.rule == rule for line in one.commands)
        parts = situation.commands[rule]
        found += [f"{rule} should have the command {part!r}" for part in parts if part not in commands]
    for rule in names.intersection(situation.says):
        said = "\n".join("\n".join([one.summary, *one.evidence]) for one in verdicts if one.rule == rule)
        if situation.says[rule] not in said:
            found.append(f"{rule} should say {situation.says[rule]!r}, not {said!r}")
    return found


def test_there_are_enough_situations() -> None:
    assert len(SITUATIONS) >= 100


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_gets_its_verdicts(name: str, known: dict[str, Facts]) -> None:
    situation = SITUATIONS[name]
    verdicts = diagnose(known[name])
    assert not differences(situation, verdicts), "\n".join(
        f"{v.level} {v.rule}: {v.summary}" for v in verdicts
    )
    assert Report(facts=known[name], verdicts=verdicts).healthy is situation.healthy


def test_every_verdict_can_be_read_and_every_command_be_run_by_sh(known: dict[str, Facts]) -> None:
    commands = set()
    for facts in known.values():
        for verdict in diagnose(facts):
            assert verdict.summary.endswith("."), verdict.summary
            assert "None" not in verdict.summary, verdict.summary
            assert "\n" not in verdict.summary
            assert verdict.group and verdict.rule
            # Whoever reads of a problem wants to know what to do; what cannot be mended by a command is rare.
            if verdict.level is Level.PROBLEM and "kills the process" not in verdict.summary:
                assert verdict.commands, verdict
            assert len(set(verdict.evidence)) == len(verdict.evidence), verdict
            commands.update(verdict.commands)
    assert len(commands) > 80
    script = "\n".join(sorted(commands))
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, capture_output=True)
    for command in commands:
        assert shlex.split(command)


# --- mutants ---------------------------------------------------------------------------------------------------


def first_difference(known: dict[str, Facts], rules: Iterable[Rule]) -> str | None:
    """The first situation in which these rules say otherwise than they should; other rules are not asked."""
    rules = list(rules)
    for name, situation in SITUATIONS.items():
        if differences(situation, diagnose(known[name], rules=rules), rules):
            return name
    return None


def test_the_rules_themselves_differ_nowhere(known: dict[str, Facts]) -> None:
    assert first_difference(known, RULES) is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_without_a_rule_a_situation_is_judged_otherwise(rule: Rule, known: dict[str, Facts]) -> None:
    silent = Rule(rule.name, rule.group, lambda facts: ())
    assert first_difference(known, [silent]) is not None


def yields_of(path: Path) -> list[int]:
    """The lines on which rules say something."""
    tree = ast.parse(path.read_text())
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield | ast.YieldFrom)
    ]


class Silencer(ast.NodeTransformer):
    """Takes one verdict out of a file of rules."""

    def __init__(self, line: int) -> None:
        self.line = line

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if node.lineno == self.line and isinstance(node.value, ast.Yield | ast.YieldFrom):
            return ast.copy_location(ast.parse("yield from ()").body[0], node)
        return node


@pytest.mark.parametrize(
    ("path", "line"),
    [(path, line) for path in _RULE_FILES for line in yields_of(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_without_one_of_a_rule_s_verdicts_a_situation_is_judged_otherwise(
    path: Path, line: int, known: dict[str, Facts]
) -> None:
    tree = ast.fix_missing_locations(Silencer(line).visit(ast.parse(path.read_text())))
    name = f"{rules_package.__name__}.{path.stem}"
    mutant = ModuleType(name)
    exec(compile(tree, str(path), "exec"), mutant.__dict__)
    original = import_module(name)
    mutated = [
        Rule(rule.name, rule.group, getattr(mutant, rule.judge.__name__), rule.source)
        for rule in RULES
        if rule.judge.__module__ == original.__name__
    ]
    assert first_difference(known, mutated) is not None, f"no situation needs {path.name}:{line}"
