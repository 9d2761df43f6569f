"""`textnlp-fast config`: what is set, and where it was set."""

from __future__ import annotations

import re
from typing import Any

import click

from textnlp_fast.cli.arguments import json_option
from textnlp_fast.cli.output import print_json, print_table

_USER = re.compile(r"://[^/@]*@")

EPILOG = """\b
Examples:
  textnlp-fast config show
  textnlp-fast config show --config config/development.yaml --json
"""


@click.group("config", epilog=EPILOG)
def command() -> None:
    """Show settings: arguments come before the environment, that before files, those before defaults."""


@command.command("show", epilog=EPILOG)
@click.option(
    "--config",
    "path",
    envvar="TEXTNLP_FAST_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="Settings in YAML.",
)
@click.option(
    "--env-file",
    envvar="TEXTNLP_FAST_ENV_FILE",
    show_envvar=True,
    metavar="FILE",
    help="A file of variables.",
)
@json_option
def show(*, path: str | None, env_file: str | None, as_json: bool) -> None:
    """Print each setting, its value and where that came from. Secrets are masked."""
    from textnlp_fast.config.loading import load_settings  # noqa: PLC0415
    from textnlp_fast.config.settings import Settings, names_of  # noqa: PLC0415

    settings = load_settings(path, env_file=env_file)
    sources = settings.sources
    values = {name: _masked(value) for name, value in settings.model_dump(mode="json").items()}
    if as_json:
        print_json(
            {
                name: {
                    "value": values[name],
                    "source": sources.get(name, "default"),
                    "variables": list(names_of(name)),
                }
                for name in Settings.model_fields
            }
        )
        return
    rows = [[name, _shown(values[name]), sources.get(name, "default")] for name in Settings.model_fields]
    print_table(["setting", "value", "from"], rows, left=3, yields=1)


def _masked(value: Any) -> Any:
    """The value without a name and a password that a URL may carry: it is refused later, and not shown before."""
    return _USER.sub("://**********@", value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    if value is None or value in ("", []):
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
