"""A run's rows as tokens, before a weight is loaded: what is cut away, and by whose tokens."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from amnesis.config.problems import Problems
from amnesis.contracts.stream import StreamLoss
from amnesis.data.examples import ExampleSet, Mixture
from amnesis.errors import ModelError
from amnesis.models.loading import ModelSettings, load_tokenizer
from amnesis.training.unlearner import encode_stream

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from amnesis.contracts.benchmark import Benchmark
    from amnesis.data.templates import AnyTemplate
    from amnesis.discovery.resolve import Method
    from amnesis.runs.recipe import Recipe

_COMPARED = 64  # rows of each stream, by which two tokenizers are told apart


def check_texts(
    problems: Problems,
    recipe: Recipe,
    method: Method,
    benchmark: Benchmark,
    streams: Mapping[str, Mixture],
    config: PretrainedConfig,
    trust_remote_code: bool,
) -> tuple[list[str], dict[str, ExampleSet]]:
    """Collect what tokenizing the rows shows to be wrong.

    Return what is to be said of the rest, and each stream's examples: a run need not encode twice.
    """
    tokenizer = problems.attempt(
        "model", load_tokenizer, recipe.model, trust_remote_code=trust_remote_code
    )
    if tokenizer is None:
        return [], {}
    template = recipe.template.within(config)
    notes: list[str] = []
    encoded: dict[str, ExampleSet] = {}
    losses = {"forget": method.forget, "retain": method.retain or StreamLoss("retain", ())}
    for name, mixture in streams.items():
        examples = problems.attempt(
            f"{name} stream", encode_stream, mixture, losses[name], tokenizer, template
        )
        if examples is not None:
            notes += _cut(examples, template)
            encoded[name] = examples
    if recipe.retrained is not None:
        problems.attempt(
            "retrained",
            check_same_tokens,
            recipe.retrained,
            tokenizer,
            streams,
            template,
            trust_remote_code,
        )
    settings = recipe.evaluate.model_copy(update={"metrics": method.metrics})
    problems.attempt(
        "evaluate",
        benchmark.check,
        settings,
        template,
        tokenizer,
        retrained=recipe.retrained is not None,
    )
    return notes, encoded


def _cut(examples: ExampleSet, template: AnyTemplate) -> list[str]:
    """Return a note for each kind of example that truncation changes."""
    counts = {
        "cut at their end": examples.truncated,
        "left out, because nothing of their answers fits": examples.dropped,
    }
    return [
        f"{examples.name}: {count} of {len(examples) + examples.dropped} examples are {what} "
        f"(template.max_length {template.max_length}, or the model's positions)"
        for what, count in counts.items()
        if count
    ]


def check_same_tokens(
    other: ModelSettings,
    tokenizer: PreTrainedTokenizerBase,
    streams: Mapping[str, Mixture],
    template: AnyTemplate,
    trust_remote_code: bool = False,
) -> None:
    """Refuse a model whose tokenizer makes other tokens of the rows: it is asked in the first's.

    Raises:
        ModelError: it does, or there is no tokenizer.
    """
    theirs = load_tokenizer(other, trust_remote_code=trust_remote_code)
    for name, mixture in streams.items():
        rows = (row for _, part in mixture.parts for row in part)
        for index, row in enumerate(islice(rows, _COMPARED)):
            if template.encode(row, tokenizer) != template.encode(row, theirs):
                raise ModelError(
                    f"{other.path}: its tokenizer makes other tokens of {name} row {index} than "
                    f"the model's, so their values cannot be compared; train the retrained model "
                    f"from the same base, with the same tokenizer"
                )
