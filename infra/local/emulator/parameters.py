"""Prints the parameters of a stack that differs from samconfig.toml's environment `local` in some of them.

    parameters.py TEMPLATE SAMCONFIG NAME=VALUE...

`sam deploy --parameter-overrides` replaces all that samconfig.toml says, so this prints all of them: a JSON list of
`NAME=VALUE`. Exits 1 when the template has no such parameter; the SAM CLI would deploy without a word.
"""

import json
import pathlib
import sys
import tomllib

import yaml

from settle import Loader

ENVIRONMENT = "local"


def main(template_path: str, samconfig_path: str, *settings: str) -> int:
    template = yaml.load(pathlib.Path(template_path).read_text(), Loader)
    config = tomllib.loads(pathlib.Path(samconfig_path).read_text())
    configured = config[ENVIRONMENT]["deploy"]["parameters"].get("parameter_overrides", [])
    values = dict(setting.split("=", 1) for setting in (*configured, *settings))
    unknown = sorted(set(values) - set(template["Parameters"]))
    if unknown:
        print(f"template.yaml has no parameter {', '.join(unknown)}", file=sys.stderr)
        return 1
    print(json.dumps([f"{name}={value}" for name, value in values.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
