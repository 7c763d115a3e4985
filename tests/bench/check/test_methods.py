"""The method battery passes what is sound and names each breach."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.check import check_method
from bench.registry import discover

from .plugins import METHOD, broken_source, method_results, only_failure

BUILT_IN = [entry.key for entry in discover().methods if not entry.plugin]


@pytest.mark.parametrize("key", BUILT_IN)
def test_every_built_in_method_keeps_the_contract(key: str) -> None:
    results = check_method(discover().methods[key])
    assert [result for result in results if not result.ok] == []
    assert len(results) == (12 if discover().methods[key].card.trains else 5)  # type: ignore[union-attr]


def test_a_sound_plugin_passes_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = method_results(tmp_path, METHOD)
    assert [result for result in results if not result.ok] == []
    assert len({result.name for result in results}) == len(results) == 12
    assert all(result.message == "" and result.name.endswith(".") for result in results)
    assert capsys.readouterr() == ("", "")


BREACHES = {
    "no loss equation": ('loss="L = |z1 - z2|² - std"', 'loss=""', "loss as an equation", "shows no loss equation"),
    "no title": ('title="Sound"', 'title=" "', "The card has a title", "the card's title is empty"),
    "a view that does not exist": (
        'branches="momentum"',
        'branches="momentum", gradient_views=(0, 2)',
        "The card has a title",
        r"gradient_views \(0, 2\) names a view",
    ),
    "no remedy": ('complete_collapse="the spread"', 'complete_collapse=""', "complete collapse", "one constant vector"),
    "an undeclared deviation": (
        "# Deviates: the spread is not normalized",
        "# Deviates: the sign is wrong",
        "Deviates",
        "the sign is wrong` is not in the card",
    ),
    "an unmarked deviation": ("    # Deviates: the spread is not normalized\n", "", "Deviates", "is not marked"),
    "a deviation without a reason": ('reason="it is a test"', 'reason=""', "Deviates", "lacks `what` or `reason`"),
    "a default that JSON cannot hold": (
        "tau: float = 0.9",
        'tau: dict = {"a": 0.9}',
        "literal default",
        r"default of 'tau' is \{'a': 0.9\}",
    ),
    "a backbone that is replaced": (
        "        self.tau = tau\n",
        "        self.tau = tau\n        self.backbone = nn.Sequential(backbone)\n",
        "self.backbone",
        "not the backbone that was given",
    ),
    "a backbone that is initialized again": (
        "        self.tau = tau\n",
        "        self.tau = tau\n        nn.init.ones_(next(backbone.parameters()))\n",
        "self.backbone",
        "changes the backbone's weights",
    ),
    "a fixed batch size": (
        "        h1, h2 =",
        "        assert len(views[0]) == 12, 'twelve'\n        h1, h2 =",
        "any batch size",
        r"AssertionError: twelve",
    ),
    "a fixed feature width": (
        "mlp((backbone.feature_dim, *projector))",
        "mlp((12, *projector))",
        "1 and 3 channels",
        "raised RuntimeError",
    ),
    "a term that is no scalar": ("(z1 - z2).square().mean()", "(z1 - z2).square().mean(dim=0)", "scalar", "'pull' on"),
    "a term that is NaN": ("(z1 - z2).square().mean()", "(z1 - z1).mean().log() * 0", "finite", "'pull' .* is nan"),
    "no dictionary": ("        return terms\n", "        return sum(terms.values())\n", "forward", "Return a dict"),
    "a term called total": ('terms["anchor"]', 'terms["total"]', "forward", "'total' is the loop's"),
    "names that change": (
        'terms["anchor"]',
        'terms[f"anchor{len(h1)}"]',
        "same named",
        "names of the terms change",
    ),
    "a parameter without use": (
        "        self.tau = tau\n",
        "        self.tau = tau\n        self.unused = nn.Linear(2, 2)\n",
        "Every trained parameter",
        "unused.weight gets no gradient",
    ),
    "a gradient that is not finite": (
        '{"pull": (z1 - z2)',
        '{"pull": 0 * (z1 - z1).norm(dim=1).mean() + 0 * (z1 - z1).abs().sum().sqrt() + (z1 - z2)',
        "Every trained parameter",
        "is not finite",
    ),
    "frozen parameters without a momentum branch": (
        'branches="momentum"',
        'branches="shared"',
        "Every trained parameter",
        r"target.* is frozen, but the card's branches is 'shared'",
    ),
    "a parameter in two groups": (
        "    def after_step",
        "    def parameter_groups(self):\n        return 2 * super().parameter_groups()\n\n    def after_step",
        "Every trained parameter",
        "in 2 parameter groups",
    ),
    "a view that is detached": (
        "for view in views)",
        "for view in (views[0], views[1].detach()))",
        "gradient_views",
        r"get a gradient are \(0,\), the card says \(0, 1\)",
    ),
    "a view too many": (
        'branches="momentum"',
        'branches="momentum", gradient_views=(1,)',
        "gradient_views",
        r"get a gradient are \(0, 1\), the card says \(1,\)",
    ),
    "weights that no seed decides": (
        "torch.zeros(5))\n",
        "torch.zeros(5))\n        free = torch.Generator()\n        free.seed()\n"
        "        self.queue.uniform_(generator=free)\n",
        "same seed",
        "two builds with one seed differ in queue",
    ),
    "a loss that no seed decides": (
        '{"pull": (z1 - z2)',
        '{"pull": torch.rand((), generator=(g := torch.Generator(), g.seed())[0]) + (z1 - z2)',
        "same seed",
        "two losses with one seed differ",
    ),
    "a queue outside the state": (
        'self.register_buffer("queue", torch.zeros(5))',
        "self.queue = torch.zeros(5)",
        "checkpoint",
        "register_buffer",
    ),
    "a target outside the state": (
        "self.target = momentum_copy(self.projector)",
        "self.__dict__['target'] = momentum_copy(self.projector)",
        "checkpoint",
        "after a resume the losses are",
    ),
    "views that are changed": (
        "        h1, h2 =",
        "        views[1].mul_(2)\n        h1, h2 =",
        "leaves its views",
        "changes view 1 in place",
    ),
    "a loss in half precision": (
        "@full_precision\n",
        "",
        "bfloat16 autocast",
        "'pull' is .* in torch.bfloat16.*full_precision",
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_found_with_its_place(breach: str, tmp_path: Path) -> None:
    old, new, name, message = BREACHES[breach]
    if breach == "a queue outside the state":
        # A hidden queue that decides the loss: zero times it would go unnoticed in the losses and in the state.
        source = broken_source(METHOD, old, new).replace("0 * self.queue.sum()", "1e-2 * self.queue.sum()")
    else:
        source = broken_source(METHOD, old, new)
    failure = next(result for result in method_results(tmp_path, source) if not result.ok)
    assert name in failure.name
    assert failure.message.startswith(str(tmp_path))
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failure.message)


def test_an_exception_is_reported_with_the_line_that_raised_it(tmp_path: Path) -> None:
    source = broken_source(METHOD, "        return terms\n", '        raise KeyError("lost")\n')
    failure = only_failure(method_results(tmp_path, source))
    line = source.splitlines().index('        raise KeyError("lost")') + 1
    assert failure.message.startswith(f"{tmp_path / (tmp_path.name + '_method.py')}:{line}: raised KeyError: 'lost'")


def test_wide_heads_are_cut_but_other_tuples_are_not(tmp_path: Path) -> None:
    source = broken_source(METHOD, "tau: float = 0.9)", "tau: float = 0.9, milestones: tuple[int, ...] = (4096,))")
    checked = "        self.tau = tau\n        assert (projector[0], *milestones) == (64, 4096)\n"
    results = method_results(tmp_path, broken_source(source, "        self.tau = tau\n", checked))
    assert len(results) == 12 and all(result.ok for result in results)
