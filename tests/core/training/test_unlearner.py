"""The Trainer with two streams: what it logs is what happened, and equal settings agree."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st

import amnesis
from amnesis import contracts
from amnesis.contracts import LikelihoodTerm
from amnesis.contracts.stream import Schedule
from amnesis.data.examples import encode_rows
from amnesis.data.sampling import StepPlan
from amnesis.data.templates import Template
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import Method, build, build_stream
from amnesis.scoring.forward import score
from amnesis.training.trainer import TwoStreamTrainer

TRAINING = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, "optimizer": "sgd"}


def fit(model: Any, tokenizer: Any, rows: Any, **options: Any) -> Any:
    training = {**TRAINING, **options.pop("training", {})}
    names = {"objective": "wga", "regularizer": "kl", "combiner": "pcgrad", **options}
    device, progress = names.pop("device", "cpu"), names.pop("progress", None)
    return amnesis.Unlearner(model, tokenizer, **names, training=training, device=device).fit(
        rows[:5], rows[3:] if names["regularizer"] else None, progress
    )


def test_readme_example(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> None:
    before = copy.deepcopy(tiny_llama.state_dict())
    forget, retain = qa_rows[:4], qa_rows[4:]
    result = amnesis.Unlearner(
        tiny_llama, tiny_tokenizer, objective="wga", regularizer="kl", combiner="sago"
    ).fit(forget, retain)
    assert result.steps == len(result.trajectory)
    assert any(not torch.equal(before[k], v) for k, v in tiny_llama.state_dict().items())


@pytest.mark.parametrize(
    ("objective", "regularizer", "combiner"),
    [
        ("npo", "nll", "pcgrad"),
        ("wga", "kl", "pcgrad"),
        ("wga", ["kl", "nll"], "pcgrad"),
        ("ga", None, None),
    ],
)
def test_micro_batches_give_the_same_trajectory(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: Any,
    objective: str,
    regularizer: Any,
    combiner: str | None,
) -> None:
    """1 × 4, 2 × 2 and 4 × 1 give the same losses and gradient norms, step by step."""
    trajectories = []
    for micro in (4, 2, 1):
        model = copy.deepcopy(tiny_llama).double()
        result = fit(
            model,
            tiny_tokenizer,
            qa_rows,
            objective=objective,
            regularizer=regularizer,
            combiner=combiner,
            training={"micro_batch_size": micro, "statistics_every": 1},
        )
        trajectories.append(result.trajectory)
    for other in trajectories[1:]:
        for one, two in zip(trajectories[0], other, strict=True):
            assert one.keys() == two.keys()
            for name in one.keys() - {"gradients/conflict_share"}:
                assert one[name] == pytest.approx(two[name], rel=1e-9, abs=1e-12), name
    if regularizer == "kl":  # at θ° there is nothing to keep, and no noise to project along
        assert [step["gradients/retain_norm"] == 0 for step in trajectories[0]] == [
            True,
            False,
            False,
        ]


@pytest.mark.parametrize("objective", ["ga", "npo", "wga"])
@pytest.mark.parametrize("regularizer", ["nll", "kl"])
@pytest.mark.parametrize("micro", [4, 3])
def test_logged_g_effects_equal_the_naive_computation(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, objective: str, regularizer: str, micro: int
) -> None:
    """Full gradients of L and of both risks on the first step's batches, no machinery of ours."""
    start = copy.deepcopy(tiny_llama)
    result = fit(
        tiny_llama,
        tiny_tokenizer,
        qa_rows,
        objective=objective,
        regularizer=regularizer,
        probes=["g_effect"],
        training={"micro_batch_size": micro, "statistics_every": 1},
    )
    sets = {
        name: encode_rows(rows, tiny_tokenizer, Template(max_length=128))
        for name, rows in (("forget", qa_rows[:5]), ("retain", qa_rows[3:]))
    }
    batches = StepPlan(sets["forget"], sets["retain"], 3, 4, 4, 1)[0]
    (forget,), (retain,) = batches.forget, batches.retain

    def mean_nll(batch: Any) -> torch.Tensor:
        output = start(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        return torch.nn.functional.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten()
        )

    loss = build_stream("forget", "objective", objective, default_registry())
    reference = score(start, forget, contracts.Needs(logps=True)).logps.detach()
    scores = score(start, forget, contracts.Needs(logps=True))
    term = loss.terms[0].term
    assert isinstance(term, LikelihoodTerm)
    value = term.loss(scores.logps, scores.mask, reference)
    named = dict(start.named_parameters())

    def gradient(value: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))

    g = gradient(value)
    for effect, batch in (("unlearn", forget), ("retain", retain)):
        risk = gradient(mean_nll(batch))
        parts = {name: (g[name] * risk[name]).sum().item() for name in named}
        logged = result.trajectory[0]
        scale = sum(abs(part) for part in parts.values())
        assert logged[f"g_effect/{effect}"] == pytest.approx(sum(parts.values()), abs=1e-5 * scale)
        block = sum(part for name, part in parts.items() if ".layers.1." in name)
        assert logged[f"g_effect/{effect}/block_01"] == pytest.approx(block, abs=1e-5 * scale)
        layers = [v for k, v in logged.items() if k.startswith(f"g_effect/{effect}/")]
        assert logged[f"g_effect/{effect}"] == pytest.approx(sum(layers), rel=1e-6)


def test_a_failing_probe_is_told_and_does_not_stop_the_run(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    from amnesis.contracts import Probe

    class Broken(Probe):
        def report(self, context: Any, state: Any) -> Any:
            raise RuntimeError("the sensor fell off")

    result = fit(tiny_llama, tiny_tokenizer, qa_rows, probes=[Broken()])
    assert len(result.trajectory) == 3
    assert len(result.notes) == 1
    assert "the sensor fell off" in result.notes[0]
    assert "step 0" in result.notes[0]


def test_reference_scores_are_cached_and_reused(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path
) -> None:
    computed: list[tuple[str, int, int]] = []
    start = copy.deepcopy(tiny_llama)
    options = {
        "objective": "npo",
        "regularizer": "nll",
        "reference_cache": tmp_path,
        "progress": lambda *told: computed.append(told),
    }
    first = fit(tiny_llama, tiny_tokenizer, qa_rows, **options)
    assert computed == [("reference scores", 5, 5)]
    again = fit(copy.deepcopy(start), tiny_tokenizer, qa_rows, **options)
    assert len(computed) == 1  # read from disk
    assert json.dumps(first.trajectory) == json.dumps(again.trajectory)
    with torch.no_grad():
        start.model.norm.weight[0] += 1e-3
    fit(start, tiny_tokenizer, qa_rows, **options)
    assert len(computed) == 2  # another model, another fingerprint


def test_a_method_that_was_resolved_before_is_the_same_run(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    registry, start = default_registry(), copy.deepcopy(tiny_llama)
    method = Method(
        forget=build_stream("forget", "objective", "npo", registry),
        retain=build_stream("retain", "regularizer", "nll", registry),
        combiner=build("combiner", "sago", registry),
        probes=(build("probe", "g_effect", registry),),
        registry=registry,
    )
    resolved = amnesis.Unlearner(
        start, tiny_tokenizer, method=method, training=TRAINING, device="cpu"
    )
    assert resolved.method is method
    named = fit(
        tiny_llama,
        tiny_tokenizer,
        qa_rows,
        objective="npo",
        regularizer="nll",
        combiner="sago",
        probes=["g_effect"],
    )
    assert resolved.fit(qa_rows[:5], qa_rows[3:]).trajectory == named.trajectory
    for names in ({"objective": "npo"}, {"regularizer": "nll"}, {"probes": ["g_effect"]}):
        with pytest.raises(amnesis.AmnesisError, match="give a method, or the names"):
            amnesis.Unlearner(start, tiny_tokenizer, method=method, **names)
    with pytest.raises(amnesis.AmnesisError, match="name an objective, such as objective='npo'"):
        amnesis.Unlearner(start, tiny_tokenizer, regularizer="nll")


def test_without_a_combiner_the_two_gradients_are_added(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    runs = [
        fit(
            copy.deepcopy(tiny_llama),
            tiny_tokenizer,
            qa_rows,
            objective="npo",
            regularizer="nll",
            combiner=combiner,
        ).trajectory
        for combiner in (None, "sum")
    ]
    assert "gradients/cosine" in runs[0][0]
    assert runs[0] == runs[1]


def test_npo_starts_at_its_reference(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> None:
    """At θ° every example's ratio is 0, so the loss is (2/β)·log 2."""
    result = fit(tiny_llama, tiny_tokenizer, qa_rows, objective="npo", regularizer="nll")
    assert result.trajectory[0]["forget/loss"] == pytest.approx(20 * 0.6931472, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "wgaa"}, "did you mean 'wga'"),
        ({"objective": {"name": "wga", "bta": 1}}, "did you mean 'beta'"),
        ({"objective": {"name": "wga", "beta": -1}}, "greater than or equal to 0"),
        ({"regularizer": None}, "a combiner needs a retain stream"),
        ({"objective": []}, "the list is empty"),
        ({"objective": 3}, "give a name, or a mapping"),
        ({"training": {"lerning_rate": 1}}, "training: lerning_rate: unknown key; did you mean"),
        ({"training": {"steps": 0}}, "training: steps: .* greater than or equal to 1"),
        ({"stop_when": {"forget/loss": {"abov": 1}}}, "did you mean 'above'"),
        ({"objective": [{"name": "ga", "weight": "much"}]}, "weight must be a number"),
        ({"objective": {"name": "ga", "weight": {}}}, "a mapping of steps to numbers"),
        ({"objective": {"name": "ga", "weight": {-1: 1.0}}}, "a mapping of steps to numbers"),
        ({"objective": {"name": "ga", "weight": {0: "a"}}}, "a mapping of steps to numbers"),
        ({"objective": {"name": "ga", "weight": {0: 1, "0": 2}}}, "a mapping of steps to numbers"),
        ({"objective": ["po", {"name": "dpo", "seed": 7}]}, "different texts 'refusal'"),
        ({"training": {"precision": "float16"}}, "float16 needs an accelerator"),
        ({"device": "gpu"}, "'gpu' cannot be used here"),
    ],
)
def test_bad_choices_are_refused_before_anything_runs(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(amnesis.AmnesisError, match=said):
        fit(tiny_llama, tiny_tokenizer, qa_rows, **options)


def test_what_cannot_train_is_said_in_one_line(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    def said(model: Any, rows: Any, **options: Any) -> str:
        run = amnesis.Unlearner(model, tokenizer=tiny_tokenizer, device="cpu", **options)
        with pytest.raises(amnesis.AmnesisError) as raised:
            run.fit(rows)
        return str(raised.value)

    assert "forget.json: there is no such file" in said(tiny_llama, "forget.json", objective="ga")
    assert "hello: rows are read from .jsonl" in said(tiny_llama, ["hello"], objective="ga")
    text = said(tiny_llama, [["hello"]], objective="ga")
    assert text == "set 'forget', row 0: a row is a mapping of fields, not ['hello']"
    empty = [{"question": "Who?", "answer": None}]
    assert "'answer' must be text" in said(tiny_llama, empty, objective="ga")
    half = copy.deepcopy(tiny_llama).half()
    assert "float16 weights do not train with adamw" in said(half, qa_rows, objective="ga")
    for name, p in tiny_llama.named_parameters():
        p.requires_grad_("layers.1" in name)
    rmu = {"name": "rmu", "layer": 0, "coefficient": 1.0}
    assert "no parameter that trains has a part in the forget" in said(
        tiny_llama, qa_rows, objective=rmu
    )
    tiny_llama.requires_grad_(False)
    assert "no parameter of the model trains" in said(tiny_llama, qa_rows, objective="ga")


def test_probes_that_look_now_and_then_are_logged_when_they_do(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    trajectory = fit(
        tiny_llama,
        tiny_tokenizer,
        qa_rows,
        probes=[{"name": "g_effect", "every": 3}],
        training={"steps": 7, "log_every": 2},
    ).trajectory
    assert [v["step"] for v in trajectory] == [1, 2, 3, 4, 6, 7]
    assert [v["step"] for v in trajectory if "g_effect/unlearn" in v] == [1, 3, 6]


@pytest.mark.parametrize(
    ("training", "logged", "seen"),
    [
        ({"steps": 12}, list(range(1, 13)), [1, 10, 12]),
        ({"steps": 7, "log_every": 2, "statistics_every": 2}, [1, 2, 4, 6, 7], [1, 4, 7]),
        ({"steps": 3, "statistics_every": 1}, [1, 2, 3], [1, 2, 3]),
    ],
)
def test_the_two_gradients_are_looked_at_now_and_then(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: Any,
    training: dict[str, Any],
    logged: list[int],
    seen: list[int],
) -> None:
    trajectory = fit(tiny_llama, tiny_tokenizer, qa_rows, training=training).trajectory
    assert [v["step"] for v in trajectory] == logged
    assert [v["step"] for v in trajectory if "gradients/cosine" in v] == seen


def test_terms_of_one_stream_add_up_with_their_weights(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    one = fit(copy.deepcopy(tiny_llama), tiny_tokenizer, qa_rows, objective="ga")
    mixed = fit(
        copy.deepcopy(tiny_llama),
        tiny_tokenizer,
        qa_rows,
        objective=[{"name": "ga", "weight": 3.0}, {"name": "nll", "weight": 1.0}],
    )
    single, double = (r.trajectory[0]["forget/loss"] for r in (one, mixed))
    assert double == pytest.approx(2 * single, rel=1e-5)


def test_a_scheduled_weight_moves_the_loss_along_the_run(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """Each step's streams are those of a term with that step's weight, its gradient included."""
    weight = {0: 2.0, 2: 0.0, "3": 0.5}  # JSON's keys are strings
    one = fit(
        copy.deepcopy(tiny_llama),
        tiny_tokenizer,
        qa_rows,
        objective="ga",
        regularizer={"name": "nll", "weight": weight},
        probes=[{"name": "g_effect", "every": 1}],
        training={"steps": 5, "learning_rate": 1e-12, "statistics_every": 1},
    ).trajectory
    plain = fit(
        copy.deepcopy(tiny_llama),
        tiny_tokenizer,
        qa_rows,
        objective="ga",
        regularizer="nll",
        probes=[{"name": "g_effect", "every": 1}],
        training={"steps": 5, "learning_rate": 1e-12, "statistics_every": 1},
    ).trajectory
    assert [step["retain/weight/nll"] for step in one] == [2.0, 1.0, 0.0, 0.5, 0.5]
    for moved, still in zip(one, plain, strict=True):
        by = moved["retain/weight/nll"]
        assert "retain/weight/nll" not in still
        for name in ("retain/loss", "gradients/retain_norm"):
            assert moved[name] == pytest.approx(by * still[name], rel=1e-4, abs=1e-9), name
        for name in ("forget/loss", "g_effect/unlearn", "g_effect/retain"):
            assert moved[name] == pytest.approx(still[name], rel=1e-4), name


@given(
    points=st.dictionaries(st.integers(0, 50), st.floats(-10, 10), min_size=1, max_size=5),
    step=st.integers(0, 60),
)
def test_a_schedule_interpolates_and_holds(points: dict[int, float], step: int) -> None:
    schedule = Schedule(tuple(sorted(points.items())))
    expected = numpy.interp(step, sorted(points), [points[k] for k in sorted(points)])
    assert schedule.at(step) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)


def test_gradient_checkpointing_changes_nothing(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """Non-reentrant recomputation under both streams, hooks and probe included."""
    trajectories = [
        fit(
            copy.deepcopy(tiny_llama).double(),
            tiny_tokenizer,
            qa_rows,
            objective="npo",
            combiner="sago",
            probes=[{"name": "g_effect", "every": 1}],
            training={"gradient_checkpointing": checkpointing},
        ).trajectory
        for checkpointing in (False, True)
    ]
    for one, two in zip(*trajectories, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"gradients/conflict_share"}:
            assert one[name] == pytest.approx(two[name], rel=1e-9, abs=1e-12), name


def test_bfloat16_computation_follows_float32(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """Weights stay float32; losses agree to bfloat16's three digits."""
    runs = {}
    for precision in ("float32", "bfloat16"):
        model = copy.deepcopy(tiny_llama)
        training = {"precision": precision, "steps": 4, "statistics_every": 1}
        runs[precision] = fit(
            model, tiny_tokenizer, qa_rows, objective="wga", regularizer="nll", training=training
        ).trajectory
        assert all(p.dtype is torch.float32 for p in model.parameters())
    for one, two in zip(runs["float32"], runs["bfloat16"], strict=True):
        assert one["forget/loss"] != two["forget/loss"]
        for name in ("forget/loss", "retain/loss", "gradients/retain_norm"):
            assert one[name] == pytest.approx(two[name], rel=0.05, abs=0.01)


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A CPU that computes in float16 with a loss scaler, as accelerate has it on accelerators."""
    scalers: list[Any] = []
    made = TwoStreamTrainer.create_accelerator_and_postprocess

    def on_this_cpu(self: Any, scale: float) -> None:
        made(self)
        self.accelerator.state._mixed_precision = "fp16"
        self.accelerator.native_amp = True
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        self.accelerator.scaler = scaler
        scalers.append(scaler)

    def start_at(scale: float) -> list[Any]:
        monkeypatch.setattr(
            TwoStreamTrainer,
            "create_accelerator_and_postprocess",
            lambda self: on_this_cpu(self, scale),
        )
        return scalers

    yield start_at
    AcceleratorState._reset_state()


def test_float16_with_a_loss_scaler_follows_float32(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, scaled: Any
) -> None:
    """Both streams carry the scale; norms, effects and the update are told without it."""
    options: dict[str, Any] = {
        "objective": "wga",
        "regularizer": "nll",
        "combiner": "sago",
        "probes": [{"name": "g_effect", "every": 1}],
        "training": {
            "steps": 3,
            "learning_rate": 1e-2,
            "micro_batch_size": 2,
            "statistics_every": 1,
        },
    }
    models = [copy.deepcopy(tiny_llama) for _ in range(2)]
    plain = fit(models[0], tiny_tokenizer, qa_rows, **options).trajectory
    scalers = scaled(2.0**12)
    half = fit(models[1], tiny_tokenizer, qa_rows, **options).trajectory
    assert [scaler.get_scale() for scaler in scalers] == [2.0**12]
    for one, two in zip(plain, half, strict=True):
        assert one["forget/loss"] != two["forget/loss"]
        for name in ("forget/loss", "retain/loss", "gradient_norm", "g_effect/unlearn"):
            assert one[name] == pytest.approx(two[name], rel=0.02, abs=0.002), name
        assert one["gradients/forget_norm"] == pytest.approx(two["gradients/forget_norm"], rel=0.02)
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, atol=2e-3, rtol=0.02)


def test_a_step_that_overflows_float16_is_skipped(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, scaled: Any
) -> None:
    """The scale is halved and the next step tries again; nothing that is not finite is applied."""
    start = copy.deepcopy(tiny_llama.state_dict())
    scalers = scaled(2.0**100)
    trajectory = fit(
        tiny_llama, tiny_tokenizer, qa_rows, objective="ga", regularizer="nll"
    ).trajectory
    assert scalers[-1].get_scale() == 2.0**97
    json.dumps(trajectory, allow_nan=False)  # what is not a number is left out
    assert [v["step"] for v in trajectory] == [1, 2, 3]
    assert all(torch.equal(start[name], t) for name, t in tiny_llama.state_dict().items())


def test_what_cannot_be_distributed_is_refused_in_one_line(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    tiny_llama._tp_size = 2
    with pytest.raises(
        amnesis.AmnesisError, match="tensor parallelism is not supported: use FSDP2"
    ):
        fit(tiny_llama, tiny_tokenizer, qa_rows)


@pytest.mark.parametrize(("rate", "dead"), [(1e-4, False), (0.5, True)])
@pytest.mark.parametrize("regularizer", ["nll", "kl"])
def test_a_learning_rate_that_kills_the_model_is_said(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, rate: float, dead: bool, regularizer: str
) -> None:
    training = {"steps": 8, "batch_size": 2, "learning_rate": rate, "schedule": "constant"}
    unlearner = amnesis.Unlearner(
        tiny_llama, tiny_tokenizer, "ga", regularizer, training=training, device="cpu"
    )
    notes = unlearner.fit(qa_rows[:4], qa_rows[4:]).notes
    said = [note for note in notes if "nats per token: the model lost what it was to keep" in note]
    assert len(said) == dead
    assert all("lower training.learning_rate" in note for note in said)


def test_a_folder_and_files_are_as_good_as_a_model_and_rows(
    tiny_folder: Path, tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, write_rows: Any
) -> None:
    def fitted(model: Any, tokenizer: Any, forget: Any, retain: Any) -> Any:
        run = amnesis.Unlearner(
            model, tokenizer, "npo", "nll", "sago", training={"steps": 2}, device="cpu"
        )
        trajectory = run.fit(forget, retain).trajectory
        return [step["forget/loss"] for step in trajectory], run.model

    files = write_rows(forget=qa_rows[:4], retain=qa_rows[4:], first=qa_rows[:2], rest=qa_rows[2:4])
    renamed = {"path": files["forget"], "fields": {"answer": "answer"}}
    wanted, model = fitted(tiny_llama, tiny_tokenizer, qa_rows[:4], qa_rows[4:])
    for place in (tiny_folder, str(tiny_folder), {"path": str(tiny_folder), "dtype": "fp32"}):
        losses, other = fitted(place, None, renamed, str(files["retain"]))
        assert losses == wanted
        assert all(map(torch.equal, other.parameters(), model.parameters()))
    both = [files["first"], {"path": str(files["rest"]), "weight": 1.0}]
    assert len(fitted(tiny_folder, tiny_folder, both, files["retain"])[0]) == 2


def test_a_model_that_cannot_be_loaded_is_said(tiny_llama: Any, tiny_folder: Path) -> None:
    with pytest.raises(amnesis.AmnesisError, match=r"tokenizer too: Unlearner\(model, tokenizer"):
        amnesis.Unlearner(tiny_llama, objective="ga")
    typo = str(tiny_folder.with_name("modle"))
    with pytest.raises(amnesis.AmnesisError, match=r"no such folder; in .*did you mean 'model'"):
        amnesis.Unlearner(typo, objective="ga")
    with pytest.raises(amnesis.AmnesisError, match="path: is missing"):
        amnesis.Unlearner({"dtype": "fp32"}, objective="ga")
