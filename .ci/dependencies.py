#!/usr/bin/env python3
"""Prints the crates that are linked into the program for one target, with their licences and the texts of those."""
import collections
import json
import pathlib
import subprocess
import sys


def cargo(*words):
    return subprocess.run(["cargo", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    target = sys.argv[1]
    edges = ["--target", target, "--edges", "normal,no-proc-macro"]
    tree = cargo("tree", "--locked", *edges, "--prefix", "none", "--no-dedupe", "--format", "{p}")
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = [package for package in metadata["packages"] if (package["name"], "v" + package["version"]) in linked]
    packages = sorted((p for p in packages if p["source"]), key=lambda p: (p["name"], p["version"]))
    if len(packages) < 20 or not all(package["license"] for package in packages):
        sys.exit("dependencies.py: a crate without a licence, or no crates")
    print("The watchdog program contains Rust's standard library (MIT OR Apache-2.0; in the musl build also musl, MIT)")
    print(f"and these {len(packages)} crates. The texts of their licences follow, each once.\n")
    texts = collections.defaultdict(list)
    for package in packages:
        name = f"{package['name']} {package['version']}"
        print(f"{name:<34} {package['license']:<46} {package['repository'] or ''}".rstrip())
        folder = pathlib.Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE")):
                texts[file.read_text(errors="replace").strip()].append(f"{name} ({file.name})")
    for text, names in texts.items():
        print(f"\n{'=' * 100}\n{chr(10).join(names)}\n{'-' * 100}\n{text}")


main()
