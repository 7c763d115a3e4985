from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.errors import CollapseError, DivergenceError, SpecError
from bench.spec import ViewSpec
from bench.training.checkpoint import CheckpointFile
from bench.training.history import EpochRecord
from bench.training.loop import pretrain
from bench.training.method import Method
from bench.training.randomness import isolated_rng, rng_state
from bench.training.schedule import Schedule

from .toys import GRAY_VIEW, Classifier, Contrast, Momentum, make, toy_images, toy_labels, toy_spec, train


class KilledError(Exception):
    """Stands for a kill signal."""


def weights(method: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def assert_identical(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


def killer(at: int) -> Any:
    def progress(record: EpochRecord) -> None:
        if record.epoch == at:
            raise KilledError

    return progress


def eager(path: Path, identity: str = "toy") -> CheckpointFile:
    return CheckpointFile(path=path / "training.ckpt", identity=identity, every_seconds=0.0)


# --- learning, determinism, isolation ---


def test_training_lowers_the_loss() -> None:
    steady = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "rotation": 0.0, "flip": 0.0}
    view = GRAY_VIEW.model_copy(update=steady)  # noise can be told apart only where it stays in place
    result = train(make(Contrast), toy_spec(epochs=15, lr=5e-3, views=(view,)))
    totals = [row.value for row in result.history if row.term == "total"]
    assert totals[-1] < totals[0] - 0.3
    assert result.final_loss == totals[-1] and result.steps == 45


def test_the_same_seed_gives_the_same_weights_and_history() -> None:
    first, second = make(Momentum), make(Momentum)
    torch.manual_seed(3)
    one = train(first, toy_spec(seed=5))
    torch.manual_seed(4)  # the caller's state does not matter
    two = train(second, toy_spec(seed=5))
    assert_identical(weights(first), weights(second))
    assert one.history == two.history


def test_another_seed_gives_other_weights() -> None:
    first, second = make(Contrast), make(Contrast)
    train(first, toy_spec(seed=0, epochs=2))
    train(second, toy_spec(seed=1, epochs=2))
    assert not torch.equal(first.projector[0][0].weight, second.projector[0][0].weight)


def test_the_training_draws_other_numbers_than_the_initialization() -> None:
    drawn: list[Tensor] = []

    class Drawing(Contrast):
        def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
            drawn.append(torch.rand(100))
            return super().forward(views)

    train(make(Drawing), toy_spec(epochs=1, warmup_epochs=0.0))
    for purpose in ("backbone", "heads"):
        with isolated_rng(0, purpose):
            assert not torch.isin(drawn[0], torch.rand(10_000)).sum() > 5


def test_the_callers_random_states_stay() -> None:
    before = rng_state("cpu")
    train(make(Contrast), toy_spec(epochs=2))
    after = rng_state("cpu")
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][0], after["numpy"][0]) and before["numpy"][1:] == after["numpy"][1:]
    assert before["python"] == after["python"]


def test_each_epoch_has_another_order_and_each_view_its_own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, ViewSpec, Tensor]] = []

    def make_view(images: Tensor, view: ViewSpec, generator: torch.Generator, **part: Any) -> Tensor:
        seen.append((images.clone(), view, torch.rand(2, generator=generator)))
        return images

    monkeypatch.setattr("bench.training.batches.make_view", make_view)
    other = GRAY_VIEW.model_copy(update={"flip": 0.0})
    train(make(Contrast), toy_spec(epochs=2, views=(GRAY_VIEW, other)))
    assert len(seen) == 2 * 3 * 2
    assert [view for _, view, _ in seen] == [GRAY_VIEW, other] * 6
    draws = {tuple(draw.tolist()) for _, _, draw in seen}
    assert len(draws) == 12
    pool = {image.tobytes() for image in np.float32(toy_images().transpose(0, 3, 1, 2)) / np.float32(255)}
    epochs = [[image.numpy().tobytes() for batch, _, _ in seen[e : e + 6 : 2] for image in batch] for e in (0, 6)]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 48 and set(epoch) <= pool
    assert epochs[0] != epochs[1]


def test_views_arrive_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.training.batches.make_view", lambda images, view, generator, **part: images)
    method = make(Contrast)
    seen: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images = np.full((16, 8, 8, 1), 51, dtype=np.uint8)  # 0.2
    spec = toy_spec(epochs=1, warmup_epochs=0.0)
    pretrain(method, spec, images, None, mean=(0.5,), std=(0.1,))
    torch.testing.assert_close(seen[0], torch.full((16, 1, 8, 8), -3.0))


# --- the contract of a step ---


def test_labels_reach_only_methods_that_declare_it() -> None:
    supervised = make(Classifier)
    train(supervised, toy_spec(), labels=toy_labels())
    assert len(supervised.seen) == 12 and all(label.shape == (16,) for label in supervised.seen)
    # Contrast.forward takes views alone: it would raise if labels were passed
    train(make(Contrast), toy_spec(epochs=2), labels=toy_labels())


def test_labels_belong_to_the_images_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.training.batches.make_view", lambda images, view, generator, **part: images)
    images, labels = toy_images(), toy_labels()
    images[:, 0, 0, 0] = labels
    method = make(Classifier)
    seen: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0, 0, 0]))
    pretrain(method, toy_spec(epochs=2), images, labels, mean=(0.0,), std=(1 / 255,))
    for pixels, batch in zip(seen, method.seen, strict=True):
        torch.testing.assert_close(pixels, batch.float())


def test_after_step_runs_once_per_step_with_the_count() -> None:
    calls: list[tuple[int, int]] = []

    class Counting(Contrast):
        def after_step(self, step: int, total_steps: int) -> None:
            calls.append((step, total_steps))

    train(make(Counting), toy_spec(epochs=2))
    assert calls == [(step, 6) for step in range(1, 7)]


def test_gradients_are_clipped_to_the_given_norm() -> None:
    class Steep(Contrast):
        def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
            return {name: 1e4 * term for name, term in super().forward(views).items()}

    def moved(**training: Any) -> float:
        method = make(Steep)
        before = torch.cat([p.detach().flatten().clone() for p in method.parameters()])
        recipe = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, "batch_size": 50}
        train(method, toy_spec(epochs=1, warmup_epochs=0.0, **recipe, **training))
        return float((torch.cat([p.detach().flatten() for p in method.parameters()]) - before).norm())

    assert moved(clip_grad_norm=0.01) == pytest.approx(0.01, rel=1e-3)
    assert moved(clip_grad_norm=0.02) == pytest.approx(0.02, rel=1e-3)
    assert moved() > 1.0


def test_constant_and_scaled_groups_follow_their_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []

    class Grouped(Contrast):
        def parameter_groups(self) -> list[dict[str, Any]]:
            return [
                {"params": list(self.backbone.parameters())},
                {"params": list(self.projector.parameters()), "constant_lr": True, "lr_scale": 2.0},
            ]

    real = torch.optim.SGD.step

    def step(self: torch.optim.SGD, *arguments: Any, **options: Any) -> Any:
        rates.append([group["lr"] for group in self.param_groups])
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    spec = toy_spec(epochs=2, optimizer="sgd", lr=0.5, lr_scaling="linear", exclude_1d=False)
    result = train(make(Grouped), spec)
    peak = 0.5 * 16 / 256
    schedule = Schedule(total_steps=6, warmup_steps=3)
    assert rates == [pytest.approx([peak * schedule.factor(s), 2 * peak]) for s in range(6)]
    assert [row.value for row in result.history if row.term == "lr"] == pytest.approx([rates[2][0], rates[5][0]])


def test_bfloat16_trains_on_the_cpu() -> None:
    kinds: list[torch.dtype] = []

    class Watching(Contrast):
        def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
            kinds.append(self.backbone.blocks[0](views[0]).dtype)
            return super().forward(views)

    method = make(Watching)
    result = train(method, toy_spec(precision="bf16-mixed", epochs=10, lr=5e-3, clip_grad_norm=10.0))
    totals = [row.value for row in result.history if row.term == "total"]
    assert set(kinds) == {torch.bfloat16} and totals[-1] < totals[0]
    assert all(p.dtype == torch.float32 for p in method.parameters())


def test_double_precision_trains() -> None:
    method = make(Contrast)
    train(method, toy_spec(precision="64-true", epochs=2))
    assert all(p.dtype == torch.float64 for p in method.parameters())


# --- what it tells ---


MEASURED = (
    "std",
    "scale",
    "rankme",
    "rankme_centered",
    "participation_ratio",
    "samples",
    "dimensions",
    "uniformity",
    "images",
    "alignment",
)


def test_the_history_holds_terms_diagnostics_and_schedule_of_every_epoch() -> None:
    steps: list[dict[str, float]] = []

    class Recording(Contrast):
        def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
            terms = super().forward(views)
            steps.append({name: term.item() for name, term in terms.items()})
            return terms

    result = train(make(Recording), toy_spec(epochs=3))
    kinds = [
        ("term", "agreement"),
        ("term", "contrast"),
        ("term", "total"),
        *(("diagnostic", f"{what}_{quantity}") for what in ("representation", "embedding") for quantity in MEASURED),
        ("schedule", "lr"),
    ]
    assert [(row.epoch, row.kind, row.term) for row in result.history] == [(e, *k) for e in (1, 2, 3) for k in kinds]
    value = {(row.epoch, row.term): row.value for row in result.history}
    for epoch in (1, 2, 3):
        three = steps[3 * epoch - 3 : 3 * epoch]
        for term in ("agreement", "contrast"):
            assert value[epoch, term] == pytest.approx(np.mean([s[term] for s in three]), rel=1e-6)
        assert value[epoch, "total"] == pytest.approx(value[epoch, "agreement"] + value[epoch, "contrast"])
        assert 0.02 < value[epoch, "embedding_std"] < 1.5
        assert value[epoch, "embedding_samples"] == 16 and value[epoch, "embedding_images"] == 16
        assert value[epoch, "embedding_dimensions"] == 8 >= value[epoch, "embedding_rankme"] > 1
        assert -4 < value[epoch, "embedding_uniformity"] < 0 < value[epoch, "embedding_alignment"] < 4


def test_progress_is_told_after_every_epoch() -> None:
    records: list[EpochRecord] = []
    result = train(make(Contrast), toy_spec(epochs=3), progress=records.append)
    assert [(record.epoch, record.epochs) for record in records] == [(1, 3), (2, 3), (3, 3)]
    assert set(records[0].terms) == {"agreement", "contrast"} and records[0].seconds > 0
    assert [r.total for r in records] == [row.value for row in result.history if row.term == "total"]


def test_time_is_split_into_data_and_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_view(images: Tensor, view: ViewSpec, generator: torch.Generator, **part: Any) -> Tensor:
        time.sleep(0.02)
        return images

    monkeypatch.setattr("bench.training.batches.make_view", slow_view)
    result = train(make(Contrast), toy_spec(epochs=2))
    assert result.seconds["data_wait"] >= 12 * 0.02 and result.seconds["compute"] > 0
    spent = result.seconds["data_wait"] + result.seconds["compute"]
    assert result.images_per_second == pytest.approx(96 / spent)
    assert result.seconds["checkpoint"] == 0


# --- resuming ---


@pytest.mark.parametrize(
    ("kind", "training"),
    [
        (Contrast, {"optimizer": "adamw"}),
        (Contrast, {"optimizer": "lars", "lr": 1.0}),
        (Momentum, {"optimizer": "sgd", "lr": 0.05}),
        (Momentum, {"optimizer": "adamw", "precision": "bf16-mixed", "clip_grad_norm": 1.0}),
    ],
)
def test_a_training_killed_after_every_epoch_ends_bit_for_bit_the_same(
    tmp_path: Path, kind: type[Method], training: dict[str, Any]
) -> None:
    spec = toy_spec(**training)
    whole = make(kind)
    expected = train(whole, spec)
    for epoch in (1, 2, 3, 4):
        with pytest.raises(KilledError):
            train(make(kind, seed=epoch), spec, checkpoint=eager(tmp_path), progress=killer(epoch))
    # the weights that a resumed method starts with do not matter: give it others
    resumed = make(kind, seed=9)
    result = train(resumed, spec, checkpoint=eager(tmp_path))
    # killed runs 2 to 4 resumed from run 1, which had other initial weights than `whole`
    assert result.steps == expected.steps
    again = make(kind, seed=1)
    assert train(again, spec).history == result.history
    assert_identical(weights(again), weights(resumed))


def test_a_training_killed_within_an_epoch_repeats_that_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = toy_spec(epochs=3)
    whole = make(Momentum)
    expected = train(whole, spec)
    real = Momentum.after_step

    def interrupted(self: Momentum, step: int, total_steps: int) -> None:
        if step == 5:
            raise KilledError
        real(self, step, total_steps)

    with monkeypatch.context() as patch:
        patch.setattr(Momentum, "after_step", interrupted)
        with pytest.raises(KilledError):
            train(make(Momentum), spec, checkpoint=eager(tmp_path))
    resumed = make(Momentum, seed=1)
    result = train(resumed, spec, checkpoint=eager(tmp_path))
    assert resumed.taus == whole.taus[3:]
    assert result.history == expected.history
    assert_identical(weights(resumed), weights(whole))


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    spec = toy_spec(epochs=2)
    method = make(Contrast)
    first = train(method, spec, checkpoint=eager(tmp_path))
    again = make(Contrast, seed=1)
    second = train(again, spec, checkpoint=eager(tmp_path), progress=killer(1))
    assert_identical(weights(method), weights(again))
    assert second.history == first.history
    assert second.images_per_second == pytest.approx(first.images_per_second)


def test_a_foreign_checkpoint_does_not_change_the_result(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make(Contrast, seed=1), toy_spec(epochs=1, warmup_epochs=0.0), checkpoint=eager(tmp_path, "theirs"))
    alone, beside = make(Contrast), make(Contrast)
    train(alone, toy_spec(epochs=2))
    train(beside, toy_spec(epochs=2), checkpoint=eager(tmp_path, "ours"))
    assert_identical(weights(alone), weights(beside))
    assert "belongs to another pre-training" in caplog.text


def test_checkpoints_are_as_rare_as_asked(tmp_path: Path) -> None:
    rare = dataclasses.replace(eager(tmp_path), every_seconds=3600.0)
    train(make(Contrast), toy_spec(), checkpoint=rare)
    assert not rare.path.exists()


# --- divergence and collapse ---


class Breaking(Contrast):
    """One term becomes NaN at the fifth step."""

    step = 0

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        self.step += 1
        terms = super().forward(views)
        return terms | {"contrast": terms["contrast"] * (float("nan") if self.step == 5 else 1.0)}


def test_a_loss_that_is_not_a_number_ends_the_training_with_term_and_step(tmp_path: Path) -> None:
    message = r"loss term 'contrast' is nan at epoch 2, step 2 of the epoch\. Lower training\.lr \(now 0\.002\)"
    with pytest.raises(DivergenceError, match=message):
        train(make(Breaking), toy_spec(), checkpoint=eager(tmp_path))
    state = eager(tmp_path).load()
    assert state is not None and state["epoch"] == 1  # the broken epoch was never saved
    assert all(torch.isfinite(tensor).all() for tensor in state["method"].values())


def test_divergence_is_noticed_before_a_long_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.training.loop.CHECK_EVERY", 2)
    method = make(Breaking)
    with pytest.raises(DivergenceError, match="epoch 1, step 5 of the epoch"):
        train(method, toy_spec(batch_size=2))
    assert method.step == 5  # checked after step 1, then after every second


def test_a_gradient_that_is_not_finite_is_noticed_before_it_is_saved(tmp_path: Path) -> None:
    class Broken(Contrast):
        def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
            if (terms := super().forward(views))["contrast"].requires_grad:
                terms["contrast"].register_hook(lambda gradient: gradient * float("inf"))
            return terms

    message = r"'.+' is not finite after epoch 1, while the losses before were\..+training\.clip_grad_norm"
    with pytest.raises(DivergenceError, match=message):
        train(make(Broken), toy_spec(batch_size=50), checkpoint=eager(tmp_path))
    assert eager(tmp_path).load() is None


class Collapsing(Method):
    """Pulls the views together and has nothing against the trivial solution."""

    card = dataclasses.replace(Contrast.card, complete_collapse="nothing at all")

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = nn.Linear(16, 8)
        self.steps = 0

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        self.steps += 1
        z1, z2 = (self.projector(self.backbone(x)) for x in views)
        return {"agreement": (z1 - z2).square().mean() + 0.1 * (z1 - 1).square().mean()}


def test_collapse_ends_the_training_early_and_shows_the_evidence() -> None:
    method = make(Collapsing)
    message = r"collapsed at epoch \d+ of 200: the embeddings of all images point the same way .+: nothing at all\."
    with pytest.raises(CollapseError, match=message):
        train(method, toy_spec(epochs=200, lr=2e-2, weight_decay=0.0))
    assert method.steps < 3 * 200


def test_a_collapse_may_be_recorded_instead_and_the_training_goes_on() -> None:
    method = make(Collapsing)
    result = train(method, toy_spec(epochs=60, lr=2e-2, weight_decay=0.0, on_collapse="record"))
    assert method.steps == 3 * 60
    assert "collapsed at epoch 60 of 60" in result.collapse and "nothing at all" in result.collapse


def test_a_recorded_collapse_survives_a_kill_after_the_last_epoch(tmp_path: Path) -> None:
    spec = toy_spec(epochs=60, lr=2e-2, weight_decay=0.0, on_collapse="record")
    with pytest.raises(KilledError):
        train(make(Collapsing), spec, checkpoint=eager(tmp_path), progress=killer(60))
    assert "collapsed at epoch 60 of 60" in train(make(Collapsing), spec, checkpoint=eager(tmp_path)).collapse


def test_a_training_that_stays_healthy_records_no_collapse() -> None:
    assert train(make(Contrast), toy_spec(epochs=3, on_collapse="record")).collapse == ""


def test_a_collapse_survives_an_interruption(tmp_path: Path) -> None:
    spec = toy_spec(epochs=200, lr=2e-2, weight_decay=0.0)
    with pytest.raises(CollapseError) as expected:
        train(make(Collapsing), spec)
    with pytest.raises(KilledError):
        train(make(Collapsing), spec, checkpoint=eager(tmp_path), progress=killer(22))
    with pytest.raises(CollapseError) as found:
        train(make(Collapsing), spec, checkpoint=eager(tmp_path))
    assert str(found.value) == str(expected.value)


def test_collapse_is_noticed_at_the_end_of_a_short_training() -> None:
    class Constant(Collapsing):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__(backbone)
            nn.init.zeros_(self.projector.weight)

    with pytest.raises(
        CollapseError, match="collapsed at epoch 1 of 1: the embeddings of all images point the same way"
    ):
        train(make(Constant), toy_spec(epochs=1, warmup_epochs=0.0, lr=1e-9))


# --- requests that do not fit ---


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(SpecError, match=r"batch_size 64 is larger than the 50 images of an epoch\. Set .+ 50\."):
        train(make(Contrast), toy_spec(batch_size=64))


def test_a_wrong_number_of_views_is_refused() -> None:
    with pytest.raises(SpecError, match="takes 2 views of an image; the spec has 3 view specs"):
        train(make(Contrast), toy_spec(views=(GRAY_VIEW,) * 3))


def test_a_spec_without_recipe_is_refused() -> None:
    with pytest.raises(SpecError, match="has no training recipe"):
        train(make(Contrast), toy_spec().model_copy(update={"training": None}))


def test_half_precision_on_a_cpu_is_refused_not_replaced() -> None:
    with pytest.raises(SpecError, match="16-mixed needs a CUDA device"):
        train(make(Contrast), toy_spec(precision="16-mixed"))


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(SpecError, match="Device 'tpu' is not supported"):
        train(make(Contrast), toy_spec(), device="tpu")


def test_missing_labels_are_refused() -> None:
    with pytest.raises(SpecError, match="learns from labels and dataset 'toys' gives none"):
        train(make(Classifier), toy_spec())


def test_parameters_left_out_of_the_groups_are_named() -> None:
    class Forgetful(Contrast):
        def parameter_groups(self) -> list[dict[str, Any]]:
            return [{"params": [p for p in self.parameters() if p.ndim > 1]}]

    with pytest.raises(SpecError, match=r"Forgetful\.parameter_groups\(\) leaves out \['backbone\.blocks\.1\.weight'"):
        train(make(Forgetful), toy_spec())


@pytest.mark.parametrize("terms", [torch.zeros(()), {}, {"total": torch.zeros(())}, {"a": torch.zeros(2)}, {"a": 1.0}])
def test_terms_that_are_not_named_scalars_are_refused(terms: Any) -> None:
    class Odd(Contrast):
        def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
            result: dict[str, Tensor] = terms
            return result

    with pytest.raises(TypeError, match=r"Odd\.forward must return a dict of named scalar loss terms"):
        train(make(Odd), toy_spec())


# --- other shapes, other arithmetic ---


class Volumes(nn.Module):
    """A backbone with weights of five dimensions."""

    feature_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(1, 16, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        stacked = images[:, :, None].expand(-1, -1, 3, -1, -1)  # (B, C, 3, H, W)
        return torch.relu(self.convolution(stacked)).mean(dim=(2, 3, 4))


def test_a_backbone_with_convolutions_in_3d_trains() -> None:
    method = Contrast(Volumes())
    before = method.backbone.convolution.weight.detach().clone()
    result = train(method, toy_spec(epochs=1, warmup_epochs=0.0))
    assert np.isfinite(result.final_loss)
    assert not torch.equal(method.backbone.convolution.weight, before)


@pytest.mark.parametrize(("precision", "rounded"), [("32-true", False), ("bf16-mixed", True)])
def test_full_precision_trains_without_tf32_and_restores_it(precision: str, rounded: bool) -> None:
    seen: list[bool] = []

    class Watching(Contrast):
        def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(views)

    assert torch.backends.cudnn.allow_tf32  # torch's default
    train(make(Watching), toy_spec(epochs=1, warmup_epochs=0.0, precision=precision))
    assert set(seen) == {rounded} and torch.backends.cudnn.allow_tf32
