#!/usr/bin/env python3
"""Checks that the manifests in kubernetes/ fit each other, which their schemas do not say.

    kubernetes_files.py            checks them
    kubernetes_files.py node.toml  prints the configuration that they give the nodes
"""

import pathlib
import sys
import tomllib

import yaml

FOLDER = pathlib.Path(__file__).parent.parent / "kubernetes"

wrong = []


def expect(holds, what):
    """Records what does not hold."""
    if not holds:
        wrong.append(what)


def documents():
    """Returns all objects by kind and name. kustomization.yaml must name every file."""
    named = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])
    there = {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    expect(named == there, f"kustomization.yaml names {sorted(named)}, and there are {sorted(there)}")
    found = {}
    for name in sorted(there):
        for document in yaml.safe_load_all((FOLDER / name).read_text()):
            found[document["kind"], document["metadata"]["name"]] = document
    return found


def fits(selector, labels):
    """True if an object with these labels is selected."""
    return selector.items() <= labels.items() and bool(selector)


def check_references(found, pods, container):
    """Names of other objects, of their ports and of their labels."""
    labels = pods["metadata"]["labels"]
    ports = {port["name"] for port in container["ports"]}
    for (kind, name), document in found.items():
        spec = document.get("spec", {})
        if kind == "Service":
            expect(fits(spec["selector"], labels), f"{name} selects no pod")
            expect({port["targetPort"] for port in spec["ports"]} <= ports, f"{name} has a port that no pod has")
        if kind == "PodDisruptionBudget":
            expect(fits(spec["selector"]["matchLabels"], labels), f"{kind} selects no pod")
        if kind == "NetworkPolicy":
            expect(fits(spec["podSelector"]["matchLabels"], labels), f"{kind} selects no pod")
            used = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            expect(used == ports, f"{kind} lets in {used}, and pods have {ports}")
        if kind == "ServiceMonitor":
            services = [
                service
                for (other, _), service in found.items()
                if other == "Service" and fits(spec["selector"]["matchLabels"], service["metadata"]["labels"])
            ]
            offered = {port["name"] for service in services for port in service["spec"]["ports"]}
            expect({point["port"] for point in spec["endpoints"]} <= offered, f"{kind} names a port of no service")


def check_node(found, nodes, container, config):
    """What the pods and their configuration say of each other."""
    spec = nodes["spec"]
    expect(("Service", spec["serviceName"]) in found, f"there is no service {spec['serviceName']}")
    pod = spec["template"]["spec"]
    delay, limit = (int(config["shutdown"][key].removesuffix("s")) for key in ("delay", "limit"))
    expect(pod["terminationGracePeriodSeconds"] > delay + limit, "a pod is killed before shutdown.limit")
    sources = {volume["name"] for volume in pod["volumes"]}
    sources |= {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    expect(set(mounts.values()) == sources, f"{set(mounts.values())} are mounted, and there are {sources}")
    expect(config["data_dir"] in mounts, "data_dir is no volume")
    files = config["store"]["url_file"], config["cluster"]["cookie_file"], config["auth"]["admin_token_file"]
    for file in files:
        expect(str(pathlib.Path(file).parent) in mounts, f"{file} is not mounted")
        expect(
            f"--from-literal={pathlib.Path(file).name}=" in (FOLDER / "README.md").read_text(),
            f"README.md makes no secret {pathlib.Path(file).name}",
        )
    listening = {int(config[part]["listen"].rpartition(":")[2]) for part in ("http", "cluster")}
    expect(listening == {port["containerPort"] for port in container["ports"]}, f"nodes listen at {listening}")


def main():
    found = documents()
    text = found["ConfigMap", "firstcome"]["data"]["node.toml"]
    if sys.argv[1:] == ["node.toml"]:
        print(text)
        return
    nodes = found["StatefulSet", "firstcome"]
    pods = nodes["spec"]["template"]
    container = pods["spec"]["containers"][0]
    check_references(found, pods, container)
    check_node(found, nodes, container, tomllib.loads(text))
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(found)} objects of Kubernetes fit each other")


if __name__ == "__main__":
    main()
