"""The chart's tests, run by helm-test.sh: every values file and combination is linted, rendered and looked at; wrong values
are refused by name. Everything is checked before it fails, one line a group.

    helm_test.py HELM
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

import flags
from faults import check, faults, group

HELM = sys.argv[1]
DEPLOY = Path(__file__).parent
CHART = DEPLOY / "helm" / "starlift"
TESTS = DEPLOY / "helm" / "tests"
# The oldest version that Chart.yaml accepts, and the newest that there are schemas for.
VERSIONS = ["1.27", kubernetes_validate.latest_version()]
OWN_SCHEMAS = {
    kind: json.loads((TESTS / f"{kind.lower()}.schema.json").read_text())
    for kind in ("ScaledObject", "ServiceMonitor", "PodMonitor")
}
COMMANDS = flags.commands(*sorted((DEPLOY.parent / "cli" / "src").rglob("*.rs")))

scratch = tempfile.TemporaryDirectory(prefix="helm-test-")
work = Path(scratch.name)


def helm(*arguments):
    # No cluster is asked for anything.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(work), "KUBECONFIG": "/dev/null"}
    return subprocess.run([HELM, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False)


def laid_over(base, values):
    """A nested mapping laid over another, as helm does it: None stays, and takes the default away."""
    if not isinstance(base, dict) or not isinstance(values, dict):
        return values
    return base | {key: laid_over(base.get(key), value) for key, value in values.items()}


def values_file(case, number):
    base = yaml.safe_load((CHART / "ci" / f"{case['base']}-values.yaml").read_text())
    file = work / f"values-{number}.yaml"
    file.write_text(yaml.safe_dump(laid_over(base, case["values"])))
    return file


def render(file, *more):
    return helm("template", "starlift", CHART, "--namespace", "data", "--values", file, *more)


class Rendered:
    """The objects of one set of values, and the values with the chart's defaults."""

    def __init__(self, name, file):
        self.name = name
        answer = render(file)
        check(answer.returncode == 0, f"{name}: {answer.stderr.strip()}")
        self.objects = [item for item in yaml.safe_load_all(answer.stdout) if item]
        defaults = yaml.safe_load((CHART / "values.yaml").read_text())
        self.values = laid_over(defaults, yaml.safe_load(file.read_text()))

    def kind(self, kind):
        return [item for item in self.objects if item["kind"] == kind]

    def named(self, kind, end):
        return next(item for item in self.kind(kind) if item["metadata"]["name"].endswith(end))

    def pods(self):
        """(name, labels, spec) of everything that runs."""
        for item in self.kind("Deployment"):
            template = item["spec"]["template"]
            yield item["metadata"]["name"], template["metadata"]["labels"], template["spec"]
        for item in self.kind("Pod"):
            yield item["metadata"]["name"], item["metadata"]["labels"], item["spec"]

    def environment(self, container):
        """Variables of the chart's own: its ConfigMap's and the container's."""
        found = {entry["name"]: entry.get("value", "") for entry in container["env"]} if "env" in container else {}
        for source in container.get("envFrom", []):
            for item in self.kind("ConfigMap"):
                if item["metadata"]["name"] == source.get("configMapRef", {}).get("name"):
                    found |= item["data"]
        return found


def labels_match(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def check_schema(rendered):
    for item in rendered.objects:
        name = f"{rendered.name}: {item['kind']} {item['metadata']['name']}"
        try:
            if item["kind"] in OWN_SCHEMAS:
                jsonschema.validate(item["spec"], OWN_SCHEMAS[item["kind"]])
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(item, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            place = "/".join(map(str, getattr(error, "absolute_path", [])))
            faults.append(f"{name} {place}: {error.message}")


def check_restricted(rendered):
    """The restricted profile of the pod security standards, and more."""
    check(not rendered.kind("Secret"), f"{rendered.name}: the chart holds a Secret")
    for account in rendered.kind("ServiceAccount"):
        check(account["automountServiceAccountToken"] is False, f"{rendered.name}: an account mounts its token")
    for pod, _, spec in rendered.pods():
        name = f"{rendered.name}: {pod}"
        context = spec["securityContext"]
        check(context["runAsNonRoot"] is True and context.get("runAsUser", 1) != 0, f"{name} may run as root")
        if rendered.values["runAsUser"] is not None:
            check(context["runAsUser"] == context["fsGroup"] == 65532, f"{name} runs as another user")
        check(context["seccompProfile"] == {"type": "RuntimeDefault"}, f"{name} has no seccomp profile")
        check(spec["automountServiceAccountToken"] is False, f"{name} mounts a token")
        check(spec["enableServiceLinks"] is False, f"{name} gets service variables")
        check(not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), f"{name} shares the host's namespaces")
        for volume in spec["volumes"]:
            check("hostPath" not in volume, f"{name} mounts the host")
            mode = volume.get("secret", {}).get("defaultMode", 0o440)
            check(mode == 0o440, f"{name}: {volume['name']} has mode {mode:o}")
        for container in spec["containers"]:
            own = container["securityContext"]
            check(own["allowPrivilegeEscalation"] is False, f"{name} may gain privileges")
            check(own["readOnlyRootFilesystem"] is True, f"{name} writes to its root")
            check(own["capabilities"] == {"drop": ["ALL"]}, f"{name} keeps capabilities")
            check({"requests", "limits"} == container["resources"].keys(), f"{name} has no resources")


def check_wiring(rendered):
    """What one object says of another is true."""
    name = rendered.name
    claims = {item["metadata"]["name"] for item in rendered.kind("PersistentVolumeClaim")}
    accounts = {item["metadata"]["name"] for item in rendered.kind("ServiceAccount")}
    maps = {item["metadata"]["name"] for item in rendered.kind("ConfigMap")}
    state = rendered.values["coordinator"]["state"]
    foreign = {rendered.values["worker"]["dirtyRows"]["existingClaim"], state["file"]["existingClaim"]}
    for item in rendered.objects:
        check(len(item["metadata"]["name"]) <= 63, f"{name}: {item['metadata']['name']} is too long")
    for pod, labels, spec in rendered.pods():
        mounts = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        check(mounts == {volume["name"] for volume in spec["volumes"]}, f"{name}: {pod} mounts {mounts}")
        check(spec.get("serviceAccountName", "default") in accounts | {"default"}, f"{name}: {pod} has no account")
        for volume in spec["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            check(claim is None or claim in claims | foreign, f"{name}: {pod} wants the claim {claim}")
            secret = volume.get("secret")
            check(secret is None or secret["secretName"], f"{name}: {pod} mounts a Secret without name")
        for source in spec["containers"][0].get("envFrom", [])[:1]:
            check(source["configMapRef"]["name"] in maps, f"{name}: {pod} has no settings")

    pods = [(labels, {port["name"]: port for port in spec["containers"][0].get("ports", [])})
            for _, labels, spec in rendered.pods()]
    for service in rendered.kind("Service"):
        chosen = [ports for labels, ports in pods if labels_match(service["spec"]["selector"], labels)]
        check(len(chosen) == 1, f"{name}: the Service chooses {len(chosen)} kinds of pods")
        for port in service["spec"]["ports"]:
            check(port["targetPort"] in chosen[0], f"{name}: the Service's {port['name']} leads nowhere")
    for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        for item in rendered.kind(kind):
            selector = item["spec"].get("selector", item["spec"].get("podSelector"))["matchLabels"]
            chosen = [ports for labels, ports in pods if labels_match(selector, labels)]
            check(len(chosen) == 1, f"{name}: {kind} {item['metadata']['name']} chooses {len(chosen)} kinds of pods")
            if kind == "NetworkPolicy":
                for rule in item["spec"]["ingress"]:
                    check(rule["from"], f"{name}: a rule of {item['metadata']['name']} lets everyone in")
                    for port in rule["ports"]:
                        check(port["port"] in chosen[0], f"{name}: policy port {port['port']} does not exist")
    for item in rendered.kind("ServiceMonitor"):
        chosen = [service for service in rendered.kind("Service")
                  if labels_match(item["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])]
        check(len(chosen) == 1 and any(port["name"] == "metrics" for port in chosen[0]["spec"]["ports"]),
              f"{name}: the ServiceMonitor finds nothing")


def check_meaning(rendered):
    """What the values promise."""
    name, values = rendered.name, rendered.values
    coordinator, worker = rendered.named("Deployment", "-coordinator"), rendered.named("Deployment", "-worker")
    is_tls = bool(values["tls"]["secretName"])
    state = values["coordinator"]["state"]["kind"]

    count, unit = int(values["worker"]["drainTimeout"][:-1]), values["worker"]["drainTimeout"][-1]
    drain = count * {"s": 1, "m": 60, "h": 3600}[unit]
    grace = worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    check(grace >= drain + 30, f"{name}: {grace} s of grace for {drain} s of draining")

    scheme = "HTTPS" if is_tls else "HTTP"
    for deployment in (coordinator, worker):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        environment = rendered.environment(container)
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            if "grpc" in container[probe]:
                check(not is_tls and probe == "readinessProbe", f"{name}: a gRPC probe of a TLS port")
                continue
            get = container[probe]["httpGet"]
            check((get["path"], get["port"], get["scheme"]) == (path, "http", scheme), f"{name}: {probe} asks {get}")
        check(("STARLIFT_INSECURE" in environment) == values["insecure"], f"{name}: insecure is not as told")
        check(("STARLIFT_TLS_CERT" in environment) == is_tls, f"{name}: TLS is not as told")
        check(("STARLIFT_TOKEN_FILE" in environment) == bool(values["tokens"]["secretName"]), f"{name}: tokens")
        urls = [environment[key] for key in environment if key in
                ("STARLIFT_ADVERTISE", "STARLIFT_ADVERTISE_HTTP", "STARLIFT_COORDINATOR")]
        check(all(url.startswith(scheme.lower() + "://") for url in urls), f"{name}: {urls} are not {scheme}")
        for variable, value in environment.items():
            if value.startswith("/etc/starlift/"):
                folder = value.rsplit("/", 1)[0]
                check(any(mount["mountPath"] == folder for mount in container["volumeMounts"]),
                      f"{name}: {variable} lies in {folder}, where nothing is mounted")

    is_one = coordinator["spec"]["replicas"] == 1
    check(state == "etcd" or is_one, f"{name}: several coordinators with a file")
    check((coordinator["spec"]["strategy"]["type"] == "Recreate") == (state == "file"), f"{name}: wrong strategy")

    scalers = rendered.kind("HorizontalPodAutoscaler") + rendered.kind("ScaledObject")
    is_scaled = values["worker"]["hpa"]["enabled"] or values["worker"]["keda"]["enabled"]
    check(len(scalers) == int(is_scaled), f"{name}: {len(scalers)} autoscalers")
    check(("replicas" in worker["spec"]) != is_scaled, f"{name}: the chart and an autoscaler both set replicas")
    for scaler in scalers:
        check(scaler["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"], f"{name}: scales something else")
    for scaler in rendered.kind("ScaledObject"):
        host, port = scaler["spec"]["triggers"][0]["metadata"]["scalerAddress"].split(":")
        service = rendered.kind("Service")[0]
        check(host == f"{service['metadata']['name']}.data.svc", f"{name}: KEDA asks {host}")
        check(int(port) in [entry["port"] for entry in service["spec"]["ports"]], f"{name}: KEDA asks port {port}")

    for rendered_kind in ("ServiceMonitor", "PodMonitor"):
        wanted = int(values["metrics"]["monitors"]["enabled"])
        check(len(rendered.kind(rendered_kind)) == wanted, f"{name}: {rendered_kind} is not as told")
    check(len(rendered.kind("NetworkPolicy")) == 2 * int(values["networkPolicy"]["enabled"]), f"{name}: policies")


def missing_variables(renders):
    """STARLIFT_* variables that the pods set and the command does not know, as flags."""
    missing = set()
    for rendered in renders:
        for _, _, spec in rendered.pods():
            for container in spec["containers"]:
                command = " ".join(container["args"])
                known = COMMANDS[command][1]
                for variable in rendered.environment(container):
                    if variable.startswith("STARLIFT_") and variable not in known:
                        missing.add(f"{command} --{variable.removeprefix('STARLIFT_').lower().replace('_', '-')}")
    return sorted(missing)


def keys_of(values, schema, path=""):
    """Values without a schema, and parts of the schema without a default."""
    properties = schema.get("properties", {})
    for key in values.keys() | properties.keys():
        where = f"{path}.{key}".lstrip(".")
        if key not in properties:
            yield f"{where} is not in values.schema.json"
        elif key not in values:
            if where != "global":
                yield f"{where} has no default in values.yaml"
        elif not properties[key].get("description"):
            yield f"{where} has no description"
        elif isinstance(values[key], dict) and "properties" in properties[key]:
            yield from keys_of(values[key], properties[key], where)


def checksum(role, file, *more):
    for item in yaml.safe_load_all(render(file, *more).stdout):
        if item and item["kind"] == "Deployment" and item["metadata"]["name"].endswith(role):
            return item["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    return None


def main():
    files = {file.name.removesuffix("-values.yaml"): file for file in sorted((CHART / "ci").glob("*-values.yaml"))}
    with group(f"lint: helm lint --strict with {len(files)} values files"):
        for name, file in files.items():
            answer = helm("lint", "--strict", CHART, "--values", file)
            check(answer.returncode == 0, f"{name}: {answer.stdout.strip()} {answer.stderr.strip()}")

    combinations = yaml.safe_load((TESTS / "combinations.yaml").read_text())
    with group(f"render: {len(files)} values files and {len(combinations)} combinations"):
        renders = [Rendered(name, file) for name, file in files.items()]
        renders += [Rendered(case["name"], values_file(case, number)) for number, case in enumerate(combinations)]
    renders = [rendered for rendered in renders if rendered.objects]

    count = sum(len(rendered.objects) for rendered in renders)
    with group(f"schemas: {count} objects, strictly, Kubernetes {' and '.join(VERSIONS)}, KEDA, Prometheus operator"):
        for rendered in renders:
            check_schema(rendered)
    with group("security: non-root, read-only, no capabilities, no token, no Secret in the chart"):
        for rendered in renders:
            check_restricted(rendered)
    with group("wiring: selectors, ports, volumes, claims, accounts"):
        for rendered in renders:
            check_wiring(rendered)
    with group("meaning: grace period, probes, TLS, state, autoscalers, monitors"):
        for rendered in renders:
            check_meaning(rendered)

    with group("rolling: pods roll with the settings and with nothing else"):
        file = files["minimal"]
        for role in ("coordinator", "worker"):
            before = checksum(role, file)
            check(before and before != checksum(role, file, "--set", "log.filter=debug"), f"{role} does not roll")
            check(before == checksum(role, file, "--set", "worker.replicas=9"), f"{role} rolls for nothing")

    with group("values: the same keys in values.yaml and values.schema.json, all described"):
        schema = json.loads((CHART / "values.schema.json").read_text())
        faults.extend(keys_of(yaml.safe_load((CHART / "values.yaml").read_text()), schema))

    refused = yaml.safe_load((TESTS / "refused.yaml").read_text())
    with group(f"refusals: {len(refused)} wrong sets of values, by name; nothing is open by default"):
        for number, case in enumerate(refused):
            answer = render(values_file(case, f"refused-{number}"))
            check(answer.returncode != 0, f"{case['values']} is accepted")
            check(re.search(case["says"], answer.stderr), f"{case['values']}: no {case['says']} in: {answer.stderr.strip()}")
        answer = helm("template", "starlift", CHART)
        for value in ("tls.secretName", "tokens.secretName", "datasources.secretName"):
            check(answer.returncode != 0 and value in answer.stderr, f"without values: does not name {value}")

    with group("notes: the next command, a warning when insecure"):
        for name, file in files.items():
            answer = helm("install", "starlift", CHART, "--namespace", "data", "--values", file, "--dry-run=client")
            notes = answer.stdout.partition("NOTES:")[2]
            check("starlift submit" in notes, f"{name}: {answer.stderr.strip() or notes}")
            check("://localhost:9471/" in notes, f"{name}: no console: {notes}")
            check(("WARNING" in notes) == (name == "minimal"), f"{name}: {notes}")

    missing = missing_variables(renders)
    with group("flags: every setting is a flag of cli/src"):
        faults.extend(f"unknown: {flag}" for flag in missing)

    if faults:
        sys.exit(f"helm-test: {len(faults)} faults")
    print("helm-test: all is well")


main()
