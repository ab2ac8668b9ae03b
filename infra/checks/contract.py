"""Holds a deployed stack against its own OpenAPI document, with requests that a generator thinks up.

    cargo local with -- python infra/checks/contract.py [--max-examples N] [--seed N]

Schemathesis takes every operation of the document (all of its phases and checks): the examples, values at and behind each
bound, random ones, and sequences that follow the document's links. A finding is a 5xx, an answer with an undocumented
status, header, type or shape, a valid request that is refused, an invalid one that is not, a missing token that is not
missed. Needs API_URL. Exits 1 if anything was found, or if an operation was left out.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

# Runs within the same process as the generator: it signs requests in, as accounts of their own.
HOOKS = pathlib.Path(__file__).with_name("contract_hooks.py")

# What a schema cannot say. Each is about one operation and one check; all else holds for it.
EXCEPTIONS = """
# A cursor is opaque: a text that fits its schema is still not one that the stack has handed out.
[[operations]]
include-operation-id = ["listJobs", "listVideos", "listVideoTasks"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 400]
"""


def document(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        return json.load(answer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-examples", type=int, default=25, help="random requests an operation (default: 25)")
    parser.add_argument("--seed", type=int, default=1, help="the same requests for the same seed (default: 1)")
    parser.add_argument("--include", help="only operations whose path matches this expression")
    arguments = parser.parse_args()
    url = os.environ["API_URL"]
    operations = sum(len(item) for item in document(url)["paths"].values())

    with tempfile.TemporaryDirectory(prefix="reelay-contract-") as folder:
        config = pathlib.Path(folder) / "schemathesis.toml"
        config.write_text(EXCEPTIONS)
        command = [
            pathlib.Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run",
            f"{url}/openapi.json", "--url", url, "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful",
            "--mode", "all", "--max-examples", str(arguments.max_examples), "--seed", str(arguments.seed),
            "--generation-deterministic", "--generation-database", "none", "--request-timeout", "20", "--workers", "2",
            "--continue-on-failure", "--no-color",
        ]
        if arguments.include:
            command += ["--include-path-regex", arguments.include]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "contract_hooks", "PYTHONPATH": str(HOOKS.parent)}
        running = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        told = []
        for line in running.stdout:
            print(line, end="", flush=True)
            told.append(line)
        status = running.wait()

    text = "".join(told)
    tested = re.search(r"Tested: (\d+)", text)
    cases = re.search(r"(\d[\d,]*) generated", text)
    print(f"contract: {operations} operations, {tested[1] if tested else 0} tested, "
          f"{cases[1] if cases else 0} requests thought up")
    if not arguments.include and (tested is None or int(tested[1]) != operations):
        print("contract: operations were left out", file=sys.stderr)
        return 1
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
