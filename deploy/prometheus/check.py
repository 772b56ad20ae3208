#!/usr/bin/env python3
"""Whether rules, their tests and the dashboard fit docs/METRICS.md and docs/OPERATIONS.md.

Every expression names only metrics, labels and label values that METRICS.md documents (or a record of the rules); every
alert says how bad it is, what happened and where to read on, its heading exists, and it is tested; the dashboard has ids of
its own, no link to the outside and no data source but its variable. Standard library only, so the rules are read line by
line: one key a line, expressions plain, quoted or folded (`>-`).
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METRICS = ROOT / "docs/METRICS.md"
OPERATIONS = ROOT / "docs/OPERATIONS.md"
RULES = ROOT / "deploy/prometheus/starlift-rules.yaml"
TESTS = ROOT / "deploy/prometheus/starlift-rules.test.yaml"
DASHBOARD = ROOT / "deploy/grafana/starlift.json"

# Labels that a target gets where it is scraped, and those of PromQL's own series.
TARGET_LABELS = {"namespace", "job", "instance", "pod", "alertstate", "alertname"}
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
WORDS |= {"inf", "nan", "start", "end", "atan2"}
CLAUSE = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"


def documented():
    """Sample name -> label -> its values (empty: any)."""
    samples = {}
    for line in METRICS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 4 or not re.fullmatch(r"`starlift_\w+`", cells[0]):
            continue
        name, kind, labels = cells[0].strip("`"), cells[1], cells[3]
        known = {}
        for label in re.finditer(r"`(\w+)`: ((?:`[^`]+`(?:, )?)*)", labels):
            known[label[1]] = set(re.findall(r"`([^`]+)`", label[2])) if label[1] != "le" else set()
        bare = {label: values for label, values in known.items() if label != "le"}
        if kind == "histogram":
            samples |= {f"{name}_bucket": known, f"{name}_sum": bare, f"{name}_count": bare}
        else:
            samples[name] = bare
    return samples


def rules():
    """The rules as dictionaries of their scalar keys, nested ones included."""
    found, folded, indent = [], None, 0
    for line in RULES.read_text().splitlines():
        depth = len(line) - len(line.lstrip())
        if folded and (depth > indent or not line.strip()):
            found[-1][folded] += " " + line.strip()
            continue
        folded = None
        key = re.match(r"\s*(?:- )?(\w+): *(.*)$", line)
        if not key or line.lstrip().startswith("#"):
            continue
        if key[1] in ("record", "alert"):
            found.append({})
        if not found:
            continue
        if key[1] == "labels":
            found[-1] |= dict(re.findall(r"(\w+): (\w+)", key[2]))
        elif key[2] == ">-":
            folded, indent, found[-1][key[1]] = key[1], depth, ""
        else:
            found[-1][key[1]] = key[2].strip("'")
    return found


def faults_of(expression, samples):
    """What is wrong with the names in a PromQL expression."""
    text = re.sub(r"\$\w+|\$\{\w+\}", "0", re.sub(r"\[[^\]]*\]", "", expression))
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", text):
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            values = samples.get(name, {}).get(label)
            if values is None and label not in TARGET_LABELS and name in samples:
                yield f"{name} has no label {label}"
            for one in value.split("|") if "~" in operator else [value]:
                if values and one not in values:
                    yield f'{name} is never {label}="{one}"'
    text = re.sub(r"\{[^}]*\}", "", text)
    text = re.sub(r'"[^"]*"', "", re.sub(CLAUSE, "", text))
    for name in re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:]*\s*\()", text):
        if name.lower() not in WORDS and name not in samples:
            yield f"no document names {name}"


def expressions_of(panel):
    for target in panel.get("targets", []):
        yield target["expr"]
    for inner in panel.get("panels", []):
        yield from expressions_of(inner)


def check_rules(samples):
    anchors = {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-")
               for head in re.findall(r"^#+ (.*)$", OPERATIONS.read_text(), re.M)}
    tests, count = TESTS.read_text(), 0
    found = rules()
    for rule in found:
        if "record" in rule:
            # Only what the expression keeps is a label of the record.
            kept = re.search(r"by \(([^)]*)\)", rule["expr"])[1].replace(" ", "").split(",")
            source = re.search(r"starlift_\w+", rule["expr"])[0]
            labels = samples.get(source, {})
            samples[rule["record"]] = {label: labels[label] for label in kept if label in labels}
    for rule in found:
        name = rule.get("alert") or rule["record"]
        count += 1
        yield from (f"{name}: {fault}" for fault in faults_of(rule["expr"], samples))
        if "record" in rule:
            continue
        for key in ("severity", "summary", "description", "runbook_url"):
            if not rule.get(key):
                yield f"{name}: has no {key}"
        if rule.get("severity") not in ("critical", "warning", "info"):
            yield f"{name}: severity {rule.get('severity')} is none of critical, warning, info"
        if rule.get("runbook_url") != f"docs/OPERATIONS.md#{name.lower()}" or name.lower() not in anchors:
            yield f"{name}: docs/OPERATIONS.md has no heading of that name, or runbook_url is not it"
        if f'alertname="{name}"' not in tests:
            yield f"{name}: no test expects it"
    if count < 10:
        yield f"only {count} rules could be read"


def check_dashboard(samples):
    text = DASHBOARD.read_text()
    board = json.loads(text)
    panels = [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]
    ids = [panel["id"] for panel in panels]
    if len(set(ids)) != len(ids):
        yield "dashboard: two panels have one id"
    if re.search(r"https?://", text):
        yield "dashboard: links to the outside"
    if set(re.findall(r'"uid": "(\$[^"]*)"', text)) != {"${datasource}"}:
        yield "dashboard: a panel has a data source of its own"
    count = 0
    for panel in board["panels"]:
        for expression in expressions_of(panel):
            count += 1
            yield from (f"dashboard, {panel['title']}: {fault}" for fault in faults_of(expression, samples))
    for variable in board["templating"]["list"]:
        asked = re.match(r"label_values\((\w+),", str(variable.get("definition", "")))
        if asked and asked[1] not in samples:
            yield f"dashboard, variable {variable['name']}: no document names {asked[1]}"
    if count < 10:
        yield f"dashboard: only {count} expressions could be read"


def check_itself(samples):
    """A check that finds nothing has to be able to find something."""
    for wrong in ("rate(starlift_worker_rows[5m])", 'starlift_coordinator_tasks{state="LOST"}',
                  'starlift_worker_slots{state="A"} > on (job) starlift_worker_slots', "up == 0"):
        if not list(faults_of(wrong, samples)):
            yield f"this check does not notice {wrong}"
    right = "sum by (class) (rate(starlift_coordinator_attempts_failed_total[5m])) / on () group_left () 1e3 > bool 0.5"
    yield from (f"this check: {fault}" for fault in faults_of(right, samples))


def main():
    samples = documented()
    count = len(samples)
    faults = ["docs/METRICS.md: no table could be read"] if count < 30 else []
    faults += [*check_itself(samples), *check_rules(samples), *check_dashboard(samples)]
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"rules and dashboard name only what is documented ({count} samples)")


if __name__ == "__main__":
    main()
