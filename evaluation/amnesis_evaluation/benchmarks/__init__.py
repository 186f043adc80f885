"""Benchmarks: the sets that a run forgets and retains, and the evaluation on them."""

import amnesis


@amnesis.hookimpl
def register_benchmarks(register: amnesis.Register) -> None:
    """Register the benchmarks of this package."""
    here = "amnesis_evaluation.benchmarks"
    register(
        "fictional",
        f"{here}.fictional.benchmark:Fictional",
        summary="invented authors, made from a seed; offline",
    )
    register("tofu", f"{here}.tofu:Tofu", summary="TOFU, from the hub or from local files")
    register(
        "muse", f"{here}.muse:Muse", summary="MUSE: news or books to forget, evaluated in six ways"
    )
    register("rwku", f"{here}.rwku:Rwku", summary="RWKU: real people to forget, by probes")
    register("wmdp", f"{here}.wmdp:Wmdp", summary="WMDP: hazardous knowledge, through lm-eval")
    register("own", f"{here}.own:Own", summary="your own files of questions and answers")
