"""systemd units and shell scripts of a plain machine. What a description says stands in scripts, quoted for the shell;
units name those scripts."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from textnlp_fast.adapter.engine_settings import SecretRef
from textnlp_fast.adapter.planning import DeploymentPlan
from textnlp_fast.adapter.targets.commands import (
    DRAIN,
    FETCH,
    NOTICE_S,
    drain_environment,
    engine_words,
    environment_of,
    fetch_environment,
    model_dir,
    peers_of,
)
from textnlp_fast.errors import InvalidInputError

__all__ = ["LIBRARY", "SECRETS", "machine_files", "systemd_word", "unit_names"]

LIBRARY: Final = "/usr/local/lib/textnlp-fast"
SECRETS: Final = "/etc/textnlp-fast/secrets"
_UNITS: Final = "/etc/systemd/system"

#: Asks until the engine answers well, in a row; says no after so many tries.
_WAIT: Final = """\
set -u
well=0
left=$DEPLOY_TRIES
while [ "$left" -gt 0 ]; do
  if curl --fail --silent --output /dev/null --max-time "$DEPLOY_TIMEOUT_S" "$DEPLOY_HEALTH_URL"; then
    well=$((well + 1))
    [ "$well" -ge "$DEPLOY_SUCCESS_AFTER" ] && exit 0
  else
    well=0
  fi
  left=$((left - 1))
  [ "$left" -gt 0 ] && sleep "$DEPLOY_INTERVAL_S"
done
echo "the engine does not answer at $DEPLOY_HEALTH_URL" >&2
exit 1
"""


def unit_names(plan: DeploymentPlan) -> dict[str, str]:
    """The units by what they do."""
    base = f"textnlp-fast-{plan.name}"
    return {
        "fetch": f"{base}-fetch.service",
        "engine": f"{base}.service",
        "health": f"{base}-health.service",
        "notice": f"{base}-notice.service",
    }


def systemd_word(text: str) -> str:
    """One word of a unit's line, for commands: specifiers and variables mean nothing in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t") + '"'


def machine_files(
    plan: DeploymentPlan, *, cloud: str | None = None, library: str = LIBRARY
) -> list[tuple[str, str, int]]:
    """Path, text and mode of each file on the machine."""
    folder = f"{library}/{plan.name}"
    names = unit_names(plan)
    if plan.deployment.machines.agent_port is not None:
        files = [
            (f"{folder}/engine", _agent(plan), 0o755),
            (f"{folder}/drain", _script(DRAIN, drain_environment(plan.deployment)), 0o755),
            (f"{_UNITS}/{names['engine']}", _engine_unit(plan, folder), 0o644),
        ]
        return files + _noticing(plan, cloud)
    root, here = plan.deployment.cache.path, peers_of(plan.deployment, "127.0.0.1")
    files = [
        (f"{folder}/fetch", _script(FETCH, {**here, **fetch_environment(plan, root)}), 0o755),
        (f"{folder}/engine", _engine(plan), 0o755),
        (f"{folder}/wait", _script(_WAIT, _asking(plan, start=True)), 0o755),
        (f"{folder}/health", _script(_WAIT, _asking(plan, start=False)), 0o755),
        (f"{folder}/drain", _script(DRAIN, drain_environment(plan.deployment)), 0o755),
        (f"{_UNITS}/{names['fetch']}", _fetch_unit(plan, folder), 0o644),
        (f"{_UNITS}/{names['engine']}", _engine_unit(plan, folder), 0o644),
        (f"{_UNITS}/{names['health']}", _health_unit(plan, folder), 0o644),
    ]
    return files + _noticing(plan, cloud)


def _noticing(plan: DeploymentPlan, cloud: str | None) -> list[tuple[str, str, int]]:
    if cloud not in ("aws", "gcp", "azure"):
        return []
    return [(f"{_UNITS}/{unit_names(plan)['notice']}", _notice_unit(plan, cloud), 0o644)]


def _script(body: str, variables: Mapping[str, str]) -> str:
    said = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return f"#!/bin/sh\n{said}{body}"


def _asking(plan: DeploymentPlan, *, start: bool) -> dict[str, str]:
    engine, health = plan.deployment.engine, plan.deployment.rollout.health
    tries = math.ceil(engine.start_s / health.interval_s) if start else health.failures
    return {
        "DEPLOY_HEALTH_URL": f"http://127.0.0.1:{engine.port}{health.path}",
        "DEPLOY_TIMEOUT_S": f"{health.timeout_s:g}",
        "DEPLOY_INTERVAL_S": f"{health.interval_s:g}",
        "DEPLOY_TRIES": str(max(1, tries)),
        "DEPLOY_SUCCESS_AFTER": str(health.success_after if start else 1),
    }


def _engine(plan: DeploymentPlan) -> str:
    """The engine's script: the command itself, or a container of it."""
    deployment = plan.deployment
    root = deployment.cache.path
    words = engine_words(plan, model_dir(plan, root))
    variables = environment_of(deployment)
    image = deployment.engine.image
    if image is not None:
        name = f"textnlp-fast-{plan.name}"
        said = [*variables, *sorted(deployment.engine.secrets)]
        words = [
            "docker", "run", "--rm", "--name", name, "--network", "host", "--ipc", "host",
            *(["--gpus", "all"] if plan.hardware.gpus else []),
            "--mount", f"type=bind,source={root},target={root},readonly",
            # By name alone: values come from this process and are in no list of processes.
            *(part for variable in said for part in ("--env", variable)),
            "--entrypoint", words[0], image, *words[1:],
        ]  # fmt: skip
    return _script(f"exec {_quoted(words)}\n", variables)


def _agent(plan: DeploymentPlan) -> str:
    """The script of a machine whose agent fetches versions, starts the engine, and changes both when it is told."""
    deployment = plan.deployment
    engine, model = deployment.engine, plan.version
    if engine.image is not None:
        raise InvalidInputError(
            "machines.agent_port: an agent starts the engine on the machine itself, not in a container",
            hint="Leave engine.image or machines.agent_port out.",
        )
    words = engine_words(plan, "{model_dir}")
    if "{model_dir}" not in words:
        raise InvalidInputError(
            "engine.command: nothing in it is {model_dir}, and the agent could not say which version to serve"
        )
    agent = [
        "textnlp-fast", "deploy", "agent", "--repo", deployment.model.repository,
        "--model", model.name, "--version", model.version,
        "--folder", f"{deployment.cache.path.rstrip('/')}/{model.name}",
        "--ready-url", f"http://127.0.0.1:{engine.port}{deployment.rollout.health.path}",
        "--host", "0.0.0.0", "--port", str(deployment.machines.agent_port),
        "--token-file", f"{SECRETS}/agent-token",
        "--start", f"{max(1.0, engine.start_s):g}", "--stop", f"{engine.drain_s:g}",
        "--", *words,
    ]  # fmt: skip
    here = peers_of(deployment, "127.0.0.1")
    variables = {**here, **dict(sorted(deployment.cache.environment.items())), **environment_of(deployment)}
    return _script(f"exec {_quoted(agent)}\n", variables)


def _quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _unit(*sections: tuple[str, Sequence[tuple[str, str]]]) -> str:
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key}={value}\n" for key, value in lines) for section, lines in sections
    )


def _fetch_unit(plan: DeploymentPlan, folder: str) -> str:
    return _unit(
        (
            "Unit",
            (
                ("Description", f"Fetch the model of {plan.name}"),
                ("Wants", "network-online.target"),
                ("After", "network-online.target"),
                ("StartLimitIntervalSec", "0"),
            ),
        ),
        (
            "Service",
            (
                ("Type", "oneshot"),
                ("RemainAfterExit", "yes"),
                *_environment_files(plan.deployment.cache.secrets),
                ("ExecStart", systemd_word(f"{folder}/fetch")),
                ("TimeoutStartSec", "infinity"),
                # A pull that failed goes on where it stopped.
                ("Restart", "on-failure"),
                ("RestartSec", "15"),
            ),
        ),
        ("Install", (("WantedBy", "multi-user.target"),)),
    )


def _environment_files(*secrets: Mapping[str, SecretRef]) -> list[tuple[str, str]]:
    names = sorted({ref.name for each in secrets for ref in each.values()})
    return [("EnvironmentFile", f"{SECRETS}/{name}.env") for name in names]


def _engine_unit(plan: DeploymentPlan, folder: str) -> str:
    deployment = plan.deployment
    engine = deployment.engine
    # An agent fetches by itself, and watches.
    own = deployment.machines.agent_port is not None
    fetch = unit_names(plan)["fetch"]
    lines = [
        ("Type", "exec"),
        *_environment_files(engine.secrets, deployment.cache.secrets if own else {}),
        ("ExecStart", systemd_word(f"{folder}/engine")),
        *([] if own else [("ExecStartPost", systemd_word(f"{folder}/wait"))]),
        ("ExecStop", systemd_word(f"{folder}/drain")),
        ("TimeoutStartSec", str(math.ceil(engine.start_s) + 60)),
        ("TimeoutStopSec", str(NOTICE_S + math.ceil(engine.drain_s) + 60)),
        ("KillSignal", "SIGTERM"),
        ("KillMode", "mixed"),
        ("Restart", "always"),
        ("RestartSec", "5"),
        ("LimitNOFILE", "1048576"),
        ("LimitMEMLOCK", "infinity"),
        ("NoNewPrivileges", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectControlGroups", "yes"),
    ]
    if engine.image is not None:
        lines.insert(-6, ("ExecStopPost", f"-docker rm --force textnlp-fast-{plan.name}"))
    return _unit(
        (
            "Unit",
            (
                ("Description", f"Serve {plan.name}"),
                *([("Wants", "network-online.target")] if own else [("Requires", fetch)]),
                ("After", "network-online.target" if own else f"{fetch} docker.service"),
                ("StartLimitIntervalSec", "0"),
            ),
        ),
        ("Service", lines),
        ("Install", (("WantedBy", "multi-user.target"),)),
    )


def _health_unit(plan: DeploymentPlan, folder: str) -> str:
    """Asks as long as the engine runs; one that stays unwell is started again."""
    engine = unit_names(plan)["engine"]
    interval = max(1, math.ceil(plan.deployment.rollout.health.interval_s))
    return _unit(
        ("Unit", (("Description", f"Watch {plan.name}"), ("After", engine), ("BindsTo", engine))),
        (
            "Service",
            (
                ("Type", "exec"),
                (
                    "ExecStart",
                    "/bin/sh -c "
                    + systemd_word(
                        f'while "$1"; do sleep {interval}; done; systemctl --no-block restart {engine}'
                    )
                    + f" watch {systemd_word(f'{folder}/health')}",
                ),
                ("Restart", "always"),
                ("RestartSec", str(interval)),
            ),
        ),
        ("Install", (("WantedBy", engine),)),
    )


def _notice_unit(plan: DeploymentPlan, cloud: str) -> str:
    """Waits for the cloud to take the machine back, and then lets requests end."""
    engine = unit_names(plan)["engine"]
    return _unit(
        (
            "Unit",
            (
                ("Description", f"Let {plan.name} end its requests when the machine is taken away"),
                ("Wants", "network-online.target"),
                ("After", "network-online.target"),
            ),
        ),
        (
            "Service",
            (
                ("Type", "exec"),
                ("ExecStart", f"/usr/bin/env textnlp-fast deploy await-notice --cloud {cloud}"),
                (
                    "ExecStopPost",
                    f'/bin/sh -c "[ $$EXIT_STATUS != 0 ] || systemctl --no-block stop {engine}"',
                ),
                ("Restart", "on-failure"),
                ("RestartSec", "10"),
            ),
        ),
        ("Install", (("WantedBy", "multi-user.target"),)),
    )
