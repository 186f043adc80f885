"""The commands of this package, from ``demo`` to ``sweep``: each a function that typer reads."""

import amnesis

_COMMANDS = {
    "demo": ("demo:demo", "watch a small model forget ten people; offline"),
    "evaluate": ("evaluate.command:evaluate", "evaluate a model, or read an original TOFU log"),
    "compare": ("compare.command:compare", "several runs in one table"),
    "report": ("report:report", "write a run's page again, with or without its texts"),
    "publish": ("publish:publish", "hand a run's model on, with its card"),
    "ask": ("ask:ask", "ask a model, beside the model before"),
    "probe": ("probe.command:probe", "what objectives do to both risks, and where"),
    "assess": ("assess.command:assess", "does it know, what goes with it, what it will take"),
    "audit": ("audit.command:audit", "does a model keep a policy; on the record, signed"),
    "init": ("init.command:init", "write a recipe for your own files"),
    "suggest": ("suggest.command:suggest", "try methods out, rank them by damage"),
    "sweep": ("sweep.command:sweep", "one recipe over methods, hyper-parameters and seeds"),
}


@amnesis.hookimpl
def register_commands(register: amnesis.Register) -> None:
    """Register the commands of this package."""
    for name, (target, summary) in _COMMANDS.items():
        register(name, f"amnesis_evaluation.commands.{target}", summary=summary)
