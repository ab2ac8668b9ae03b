"""Gives a deployed stack what the emulator's CloudFormation drops, and prints how to reach it.

    settle.py TEMPLATE STACK_NAME ORIGINS_FILE

The emulator says CREATE_COMPLETE and leaves out a table's time to live, point-in-time recovery and the API's CORS
settings, although it has the API calls for them. So each is read from the template and set by its call. And it holds
to roles, but cannot see who sends a mail. contract.py fails when one of these steps is needed no longer.

Also tells the guard (guard.py) which origins may call. Prints one JSON object of environment variables.
"""

import json
import os
import pathlib
import re
import sys

import boto3
import yaml


class Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions as their long forms."""


def intrinsic(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", intrinsic)


def resolve(value, parameters: dict[str, str]):
    """Replaces references to parameters; every other function stays as it is."""
    if isinstance(value, dict):
        if set(value) == {"Ref"} and value["Ref"] in parameters:
            return parameters[value["Ref"]]
        return {key: resolve(item, parameters) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, parameters) for item in value]
    return value


def as_list(value) -> list[str]:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def settle_table(name: str, properties: dict) -> None:
    dynamodb = boto3.client("dynamodb")
    wanted = properties.get("TimeToLiveSpecification")
    if wanted:
        now = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        if now.get("AttributeName") != wanted["AttributeName"]:
            dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=wanted)
    wanted = properties.get("PointInTimeRecoverySpecification")
    if wanted:
        dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=wanted)


def settle_api(api_id: str, properties: dict) -> None:
    cors = properties.get("CorsConfiguration")
    if cors:
        lists = {key: as_list(value) if key.startswith(("Allow", "Expose")) else value for key, value in cors.items()}
        boto3.client("apigatewayv2").update_api(ApiId=api_id, CorsConfiguration=lists)


def settle_mapping(mapping_id: str) -> None:
    """Sets the concurrency of an event source mapping as the number that it is: a parameter's value stays a string in
    the emulator, which then fails to compare it and never polls a queue again."""
    client = boto3.client("lambda")
    wanted = client.get_event_source_mapping(UUID=mapping_id).get("ScalingConfig", {}).get("MaximumConcurrency")
    if wanted:
        client.update_event_source_mapping(UUID=mapping_id, ScalingConfig={"MaximumConcurrency": int(wanted)})


def without_ses_scope(statement: dict) -> dict:
    """A statement that allows sending, without the sender that it is bound to."""
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    if not all(action.startswith("ses:") for action in actions):
        return statement
    return {key: value for key, value in statement.items() if key != "Condition"} | {"Resource": "*"}


def settle_role(name: str) -> None:
    """Widens what a role may send: the emulator checks a role's policy for `ses:SendEmail` without the identity and
    the sender's address, so that neither a resource nor a condition that names them ever holds."""
    iam = boto3.client("iam")
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        statements = [without_ses_scope(statement) for statement in document["Statement"]]
        if statements != document["Statement"]:
            document = json.dumps(document | {"Statement": statements})
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=document)


def settle_sender(address: str) -> None:
    """On AWS the sender is verified by its owner, outside of the stack."""
    boto3.client("ses").verify_email_identity(EmailAddress=address)


def shouted(name: str) -> str:
    """HighQueueUrl -> HIGH_QUEUE_URL."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()


def environment(endpoint: str, stack: dict) -> dict[str, str]:
    """How clients, tests and the `aws` command reach the stack. Names come from the stack's outputs."""
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    # The output's own URL is the one on AWS.
    outputs.pop("ApiUrl", None)
    api_id = outputs.pop("HttpApiId")
    layer = outputs.pop("FfmpegLayerArn", "")
    names = {shouted(key.removesuffix("Name")): value for key, value in sorted(outputs.items())}
    queues = {key: value for key, value in names.items() if key.endswith("_QUEUE_URL")}
    for key, url in queues.items():
        # The emulator names itself `localhost`, the rest of this file by number.
        names[key] = endpoint + "/" + url.split("/", 3)[3]
    return {
        "API_URL": f"{endpoint}/_aws/execute-api/{api_id}/api/v1",
        "MAIL_URL": f"{endpoint}/_ministack/ses/messages",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": os.environ["AWS_REGION"],
        "AWS_DEFAULT_REGION": os.environ["AWS_REGION"],
        "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        "STACK_NAME": stack["StackName"],
        "HTTP_API_ID": api_id,
        **names,
        "LAYER": layer,
    }


def main(template_path: str, stack_name: str, origins_file: str) -> None:
    template = yaml.load(pathlib.Path(template_path).read_text(), Loader)
    cloudformation = boto3.client("cloudformation")
    stack = cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]
    parameters = {name: str(item.get("Default", "")) for name, item in template.get("Parameters", {}).items()}
    parameters |= {item["ParameterKey"]: item["ParameterValue"] for item in stack.get("Parameters", [])}
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack_name)
    resources = [resource for page in pages for resource in page["StackResourceSummaries"]]
    ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    types = {resource["LogicalResourceId"]: resource["ResourceType"] for resource in resources}

    for name, resource in template["Resources"].items():
        properties = resolve(resource.get("Properties", {}), parameters)
        if resource["Type"] == "AWS::DynamoDB::Table":
            settle_table(ids[name], properties)
        elif resource["Type"] == "AWS::ApiGatewayV2::Api":
            settle_api(ids[name], properties)
        elif resource["Type"] == "AWS::IAM::Role":
            settle_role(ids[name])
    # Mappings are events in the template, so they are found among what was deployed.
    for name, resource_type in types.items():
        if resource_type == "AWS::Lambda::EventSourceMapping":
            settle_mapping(ids[name])
    settle_sender(parameters["MailSender"])

    origins = pathlib.Path(origins_file)
    part = origins.with_suffix(".part")
    part.write_text("\n".join(as_list(parameters.get("AllowedOrigins", ""))))
    part.replace(origins)

    print(json.dumps(environment(os.environ["AWS_ENDPOINT_URL"], stack)))


if __name__ == "__main__":
    main(*sys.argv[1:])
