"""How the checks of deploy/ tell what they find: one line a group, and each fault below it once."""

from contextlib import contextmanager

faults = []


@contextmanager
def group(name):
    before = len(faults)
    yield
    new = list(dict.fromkeys(faults[before:]))
    print(f"{'FAULT' if new else 'ok   '} {name}", flush=True)
    for fault in new:
        print(f"        {fault}")


def check(condition, message):
    if not condition:
        faults.append(message)
