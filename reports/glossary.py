"""Words of the report, explained for a reader who trains no networks."""

from __future__ import annotations

GLOSSARY = (
    ("self-supervised pre-training", "A network learns from images alone, without labels, by a task that the images "
     "themselves pose: most often to recognize two altered copies of one image."),
    ("features", "The numbers that a network makes of an image; what pre-training is to improve."),
    ("linear probe, probe for findings", "The network stays as it is, and the simplest classifier is trained on its "
     "features with labels. Its accuracy says how much of what the labels mean the features hold."),
    ("fine-tuning", "The whole network is trained further, with labels."),
    ("baseline", "What the methods are to beat: the same network without any training (random init), and the one that "
     "was trained on all labels from the start (supervised)."),
    ("training, validation and test images", "Learned from; used for choosing settings; read once at the end, for "
     "every value shown. Images of one patient lie in one of these only, where patients are known."),
    ("seed", "The number that starts all random choices of a training. Several seeds show how much chance in the "
     "training matters."),
    ("epoch", "One pass of the training over all its images."),
    ("accuracy (top-1)", "The share of test images whose class is named correctly. Top-5 counts an image when its "
     "class is among the five likeliest."),
    ("balanced accuracy", "The share of correctly named images, for each class, averaged over the classes: a large "
     "class cannot hide a small one."),
    ("AUROC", "The probability that an image with a finding gets a higher score than one without it: 50 % is guessing, "
     "100 % is perfect. It does not depend on where the line between positive and negative is drawn."),
    ("average precision", "How many of the images with the highest scores have the finding, averaged over all numbers "
     "of images; guessing reaches the share of images with the finding."),
    ("95 % interval", "The values that are compatible with what was measured. What kinds of chance it covers stands "
     "beside it: the choice of test images or patients, the seeds, or both."),
    ("cannot be told apart", "The difference may be chance. It may also be real and too small for these images: "
     "that is not the same as equal."),
    ("corrected for all pairs (Holm)", "Who compares many pairs finds some difference by chance; the corrected p is "
     "larger, so that all statements together are wrong with a probability of at most 5 %."),
    ("collapse", "A failed training: the network gives nearly the same features for every image."),
)  # fmt: skip
"""Word and explanation, in the order of reading."""
