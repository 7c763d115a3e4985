"""Words of the report, explained for a reader who trains no networks."""

from __future__ import annotations

GLOSSARY = (
    ("self-supervised pre-training", "A network learns from images alone, without labels, by a task that the images "
     "themselves pose: most often to recognize two altered copies of one image."),
    ("features", "The numbers that a network makes of an image; what pre-training is to improve."),
    ("linear probe, probe for findings", "The network stays as it is, and the simplest classifier is trained on its "
     "features with labels. Its accuracy says how much of what the labels mean the features hold."),
    ("pretext task, pretext method", "What a network is trained to do with images alone, for the sake of the features: "
     "to put slices in order, to restore a hidden part, to recognize two views of one image."),
    ("positive pair, negatives", "Two views that are to get similar features are a positive pair; negatives are images "
     "whose features are to differ from theirs. Not every method has negatives."),
    ("teacher with stop-gradient", "A copy of the network, most often a slowly moving average, whose features the "
     "network is to predict and which learns nothing from the mistakes."),
    ("explicit decorrelation", "A term of the loss, or whitening, that keeps the single features from saying the "
     "same."),
    ("pairs by metadata", "The two views show two images of one patient, chosen by study (one visit) and laterality "
     "(from the front or from the side)."),
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
    ("object detection", "Finding every object on an image: a box around it, its class and a score. A detector has a "
     "backbone, which may be pre-trained, and further layers that make boxes of its features."),
    ("AP of a detector (average precision)", "A found box is right when it overlaps an object of its class enough "
     "(IoU: shared area over joint area). With the boxes sorted by score, precision, the share that is right, is "
     "averaged over recall, the share of objects found so far, and then over classes. AP is the mean over the overlaps "
     "0.5, 0.55, …, 0.95. It is no percentage of right answers: on COCO a ResNet-50 reaches about "
     "40."),
    ("AP50, AP75", "AP when an overlap of 0.5 or 0.75 is enough. (The survey calls AP50 a median, which it is not: "
     "erratum 1.)"),
    ("mask AP", "AP of outlines instead of boxes, where a detector draws them."),
    ("VOC AP, 11 points", "In the VOC 2007 challenge precision is read at the recalls 0, 0.1, …, 1, in that of COCO at "
     "101. Values on VOC in papers are of the first kind, and differ by a little from COCO's AP of the same boxes."),
    ("C4, FPN", "How a detector uses a ResNet. C4 takes the features of its fourth stage and keeps the fifth for the "
     "single boxes; FPN, a feature pyramid, takes all stages and joins them, so that small objects keep detail."),
    ("1×, 2×", "Length of the training on COCO: 90 000 steps of 16 images (about 12 passes), or twice that."),
    ("95 % interval", "The values that are compatible with what was measured. What kinds of chance it covers stands "
     "beside it: the choice of test images or patients, the seeds, or both."),
    ("cannot be told apart", "The difference may be chance. It may also be real and too small for these images: "
     "that is not the same as equal."),
    ("corrected for all pairs (Holm)", "Who compares many pairs finds some difference by chance; the corrected p is "
     "larger, so that all statements together are wrong with a probability of at most 5 %."),
    ("collapse", "A failed training: the network gives nearly the same features for every image."),
)  # fmt: skip
"""Word and explanation, in the order of reading."""
