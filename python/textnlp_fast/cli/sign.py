"""`textnlp-fast sign`: say by a signature whose a version is."""

from __future__ import annotations

from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    open_repository,
    repository_option,
    tuning_options,
    version_reference,
)
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.cli.signing import private_key
from textnlp_fast.errors import InvalidInputError

EPILOG = """\b
Examples:
  openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl ec -in key.pem -pubout -out key.pub.pem
  textnlp-fast sign my-model@1.0.0 --key key.pem --files my-model/
  textnlp-fast pull my-model@1.0.0 out/ --require-signature --public-key key.pub.pem
"""


@click.command("sign", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME@VERSION")
@repository_option
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False), help="Private key (PEM: P-256, P-384 or P-521)."
)
@click.option(
    "--files", type=click.Path(exists=True), help="The version's files, if they are here; else it is pulled."
)
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False),
    help="Also write the signature here, for model-signing's own tools.",
)
@tuning_options
@json_option
def command(
    *,
    reference: str,
    repo: str | None,
    key: str | None,
    files: str | None,
    bundle: str | None,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Sign NAME@VERSION: its name, its version and each of its files. The signature lies in the repository."""
    name, version = version_reference(reference)
    private = private_key(key)
    if private is None:
        raise InvalidInputError("no key was given", hint="Pass --key KEY.PEM, or set TEXTNLP_FAST_SIGN_KEY.")
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    signed = repository.sign(name, version, private, files=files)
    if bundle is not None:
        with open(bundle, "wb") as file:  # noqa: PTH123 - click gives a text
            file.write(repository.store.get(signed.path))
    if as_json:
        print_json(asdict(signed))
        return
    done = "is signed already by" if signed.already_there else "signed by"
    print_line(f"{signed.model}@{signed.version} {done} key {signed.key_id}")
