"""Checks that every role may do exactly what is listed here: no more, and no less.

    iam.py [TEMPLATE]

A change of a role is a change of this list, so that it is seen in review. Prints one line for each difference and
exits 1 if there is one.
"""

import json
import pathlib
import re
import sys

from expand import TEMPLATE, Stack, as_list, expand

LOG = ["logs:CreateLogStream", "logs:PutLogEvents"]
TRACE = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
READ_OBJECT = ["s3:GetObject", "s3:GetObjectVersion"]
DELETE_OBJECT = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
MAKE_OBJECT = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
TASKS = [
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
]
SIGNING_KEY = ["secretsmanager:GetSecretValue"]
SENDER = 'when {"StringEquals": {"ses:FromAddress": {"Ref": "MailSender"}}}'



def keys(*prefixes: str) -> str:
    """The accounts table, by the first parts of its keys."""
    condition = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(prefixes)}}
    return f"AccountsTable when {json.dumps(condition)}"


# Role -> resource -> actions. A resource is a logical id, with what follows its ARN.
EXPECTED = {
    "AuthRole": {
        "AuthLogGroup": LOG,
        "*": TRACE,
        "AccountsTable": [
            "dynamodb:BatchGetItem",
            "dynamodb:DeleteItem",
            "dynamodb:GetItem",
            "dynamodb:PutItem",
            "dynamodb:UpdateItem",
        ],
        "SigningKeySecret": SIGNING_KEY,
    },
    "UploadRole": {
        "UploadLogGroup": LOG,
        "*": TRACE,
        "AccountsTable": ["dynamodb:BatchGetItem"],
        keys("rate#*", "usage#*"): ["dynamodb:UpdateItem"],
        keys("audit#*"): ["dynamodb:PutItem"],
        "JobsTable": ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
        "SigningKeySecret": SIGNING_KEY,
        # Lists nothing (see its right to list in the template).
        "SourceBucket": ["s3:ListBucket"],
        "SourceBucket/sources/*": [
            "s3:AbortMultipartUpload",
            "s3:GetObject",
            "s3:ListMultipartUploadParts",
            "s3:PutObject",
        ],
        "HighQueue": ["sqs:SendMessage"],
        "LowQueue": ["sqs:SendMessage"],
    },
    "StatusRole": {
        "StatusLogGroup": LOG,
        "*": TRACE,
        "AccountsTable": ["dynamodb:BatchGetItem"],
        keys("rate#*"): ["dynamodb:UpdateItem"],
        keys("audit#*"): ["dynamodb:Query"],
        "AccountsTable/index/audit-day": ["dynamodb:Query"],
        "JobsTable": ["dynamodb:GetItem", "dynamodb:Query"],
        "JobsTable/index/*": ["dynamodb:GetItem", "dynamodb:Query"],
        "SigningKeySecret": SIGNING_KEY,
        "OutputBucket/outputs/*": ["s3:GetObject"],
        "SourceBucket/sources/*": [*READ_OBJECT, "s3:ListMultipartUploadParts"],
    },
    "IntakeRole": {
        "IntakeLogGroup": LOG,
        "*": TRACE,
        "JobsTable": ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
        "SourceBucket/sources/*": READ_OBJECT,
        "HighQueue": ["sqs:SendMessage"],
        "LowQueue": ["sqs:SendMessage"],
        "IntakeDeadLetterQueue": ["sqs:SendMessage"],
    },
    # Decodes files of strangers: no mail, no secrets, no accounts, no listing, no deletion.
    "ProcessRole": {
        "ProcessLogGroup": LOG,
        "*": TRACE,
        "JobsTable": ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"],
        "SourceBucket/sources/*": READ_OBJECT,
        "OutputBucket/outputs/*": MAKE_OBJECT,
        "OutputBucket/work/*": MAKE_OBJECT,
        "HighQueue": TASKS,
        "LowQueue": TASKS,
    },
    "NotifyRole": {
        "NotifyLogGroup": LOG,
        "*": TRACE,
        "JobsTable.StreamArn": ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"],
        "JobsTable/stream/*": ["dynamodb:ListStreams"],
        "JobsTable": ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"],
        "AccountsTable": ["dynamodb:GetItem"],
        keys("usage#*"): ["dynamodb:UpdateItem"],
        f"identity/${{MailSender}} {SENDER}": ["ses:SendEmail"],
        f"identity/${{Domain}} {SENDER}": ["ses:SendEmail"],
        "NotifyDeadLetterQueue": ["sqs:SendMessage"],
    },
    # Makes no item and calls one function. The only one that may delete.
    "SweepRole": {
        "SweepLogGroup": LOG,
        "*": TRACE,
        "JobsTable": [
            "dynamodb:ConditionCheckItem",
            "dynamodb:DeleteItem",
            "dynamodb:GetItem",
            "dynamodb:Query",
            "dynamodb:UpdateItem",
        ],
        "JobsTable/index/account-created": ["dynamodb:Query"],
        "JobsTable/index/open-updated": ["dynamodb:Query"],
        keys("deletions"): ["dynamodb:DeleteItem", "dynamodb:Query"],
        keys("usage#*"): ["dynamodb:DeleteItem", "dynamodb:UpdateItem"],
        "SourceBucket": ["s3:ListBucket", "s3:ListBucketVersions"],
        "SourceBucket/sources/*": ["s3:AbortMultipartUpload", *DELETE_OBJECT, "s3:GetObject"],
        "OutputBucket": ["s3:ListBucketVersions"],
        "OutputBucket/outputs/*": DELETE_OBJECT,
        "OutputBucket/work/*": DELETE_OBJECT,
        "HighQueue": ["sqs:GetQueueAttributes", "sqs:SendMessage"],
        "LowQueue": ["sqs:GetQueueAttributes", "sqs:SendMessage"],
        "IntakeFunction": ["lambda:InvokeFunction"],
    },
}

CALLERS = ("apigateway.amazonaws.com", "events.amazonaws.com", "s3.amazonaws.com")
# AWS lets nobody name a resource for these.
WITHOUT_RESOURCE = set(TRACE)


def readable(stack: Stack, resource) -> str:
    """A resource of a statement: the logical id that it comes from, and what follows it."""
    if isinstance(resource, str):
        return resource
    (function, argument), = resource.items()
    if function == "Ref":
        return argument
    if function == "Fn::GetAtt":
        name, _, attribute = (argument if isinstance(argument, str) else ".".join(argument)).partition(".")
        return name if attribute in ("Arn", "Id") else f"{name}.{attribute}"
    text = argument if isinstance(argument, str) else argument[0]
    for name, bucket in stack.of_type("AWS::S3::Bucket").items():
        # Written out where a reference would make a circle.
        text = text.replace("arn:${AWS::Partition}:s3:::" + bucket["BucketName"]["Fn::Sub"], name)
    text = re.sub(r"^\$\{(\w+)\.Arn\}", r"\1", text)
    return text.removeprefix("arn:${AWS::Partition}:ses:${AWS::Region}:${AWS::AccountId}:")


def granted(stack: Stack, role: dict) -> dict[str, set[str]]:
    grants: dict[str, set[str]] = {}
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] != "Allow":
                continue
            condition = f" when {json.dumps(statement['Condition'])}" if "Condition" in statement else ""
            for resource in as_list(statement["Resource"]):
                grants.setdefault(readable(stack, resource) + condition, set()).update(as_list(statement["Action"]))
    return grants


def check_grants(stack: Stack):
    roles = stack.of_type("AWS::IAM::Role")
    for name in sorted(set(roles) | set(EXPECTED)):
        if name not in roles or name not in EXPECTED:
            yield f"{name} is {'listed but not in the template' if name in EXPECTED else 'not listed'}"
            continue
        grants = granted(stack, roles[name])
        for resource in sorted(set(grants) | set(EXPECTED[name])):
            have, want = grants.get(resource, set()), set(EXPECTED[name].get(resource, []))
            for action in sorted(have - want):
                yield f"{name} may {action} on {resource}, which is not listed"
            for action in sorted(want - have):
                yield f"{name} may not {action} on {resource}, although it is listed"
            if resource == "*" and have - WITHOUT_RESOURCE:
                yield f"{name} may {', '.join(sorted(have - WITHOUT_RESOURCE))} on everything"
            if any("*" in action for action in have):
                yield f"{name} has a wildcard among its actions on {resource}"


def check_shape(stack: Stack):
    """Rights come from the roles' own policies alone, and each role is one function's."""
    holders: dict[str, list[str]] = {}
    for name, function in stack.of_type("AWS::Lambda::Function").items():
        holders.setdefault(stack.target(function["Role"]) or "a role of another stack", []).append(name)
    for role, functions in holders.items():
        if len(functions) > 1:
            yield f"{', '.join(functions)} share {role}"
    for name, role in stack.of_type("AWS::IAM::Role").items():
        if role.get("ManagedPolicyArns"):
            yield f"{name} has managed policies, which carry wildcards"
        if name not in holders:
            yield f"{name} is no function's role"
        trusted = [statement["Principal"] for statement in role["AssumeRolePolicyDocument"]["Statement"]]
        if trusted != [{"Service": "lambda.amazonaws.com"}]:
            yield f"{name} may be assumed by others than Lambda"
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy", "AWS::IAM::User"):
        for name in stack.of_type(kind):
            yield f"{name}: rights belong into the role itself"


def check_callers(stack: Stack):
    """Nobody but the API, the source bucket and the schedule may call a function."""
    for name, permission in stack.of_type("AWS::Lambda::Permission").items():
        if permission["Principal"] not in CALLERS:
            yield f"{name} lets {permission['Principal']} call a function"
        if "SourceArn" not in permission:
            yield f"{name} lets anything of {permission['Principal']} call a function"
        if permission["Principal"] == "s3.amazonaws.com" and "SourceAccount" not in permission:
            yield f"{name} lets a bucket of another account call a function"


def main() -> int:
    stack = Stack(expand(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else TEMPLATE))
    findings = [*check_grants(stack), *check_shape(stack), *check_callers(stack)]
    for finding in findings:
        print(f"iam: {finding}")
    if not findings:
        print(f"iam: {len(EXPECTED)} roles, as listed")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
