"""What students do to the queues of notebook 09: right repairs and plausible wrong ones, as edits of a file.

Each wrong one says which promise it breaks, in which story; ``broken_queue`` edits the shipped file, ``solution`` ours.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.notebooks.kernels import ROOT
from tests.notebooks.solutions import SOLUTIONS

BROKEN, SOLVED = ROOT / "notebooks" / "queues", SOLUTIONS / "queues"
STORED = '    store.hset("results", job, result)\n'
LREM = '    store.lrem("leased", 1, job)\n'
COUNTED = '    if store.hincrby("attempts", job, 1) > 3:  # before the work, which may kill it\n'
FENCED = "if redis.call('HGET', 'fences', ARGV[1]) ~= ARGV[2] then return end\n"


@dataclass(frozen=True)
class Repair:
    """A file of a student. ``kind``: the broken promise, "" for a right one. ``story``: a part of the fault's name."""

    file: str
    what: str
    kind: str = ""
    story: str = ""
    edits: tuple[tuple[str, str], ...] = ()
    base: Path = SOLVED

    def __repr__(self) -> str:
        return f"{self.file[:-3]} {self.what}"

    def write(self, folder: Path) -> Path:
        """Write the file into a folder; returns its path."""
        text = (self.base / self.file).read_text()
        for old, new in self.edits:
            assert old in text, f"{self}: {old!r} is not in {self.base / self.file}"
            text = text.replace(old, new)
        path = folder / self.file
        path.write_text(text)
        return path


def shipped(file: str, kind: str, story: str) -> Repair:
    return Repair(file, "as it is shipped", kind, story, base=BROKEN)


POP_RECOVERY = '    while store.lmove("leased", "queue", "RIGHT", "LEFT") is not None:\n        pass\n'
TWO_STEPS = '    while (job := store.rpop("leased")) is not None:\n        store.lpush("queue", job)\n'
IN_PYTHON = (
    (FENCED, ""),
    ("    store.eval(SETTLE", '    if store.hget("fences", job) == str(fence):\n        store.eval(SETTLE'),
)
CLAIM_FIRST = (
    '    job = "job_" + key\n    if store.hsetnx("keys", key, job):\n'
    '        store.hset("orders", job, order)\n        store.rpush("queue", job)\n    return job\n'
)
PUSH_TWICE = (
    '    job = "job_" + key\n    store.hset("orders", job, order)\n    store.rpush("queue", job)\n    return job\n'
)
LOOK_FIRST = (
    '    job = store.hget("keys", key)\n    if job is None:\n        job = f"job_{store.incr(\'ids\')}"\n'
    '        store.hset("orders", job, order)\n        store.rpush("queue", job)\n'
    '        store.hset("keys", key, job)\n    return job\n'
)
ENQUEUED = "    return store.eval(ENQUEUE, 0, key, order)\n"
BOUNDED = "    return store.eval(ENQUEUE, 0, job) == 1\n"
LOOK_THEN_PUSH = (
    '    if store.llen("queue") >= 3:\n        return False\n    store.rpush("queue", job)\n    return True\n'
)
AFTER_FAILURE = (
    (COUNTED + '        store.rpush("dead", job)\n        store.lrem("leased", 1, job)\n        return\n', ""),
    (
        '        store.lmove("leased", "queue", "RIGHT", "LEFT")  # try it again\n',
        '        if store.hincrby("attempts", job, 1) >= 3:\n            store.rpush("dead", job)\n'
        '            store.lrem("leased", 1, job)\n        else:\n'
        '            store.lmove("leased", "queue", "RIGHT", "LEFT")\n',
    ),
)
IN_MEMORY = (
    (COUNTED, "    tries[job] = tries.get(job, 0) + 1\n    if tries[job] > 3:\n"),
    ("def submit(", "tries = {}\n\n\ndef submit("),
)
DEAD_LATER = (
    (
        '        store.rpush("dead", job)\n        store.lrem("leased", 1, job)\n',
        '        store.lrem("leased", 1, job)\n        store.rpush("dead", job)\n',
    ),
)

WRONG = [
    shipped("1_pop.py", "lost", "a worker is killed"),
    Repair("1_pop.py", "no recovery", "left behind", "a worker is killed", ((POP_RECOVERY, ""),)),
    Repair("1_pop.py", "never removed", "repeated without a fault", "no fault", ((STORED + LREM, STORED),)),
    Repair("1_pop.py", "recovery in two steps", "lost", "the one after it", ((POP_RECOVERY, TWO_STEPS),)),
    shipped("2_acknowledge.py", "lost", "a worker is killed"),
    Repair(
        "2_acknowledge.py",
        "acknowledges before the result",
        "lost",
        "a worker is killed",
        ((STORED, ""), ("  # acknowledge: the result is stored\n", "\n" + STORED)),
    ),
    Repair(
        "2_acknowledge.py", "never acknowledges", "repeated without a fault", "no fault", ((LREM[:-1], "    pass"),)
    ),
    Repair("2_acknowledge.py", "recovery taken out", "left behind", "a worker is killed", ((POP_RECOVERY, ""),)),
    shipped("3_fence.py", "result changed", "stopped"),
    Repair("3_fence.py", "looks at the fence in Python", "result changed", "stopped", IN_PYTHON),
    Repair(
        "3_fence.py",
        "compares a text with a number",
        "repeated without a fault",
        "no fault",
        (("~= ARGV[2]", "~= tonumber(ARGV[2])"),),
    ),
    Repair(
        "3_fence.py",
        "keeps the lease",
        "repeated without a fault",
        "no fault",
        (("redis.call('ZREM', 'leases', ARGV[1])\n", ""),),
    ),
    Repair(
        "3_fence.py",
        "guards the result, not the lease",
        "lost",
        "a second one dies",
        ((FENCED, ""), ("redis.call('HSET', 'results'", FENCED + "redis.call('HSET', 'results'")),
    ),
    shipped("4_idempotent.py", "enqueued twice", "does not arrive"),
    Repair("4_idempotent.py", "looks, then writes", "enqueued twice", "does not arrive", ((ENQUEUED, LOOK_FIRST),)),
    Repair("4_idempotent.py", "marks the key, then pushes", "lost", "does not arrive", ((ENQUEUED, CLAIM_FIRST),)),
    Repair(
        "4_idempotent.py",
        "pushes the same id again",
        "repeated without a fault",
        "does not arrive",
        ((ENQUEUED, PUSH_TWICE),),
    ),
    Repair(
        "4_idempotent.py",
        "uses the order as the key",
        "orders merged",
        "no fault",
        (("0, key, order)", "0, order, order)"),),
    ),
    shipped("5_bound.py", "too late", "no fault"),
    Repair("5_bound.py", "looks, then pushes", "too late", "last place", ((BOUNDED, LOOK_THEN_PUSH),)),
    Repair("5_bound.py", "one place too few", "refused with room", "no fault", ((">= 3", ">= 2"),)),
    Repair(
        "5_bound.py",
        "returns nothing",
        "forbidden",
        "no fault",
        (("    return store.eval(ENQUEUE, 0, job) == 1", "    store.eval(ENQUEUE, 0, job)"),),
    ),
    Repair(
        "5_bound.py",
        "drops the oldest",
        "lost",
        "no fault",
        ((BOUNDED, '    store.rpush("queue", job)\n    store.ltrim("queue", -3, -1)\n    return True\n'),),
    ),
    shipped("6_budget.py", "started too often", "always fails"),
    Repair("6_budget.py", "counts after a failure", "started too often", "kills", AFTER_FAILURE),
    Repair("6_budget.py", "counts in memory", "started too often", "kills", IN_MEMORY),
    Repair("6_budget.py", "gives up at once", "given up too early", "fails once", (("> 3:", "> 1:"),)),
    Repair("6_budget.py", "takes off the list first", "lost", "killed", DEAD_LATER),
]

RIGHT = [
    *(Repair(path.name, "as we solve it") for path in sorted(SOLVED.glob("*.py"))),
    Repair(
        "1_pop.py",
        "in one script",
        edits=(
            (
                STORED + LREM,
                "    store.eval(\"redis.call('HSET', 'results', ARGV[1], ARGV[2]) "
                "redis.call('LREM', 'leased', 1, ARGV[1])\", 0, job, result)\n",
            ),
        ),
    ),
    Repair("3_fence.py", "write once", edits=((FENCED, ""), ("'HSET', 'results'", "'HSETNX', 'results'"))),
    Repair(
        "6_budget.py",
        "waits before a retry",
        edits=(
            ("        store.lmove(", "        sleep(60)\n        store.lmove("),
            ("def submit(", "from time import sleep\n\n\ndef submit("),
        ),
    ),
]
