"""Checks that template and code agree about every environment variable of every function.

    env_drift.py [TEMPLATE]

A variable that the template sets must be named in the function's crate or in the shared library; a variable that a
function's crate reads must be set for it, and one that the library reads must be set for some function. Prints one line
for each difference and exits 1 if there is one.
"""

import pathlib
import re
import sys

from expand import ROOT, TEMPLATE, load

# `env.required("NAME")`, with or without a type, and the standard library's own readers.
READ = re.compile(r'(?:\.(?:required|optional|or_default)(?:::<[^()]*>)?|env::var(?:_os)?)\(\s*"([A-Z][A-Z0-9_]*)"')
# The library that starts logging has this name built in.
BUILT_IN = {"try_from_default_env": "RUST_LOG", "from_default_env": "RUST_LOG"}
# Lambda sets these itself.
GIVEN = re.compile(r"AWS_|_X_AMZN_|LAMBDA_|PATH$|TZ$|LANG$")


def sources(crate: str) -> str:
    """A crate's code without its tests and comments."""
    texts = []
    for path in sorted((ROOT / "functions" / crate / "src").rglob("*.rs")):
        if path.name == "tests.rs" or "tests" in path.parts:
            continue
        text = path.read_text(encoding="utf-8").split("#[cfg(test)]")[0]
        texts.append(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    return "\n".join(texts)


def read_by(text: str) -> set[str]:
    names = set(READ.findall(text)) | {name for call, name in BUILT_IN.items() if call in text}
    return {name for name in names if not GIVEN.match(name)}


def main() -> int:
    template = load(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else TEMPLATE)
    shared = template["Globals"]["Function"]["Environment"]["Variables"]
    core = sources("core")
    findings = []
    set_somewhere: set[str] = set()
    functions = 0
    for name, resource in template["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        functions += 1
        crate = pathlib.PurePath(resource["Properties"]["CodeUri"]).name
        own = sources(crate)
        variables = {*shared, *resource["Properties"].get("Environment", {}).get("Variables", {})}
        set_somewhere |= variables
        for variable in sorted(variables):
            if f'"{variable}"' not in own + core and variable not in read_by(own + core):
                findings.append(f"{name} is given {variable}, which neither {crate} nor the library reads")
        for variable in sorted(read_by(own) - variables):
            findings.append(f"{crate} reads {variable}, which {name} is not given")
    for variable in sorted(read_by(core) - set_somewhere):
        findings.append(f"the library reads {variable}, which no function is given")
    for finding in findings:
        print(f"env_drift: {finding}")
    if not findings:
        print(f"env_drift: {len(set_somewhere)} variables of {functions} functions agree")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
