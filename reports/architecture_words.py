"""The figure of a method's architecture in words, for whoever does not see it."""

from __future__ import annotations

from bench.card import MethodCard

WEIGHTS = {
    "shared": "two branches that share their weights",
    "shared or separate": "two branches whose weights and architectures may be shared or differ",
    "separate": "two branches with separate weights",
    "momentum": "two branches, the lower one a moving average of the upper one",
}
SHAPED = {
    "standardized": "standardized over the batch",
    "whitened": "whitened",
    "unit length": "scaled to unit length",
}
PLACES = {
    "between the branches": "Between the branches",
    "on each branch": "On each branch alone",
    "against negatives": "Against the negatives",
    "on the labels": "On the labels",
}


def many_views(card: MethodCard) -> bool:
    """The card says that an image may have more than two positives."""
    first = str(card.views).split("+")[0].strip()
    return not first.isdecimal() or int(first) > 2


def lanes(card: MethodCard) -> tuple[tuple[str, str], tuple[str, str]]:
    """Name of each branch, empty where the two are alike, and the symbol of its embedding."""
    if card.negatives == "queue":
        return ("query branch", "q"), ("key branch", "k")
    upper = "p" if card.predictor else "z"
    if card.branches == "momentum":
        return ("online branch", upper), ("target branch", "z′")
    return ("", upper), ("", "z′")


def describe(card: MethodCard) -> str:
    """What the figure shows, from left to right, in sentences."""
    if card.branches == "single":
        return _single(card)
    views = "Several views" if many_views(card) else "Two views"
    sentences = [
        f"{views} of an image pass through {WEIGHTS[card.branches]}: encoder f, then projector g.",
        *_asymmetry(card),
        *_embeddings(card),
        *_negatives(card),
        *terms_in_words(card),
    ]
    return " ".join(sentences)


def _single(card: MethodCard) -> str:
    if card.protocols:
        return "An image passes through encoder f, which is not pre-trained: the protocol trains it."
    if card.imported:
        return "An image passes through encoder f, whose weights come from a file; its representation h is evaluated."
    if not card.trains:
        return "An image passes through encoder f, which is not trained; its representation h is what is evaluated."
    labels = " with the labels" if card.uses_labels else ""
    words = f"One view of an image passes through encoder f and a classifier, whose output is compared{labels}."
    return " ".join((words, *terms_in_words(card)))


def _asymmetry(card: MethodCard) -> list[str]:
    sentences = []
    if card.predictor:
        sentences.append("A predictor q follows on the upper branch only.")
    if card.stop_gradient:
        sentences.append("The gradient stops on the lower branch.")
    return [*sentences, roles(card)] if roles(card) else sentences


def roles(card: MethodCard) -> str:
    """Which view takes which role; empty where both branches do the same."""
    if not (card.predictor or card.stop_gradient or card.branches == "momentum"):
        return ""
    if card.symmetric:
        return "Both views take both roles, and the loss adds up both directions."
    return "View 1 is the query, view 2 its key." if card.negatives == "queue" else "Each view keeps its role."


def _embeddings(card: MethodCard) -> list[str]:
    steps = [SHAPED[step] for step in card.normalization]
    count = len(card.before_predictor)
    first, last = ", then ".join(steps[:count]), ", then ".join(steps[count:])
    if first:
        then = f", after it they are {last}" if last else ""
        return [f"Before the predictor the embeddings are {first}{then}."]
    return [f"The embeddings are {last}."] if last else []


def _negatives(card: MethodCard) -> list[str]:
    if card.negatives == "none":
        return ["There are no negatives."]
    source = {"batch": "the other images of the batch", "queue": "a queue of keys of earlier batches"}
    sentences = [f"Negatives are {source[card.negatives]}."]
    if card.support_views:
        sentences.append("Support views of the anchor's image find the false ones among them.")
    return sentences


def terms_in_words(card: MethodCard) -> list[str]:
    """The terms of the loss by the place where they act, one sentence each."""
    places: dict[str, list[str]] = {}
    for term in card.terms:
        places.setdefault(term.acts, []).append(f"{term.name.replace('_', ' ')} ({term.role})")
    return [f"{PLACES[place]}: {'; '.join(terms)}." for place, terms in places.items()]
