"""What a rollout asks of the gateway in front of replicas: how much each gets, and that one gets nothing more."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["NoGateway", "Traffic"]


@runtime_checkable
class Traffic(Protocol):
    """A gateway. Every call may come again, from another process, too: the second changes nothing.

    A replica is called by the name that the rollout has for it. Each call raises InvalidInputError for a replica that
    the gateway does not know, and ProviderUnavailableError where the gateway did not do it within its own bounds of
    time and tries; then the rollout asks again.
    """

    def set_weight(self, replica: str, percent: int) -> None:
        """Gives a replica `percent` (1 to 100) of the weight that every replica has where nobody rolls out.

        Shares follow: a replica at 25 beside one at 75 gets a quarter of the new requests. A replica that is drained
        keeps the number for when it is resumed.
        """
        ...

    def drain(self, replica: str, deadline_s: float) -> None:
        """Sends a replica no new request, and returns when those that it has are answered.

        After `deadline_s` seconds it returns all the same, with the replica drained: what still runs there is the
        replica's own to finish or to refuse.
        """
        ...

    def resume(self, replica: str) -> None:
        """Sends requests to a replica again, by the weight that was set last (100 if none was)."""
        ...


class NoGateway:
    """For replicas that nobody balances, or whose balancer looks at their readiness alone: agents close their gates."""

    def set_weight(self, replica: str, percent: int) -> None:
        """Nothing: there are no shares without a gateway."""

    def drain(self, replica: str, deadline_s: float) -> None:
        """Nothing: the replica's agent refuses new requests and waits for those that run."""

    def resume(self, replica: str) -> None:
        """Nothing: the replica's agent lets requests in."""
