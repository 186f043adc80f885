"""Commands that the judgement brings: demo, evaluate, compare."""

import amnesis


@amnesis.hookimpl
def register_commands(register: amnesis.Register) -> None:
    """Register every command of this distribution."""
    here = "amnesis_evaluation.commands"
    register("demo", f"{here}.demo:demo", summary="watch a small model forget ten people; offline")
    register(
        "evaluate", f"{here}.evaluate:evaluate", summary="judge a model, or an original TOFU log"
    )
    register("compare", f"{here}.compare:compare", summary="several runs in one table")
    register("probe", f"{here}.probe:probe", summary="what objectives do to both risks, and where")
    register("suggest", f"{here}.suggest:suggest", summary="try methods out, rank them by damage")
