"""haproxy.cfg of a plan, as text. Pure; written for HAProxy 2.6 and newer."""

from __future__ import annotations

import json
from typing import Final

from textnlp_fast.adapter.gateway.plan import BACKEND, Endpoint, GatewayPlan

__all__ = ["agent_word", "haproxy_config", "slot_name"]

# The size of a buffer, which is also the largest request that can be sent a second time.
_BUFFER_BYTES: Final = 64 << 10
_KEYS: Final = 100_000
# Below /v1 and not of the API: what engines load, unload and say of themselves (vLLM, mistral.rs, TabbyAPI and others).
_ADMINISTRATION: Final = (
    "/v1/load",
    "/v1/unload",
    "/v1/lora",
    "/v1/model/",
    "/v1/internal",
    "/v1/system",
    "/v1/admin",
)


def slot_name(number: int) -> str:
    """HAProxy's name of the slot with a number, from 1."""
    return f"slot{number}"


def agent_word(address: Endpoint, share: float = 1.0) -> str:
    """What HAProxy sends the agent of a replica: its address, and its share of traffic in thousandths.

    HAProxy keeps the word, so that a share outlives whoever set it, and the agent needs no memory of who is there.
    """
    return f"{address},{round(1000 * share)}!"


def haproxy_config(plan: GatewayPlan) -> str:
    """The configuration of a plan: what HAProxy checks with `haproxy -c -f FILE` and runs with `haproxy -W -f FILE`."""
    sections = [_global(plan), _defaults(plan), _frontend(plan), _backend(plan)]
    if plan.requests_per_minute is not None:
        sections.append(
            [
                "backend rates",
                f"    stick-table type string len 64 size {_KEYS} expire 2m store http_req_rate(1m)",
            ]
        )
    if plan.metrics is not None:
        sections.append(
            [
                "frontend metrics",
                f"    bind {plan.metrics}",
                "    http-request use-service prometheus-exporter if { path /metrics }",
                "    http-request return status 404",
            ]
        )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _global(plan: GatewayPlan) -> list[str]:
    return [
        "global",
        "    log stderr format raw local0 notice",
        f"    maxconn {plan.connections}",
        f"    tune.bufsize {_BUFFER_BYTES}",
        f"    stats socket {plan.socket_path} mode 600 level admin expose-fd listeners",
        "    stats timeout 30s",
        # A reload leaves the old process to its streams, but not for ever.
        f"    hard-stop-after {max(plan.silence_s, 60)}s",
    ]


def _defaults(plan: GatewayPlan) -> list[str]:
    return [
        "defaults",
        "    mode http",
        "    log global",
        "    option httplog",
        "    option dontlog-normal",
        # Tokens go out as they come in, and whoever left is not generated for.
        "    option http-no-delay",
        "    option abortonclose",
        # A connection a request: generation takes longer than a handshake, and no POST meets a connection that its
        # engine was about to close, of which nobody could say whether it was executed.
        "    option http-server-close",
        "    timeout connect 3s",
        "    timeout http-request 15s",
        "    timeout http-keep-alive 60s",
        f"    timeout queue {plan.queue_s}s",
        f"    timeout client {plan.silence_s}s",
        f"    timeout server {plan.silence_s}s",
        f"    timeout tunnel {plan.silence_s}s",
        "    timeout client-fin 30s",
    ]


def _frontend(plan: GatewayPlan) -> list[str]:
    tls = f" ssl crt {plan.tls_certificate} alpn h2,http/1.1" if plan.tls_certificate is not None else ""
    lines = [
        "frontend openai",
        f"    bind {plan.listen}{tls}",
        "    monitor-uri /health",
        f"    monitor fail if {{ nbsrv({BACKEND}) lt 1 }}",
        f"    acl too_long req.body_size gt {plan.request_limit_bytes}",
        "    acl no_length req.hdr(transfer-encoding) -m found",
    ]
    if plan.keys_file is not None:
        lines += [
            "    http-request set-var(txn.key) http_auth_bearer,sha2(256),hex",
            f"    acl known var(txn.key) -m str -f {plan.keys_file}",
            _refusal(401, "invalid_api_key", "The key is missing or wrong.", "unless known"),
        ]
    if plan.requests_per_minute is not None:
        who = "var(txn.key)" if plan.keys_file is not None else "src"
        lines += [
            f"    http-request track-sc0 {who} table rates",
            _refusal(
                429,
                "rate_limit_exceeded",
                f"More than {plan.requests_per_minute} requests a minute.",
                f"if {{ sc_http_req_rate(0,rates) gt {plan.requests_per_minute} }}",
            ),
        ]
    words = " ".join(_ADMINISTRATION)
    return [
        *lines,
        _refusal(411, "invalid_request_error", "Requests need a Content-Length.", "if no_length"),
        _refusal(413, "invalid_request_error", f"More than {plan.request_limit_bytes} bytes.", "if too_long"),
        # Engines' own metrics and administration are nobody's outside. Engines decode a path once; what would then be
        # another path than it looks like here is refused, and what cannot be decoded begins with nothing.
        *(
            _refusal(400, "invalid_request_error", "The path is no plain one.", f"if {{ {odd} }}")
            for odd in (
                "path,url_dec -m sub .. // ./ %",
                "path,url_dec -m end /.",
                r"path,url_dec -m sub \\",
                "path -m sub -i %0 %1 ..",
            )
        ),
        _refusal(404, "not_found", "There is /v1 here.", "unless { path,url_dec -m beg /v1/ }"),
        _refusal(404, "not_found", "This is not of the API.", f"if {{ path,url_dec -m beg -i {words} }}"),
        _refusal(
            405,
            "invalid_request_error",
            "Models are listed here, and changed elsewhere.",
            "if { path,url_dec -m beg -i /v1/models } !{ method GET HEAD OPTIONS }",
        ),
        # What is sent again has to be here in whole first (up to a buffer; more flows through, and is sent once). Slow
        # clients wait here, too, and not in an engine's place.
        "    http-request wait-for-body time 15s if METH_POST",
        f"    default_backend {BACKEND}",
    ]


def _refusal(status: int, code: str, message: str, condition: str) -> str:
    """An answer as OpenAI's clients read errors."""
    body = json.dumps({"error": {"message": message, "type": code, "code": code}})
    return (
        f"    http-request return status {status} content-type application/json string '{body}' {condition}"
    )


def _backend(plan: GatewayPlan) -> list[str]:
    lines = [f"backend {BACKEND}"]
    if plan.balance == "affinity":
        lines += [
            f"    balance hdr({plan.affinity_header})",
            "    hash-type consistent",
            f"    hash-balance-factor {plan.affinity_load_percent}",
        ]
    else:
        lines.append(f"    balance {'roundrobin' if plan.balance == 'round_robin' else 'leastconn'}")
    lines += [
        # Sent again: what reached no engine, and what an engine said that it did not take. Nothing else.
        "    retries 3",
        "    retry-on conn-failure 503",
        "    option redispatch 1",
        "    option httpchk",
        f"    http-check send meth GET uri {plan.health_path}",
        "    http-check expect status 200",
    ]
    check = "check inter 2s fastinter 500ms downinter 1s fall 2 rise 1 weight 100 init-addr last,libc,none"
    if plan.in_flight_per_replica is not None:
        check += f" maxconn {plan.in_flight_per_replica}"
    if plan.agent is not None:
        check += f" agent-check agent-inter 1s agent-addr {plan.agent.host} agent-port {plan.agent.port}"
    lines.append(f"    default-server {check}")
    for number in range(1, plan.slots + 1):
        used = number <= len(plan.endpoints)
        # Port 1 of this machine: an address that nobody is at, until the slot gets one.
        where = plan.endpoints[number - 1] if used else Endpoint("127.0.0.1", 1)
        agent = f' agent-send "{agent_word(where)}"' if plan.agent is not None else ""
        lines.append(f"    server {slot_name(number)} {where}{agent}{'' if used else ' disabled'}")
    return lines
