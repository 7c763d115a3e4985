"""Cards of every kind of architecture, written from the papers: what the figures and the comparison are tested on."""

from __future__ import annotations

from dataclasses import replace

from bench.card import MethodCard, Term

ATTRACTION = Term(name="attraction", acts="between the branches", role="draws the two views of an image together")
REPULSION = Term(name="repulsion", acts="against negatives", role="pushes the negatives away")
PREDICTIONS = (
    Term(name="view1_predicts_view2", acts="between the branches", role="prediction of the other view"),
    Term(name="view2_predicts_view1", acts="between the branches", role="the same with the views exchanged"),
)

VICREG = MethodCard(
    title="VICReg",
    family="information maximization",
    paper="bardes2022vicreg",
    year=2022,
    summary="Three terms.",
    terms=(
        Term(name="invariance", acts="between the branches", role="mean squared distance of the two views"),
        Term(name="variance", acts="on each branch", role="keeps the spread of every dimension above γ"),
        Term(name="covariance", acts="on each branch", role="decorrelates the dimensions"),
    ),
    complete_collapse="the variance term",
    dimensional_collapse="the covariance term",
    branches="shared or separate",
)
BARLOW_TWINS = MethodCard(
    title="Barlow Twins",
    family="information maximization",
    paper="zbontar2021barlow",
    year=2021,
    summary="The cross-correlation of the views becomes the identity.",
    terms=(
        Term(name="invariance", acts="between the branches", role="draws the diagonal of the correlation to 1"),
        Term(name="redundancy_reduction", acts="between the branches", role="draws the rest of it to 0"),
    ),
    complete_collapse="standardization over the batch",
    dimensional_collapse="the redundancy reduction term",
    normalization=("standardized",),
)
WMSE = MethodCard(
    title="W-MSE",
    family="information maximization",
    year=2021,
    summary="Mean squared distance of whitened embeddings.",
    terms=(Term(name="mse", acts="between the branches", role="mean squared distance over all pairs of positives"),),
    complete_collapse="whitening",
    dimensional_collapse="whitening",
    normalization=("whitened", "unit length"),
    views="positives",
    gradient_views="all",
)
SIMCLR = MethodCard(
    title="SimCLR",
    family="contrastive",
    paper="chen2020simclr",
    year=2020,
    summary="Tells images apart.",
    terms=(ATTRACTION, REPULSION),
    complete_collapse="negatives",
    dimensional_collapse="no term against it",
    negatives="batch",
    normalization=("unit length",),
)
SIMCLR_FNC = replace(
    SIMCLR, title="SimCLR + FNC", support_views=True, views="2 + support_views", summary="Spares false negatives."
)
MOCO_V2 = MethodCard(
    title="MoCo v2",
    family="contrastive",
    paper="chen2020mocov2",
    year=2020,
    summary="Tells images apart by a queue.",
    terms=(ATTRACTION, REPULSION),
    complete_collapse="negatives",
    dimensional_collapse="no term against it",
    branches="momentum",
    stop_gradient=True,
    symmetric=False,
    negatives="queue",
    normalization=("unit length",),
    gradient_views=(0,),
)
MOCO_FNC = replace(MOCO_V2, title="MoCo + FNC", support_views=True, views="2 + support_views")
BYOL = MethodCard(
    title="BYOL",
    family="asymmetric",
    paper="grill2020byol",
    year=2020,
    summary="Predicts a moving average of itself.",
    terms=PREDICTIONS,
    complete_collapse="the predictor with the stopped gradient",
    dimensional_collapse="no term against it",
    branches="momentum",
    predictor=True,
    stop_gradient=True,
    normalization=("unit length",),
)
SIMSIAM = replace(BYOL, title="SimSiam", paper="chen2021simsiam", year=2021, branches="shared")
BYOL_WHITENED = replace(
    BYOL, title="BYOL, whitened", paper="", normalization=("whitened", "unit length"), before_predictor=("whitened",)
)
SIMSIAM_WHITENED = replace(
    SIMSIAM,
    title="SimSiam, whitened",
    paper="",
    normalization=("whitened", "unit length"),
    before_predictor=("whitened",),
)
SEPARATE = replace(BARLOW_TWINS, title="Two networks", branches="separate", terms=())
SUPERVISED = MethodCard(
    title="Supervised",
    family="baseline",
    summary="Learns the labels.",
    terms=(Term(name="cross_entropy", acts="on the labels", role="the classification error"),),
    branches="single",
    views=1,
    gradient_views=(0,),
    uses_labels=True,
)
RANDOM_INIT = MethodCard(
    title="Random init",
    family="baseline",
    summary="Nothing.",
    branches="single",
    views=0,
    gradient_views=(),
    trains=False,
)
WORDY = replace(
    VICREG,
    title="Wordy",
    terms=tuple(
        Term(name=f"a_term_named_with_many_words_{number}_averylongsinglewordthatneedstobecut", acts=where, role="long")
        for number, where in enumerate(
            ("between the branches", "on each branch", "on each branch", "against negatives")
        )
    ),
    negatives="queue",
    support_views=True,
    predictor=True,
    stop_gradient=True,
    symmetric=False,
    normalization=("standardized", "whitened", "unit length"),
)

CARDS = {
    "vicreg": VICREG,
    "barlow_twins": BARLOW_TWINS,
    "wmse": WMSE,
    "simclr": SIMCLR,
    "simclr_fnc": SIMCLR_FNC,
    "moco_v1": replace(MOCO_V2, title="MoCo v1", paper="he2020moco"),
    "moco_v2": MOCO_V2,
    "moco_fnc": MOCO_FNC,
    "byol": BYOL,
    "simsiam": SIMSIAM,
    "byol_whitened": BYOL_WHITENED,
    "simsiam_whitened": SIMSIAM_WHITENED,
    "separate": SEPARATE,
    "supervised": SUPERVISED,
    "random_init": RANDOM_INIT,
    "wordy": WORDY,
}
