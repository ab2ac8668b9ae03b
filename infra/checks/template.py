"""Checks the expanded template: cfn-lint with its rules for serverless stacks, then what this stack promises itself.

    template.py [TEMPLATE]

Prints one line for each finding and exits 1 if there is one.
"""

import json
import pathlib
import re
import sys

from expand import TEMPLATE, Stack, as_list, expand

API_TIMEOUT_SECONDS = 29  # API Gateway gives up after 30
DAY_SECONDS = 86400
# The units of a schedule's rate.
SECONDS_OF = {"minute": 60, "hour": 3600, "day": DAY_SECONDS}
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|KEY|CREDENTIAL")

# Rules of cfn_lint_serverless that do not fit, each with its reason.
IGNORED_RULES = {
    "ES1001": "wants a failure destination on the mappings of queues too, which have the queue's own dead-letter queue",
    "ES1007": "wants a failure destination for scheduled calls too; for uploads, check_functions wants it",
    "ES4000": "wants a dead-letter queue for a scheduled call, which the next minute's call makes good",
    "ES6000": "wants a dead-letter queue behind every dead-letter queue",
    "WS1004": "knows a function's log group by its name only; ours are named in the functions' LoggingConfig",
}


def lint(template: dict):
    from cfnlint.api import lint as cfn_lint
    from cfnlint.config import ManualArgs

    settings = ManualArgs(
        append_rules=["cfn_lint_serverless.rules"],
        ignore_checks=list(IGNORED_RULES),
        regions=["us-east-1"],
    )
    for match in cfn_lint(json.dumps(template, indent=1), config=settings):
        path = "/".join(str(part) for part in match.path or [])
        yield f"{match.rule.id} {path}: {match.message}"


def denies_plain_http(document: dict) -> bool:
    return any(
        statement["Effect"] == "Deny"
        and statement["Principal"] == "*"
        and any(action.endswith(":*") for action in as_list(statement["Action"]))
        and statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport") == "false"
        for statement in document["Statement"]
    )


def policies(stack: Stack, kind: str, key: str) -> dict[str, dict]:
    """Logical id of a bucket or queue -> the document of its policy."""
    return {
        stack.target(target): properties["PolicyDocument"]
        for properties in stack.of_type(kind).values()
        for target in as_list(properties[key])
    }


def check_queues(stack: Stack):
    queues = stack.of_type("AWS::SQS::Queue")
    functions = stack.of_type("AWS::Lambda::Function")
    documents = policies(stack, "AWS::SQS::QueuePolicy", "Queues")
    dead_letters = {}
    for name, queue in queues.items():
        if queue.get("RedrivePolicy"):
            dead_letters[stack.target(queue["RedrivePolicy"]["deadLetterTargetArn"])] = name
    sources = {}
    for mapping in stack.of_type("AWS::Lambda::EventSourceMapping").values():
        sources[stack.target(mapping["EventSourceArn"])] = stack.target(mapping["FunctionName"])

    for name, queue in queues.items():
        if not queue.get("SqsManagedSseEnabled") and not queue.get("KmsMasterKeyId"):
            yield f"{name} is not encrypted"
        if name not in documents or not denies_plain_http(documents[name]):
            yield f"{name} may be used without TLS"
        if queue.get("MaximumMessageSize", 65536) < 65536:
            yield f"{name} takes messages below 64 KiB only, which drops events"
        retention = queue.get("MessageRetentionPeriod", 345600)
        if name not in sources:
            if retention < 14 * DAY_SECONDS:
                yield f"{name} holds failures for less than 14 days"
            allowed = queue.get("RedriveAllowPolicy", {})
            wanted = "byQueue" if name in dead_letters else "denyAll"
            if allowed.get("redrivePermission") != wanted:
                yield f"{name} should allow redrive {wanted}"
            continue
        if retention < 4 * DAY_SECONDS:
            yield f"{name} holds messages for less than 4 days"
        if name not in dead_letters.values():
            yield f"{name} has no dead-letter queue"
        elif int(queue["RedrivePolicy"]["maxReceiveCount"]) < 5:
            yield f"{name} gives up before 5 receives, and throttled polls count"
        timeout = functions[sources[name]]["Timeout"]
        if queue.get("VisibilityTimeout", 30) < 6 * timeout:
            yield f"{name} shows a message again before 6 x the {timeout} s of {sources[name]}"


def check_mappings(stack: Stack):
    functions = stack.of_type("AWS::Lambda::Function")
    for name, mapping in stack.of_type("AWS::Lambda::EventSourceMapping").items():
        function = stack.target(mapping["FunctionName"])
        source = stack.target(mapping["EventSourceArn"])
        if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", []):
            yield f"{name} repeats a whole batch for one failed item"
        if stack.resources[source]["Type"] == "AWS::SQS::Queue":
            if mapping.get("BatchSize") != 1:
                yield f"{name} gives {function} more than one task at a time"
            concurrency = stack.least(mapping.get("ScalingConfig", {}).get("MaximumConcurrency"))
            if concurrency is None or concurrency < 2:
                yield f"{name} has no MaximumConcurrency, or one below Lambda's least, 2"
            if "ReservedConcurrentExecutions" in functions[function]:
                yield f"{function} has reserved concurrency, which makes polls of {source} fail"
        else:
            if not mapping.get("BisectBatchOnFunctionError") or "MaximumRetryAttempts" not in mapping:
                yield f"{name} lets one bad record hold up its shard"
            if not mapping.get("DestinationConfig", {}).get("OnFailure"):
                yield f"{name} drops the records that it gives up on"
            if not mapping.get("FilterCriteria"):
                yield f"{name} calls {function} for every item of the table"


def check_functions(stack: Stack):
    groups = stack.of_type("AWS::Logs::LogGroup")
    called_by_api = {
        stack.target(properties["IntegrationUri"])
        for properties in stack.of_type("AWS::ApiGatewayV2::Integration").values()
    }
    notified = {
        stack.target(target["Function"])
        for bucket in stack.of_type("AWS::S3::Bucket").values()
        for target in bucket.get("NotificationConfiguration", {}).get("LambdaConfigurations", [])
    }
    kept = {
        stack.target(properties["FunctionName"])
        for properties in stack.of_type("AWS::Lambda::EventInvokeConfig").values()
        if properties.get("DestinationConfig", {}).get("OnFailure")
    }
    for name, function in stack.of_type("AWS::Lambda::Function").items():
        if function.get("Runtime") != "provided.al2023":
            yield f"{name} has the runtime {function.get('Runtime')}"
        for key in ("Timeout", "MemorySize", "EphemeralStorage", "Architectures"):
            if key not in function:
                yield f"{name} does not say its {key}"
        if function.get("TracingConfig", {}).get("Mode") != "Active":
            yield f"{name} is not traced"
        logging = function.get("LoggingConfig", {})
        if stack.target(logging.get("LogGroup")) not in groups:
            yield f"{name} does not log to a group of this stack"
        if logging.get("LogFormat", "Text") != "Text":
            yield f"{name} has its JSON lines wrapped into JSON once more"
        if name in called_by_api and function.get("Timeout", 3) > API_TIMEOUT_SECONDS:
            yield f"{name} may take longer than API Gateway waits"
        if name in notified - kept:
            yield f"{name} loses events of S3 that it cannot handle"
        for variable, value in function.get("Environment", {}).get("Variables", {}).items():
            names_a_secret = stack.resources.get(stack.target(value), {}).get("Type") == "AWS::SecretsManager::Secret"
            if SECRET_NAME.search(variable) and not names_a_secret and not variable.endswith("_SECONDS"):
                yield f"{name} has {variable}, which looks like a secret's value"
            if "resolve:" in json.dumps(value):
                yield f"{name} has a secret's value in {variable}"
    for name, group in groups.items():
        if not group.get("RetentionInDays"):
            yield f"{name} keeps logs for ever"


def check_schedules(stack: Stack):
    functions = stack.of_type("AWS::Lambda::Function")
    allowed = {
        (stack.target(permission["FunctionName"]), stack.target(permission.get("SourceArn")))
        for permission in stack.of_type("AWS::Lambda::Permission").values()
        if permission["Principal"] == "events.amazonaws.com"
    }
    once = {
        stack.target(properties["FunctionName"])
        for properties in stack.of_type("AWS::Lambda::EventInvokeConfig").values()
        if properties.get("MaximumRetryAttempts") == 0
    }
    for name, rule in stack.of_type("AWS::Events::Rule").items():
        count, unit = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", rule["ScheduleExpression"]).groups()
        for target in rule["Targets"]:
            function = stack.target(target["Arn"])
            if (function, name) not in allowed:
                yield f"{name} may not call {function}"
            if functions[function]["Timeout"] >= int(count) * SECONDS_OF[unit]:
                yield f"{name} calls {function} before its last call must have ended"
            if target.get("RetryPolicy", {}).get("MaximumRetryAttempts") != 0 or function not in once:
                yield f"{name} lets calls of {function} pile up"


def check_buckets(stack: Stack):
    documents = policies(stack, "AWS::S3::BucketPolicy", "Bucket")
    for name, bucket in stack.of_type("AWS::S3::Bucket").items():
        resource = stack.resources[name]
        if not str(resource.get("DeletionPolicy")).startswith("Retain") or resource.get("UpdateReplacePolicy") != "Retain":
            yield f"{name} is deleted with the stack"
        block = bucket.get("PublicAccessBlockConfiguration", {})
        for key in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
            if block.get(key) is not True:
                yield f"{name} does not set {key}"
        if {"ObjectOwnership": "BucketOwnerEnforced"} not in bucket.get("OwnershipControls", {}).get("Rules", []):
            yield f"{name} still has access lists"
        if not bucket.get("BucketEncryption"):
            yield f"{name} does not say how it encrypts"
        document = documents.get(name, {"Statement": []})
        if not denies_plain_http(document):
            yield f"{name} may be used without TLS"
        if "s3:signatureAge" not in json.dumps(document):
            yield f"{name} takes old signatures"
        rules = [rule for rule in bucket.get("LifecycleConfiguration", {}).get("Rules", []) if "Fn::If" not in rule]
        if not any(rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation", 99) <= 7 for rule in rules):
            yield f"{name} keeps parts of unfinished uploads"
        if bucket.get("VersioningConfiguration", {}).get("Status") == "Enabled":
            if not any(rule.get("NoncurrentVersionExpiration") for rule in rules):
                yield f"{name} keeps every version for ever"
        # The emulator drops lifecycle rules, so that this is the only proof.
        if name == "OutputBucket" and not any(rule.get("Prefix") == "work/" and "ExpirationInDays" in rule for rule in rules):
            yield f"{name} keeps for ever what only a running job reads"
        if "ExpirationInDays" not in json.dumps(bucket.get("LifecycleConfiguration", {})):
            yield f"{name} cannot expire its objects"
        for rule in bucket.get("CorsConfiguration", {}).get("CorsRules", []):
            if "*" in as_list(rule["AllowedOrigins"]):
                yield f"{name} answers pages of any origin"
        if bucket.get("NotificationConfiguration"):
            if bucket.get("VersioningConfiguration", {}).get("Status") != "Enabled":
                yield f"{name} lets a second upload replace the version that was checked"
            for target in bucket["NotificationConfiguration"]["LambdaConfigurations"]:
                if not target.get("Filter"):
                    yield f"{name} notifies {stack.target(target['Function'])} of every key"


def check_tables(stack: Stack):
    for name, table in stack.of_type("AWS::DynamoDB::Table").items():
        resource = stack.resources[name]
        if not str(resource.get("DeletionPolicy")).startswith("Retain") or resource.get("UpdateReplacePolicy") != "Retain":
            yield f"{name} is deleted with the stack"
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"{name} is not on demand"
        if not table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"{name} cannot be restored to a point in time"
        if not table.get("SSESpecification", {}).get("SSEEnabled"):
            yield f"{name} is not encrypted with a key of the account"
        if not table.get("TimeToLiveSpecification", {}).get("Enabled"):
            yield f"{name} has no time to live"


def check_api(stack: Stack):
    integrations = stack.of_type("AWS::ApiGatewayV2::Integration")
    allowed = {
        stack.target(permission["FunctionName"])
        for permission in stack.of_type("AWS::Lambda::Permission").values()
        if permission["Principal"] == "apigateway.amazonaws.com" and permission.get("SourceArn")
    }
    for name, integration in integrations.items():
        if integration.get("PayloadFormatVersion") != "2.0":
            yield f"{name} sends the older shape of events"
        if stack.target(integration["IntegrationUri"]) not in allowed:
            yield f"{name} may not call its function"
    keys = {}
    for name, route in stack.of_type("AWS::ApiGatewayV2::Route").items():
        if stack.target(route["Target"]) not in integrations:
            yield f"{name} leads nowhere"
        if route["RouteKey"] in keys:
            yield f"{name} and {keys[route['RouteKey']]} are the same route"
        keys[route["RouteKey"]] = name
    for key, name in keys.items():
        versioned = key.replace(" /api/v1/", " /api/")
        if " /api/v1/" in key and versioned not in keys:
            yield f"{name} has no twin without the version"
    if "$default" not in keys:
        yield "unknown paths get API Gateway's own answer"
    for name, stage in stack.of_type("AWS::ApiGatewayV2::Stage").items():
        if not stage.get("DefaultRouteSettings", {}).get("ThrottlingRateLimit"):
            yield f"{name} is not throttled"
        for key in stage.get("RouteSettings", {}):
            if keys.get(key) not in as_list(stack.resources[name].get("DependsOn")):
                yield f"{name} throttles {key} before that route is there"
        access_log = stage.get("AccessLogSettings", {})
        if stack.target(access_log.get("DestinationArn")) not in stack.of_type("AWS::Logs::LogGroup"):
            yield f"{name} has no access log"
        try:
            json.loads(access_log.get("Format", ""))
        except ValueError:
            yield f"{name} does not log in JSON"
        if re.search(r"querystring|\$context\.(authorizer|requestOverride)|header", access_log.get("Format", ""), re.I):
            yield f"{name} logs what may be secret"
    for name, api in stack.of_type("AWS::ApiGatewayV2::Api").items():
        if "*" in as_list(api.get("CorsConfiguration", {}).get("AllowOrigins", ["*"])):
            yield f"{name} answers pages of any origin, or of none"


def main() -> int:
    template = expand(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else TEMPLATE)
    stack = Stack(template)
    findings = list(lint(template))
    checks = (check_queues, check_mappings, check_functions, check_schedules, check_buckets, check_tables, check_api)
    for check in checks:
        findings += check(stack)
    for finding in findings:
        print(f"template: {finding}")
    if not findings:
        print(f"template: {len(stack.resources)} resources, nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
