"""The rules by which collections run beside pushes, small enough that every interleaving can be walked.

One content, which can be stored under several names (the first is the natural one, the others carry a suffix), some
versions that want it, some pushers, some collectors and one who deletes a version. Everything that is one request to a
store is one step; any process may stop for ever before any step, which is what a kill, a pause of a day or a
partition is. A request that is still on its way when its sender is gone is the same as a sender that is slow.

Not modelled: time. Grace periods are 0 and every push that a collector meets may be taken for dead, so safety does
not rest on clocks. `docs/decisions/0019-collecting-beside-writers.md` has the argument in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

Place = tuple[Any, ...]  # ("absent",), ("manifest", id, name) or ("marker", id)
ABSENT: Place = ("absent",)

RULES = frozenset(
    {
        "intent before publishing",  # a pusher says what it relies on before its last look at the document
        "look after intent",  # that last look comes after the intent, not before
        "announce before reading",  # a collector condemns first and then reads what is in use
        "intents before manifests",  # and reads these in this order
        "read again after a conflict",  # before it tries once more to sentence
        "names do not come back",  # what was swept is stored under another name
        "sentences are final",  # no collector takes one back
        "fence dead pushes",  # whose key is moved on before their intent goes
        "fence rewrites",  # also where what they wait for is a manifest, which gives way to the same under another id
        "keys do not come back",  # a deleted version leaves a marker
    }
)


@dataclass(frozen=True)
class Document:
    """`garbage.json`; `number` stands for its ETag."""

    number: int = 0
    condemned: frozenset[int] = frozenset()
    sentenced: frozenset[int] = frozenset()
    swept: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Pusher:
    id: int
    place: int
    at: str = "look"
    tries: int = 2
    before: frozenset[int] = frozenset()
    expected: Place = ABSENT
    name: int = -1
    intent: int = -1
    seen: Document | None = None
    rewrites: bool = False  # stores a version anew, under another name
    late: int = -1  # a put that was sent twice, the second still on its way
    sending: int = -1  # an upload that goes on beside the steps that follow, and ends before the manifest


@dataclass(frozen=True)
class Collector:
    id: int
    at: str = "open"
    tries: int = 2
    fences: int = 1
    seen: Document | None = None
    listed: frozenset[int] = frozenset()
    used: frozenset[int] = frozenset()
    scanned: int = 0
    verdict: frozenset[int] = frozenset()
    deleted: frozenset[int] = frozenset()
    fencing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Deleter:
    id: int
    place: int
    at: str = "read"
    expected: Place = ABSENT


@dataclass(frozen=True)
class World:
    objects: frozenset[int]
    places: tuple[Place, ...]
    processes: tuple[Any, ...]
    document: Document = Document()
    intents: frozenset[tuple[int, int, int, int]] = frozenset()  # (id, place, name, manifest that gives way)
    fresh: int = 0  # unique ids handed out

    def harmed(self) -> bool:
        """Whether a version is there without its object."""
        return any(place[0] == "manifest" and place[2] not in self.objects for place in self.places)

    def put(self, place: int, value: Place) -> World:
        return replace(self, places=(*self.places[:place], value, *self.places[place + 1 :]))

    def with_document(self, **changes: Any) -> World:
        return replace(self, document=replace(self.document, number=self.document.number + 1, **changes))


NAMES = range(3)


def steps(world: World, rules: frozenset[str]) -> Iterator[World]:
    """Every world that is one step of one process away."""
    for number, process in enumerate(world.processes):
        walk: Any = {Pusher: push, Collector: collect, Deleter: delete}[type(process)]
        for other, after in walk(world, process, rules):
            processes = (*world.processes[:number], after, *world.processes[number + 1 :])
            yield replace(other, processes=processes)


Moves = Iterator[tuple[World, Any]]


def gone(document: Document, rules: frozenset[str]) -> frozenset[int]:
    """Names that nobody may rely on any more."""
    return document.sentenced | (document.swept if "names do not come back" in rules else frozenset())


def push(world: World, me: Pusher, rules: frozenset[str]) -> Moves:  # noqa: PLR0915  one process in one place
    if me.late >= 0:
        yield replace(world, objects=world.objects | {me.late}), replace(me, late=-1)
    if me.sending >= 0:
        yield replace(world, objects=world.objects | {me.sending}), replace(me, sending=-1)
    document, place = world.document, world.places[me.place]
    if me.at == "look":  # at the document, before anything else
        yield world, replace(me, at="read place", before=gone(document, rules))
    elif me.at == "read place":
        if (place[0] == "manifest") != me.rewrites:
            yield world, replace(me, at="end")
        else:
            yield world, replace(me, at="head", expected=place)
    elif me.at == "head":
        unwanted = {me.expected[2]} if me.rewrites else set()
        free = [name for name in NAMES if name not in me.before | unwanted]
        if not free:
            yield world, replace(me, at="end")
        else:
            there = free[0] in world.objects
            yield world, replace(me, at="intend" if there else "upload", name=free[0])
    elif me.at == "upload":
        after = replace(world, objects=world.objects | {me.name})
        yield after, replace(me, at="intend")
        if me.tries == 2:
            yield after, replace(me, at="intend", late=me.name)
        yield world, replace(me, at="intend", sending=me.name)
    elif me.at == "intend":
        if "look after intent" not in rules and me.seen is None:
            yield world, replace(me, seen=document)
        elif "intent before publishing" not in rules:
            yield world, replace(me, at="check")
        else:
            intent = (world.fresh, me.place, me.name, me.expected[1] if me.rewrites else -1)
            after = replace(world, intents=world.intents | {intent}, fresh=world.fresh + 1)
            yield after, replace(me, at="check", intent=world.fresh)
    elif me.at == "check":
        seen = me.seen or document
        if me.name in gone(seen, rules):
            yield world, replace(me, at="withdraw")
        elif me.name in seen.condemned:
            yield world, replace(me, at="rescue", seen=seen)
        else:
            yield world, replace(me, at="publish", seen=None)
    elif me.at == "rescue":
        assert me.seen is not None
        if document.number == me.seen.number:
            rescued = world.with_document(condemned=document.condemned - {me.name})
            yield rescued, replace(me, at="publish", seen=None)
        else:
            yield world, replace(me, at="check", seen=None)
    elif me.at == "publish" and me.sending >= 0:
        return  # it waits
    elif me.at == "publish":
        if place == me.expected:
            yield world.put(me.place, ("manifest", me.id, me.name)), replace(me, at="finish")
        else:
            over = place[0] == "manifest" and not me.rewrites
            yield world, replace(me, at="finish" if over else "withdraw")
    elif me.at in ("finish", "withdraw"):
        rest = frozenset(intent for intent in world.intents if intent[0] != me.intent)
        again = me.at == "withdraw" and me.tries > 1
        after = replace(
            me,
            at="look" if again else "end",
            tries=me.tries - 1,
            intent=-1,
            seen=None,
            name=-1,
            expected=ABSENT,
            late=max(me.late, me.sending),
            sending=-1,
        )
        yield replace(world, intents=rest), after


def delete(world: World, me: Deleter, rules: frozenset[str]) -> Moves:
    if me.at == "read":
        yield world, replace(me, at="mark", expected=world.places[me.place])
    elif me.at == "mark":
        if me.expected[0] == "manifest" and world.places[me.place] == me.expected:
            if "keys do not come back" in rules:
                world = replace(world.put(me.place, ("marker", world.fresh)), fresh=world.fresh + 1)
            else:
                world = world.put(me.place, ABSENT)
        yield world, replace(me, at="end")


def collect(world: World, me: Collector, rules: frozenset[str]) -> Moves:
    document = world.document
    if me.at == "open":
        if document.sentenced and ("sentences are final" in rules):  # left by one who was killed
            yield world, replace(me, at="delete", verdict=document.sentenced)
        else:
            yield world, replace(me, at="list", seen=document)
    elif me.at == "list":
        yield world, replace(me, at="first scan", listed=world.objects, used=frozenset(), scanned=0)
    elif me.at in ("first scan", "second scan"):
        yield from scan(world, me, rules)
    elif me.at == "condemn":
        yield from condemn(world, me, rules)
    elif me.at == "look":
        yield world, replace(me, at="second scan", seen=document, used=frozenset(), scanned=0)
    elif me.at == "sentence":
        yield from sentence(world, me, rules)
    elif me.at == "delete":
        left = me.verdict - me.deleted
        if left:
            name = min(left)
            yield replace(world, objects=world.objects - {name}), replace(me, deleted=me.deleted | {name})
        else:
            yield world, replace(me, at="record", seen=document)
    elif me.at == "record":
        assert me.seen is not None
        if document.number != me.seen.number:
            yield world, replace(me, seen=document)
        else:
            changed = world.with_document(
                sentenced=document.sentenced - me.verdict, swept=document.swept | me.verdict
            )
            yield changed, replace(me, at="end", seen=None, verdict=frozenset(), deleted=frozenset())
    elif me.at == "fence":
        yield from fence(world, me, rules)


def scan(world: World, me: Collector, rules: frozenset[str]) -> Moves:
    """Reads the intents in one step and then the places one by one."""
    last = len(world.places)
    order = ["intents", *range(last)] if "intents before manifests" in rules else [*range(last), "intents"]
    if me.scanned > last:
        yield world, replace(me, at="condemn" if me.at == "first scan" else "sentence")
        return
    what = order[me.scanned]
    after = replace(me, scanned=me.scanned + 1)
    if what == "intents":
        yield world, replace(after, used=me.used | {intent[2] for intent in world.intents})
        for intent in world.intents if me.fences and me.at == "first scan" else ():
            yield (
                world,
                replace(me, at="fence", fences=me.fences - 1, fencing=(intent[0], intent[1], intent[3])),
            )
    else:
        place = world.places[what]  # type: ignore[index]
        yield world, replace(after, used=me.used | {place[2]} if place[0] == "manifest" else me.used)


def condemn(world: World, me: Collector, rules: frozenset[str]) -> Moves:
    assert me.seen is not None
    document = world.document
    unused = me.listed - me.used
    if not unused:
        yield world, replace(me, at="end")
    elif document.number != me.seen.number:
        yield world, replace(me, at="open" if me.tries > 1 else "end", tries=me.tries - 1)
    elif "announce before reading" not in rules:
        yield (
            world.with_document(sentenced=document.sentenced | unused),
            replace(me, at="delete", verdict=unused),
        )
    else:
        yield world.with_document(condemned=unused), replace(me, at="look")


def sentence(world: World, me: Collector, rules: frozenset[str]) -> Moves:
    assert me.seen is not None
    document = world.document
    if document.number != me.seen.number:
        if me.tries <= 1:
            yield world, replace(me, at="end")
        elif "read again after a conflict" in rules:
            yield world, replace(me, at="look", tries=me.tries - 1)
        else:
            yield world, replace(me, seen=document, tries=me.tries - 1)
        return
    verdict = document.condemned - me.used
    sentenced = document.sentenced | verdict
    if "sentences are final" not in rules:
        sentenced -= me.used
    changed = world.with_document(condemned=frozenset(), sentenced=sentenced)
    yield changed, replace(me, at="delete" if verdict else "end", verdict=verdict)


def fence(world: World, me: Collector, rules: frozenset[str]) -> Moves:
    """Takes a push for dead. One step reads the place, the next moves it on, the last removes the intent."""
    intent, place, waits_for = me.fencing[:3]
    now = world.places[place]
    if "fence dead pushes" not in rules or len(me.fencing) == 5:
        rest = frozenset(each for each in world.intents if each[0] != intent)
        yield replace(world, intents=rest), replace(me, at="open", fencing=())
    elif len(me.fencing) == 3:
        yield world, replace(me, fencing=(*me.fencing, hash(now)))
    elif hash(now) != me.fencing[3]:
        yield world, replace(me, fencing=me.fencing[:3])
    elif now[0] == "manifest" and (now[1] != waits_for or "fence rewrites" not in rules):
        yield world, replace(me, fencing=(*me.fencing, 1))
    else:
        after = ("manifest", 100 + world.fresh, now[2]) if now[0] == "manifest" else ("marker", world.fresh)
        moved = replace(world.put(place, after), fresh=world.fresh + 1)
        yield moved, replace(me, fencing=(*me.fencing, 1))


def search(
    start: World, rules: frozenset[str] = RULES, limit: int = 10_000_000
) -> tuple[int, list[World] | None]:
    """Number of worlds that can be reached, and the way to a harmed one, if there is one."""
    came_from: dict[World, World | None] = {start: None}
    waiting = [start]
    while waiting:
        world = waiting.pop()
        for after in steps(world, rules):
            if after in came_from:
                continue
            came_from[after] = world
            assert len(came_from) <= limit, "the scenario is too large"
            if after.harmed():
                path: list[World] = []
                step: World | None = after
                while step is not None:
                    path.append(step)
                    step = came_from[step]
                return len(came_from), path[::-1]
            waiting.append(after)
    return len(came_from), None
