"""An objective and a combiner of your own in one file: no package, no entry point.

    python examples/own_method.py [--model FOLDER] [--steps 40]

Components are classes, and everything that takes a component's name in Python takes the component
too. Without --model a very small model first learns six invented people (about half a minute).
Recipes and the command line know names alone: for them, put the classes into a package, as
`amnesis new-plugin` writes it.
"""

import argparse
import tempfile
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

import amnesis
from amnesis.cli import load_subject
from amnesis.contracts import Coefficients, EvaluationSettings, LikelihoodTerm, ProjectionCombiner


class Fading(LikelihoodTerm):
    """Unlikelihood: a token's probability is pushed down, the harder the likelier it is."""

    formula: ClassVar[str] = "mean_i −log(1 − k·p_i)"
    source: ClassVar[str] = "unlikelihood training, Welleck et al. 2019, arXiv 1908.04319"
    k: float = Field(0.99, gt=0, lt=1, description="below 1, so that p = 1 has a finite loss")

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return `(batch, tokens)` values; masking, summing and dividing are the core's."""
        return -(-self.k * logps.exp()).log1p()


class NoLonger(ProjectionCombiner):
    """The sum, with a forget gradient that is at most `ratio` times as long as the retain one."""

    formula: ClassVar[str] = "γ·min(1, ρ‖r‖/‖f‖)·f + αr"
    source: ClassVar[str] = "an example"
    ratio: float = Field(2.0, gt=0, description="ρ, how much longer it may be")

    def coefficients(self, gram: Tensor) -> Coefficients:
        """Return (a, b), given the inner products ⟨f,f⟩, ⟨f,r⟩, ⟨r,r⟩ over all parameters."""
        (ff, _), (_, rr) = gram
        limit = self.ratio * (rr / ff.clamp_min(1e-30)).sqrt()
        return self.gamma * limit.clamp_max(1.0), self.alpha


PEOPLE: dict[str, Any] = {"name": "fictional", "forget_authors": 2, "retain_authors": 4, "facts": 0}
SMALL = {
    "architecture": "llama",
    "vocabulary": 512,
    "config": {
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,  # with the default 0.02 a model this small learns nothing
    },
}


def model_that_knows(folder: str) -> None:
    """Train a small model on every row that will be forgotten or kept."""
    recipe = {
        "model": SMALL,
        "benchmark": PEOPLE,
        "sets": ["forget", "retain"],
        "training": {"epochs": 40, "batch_size": 8, "learning_rate": 4e-3, "warmup_steps": 10},
    }
    amnesis.finetune(recipe, folder, overwrite=True, device="cpu")


def main() -> None:
    """Unlearn, and say what is known before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder that holds a model of the invented people")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.model is None:
            model_that_knows(folder)
        subject = load_subject(given.model or folder, device="cpu").subject
    benchmark = amnesis.create("benchmark", **PEOPLE)
    settings = EvaluationSettings(metrics=("probability",), bootstrap=0)
    before = benchmark.evaluate(subject, settings).values
    unlearner = amnesis.Unlearner(
        subject.model,
        subject.tokenizer,
        objective=Fading(k=0.95),
        regularizer="nll",
        combiner=NoLonger(ratio=1.0),
        training={"steps": given.steps, "batch_size": 8, "learning_rate": 1e-3},
        template=subject.template,
        device="cpu",
    )
    unlearner.fit(benchmark.sets()["forget"], benchmark.sets()["retain"])
    after = benchmark.evaluate(subject, settings).values
    for name in ("forget/probability", "retain/probability"):
        print(f"{name}: {before[name]:.3f} before, {after[name]:.3f} after")


if __name__ == "__main__":
    main()
