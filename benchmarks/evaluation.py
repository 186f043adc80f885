"""How long an evaluation takes: a shared pass, a pass per metric, and plain texts, side by side.

    python benchmarks/evaluation.py --data ../shared/data/tofu [--rows 60] [--rounds 5]

Teacher-forced part of the TOFU suite (forget, retain, real authors, world facts; the answer, its
paraphrase and five perturbed answers of each row), all in one process and in interleaved rounds:

- `shared`: our pass: every text once, sorted by length, the head on label places only.
- `per metric`: a forward pass for each metric at the same batch size, as the field's framework
  makes it: unsorted, full logits.
- `plain`: one pass over the same texts, each once, in the files' order, with full logits and the
  cross entropy of every place, of which the label -100 leaves out prompt and padding.

Generation is timed apart: finished rows dropped and capped by the reference's length, against
`transformers.generate` on the same batches. Medians of the rounds are printed; ratios are of
processor time on a CPU. The round that is not counted compares the numbers of `shared` with those
of `per metric`, all but two membership scores', on the model after a few steps of training. Never
a timed test: what a machine is busy with decides too much.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.batches import collate, pad_token_id
from amnesis.data.examples import Example
from amnesis.data.templates import Encoded, encode
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_metrics
from amnesis.models.creation import NewModelSettings, new_model, train_tokenizer
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.inference.answers import prompt_of
from amnesis_evaluation.inference.generation import end_tokens, generate

TEACHER_FORCED = (
    "probability",
    "choice_probability",
    "truth_ratio",
    "truth_ratio_forget",
    "truth_ratio_utility",
    "extraction_strength",
    "exact_memorization",
    "mia_loss",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus",
)
# What each of them reads, and so forwards again where nothing is shared: the field's framework
# forwards each forget answer once for each metric that reads it.
READS = {
    "probability": ("answer",),
    "choice_probability": ("answer", "perturbed_answer"),
    "truth_ratio": ("paraphrased_answer", "perturbed_answer"),
    "truth_ratio_forget": ("paraphrased_answer", "perturbed_answer"),
    "truth_ratio_utility": ("paraphrased_answer", "perturbed_answer"),
    "extraction_strength": ("answer",),
    "exact_memorization": ("answer",),
    "mia_loss": ("answer",),
    "mia_zlib": ("answer",),
    "mia_min_k": ("answer",),
    "mia_min_k_plus": ("answer",),
}

# Of one text: the log-probabilities of its labels, and whether each is the greedy choice.
Passed = tuple[list[float], list[bool]]
# Of one row: what was passed for each field that the metric reads, text after text.
RowPassed = list[list[Passed]]


def mean_of(passed: Passed) -> float:
    """Return the mean log-probability of one text."""
    return statistics.fmean(passed[0])


def ratio(row: RowPassed) -> float:
    """Return the geometric mean of the wrong answers' probabilities over the right one's."""
    (right, *_), wrong = row
    return math.exp(statistics.fmean(map(mean_of, wrong)) - mean_of(right))


def option(row: RowPassed) -> float:
    """Return the right answer's share of the probability of all that are offered."""
    (right,), wrong = row
    offered = [math.exp(mean_of(passed)) for passed in (right, *wrong)]
    return offered[0] / sum(offered)


def strength(row: RowPassed) -> float:
    """Return the share of the answer that follows its last token that is not greedy."""
    hits = row[0][0][1]
    return sum(all(hits[k:]) for k in range(len(hits))) / len(hits)


def lowest(row: RowPassed) -> float:
    """Return the mean of the lowest 40 % of the answer's log-probabilities."""
    logps = sorted(row[0][0][0])
    return statistics.fmean(logps[: max(1, int(0.4 * len(logps)))])


def area(members: Sequence[float], others: Sequence[float]) -> float:
    """Return the share of pairs in which the member scores higher, ties counted half."""
    wins = [(member > other) + (member == other) / 2 for member in members for other in others]
    return statistics.fmean(wins)


# The same numbers once more, from the naive pass's own logits, by formulas of their own.
NAIVE: dict[str, Callable[[RowPassed], float]] = {
    "probability": lambda row: math.exp(mean_of(row[0][0])),
    "choice_probability": option,
    "truth_ratio": ratio,
    "truth_ratio_forget": lambda row: min(ratio(row), 1 / ratio(row)),
    "truth_ratio_utility": lambda row: max(0.0, 1 - ratio(row)),
    "extraction_strength": strength,
    "exact_memorization": lambda row: statistics.fmean(row[0][0][1]),
}
SCORES: dict[str, Callable[[RowPassed], float]] = {
    "mia_loss": lambda row: mean_of(row[0][0]),
    "mia_min_k": lowest,
}
GREEDY = {"extraction_strength", "exact_memorization"}
# Fields without which a set has no such number; a paraphrase's place is taken by the answer.
OWN = {
    name: [field for field in fields if field == "perturbed_answer"]
    for name, fields in READS.items()
}


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with TOFU's files")
    parser.add_argument("--rows", type=int, default=60, help="of each set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=160)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=40, help="of training, for the numbers")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    suite = Suite(arguments)
    report = suite.measure(arguments.rounds)
    print(json.dumps(report, indent=1))


class Suite:
    """Rows, a model, and the contenders."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        tofu = amnesis.create("benchmark", "tofu", split="forget10", path=arguments.data)
        evaluated: Mapping[str, Sequence[Any]] = tofu.evaluated_sets()
        self.sets = {name: list(rows)[: arguments.rows] for name, rows in evaluated.items()}
        # Members against others: the retain rows stand for a holdout set here, for time only.
        self.sets["holdout"] = list(evaluated["retain"])[-arguments.rows :]
        rows = [row for rows in self.sets.values() for row in rows]
        texts = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]
        tokenizer = train_tokenizer(texts, arguments.vocabulary)
        settings = NewModelSettings(
            architecture="llama",
            config={
                "hidden_size": arguments.hidden,
                "intermediate_size": 3 * arguments.hidden,
                "num_hidden_layers": arguments.layers,
                "num_attention_heads": 4,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
                "initializer_range": 0.1,
            },
        )
        model = new_model(settings, tokenizer, 0).to(arguments.device)
        self.subject = Subject(model, tokenizer, amnesis.Template())
        self.batch_size: int = arguments.batch_size
        self.pad = pad_token_id(tokenizer)
        self.steps: int = arguments.steps

    @contextmanager
    def taught(self) -> Iterator[None]:
        """Train a little, for a while: of a random model nothing is greedy, and 0 equals 0."""
        model = self.subject.model.train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        texts = [text for name in self.sets for text in self.texts_of(name, ["answer"])]
        for step in range(self.steps):
            # A stride, for texts of every set to be in a batch.
            chosen = [texts[(step + k * len(texts) // 8) % len(texts)] for k in range(8)]
            examples = [Example(k, {}, {"answer": t}) for k, t in enumerate(chosen)]
            batch = collate(examples, self.pad).to(model.device)
            model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
            ).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        yield
        model.load_state_dict(before)

    def encoded(self, row: Mapping[str, Any], text: str) -> Encoded:
        """Encode one text of a row."""
        template = self.subject.template
        prompt = template.prompt_of(row, self.subject.tokenizer)
        return encode(prompt, text, self.subject.tokenizer)

    def texts(self, row: Mapping[str, Any], field: str) -> list[Encoded]:
        """Encode a field's texts."""
        value = row.get(field, row["answer"])
        return [self.encoded(row, t) for t in ([value] if isinstance(value, str) else value)]

    def texts_of(self, name: str, fields: Sequence[str]) -> list[Encoded]:
        """Encode a set's texts, field after field, in the file's order."""
        return [
            text for field in fields for row in self.sets[name] for text in self.texts(row, field)
        ]

    def sets_of(self, metric: str) -> list[str]:
        """Return the sets that a metric is read from."""
        return ["forget", "holdout"] if metric.startswith("mia") else list(self.sets)

    def shared(self) -> dict[str, float]:
        """Evaluate with our pass."""
        metrics = build_metrics(TEACHER_FORCED, default_registry())
        selection = select(self.sets, metrics, retrained=False)
        settings = EvaluationSettings(batch_size=self.batch_size, bootstrap=0)
        return evaluate(self.subject, self.sets, selection, settings).values

    def per_metric(self) -> dict[str, float]:
        """Forward every text again for every metric that reads it, unsorted, with full logits."""
        means: dict[str, float] = {}
        scores: dict[str, dict[str, list[float]]] = {metric: {} for metric in SCORES}
        for metric in TEACHER_FORCED:
            for name in self.sets_of(metric):
                rows = self.sets[name]
                read = [[self.texts(row, field) for field in READS[metric]] for row in rows]
                texts = [text for fields in read for found in fields for text in found]
                passed = iter(self.full_pass(texts, greedy=metric in GREEDY))
                values = [[[next(passed) for _ in found] for found in fields] for fields in read]
                if metric in NAIVE and all(field in row for row in rows for field in OWN[metric]):
                    means[f"{name}/{metric}"] = statistics.fmean(NAIVE[metric](v) for v in values)
                if metric in SCORES:
                    scores[metric][name] = [SCORES[metric](v) for v in values]
        areas = {
            metric: area(found["forget"], found["holdout"]) for metric, found in scores.items()
        }
        return means | areas

    def plain_pass(self) -> None:
        """Forward every text of the suite once, unsorted, with full logits."""
        for name, rows in self.sets.items():
            fields = ("answer", "paraphrased_answer", "perturbed_answer")
            self.full_pass(self.texts_of(name, [f for f in fields if f in rows[0]]))

    def full_pass(self, texts: Sequence[Encoded], *, greedy: bool = False) -> list[Passed]:
        """Return each text's log-probabilities, and what is greedy, from logits of every place."""
        found: list[Passed] = []
        with torch.no_grad():
            for start in range(0, len(texts), self.batch_size):
                chosen = texts[start : start + self.batch_size]
                examples = [Example(i, {}, {"answer": t}) for i, t in enumerate(chosen)]
                batch = collate(examples, self.pad).to(self.subject.model.device)
                logits = self.subject.model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                ).logits[:, :-1]
                labels = batch.labels[:, 1:]
                losses = cross_entropy(
                    logits.flatten(0, 1), labels.flatten(), reduction="none"
                ).view_as(labels)
                right = logits.argmax(-1) == labels if greedy else torch.zeros_like(batch.mask)
                found += [
                    ((-row[mask]).tolist(), hits[mask].tolist())
                    for row, hits, mask in zip(losses, right, batch.mask, strict=True)
                ]
        return found

    def generated(self) -> None:
        """Generate on the forget rows: ours."""
        settings = EvaluationSettings(length_cap=1.0)
        prompts = [
            prompt_of(self.encoded(row, row["answer"]), self.subject.model, settings)
            for row in self.sets["forget"]
        ]
        generate(
            self.subject.model,
            prompts,
            end=end_tokens(self.subject.model, self.subject.tokenizer),
            pad_token_id=self.pad,
            batch_size=self.batch_size,
        )

    def generated_plainly(self) -> None:
        """Generate on the forget rows by transformers, the longest reference's length for all."""
        encoded = [self.encoded(row, row["answer"]) for row in self.sets["forget"]]
        for start in range(0, len(encoded), self.batch_size):
            chosen = encoded[start : start + self.batch_size]
            prompts = [Encoded(e.input_ids[: e.prompt_length], 1) for e in chosen]
            examples = [Example(i, {}, {"answer": p}) for i, p in enumerate(prompts)]
            batch = collate(examples, self.pad, padding_side="left").to(self.subject.model.device)
            self.subject.model.generate(
                batch.input_ids,
                attention_mask=batch.attention_mask,
                max_new_tokens=max(e.label_count for e in encoded),
                do_sample=False,
                pad_token_id=self.pad,
            )

    def measure(self, rounds: int) -> dict[str, Any]:
        """Time the contenders in interleaved rounds, after one that is not counted."""
        contenders: dict[str, Callable[[], Any]] = {
            "shared": self.shared,
            "per metric": self.per_metric,
            "plain": self.plain_pass,
            "generation": self.generated,
            "generation, plain": self.generated_plainly,
        }
        with self.taught():
            numbers = {name: contender() for name, contender in contenders.items()}
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        worked: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, contender in contenders.items():
                started, begun = time.perf_counter(), time.process_time()
                contender()
                seconds[name].append(time.perf_counter() - started)
                worked[name].append(time.process_time() - begun)
        # Processor time is what a busy machine distorts least; on an accelerator it says nothing.
        wall = {name: statistics.median(times) for name, times in seconds.items()}
        busy = {name: statistics.median(times) for name, times in worked.items()}
        median = busy if self.subject.model.device.type == "cpu" else wall
        ours, theirs = numbers["shared"], numbers["per metric"]
        return {
            "texts": sum(len(rows) for rows in self.sets.values()),
            "seconds": {name: round(value, 3) for name, value in wall.items()},
            "processor seconds": {name: round(value, 3) for name, value in busy.items()},
            "per metric / shared": round(median["per metric"] / median["shared"], 2),
            "shared / plain": round(median["shared"] / median["plain"], 2),
            "generation / plain": round(median["generation"] / median["generation, plain"], 2),
            "suite": round(median["shared"] + median["generation"], 3),
            "compared": {name: compared(name, ours, theirs) for name in (*NAIVE, *SCORES)},
        }


def compared(
    metric: str, ours: Mapping[str, float], theirs: Mapping[str, float]
) -> dict[str, float]:
    """Return how many values of a metric were compared, their range, and the largest difference."""
    keys = {key for key in (*ours, *theirs) if key.rpartition("/")[2] == metric}
    # What only one side has a number of is a difference too, and ends the script.
    return {
        "values": len(keys),
        "smallest": min(ours[key] for key in keys),
        "largest": max(ours[key] for key in keys),
        "largest difference": max(abs(ours[key] - theirs[key]) for key in keys),
    }


if __name__ == "__main__":
    main()
