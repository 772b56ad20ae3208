"""Reads Dockerfile and compose files as far as that goes without a container engine: `make deploy-check`.

What they name must be there: stages, sources, services, volumes, hosts, certificates, and every flag of every command. One
line a group; everything is checked before it fails.
"""

import fnmatch
import json
import re
import sys
import tomllib
from pathlib import Path

import yaml

import flags
from faults import check, faults, group

DEPLOY = Path(__file__).parent
ROOT = DEPLOY.parent
BINARIES = {
    "starlift": flags.commands(*sorted((ROOT / "cli" / "src").rglob("*.rs"))),
    "starrocks-standin": flags.commands(*(ROOT / "tests/standin/src" / name for name in ("main.rs", "config.rs"))),
}
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
# What `starlift tls init DIR` writes.
TLS_FILES = {"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key", "tokens", "worker.tokens", "user.token"}



def check_image(image, where):
    # Distroless has no versioned tags.
    pinned = re.search(r":v?\d+\.\d+[-.\w]*(@sha256:[0-9a-f]{64})?$", image) or image.startswith("gcr.io/distroless/")
    check(pinned, f"{where}: {image} is not pinned")


# Dockerfile


def instructions(text):
    """(keyword, rest) of each instruction; lines that go on are joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, rest = line.strip().partition(" ")
        yield keyword.upper(), rest.strip()


def stages_of(text):
    """{stage: [(keyword, rest)]} in order; the first entry of each is its FROM."""
    stages = {}
    for keyword, rest in instructions(text):
        if keyword == "FROM":
            image, _, name = rest.partition(" AS ")
            stages[name] = []
            rest = image
        stages[name].append((keyword, rest))
    return stages


def is_ignored(path):
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    return any(fnmatch.fnmatch(path.split("/")[0], pattern) for pattern in patterns)


def label_of(stage, name):
    for keyword, rest in stage:
        if keyword == "LABEL" and (found := re.search(rf'{re.escape(name)}="([^"]*)"', rest)):
            return found[1]
    return ""


def check_dockerfile(stages):
    known = set()
    for name, stage in stages.items():
        image = stage[0][1]
        if image not in known:
            check_image(image, f"stage {name}")
        if image.startswith("rust:"):
            check(image.startswith(f"rust:{CARGO['package']['rust-version']}-"), f"{image} is not Cargo.toml's rust-version")
        for keyword, rest in stage:
            options = dict(re.findall(r"--(\w+)=(\S+)", rest))
            words = re.sub(r"--\w+=\S+\s*", "", rest).split()
            if keyword in ("COPY", "ADD") and "from" not in options:
                for source in words[:-1]:
                    check((ROOT / source).exists() and not is_ignored(source), f"{keyword} {source}: not in the context")
            elif keyword in ("COPY", "ADD"):
                check(options["from"] in known, f"COPY --from={options['from']}: no such stage before {name}")
                for source in words[:-1]:
                    made = " ".join(line for _, line in stages.get(options["from"], []))
                    there = source.rstrip("/") in made or (ROOT / source.removeprefix("/src/")).exists()
                    check(there, f"COPY --from={options['from']} {source}: nothing makes it")
            elif keyword == "RUN":
                for target in re.findall(r"\bmake ([.\w/-]+)", rest):
                    rule = target if target != ".tools/bin/protox" else "$(PROTOX)"
                    makefile = (ROOT / "Makefile").read_text()
                    check(f"\n{rule}:" in makefile, f"make {target}: no such target")
        known.add(name)
    for member in CARGO["members"]:
        check(not is_ignored(member), f".dockerignore hides {member}, which the workspace names")
    # The coordinator has its files in its binary.
    check(not is_ignored("console"), ".dockerignore hides console")
    for name in BINARIES:
        stage = stages.get("standin" if name == "starrocks-standin" else name, [("FROM", "")])
        last = dict(stage)
        user = last.get("USER", "root").split(":")[0]
        check(user.isdigit() and user != "0", f"stage of {name}: USER {user} is not a number other than 0")
        check(last.get("ENTRYPOINT") == f'["/usr/local/bin/{name}"]', f"stage of {name}: {last.get('ENTRYPOINT')}")
        copied = any(rest.endswith(f" /usr/local/bin/{name}") for keyword, rest in stage if keyword == "COPY")
        check(copied, f"stage of {name}: the binary is not copied")
        for label in ("title", "description", "licenses"):
            check(label_of(stage, f"org.opencontainers.image.{label}"), f"stage of {name}: no label {label}")
    check(list(stages)[-1] == "starlift", "the last stage is not starlift, which a build without --target makes")
    final = stages["starlift"]
    for label in ("version", "revision"):
        check(label_of(final, f"org.opencontainers.image.{label}"), f"final stage: no label {label}")
    check(label_of(final, "org.opencontainers.image.base.name") == final[0][1], "label base.name is not the base")
    version = CARGO["package"]["version"]
    check(("ARG", f"VERSION={version}") in final, f"ARG VERSION is not Cargo.toml's {version}")
    chart = yaml.safe_load((DEPLOY / "helm/starlift/Chart.yaml").read_text())
    check(chart["appVersion"] == version, f"the chart's appVersion is not Cargo.toml's {version}")


# Compose


def composed(name):
    """The file with what it includes."""
    whole = yaml.safe_load((DEPLOY / name).read_text())
    for included in whole.pop("include", []):
        for key, value in composed(included).items():
            if isinstance(value, dict):
                check(not value.keys() & whole.get(key, {}).keys(), f"{name}: {included} has the same {key}")
                whole[key] = value | whole.get(key, {})
    return whole


def invocations(service):
    """Every command line of our own binaries: (binary, words)."""
    entry = {"starlift": "starlift", "starrocks-standin": "starrocks-standin"}.get(service["image"].split(":")[0])
    if entry and "command" in service:
        yield entry, service["command"]
    test = service.get("healthcheck", {}).get("test", [])
    if len(test) > 1 and test[1].startswith("/usr/local/bin/"):
        yield test[1].removeprefix("/usr/local/bin/"), test[2:]


def check_invocation(where, binary, words):
    commands = BINARIES[binary]
    plain = [word for word in words if not word.startswith("-")]
    command = next((name for name in (" ".join(plain[:2]), plain[0]) if name in commands), None)
    check(command, f"{where}: {binary} knows no command {' '.join(plain[:2])}")
    known = commands[command][0] if command else set()
    for word in words:
        flag = word.partition("=")[0]
        if word.startswith("-") and command:
            check(flag in known, f"{binary} {command} knows no {flag}")


def strings_of(node):
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return [text for item in node for text in strings_of(item)]
    return [str(node)]


def check_compose(name, stages):
    whole = composed(name)
    services, volumes = whole["services"], whole.get("volumes", {})
    used = set()
    for service_name, service in services.items():
        where = f"{name}: {service_name}"
        check_image(service["image"], where)
        if build := service.get("build"):
            check(build["target"] in stages, f"{where}: no stage {build['target']}")
            context = (DEPLOY / build["context"]).resolve()
            check(context == ROOT.resolve() and (context / build["dockerfile"]).exists(), f"{where}: wrong build")
            check(service.get("read_only") and service.get("cap_drop") == ["ALL"], f"{where}: may write or keeps capabilities")
        for other, how in service.get("depends_on", {}).items():
            check(other in services, f"{where}: depends on {other}, which is not there")
            healthy = how["condition"] != "service_healthy" or "healthcheck" in services.get(other, {})
            check(healthy, f"{where}: waits for the health of {other}, which has no check")
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                check((DEPLOY / source).exists(), f"{where}: {source} is not there")
            else:
                check(source in volumes, f"{where}: no volume {source}")
                used.add(source)
        for kind in ("secrets", "configs", "networks"):
            for entry in service.get(kind, []):
                check(entry in whole.get(kind, {}), f"{where}: no {kind} {entry}")
        for port in service.get("ports", []):
            check(port.startswith("127.0.0.1:"), f"{where}: port {port} is open to everyone")
        for variable in service.get("environment", {}):
            known = any(variable in variables for _, variables in BINARIES["starlift"].values())
            check(not variable.startswith("STARLIFT_") or known, f"{where}: no variable {variable}")
        for binary, words in invocations(service):
            check_invocation(where, binary, words)
        for text in strings_of([service.get(key) for key in ("command", "environment", "healthcheck")]):
            for variable in re.findall(r"(?<!\$)\$\{?(\w+)[^:\w]", text):
                check(False, f"{where}: ${variable} has neither a default nor a message")
            for host in re.findall(r"(?:https?|etcd)://([-\w.]+)", text):
                check(host in services or host in ("localhost", "0.0.0.0"), f"{where}: no host {host}")
            for file in re.findall(r"/etc/starlift/tls/([-\w.]+)", text):
                check(file in TLS_FILES, f"{where}: starlift tls init writes no {file}")
            for file in re.findall(r"/etc/starlift/compose/([-\w.]+)", text):
                check((DEPLOY / "compose" / file).exists(), f"{where}: no file compose/{file}")
    check(used == volumes.keys(), f"{name}: volumes {volumes.keys() ^ used} are not used")

    certified = {"localhost"} | {word.partition("=")[2] for word in services["tls"]["command"] if word.startswith("--name=")}
    for host in set(re.findall(r"https://([-\w.]+)", " ".join(strings_of(services)))):
        check(host in certified, f"{name}: the certificate has no name {host}")
    return whole


def check_job(services):
    """The job's data sources, their hosts and passwords, and its tables."""
    job = json.loads((DEPLOY / "compose/orders.json").read_text())
    sources = tomllib.loads((DEPLOY / "compose/datasources.toml").read_text())
    sql = {"shop": "mysql.sql", "warehouse": "starrocks.sql"}
    for step in job["steps"]:
        parameter = step["parameter"]
        source = sources[parameter["datasource"]]
        check(source["type"] == step["stepType"], f"{parameter['datasource']} is of another type than the step")
        table = f"CREATE TABLE (?:IF NOT EXISTS )?{source['database']}\\.{parameter['table']} \\(\n(.*?)\n\\)"
        made = re.search(table, (DEPLOY / "compose" / sql[parameter["datasource"]]).read_text(), re.DOTALL)
        columns = re.findall(r"^\s+(\w+) ", made[1], re.MULTILINE) if made else []
        check(columns == parameter["column"], f"compose/orders.json: {columns} in SQL, {parameter['column']} in the job")
    text = (DEPLOY / "compose/datasources.toml").read_text()
    for source in sources.values():
        check(source["host"] in services, f"compose/datasources.toml: no service {source['host']}")
    for variable in re.findall(r"\$\{(\w+)\}", text):
        for name in ("coordinator-1", "coordinator-2", "worker", "starlift"):
            check(variable in services[name]["environment"], f"compose: {name} has no {variable}")


def main():
    stages = stages_of((DEPLOY / "Dockerfile").read_text())
    with group(f"Dockerfile: {len(stages)} stages, sources, pinned bases, non-root, labels, versions"):
        check_dockerfile(stages)
    for name in ("compose.yaml", "compose.standin.yaml"):
        with group(f"{name}: services, volumes, hosts, certificates, flags"):
            whole = check_compose(name, stages)
        with group(f"{name}: job, data sources and tables belong together"):
            check_job(whole["services"])
    if faults:
        sys.exit(f"deploy-check: {len(set(faults))} faults")
    print("deploy-check: all is well; no image was built and no container started")


main()
