"""`textnlp-fast gpu recommend`: which machines serve or train a model, how many, at what price."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from textnlp_fast.cli.arguments import Number, json_option
from textnlp_fast.cli.configured import setting
from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.gpu.catalog import Catalog
    from textnlp_fast.gpu.recommender import ReadModel
    from textnlp_fast.gpu.types import GPUType, Offer

# Options that mean something to some of the questions only. Given to another, they would be dropped without a word.
_ONLY_FOR = {
    "ttft": ("rps",),
    "tpot": ("rps",),
    "context": ("rps",),
    "headroom": ("rps",),
    "spot_share": ("rps",),
    "max_usd_per_hour": ("rps",),
    "mixed": ("rps",),
    "max_share": ("mixed",),
    "limits": ("mixed",),
    "prompt": ("rps", "requests"),
    "output": ("rps", "requests"),
    "kv_cache": ("rps", "requests"),
    "deadline_h": ("requests", "train_tokens"),
    "max_usd": ("requests", "train_tokens"),
    "method": ("train_tokens",),
    "sequence": ("train_tokens",),
    "zero": ("train_tokens",),
    "rank": ("train_tokens",),
}

EPILOG = """\b
Examples:
  textnlp-fast gpu recommend --model llama-70b/ --rps 50 --prompt 4000 --output 500 --ttft 1 --tpot 0.05
  textnlp-fast gpu recommend --params 8e9 --rps 20 --spot --region us-east-1 --plot plans.png
  textnlp-fast gpu recommend --model m/ --rps 200 --mixed --max-share 0.5 --machine-limit p5.48xlarge=4
  textnlp-fast gpu recommend --model m/ --requests 1000000 --deadline-h 10
  textnlp-fast gpu recommend --model m/ --train-tokens 1e9 --method lora --weights int4
"""


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


_MODEL = _options(
    click.option("--model", type=click.Path(path_type=Path), help="A config.json, or the folder with it."),
    click.option("--params", type=Number(), help="Instead of a model: its number of parameters, as 70e9."),
    click.option("--ignore-unknown-keys", is_flag=True, help="Read a config.json with sizes not known here."),
    click.option(
        "--weights", metavar="FORMAT", help="bf16, fp8, int8, int4, awq, gptq.  [default: as published]"
    ),
    click.option(
        "--kv-cache", default="bf16", show_default=True, metavar="FORMAT", help="bf16, fp8 or int8."
    ),
)
_TRAFFIC = _options(
    click.option("--rps", type=Number(), help="Serve: requests a second."),
    click.option("--prompt", type=int, default=1000, show_default=True, help="Mean tokens of a prompt."),
    click.option("--output", type=int, default=250, show_default=True, help="Mean tokens of an answer."),
    click.option("--context", type=int, help="Tokens that one sequence may grow to.  [default: both]"),
    click.option(
        "--ttft",
        type=Number(finite=False),
        default=1.0,
        show_default=True,
        help="Seconds to the first token.",
    ),
    click.option(
        "--tpot",
        type=Number(finite=False),
        default=0.05,
        show_default=True,
        help="Seconds between tokens, mean.",
    ),
    click.option("--headroom", type=Number(), default=0.0, show_default=True, help="Capacity to spare: 0.2."),
)
_JOBS = _options(
    click.option("--requests", type=int, help="A batch job instead: requests in all."),
    click.option("--deadline-h", type=Number(), help="Hours until a job has to be done."),
    click.option("--train-tokens", type=Number(), help="Fine-tuning instead: tokens to train on."),
    click.option("--method", type=click.Choice(["full", "lora"]), default="full", show_default=True),
    click.option(
        "--sequence", type=int, default=4096, show_default=True, help="Tokens of a training sequence."
    ),
    click.option("--zero", type=click.IntRange(0, 3), default=3, show_default=True, help="Stage of ZeRO."),
    click.option("--rank", type=int, default=16, show_default=True, help="Of LoRA."),
    click.option("--max-usd", type=Number(finite=False), help="What a job may cost."),
)
_MARKET = _options(
    click.option(
        "--gpu",
        "gpus",
        multiple=True,
        metavar="TYPE",
        default=setting("default_gpu_type", (), lambda name: (name,) if name else ()),
        show_default="DEFAULT_GPU_TYPE, else all",
        help="As nvidia-l4; repeatable; `all` for all.",
    ),
    click.option("--provider", "providers", multiple=True, metavar="NAME", help="Repeatable."),
    click.option("--region", "regions", multiple=True, metavar="NAME", help="Repeatable."),
    click.option(
        "--spot/--no-spot",
        default=setting("enable_spot_instances", False),
        show_default="ENABLE_SPOT_INSTANCES, else no",
        help="Allow spot machines.",
    ),
    click.option(
        "--spot-share", type=Number(), help="Share of it that may be spot.  [default: all, with --spot]"
    ),
    click.option(
        "--max-usd-per-hour", type=Number(finite=False), help="What all machines together may cost."
    ),
    click.option("--fresh", is_flag=True, help="Leave out prices that are stale."),
    click.option("--mixed", is_flag=True, help="One fleet of several types, the cheapest (needs scipy)."),
    click.option(
        "--max-share", type=Number(), default=1.0, show_default=True, help="Of one type in a mixed fleet."
    ),
    click.option("--machine-limit", "limits", multiple=True, metavar="TYPE=N", help="In a mixed fleet."),
)
_OUTPUT = _options(
    click.option("--limit", type=click.IntRange(1), default=8, show_default=True, help="Plans to show."),
    click.option(
        "--plot", type=click.Path(path_type=Path), help="Draw cost against latency: FILE.png or .svg."
    ),
    json_option,
)


@click.command("recommend", epilog=EPILOG)
@_MODEL
@_TRAFFIC
@_JOBS
@_MARKET
@_OUTPUT
def command(**chosen: Any) -> None:
    """Show which machines serve a model, the cheapest first, and why others do not.

    Times are predictions of a roofline model of vLLM; see the guide on how far to trust them. Prices are the
    catalogue's.
    """
    from textnlp_fast.cli.gpu import recommend_output  # noqa: PLC0415
    from textnlp_fast.gpu.catalog import Catalog  # noqa: PLC0415

    jobs = [name for name in ("rps", "requests", "train_tokens") if chosen[name] is not None]
    if len(jobs) != 1:
        raise InvalidInputError(
            "say what the machines are for", hint="Give one of --rps, --requests and --train-tokens."
        )
    _refuse_what_is_not_for([*jobs, "mixed"] if chosen["mixed"] else jobs)
    if chosen["plot"] is not None:
        if jobs != ["rps"] or chosen["mixed"]:
            raise InvalidInputError("only plans of one type for traffic (--rps) can be drawn")
        from textnlp_fast.cli.gpu import recommend_plot  # noqa: PLC0415

        recommend_plot.files_of(chosen["plot"])  # complain before the work, not after it
    model = _model(chosen)
    catalog = Catalog.load()
    gpu_types = _gpu_types(chosen["gpus"])
    offers = catalog.offers(
        providers=chosen["providers"] or None,
        regions=chosen["regions"] or None,
        gpu_types=gpu_types,
        include_stale=not chosen["fresh"],
    )
    share = chosen["spot_share"] if chosen["spot_share"] is not None else float(chosen["spot"])
    if jobs == ["rps"]:
        _serve(chosen, model, catalog, offers, gpu_types, share)
    elif jobs == ["requests"]:
        recommend_output.show_batch(_batch(chosen, model, catalog, offers, share), model, chosen)
    else:
        recommend_output.show_fine_tune(_fine_tune(chosen, model, catalog, offers, share), model, chosen)


def _refuse_what_is_not_for(asked: list[str]) -> None:
    context = click.get_current_context()
    flags = {one.name: max(one.opts, key=len) for one in context.command.params}
    for name, wanted in _ONLY_FOR.items():
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and not set(wanted) & set(asked):
            others = " or ".join(flags[one] for one in wanted)
            raise InvalidInputError(
                f"{flags[name]} means nothing without {others}",
                hint="Leave it out, or ask the other question.",
            )


def _model(chosen: dict[str, Any]) -> ReadModel:
    from textnlp_fast.gpu.recommender import ReadModel, read_model, shape_of_parameters  # noqa: PLC0415

    if (chosen["model"] is None) == (chosen["params"] is None):
        raise InvalidInputError("say which model", hint="Give --model with a config.json, or --params.")
    if chosen["model"] is not None:
        return read_model(chosen["model"], ignore_unknown=chosen["ignore_unknown_keys"])
    note = "sizes are guessed from the number of parameters: a config.json gives better figures"
    return ReadModel(shape_of_parameters(chosen["params"]), weights="bf16", notes=(note,))


def _gpu_types(names: tuple[str, ...]) -> list[GPUType] | None:
    from textnlp_fast.gpu.types import GPUType  # noqa: PLC0415

    if not names or "all" in names:
        return None
    return [GPUType.parse(name) for name in names]


def _serve(
    chosen: dict[str, Any],
    model: ReadModel,
    catalog: Catalog,
    offers: list[Offer],
    gpu_types: list[GPUType] | None,
    share: float,
) -> None:
    from textnlp_fast.cli.gpu import recommend_output  # noqa: PLC0415
    from textnlp_fast.gpu.recommender import Workload, mixed_fleet, recommend  # noqa: PLC0415

    workload = Workload(
        shape=model.shape,
        requests_per_s=chosen["rps"],
        prompt=chosen["prompt"],
        output=chosen["output"],
        ttft_s=chosen["ttft"],
        tpot_s=chosen["tpot"],
        weights=chosen["weights"] or model.weights,
        kv_cache=chosen["kv_cache"],
        context=chosen["context"],
        headroom=chosen["headroom"],
    )
    if chosen["mixed"]:
        found = mixed_fleet(
            workload,
            offers,
            catalog.spec,
            gpu_types=gpu_types,
            spot_share=share,
            max_share=chosen["max_share"],
            machine_limits=_limits(chosen["limits"]),
            max_usd_per_hour=chosen["max_usd_per_hour"],
        )
    else:
        found = recommend(
            workload,
            offers,
            catalog.spec,
            gpu_types=gpu_types,
            spot_share=share,
            max_usd_per_hour=chosen["max_usd_per_hour"],
            limit=None,
        )
    if chosen["plot"] is not None:
        from textnlp_fast.cli.gpu import recommend_plot  # noqa: PLC0415

        recommend_plot.draw(workload, found, chosen["plot"])
    recommend_output.show_plans(workload, found, model, chosen)


def _limits(texts: tuple[str, ...]) -> dict[str, int]:
    limits = {}
    for text in texts:
        name, sign, count = text.partition("=")
        if not name or not sign or not count.isdecimal() or len(count) > 9:
            raise InvalidInputError(f"{text!r} is no limit", hint="Write --machine-limit p5.48xlarge=4.")
        limits[name] = int(count)
    return limits


def _batch(
    chosen: dict[str, Any], model: ReadModel, catalog: Catalog, offers: list[Offer], share: float
) -> list[Any]:
    from textnlp_fast.gpu.recommender import BatchJob, plan_batch  # noqa: PLC0415

    if chosen["deadline_h"] is None:
        raise InvalidInputError("by when have the requests to be done?", hint="Give --deadline-h.")
    job = BatchJob(
        shape=model.shape,
        requests=chosen["requests"],
        deadline_h=chosen["deadline_h"],
        prompt=chosen["prompt"],
        output=chosen["output"],
        weights=chosen["weights"] or model.weights,
        kv_cache=chosen["kv_cache"],
    )
    return plan_batch(job, offers, catalog.spec, spot=share > 0, max_usd=chosen["max_usd"])


def _fine_tune(
    chosen: dict[str, Any], model: ReadModel, catalog: Catalog, offers: list[Offer], share: float
) -> list[Any]:
    from textnlp_fast.gpu.recommender import FineTune, plan_fine_tune  # noqa: PLC0415

    run = FineTune(
        shape=model.shape,
        tokens=chosen["train_tokens"],
        method=chosen["method"],
        weights=chosen["weights"] or "bf16",
        sequence=chosen["sequence"],
        zero=chosen["zero"],
        rank=chosen["rank"],
        deadline_h=chosen["deadline_h"],
    )
    return plan_fine_tune(run, offers, catalog.spec, spot=share > 0, max_usd=chosen["max_usd"])
