"""How entangled two sets are: the cosine of their risks' gradients, in all and by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from amnesis_evaluation.commands.assess.record import Alignment
from amnesis_evaluation.reports.tables import Number
from amnesis_plugins.g_effect import in_order, risk_gradient
from amnesis_plugins.g_effect.directions import LayerProducts
from amnesis_plugins.g_effect.sets import encode_set

if TYPE_CHECKING:
    from amnesis.contracts import ProgressCallback, Row, Subject

# Stated: between them lies what is neither apart nor one.
APART, ENTANGLED = 0.1, 0.5


def alignment_of(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    batch_size: int,
    progress: ProgressCallback,
) -> Alignment:
    """Return cos(∇R(forget), ∇R(retain)) over the parameters that require a gradient.

    ``R(D) = −mean_i ℓ_i`` over the label tokens of D. Below 0 forgetting along ∇R helps what must
    stay; near 1 what lowers one lowers the other as much. ``ratio`` is the G-effect of gradient
    ascent on the retain set per unit of its effect on the forget set.

    Raises:
        DataError: a row lacks a field, or a set is empty.
        ModelError: no parameter requires a gradient.
    """
    gradients = []
    for place, name in enumerate(("forget", "retain")):
        progress("risk gradients", place, 2)
        encoded = encode_set(
            subject.model, subject.tokenizer, name, sets[name], [], subject.template, batch_size
        )
        gradients.append(risk_gradient(subject.model, encoded.batches))
    progress("risk gradients", 2, 2)
    forget, retain = gradients
    directions = (forget.direction, retain.direction)
    first, second = (LayerProducts(subject.model, directions) for _ in range(2))
    for name in forget.direction:
        first.add(name, forget.direction[name])
        second.add(name, retain.direction[name])
    (ff, fr), (_, rr) = first.by_layer(), second.by_layer()
    layers = {layer: cosine(fr[layer], ff[layer], rr[layer]) for layer in in_order(ff)}
    total = cosine(*(sum(part.values()) for part in (fr, ff, rr))) or 0.0
    square = sum(ff.values())
    return Alignment(
        cosine=total,
        ratio=sum(fr.values()) / square if square else 0.0,
        layers=layers,
        risks={"forget": forget.value, "retain": retain.value},
        sentence=sentence(total, layers),
    )


def cosine(product: float, one: float, other: float) -> float | None:
    """Return the cosine from ⟨a, b⟩, ‖a‖² and ‖b‖²; None where one of them is 0."""
    size = math.sqrt(one * other)
    return max(-1.0, min(1.0, product / size)) if size else None


def sentence(total: float, layers: Mapping[str, float | None]) -> str:
    """Return in words how far forgetting one set takes the other along."""
    value = f"the cosine of their gradients is {Number(total)}"
    known = {layer: value for layer, value in layers.items() if value is not None}
    most = max(known, key=lambda layer: known[layer], default=None)
    where = "" if most is None else f"; highest in {most}, {Number(known[most])}"
    if total <= 0:
        return f"What must go and what must stay are not entangled: {value}{where}."
    if total < APART:
        return f"What must go and what must stay are hardly entangled: {value}{where}."
    if total < ENTANGLED:
        return (
            f"What must go and what must stay are entangled in part: {value}{where}. A regularizer "
            f"is needed."
        )
    return (
        f"What must go and what must stay are closely entangled: {value}{where}. Let retention "
        f"come first where they conflict: a combiner such as sago."
    )
