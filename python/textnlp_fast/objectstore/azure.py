"""Where a container of Azure Blob Storage is and who may read it: account, endpoint, default chain of credentials."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import os
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from obstore.store import AzureStore

from textnlp_fast.errors import AuthenticationError, InvalidInputError
from textnlp_fast.objectstore.endpoints import check_endpoint
from textnlp_fast.objectstore.keys import check_prefix
from textnlp_fast.objectstore.remote import RemoteBackend, client_options, retry_options

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureCredential

    from textnlp_fast.objectstore.store import OpenArguments

__all__ = ["AzureAccount", "azure_account", "open_azure"]

_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}", re.ASCII)
# All of obstore's names too; looked at here, so that no endpoint goes unchecked.
_ENDPOINT_VARIABLES = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_KEY_VARIABLES = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY")
_SAS_VARIABLES = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")
# With any of these obstore finds the credentials by itself.
_PROVIDED_BY_ENVIRONMENT = (
    "AZURE_STORAGE_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_USE_AZURE_CLI",
)
_SCOPE = "https://storage.azure.com/.default"


class AzureAccount:
    """A storage account as the environment names it.

    ``endpoint`` is where its blobs are, ``plain_http`` whether that is HTTP on this machine; ``key`` and ``sas`` are
    None where the credentials are tokens. The secrets do not show when it is printed.
    """

    def __init__(
        self, name: str, endpoint: str, *, plain_http: bool, key: str | None, sas: str | None
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.plain_http = plain_http
        self.key = key
        self.sas = sas

    def __repr__(self) -> str:
        return f"AzureAccount({self.name!r}, {self.endpoint!r})"


def azure_account(endpoint_url: str | None, *, allow_http: bool) -> AzureAccount:
    """The account that the environment names, with its checked endpoint and, where there is one, its key.

    ``AZURE_STORAGE_CONNECTION_STRING`` or ``AZURE_STORAGE_ACCOUNT_NAME`` with ``AZURE_STORAGE_ACCOUNT_KEY`` or
    ``AZURE_STORAGE_SAS_TOKEN``; without either secret, tokens are used. Raises ``InvalidInputError`` where no account
    is named.
    """
    connection = _connection_string()
    name = connection.get("accountname") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not name:
        raise InvalidInputError(
            "the URL names a container, and nothing names its storage account",
            hint="Set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING.",
        )
    if not _ACCOUNT.fullmatch(name):
        raise InvalidInputError(f"{name!r} is no name of a storage account: 3 to 24 of a-z and 0-9")
    endpoint = (
        endpoint_url
        or next(filter(None, map(os.environ.get, _ENDPOINT_VARIABLES)), None)
        or connection.get("blobendpoint")
        or f"https://{name}.blob.{connection.get('endpointsuffix', 'core.windows.net')}"
    )
    return AzureAccount(
        name,
        endpoint.rstrip("/"),
        plain_http=check_endpoint(endpoint, allow_http=allow_http),
        key=connection.get("accountkey") or next(filter(None, map(os.environ.get, _KEY_VARIABLES)), None),
        sas=connection.get("sharedaccesssignature")
        or next(filter(None, map(os.environ.get, _SAS_VARIABLES)), None),
    )


def open_azure(container: str, prefix: str, opening: OpenArguments) -> RemoteBackend:
    """A container, or a folder of one. Nothing is sent yet."""
    if not _CONTAINER.fullmatch(container):
        raise InvalidInputError(f"{container!r} is no container name: 3 to 63 of a-z, 0-9 and single '-'")
    encryption = opening.encryption
    if encryption is not None and (encryption.kms_key or encryption.bucket_key):
        raise InvalidInputError(
            "Azure takes the key to encrypt with from the container, not from a request of ours",
            hint="Make an encryption scope with your key and give it to the container as its default: "
            "`az storage container create --default-encryption-scope ... --prevent-encryption-scope-override true`.",
        )
    prefix = check_prefix(prefix)
    account = azure_account(opening.endpoint_url, allow_http=opening.allow_http)
    config: AzureConfig = {
        "account_name": account.name,
        "endpoint": account.endpoint,
        "skip_signature": False,  # neither this nor the next is for an environment variable to choose
        "use_emulator": False,
    }
    provider = None
    if account.key:
        _check_key(account.key)
        config["account_key"] = account.key
    elif account.sas:
        config["sas_key"] = account.sas
    else:
        provider = _tokens()

    def connect(tries: int) -> AzureStore:
        return AzureStore(
            container,
            prefix=prefix or None,
            config=config,
            client_options=client_options(opening.timeout_s, plain_http=account.plain_http),
            retry_config=retry_options(opening.timeout_s, tries),
            credential_provider=provider,
        )

    url = f"az://{container}/{prefix}" if prefix else f"az://{container}"
    return RemoteBackend(url, patient=connect(opening.retries), once=connect(0))


def _check_key(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except ValueError:
        raise AuthenticationError(
            "the key of the storage account is not base64",
            hint="Copy it whole: `az storage account keys list`.",
        ) from None  # whose text might show the key


def _connection_string() -> dict[str, str]:
    """The fields of the connection string, by their lower-case names."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    fields = dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)
    lowered = {name.lower(): value for name, value in fields.items()}
    if lowered.get("usedevelopmentstorage") or (
        lowered.get("defaultendpointsprotocol") == "http" and "blobendpoint" not in lowered
    ):
        raise InvalidInputError(
            "AZURE_STORAGE_CONNECTION_STRING asks for plain HTTP without saying where",
            hint="Name the endpoint: BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;AccountName=...;AccountKey=...",
        )
    return lowered


class _IdentityTokens:
    """Hands obstore the tokens that azure-identity's default chain finds: environment, workload and managed
    identity, the command line's login."""

    def __init__(self, credential: Any, refused: type[Exception]) -> None:
        self.config: AzureConfig = {}
        self._credential = credential
        self._refused = refused

    def __call__(self) -> AzureCredential:
        try:
            token = self._credential.get_token(_SCOPE)
        except self._refused as error:
            raise AuthenticationError(f"cannot get a token for Azure: {error}") from error
        return {"token": token.token, "expires_at": datetime.fromtimestamp(token.expires_on, timezone.utc)}


def _tokens() -> _IdentityTokens | None:
    """``None`` where obstore finds them itself: by the environment, or as the machine's managed identity."""
    if any(os.environ.get(name) for name in _PROVIDED_BY_ENVIRONMENT):
        return None
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.identity") is None:
        return None
    identity = cast("Any", importlib.import_module("azure.identity"))
    errors = cast("Any", importlib.import_module("azure.core.exceptions"))
    return _IdentityTokens(identity.DefaultAzureCredential(), errors.ClientAuthenticationError)
