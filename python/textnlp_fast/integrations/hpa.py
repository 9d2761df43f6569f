"""What a HorizontalPodAutoscaler has to be shown so that it goes to a number of replicas.

For an External metric of type AverageValue the HPA computes (kubernetes, pkg/controller/podautoscaler,
GetExternalPerPodMetricReplicas; its documentation, "Algorithm details"):

    ratio = value / (target x current)
    wanted = current if ratio is within 1 +- tolerance, else ceil(value / target)

With a target of 1 the value is the number of replicas itself, but for the tolerance, 10 % unless the cluster or the HPA
says otherwise: from 20 replicas it never goes to 21, whatever it is shown, since no value is both above 22 and at most
21 when rounded up. `shown` therefore shows the smallest number above the target that the HPA acts upon: a tenth too
many for a while beats a tenth too few. Downwards it shows the target, and the HPA stays where it is while the
difference is within the tolerance. With a tolerance of 0 the HPA goes to the target exactly, both ways.

What the HPA has now is not known for certain: it reads every 15 s, we decide in between, and pods that are ordered or
end are not seen. So `shown` takes all counts that it may have, and shows what is right for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

__all__ = ["DEFAULT_TOLERANCE", "SYNC_S", "shown"]

#: `--horizontal-pod-autoscaler-tolerance` of kube-controller-manager.
DEFAULT_TOLERANCE: Final = 0.1
#: An HPA has read within so many seconds: four of its usual periods.
SYNC_S: Final = 60.0
#: Room for the rounding of 1 + tolerance: versions of Kubernetes differ in what they do at exactly 10 % (1.33 holds at
#: 11 of 10, versions before it do not), so that no number is shown that lies on the edge.
_EDGE: Final = 1e-9


def shown(target: int, *, among: Iterable[int], tolerance: float = DEFAULT_TOLERANCE) -> int:
    """The metric's value, with a target of 1, after which an HPA has at least `target` replicas.

    `among`: the counts that it may have now. At most a tenth (the tolerance) and one more than the target.
    """
    value = target
    if tolerance <= 0.0:
        return value
    for current in sorted(among):
        if 0 < current < target:
            edge = current * (1.0 + tolerance) + _EDGE
            if value <= edge:
                value = math.floor(edge) + 1
    return value
