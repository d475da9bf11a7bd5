"""How a generator fails: it makes ever fewer pictures, or copies those that it learns from.

Both are seen by numbers that an evaluation gives, and said with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COLLAPSED = 0.5  # recall below this share of its best so far
LEAST_RECALL = 0.02  # below this in the second half of a run samples are (nearly) all alike
COPIED = 0.5  # authenticity below this share of what real pictures have


def failures(metrics: Mapping[str, float], earlier: Sequence[Mapping[str, float]], progress: float) -> list[str]:
    """What has gone wrong with a generator, a line each, by the numbers of its newest evaluation.

    earlier: those of its evaluations before. progress: the share of its training that is done, in [0, 1].
    """
    said = []
    recall = metrics.get("recall")
    best = max((e["recall"] for e in earlier if "recall" in e), default=0.0)
    if recall is not None and recall < COLLAPSED * best and best > LEAST_RECALL:
        said.append(
            f"collapse: samples cover {recall:.0%} of the pictures (recall), {best:.0%} before: they become alike; "
            "start again with lower learning rates or another objective.penalty, --init-from the best checkpoint if there is one"
        )
    elif recall is not None and recall < LEAST_RECALL and progress >= 0.5:
        said.append(
            f"collapse: samples cover {recall:.1%} of the pictures (recall) past half of the training; "
            "start again with lower learning rates or another objective.penalty"
        )
    authenticity = metrics.get("authenticity")
    real = metrics.get("authenticity_real", 0.0)
    if authenticity is not None and authenticity < COPIED * real:
        said.append(
            f"memorisation: {1 - authenticity:.0%} of the samples lie nearer to a picture than its nearest other "
            f"(of real pictures: {1 - real:.0%}); add pictures, start again with more of augment.*, or take an earlier checkpoint"
        )
    return said
