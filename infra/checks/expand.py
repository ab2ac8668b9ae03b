"""The template as CloudFormation sees it: SAM's resources translated into plain ones, every default filled in.

cfn-lint knows little of SAM's own types: it passes a queue whose visibility is shorter than its function's timeout as
long as the mapping between them is still one of SAM's. So all checks look at the translation.
"""

import json
import os
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"


def as_list(value) -> list:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class NoManagedPolicies:
    """The translator asks for AWS's managed policies by name. No function here uses one."""

    def load(self):
        return {}


def load(path: pathlib.Path = TEMPLATE) -> dict:
    """The template as written, its short intrinsics (`!Ref`) in their long form."""
    from cfnlint.decode import cfn_yaml

    return json.loads(json.dumps(cfn_yaml.load(str(path))))


def expand(path: pathlib.Path = TEMPLATE) -> dict:
    """The translated template."""
    # The translator asks boto3 for a region, although it calls nothing.
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    from samtranslator.translator.transform import transform

    template = load(path)
    for resource in template["Resources"].values():
        # What `sam package` does: local folders become objects in a bucket.
        for key in ("CodeUri", "ContentUri"):
            if key in resource.get("Properties", {}):
                resource["Properties"][key] = "s3://packages/package.zip"
    return transform(template, {}, NoManagedPolicies())


class Stack:
    """An expanded template, with what the checks ask of it."""

    def __init__(self, template: dict):
        self.template = template
        self.parameters = template.get("Parameters", {})
        self.resources = template["Resources"]

    def of_type(self, kind: str) -> dict[str, dict]:
        """Logical id -> properties of all resources of a type."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def least(self, value):
        """A number, or the least that a parameter allows; None where neither says."""
        if isinstance(value, dict) and set(value) == {"Ref"} and value["Ref"] in self.parameters:
            parameter = self.parameters[value["Ref"]]
            value = parameter.get("MinValue", min(parameter.get("AllowedValues", [None])))
        return None if value is None or isinstance(value, dict) else int(value)

    def target(self, value) -> str | None:
        """The logical id that a reference names: `Ref`, `GetAtt` or a `Sub` of one name."""
        if not isinstance(value, dict) or len(value) != 1:
            return None
        (function, argument), = value.items()
        if function == "Ref":
            return argument if argument in self.resources else None
        if function == "Fn::GetAtt":
            return (argument if isinstance(argument, list) else argument.split("."))[0]
        if function == "Fn::Sub" and isinstance(argument, str):
            names = {name.split(".")[0] for name in re.findall(r"\$\{([^}!]+)\}", argument)}
            names = {name for name in names if name in self.resources}
            return names.pop() if len(names) == 1 else None
        return None
