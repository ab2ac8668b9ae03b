"""Holds the emulator to what this project assumes of it.

    contract.py STATE_DIR

Two kinds of checks: `relied on` is behaviour that the local stack needs; `worked around` is a gap that some code of
ours fills. A gap that has closed fails too, and the message tells which code can go. So a new version of the emulator
is one run of this and not a guess. Nothing of the project's own is deployed: a small template of its own is.
"""

import io
import json
import pathlib
import sys
import textwrap
import time
import traceback
import urllib.error
import urllib.request
import zipfile

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

STACK = "contract"
ORIGIN = "http://localhost:3000"
CHECKS = []

# A function as the Runtime API has it, in the Python of this venv: it answers with what it sees.
BOOTSTRAP = """\
#!{python}
import json, os, pathlib, shutil, urllib.request
base = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(base + "next") as answer:
        request_id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        event = json.loads(answer.read())
    print(json.dumps({{
        "_aws": {{"Timestamp": 0, "CloudWatchMetrics": [
            {{"Namespace": "Contract", "Dimensions": [[]], "Metrics": [{{"Name": "Calls", "Unit": "Count"}}]}}]}},
        "Calls": 1}}), flush=True)
    seen = {{"environment": dict(os.environ), "event": event, "layer": pathlib.Path("/opt/contract").exists()}}
    body = json.dumps({{"statusCode": 200, "body": json.dumps(seen)}}).encode()
    urllib.request.urlopen(urllib.request.Request(base + request_id + "/response", data=body))
"""

TEMPLATE = """\
Transform: AWS::Serverless-2016-10-31
Parameters:
  Concurrency: {{ Type: Number, Default: 2 }}
Resources:
  Api:
    Type: AWS::ApiGatewayV2::Api
    Properties:
      Name: contract
      ProtocolType: HTTP
      CorsConfiguration: {{ AllowOrigins: ["{origin}"], AllowMethods: [GET] }}
  Stage:
    Type: AWS::ApiGatewayV2::Stage
    Properties:
      ApiId: !Ref Api
      StageName: $default
      AutoDeploy: true
      DefaultRouteSettings: {{ ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1 }}
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Api
      IntegrationType: AWS_PROXY
      IntegrationUri: !GetAtt Function.Arn
      PayloadFormatVersion: "2.0"
  Route:
    Type: AWS::ApiGatewayV2::Route
    Properties: {{ ApiId: !Ref Api, RouteKey: "GET /v1/{{proxy+}}", Target: !Sub "integrations/${{Integration}}" }}
  ImplicitApi:
    Type: AWS::Serverless::HttpApi
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{{ AttributeName: id, AttributeType: S }}]
      KeySchema: [{{ AttributeName: id, KeyType: HASH }}]
      TimeToLiveSpecification: {{ AttributeName: expires_at, Enabled: true }}
      PointInTimeRecoverySpecification: {{ PointInTimeRecoveryEnabled: true }}
  Bucket:
    Type: AWS::S3::Bucket
    Properties: {{ BucketName: contract-objects }}
  BucketPolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Bucket
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Deny
            Principal: "*"
            Action: s3:*
            Resource: !Sub "${{Bucket.Arn}}/*"
            Condition: {{ Bool: {{ aws:SecureTransport: "false" }} }}
  Queue:
    Type: AWS::SQS::Queue
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref Function
      EventSourceArn: !GetAtt Queue.Arn
      ScalingConfig: {{ MaximumConcurrency: !Ref Concurrency }}
  VersionedBucket:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: contract-versions
      VersioningConfiguration: {{ Status: Enabled }}
  Layer:
    Type: AWS::Serverless::LayerVersion
    Properties: {{ LayerName: contract, ContentUri: "s3://contract-code/layer.zip" }}
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - {{ Effect: Allow, Principal: {{ Service: lambda.amazonaws.com }}, Action: sts:AssumeRole }}
      Policies:
        - PolicyName: contract
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - {{ Effect: Allow, Action: s3:PutObject, Resource: !Sub "${{Bucket.Arn}}/in/*" }}
              - {{ Effect: Allow, Action: dynamodb:GetItem, Resource: !GetAtt Table.Arn }}
              - Effect: Allow
                Action: lambda:InvokeFunction
                Resource: !Sub "arn:aws:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:contract"
              - Effect: Allow
                Action: ses:SendEmail
                Resource: !Sub "arn:aws:ses:${{AWS::Region}}:${{AWS::AccountId}}:identity/contract@example.com"
                Condition: {{ StringEquals: {{ ses:FromAddress: contract@example.com }} }}
  Function:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: contract
      Runtime: provided.al2023
      Handler: bootstrap
      CodeUri: s3://contract-code/function.zip
      MemorySize: 640
      Role: !GetAtt Role.Arn
      Layers: [!Ref Layer]
      Events:
        Any: {{ Type: HttpApi, Properties: {{ ApiId: !Ref ImplicitApi, Path: /any, Method: GET }} }}
  Schedule:
    Type: AWS::Events::Rule
    Properties:
      ScheduleExpression: rate(1 minute)
      Targets: [{{ Id: contract, Arn: !GetAtt Function.Arn }}]
  SchedulePermission:
    Type: AWS::Lambda::Permission
    Properties:
      Action: lambda:InvokeFunction
      FunctionName: !Ref Function
      Principal: events.amazonaws.com
      SourceArn: !GetAtt Schedule.Arn
"""


def check(kind: str, name: str, remedy: str):
    """Registers a check. It returns whether the emulator is as assumed."""

    def register(function):
        CHECKS.append((kind, name, remedy, function))
        return function

    return register


def relied_on(name: str):
    return check("relied on", name, "the local stack cannot work like this: keep the pinned version")


def worked_around(name: str, remedy: str):
    return check("worked around", name, f"the gap has closed: {remedy}")


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


def http(url: str, method: str = "GET", body: bytes | None = None, **headers: str):
    """Status, headers and body of an answer, refusals included."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def refused(call) -> bool:
    """Whether a call is refused for lack of a right."""
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"].startswith("AccessDenied")
    return False


class World:
    """The deployed template, and clients of it."""

    def __init__(self, state: pathlib.Path):
        self.state = state
        self.endpoint = boto3.client("sts").meta.endpoint_url
        self.s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        self.s3.create_bucket(Bucket="contract-code")
        bootstrap = BOOTSTRAP.format(python=sys.executable)
        self.s3.put_object(Bucket="contract-code", Key="function.zip", Body=zipped({"bootstrap": bootstrap}))
        self.s3.put_object(Bucket="contract-code", Key="layer.zip", Body=zipped({"contract": ""}))
        cloudformation = boto3.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK,
            TemplateBody=TEMPLATE.format(origin=ORIGIN),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            # As the SAM CLI passes them: as strings.
            Parameters=[{"ParameterKey": "Concurrency", "ParameterValue": "2"}],
        )
        cloudformation.get_waiter("stack_create_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1})
        resources = cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
        self.ids = {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in resources}
        (state / "allowed-origins").write_text(ORIGIN)
        boto3.client("ses").verify_email_identity(EmailAddress="contract@example.com")
        self.seen = json.loads(json.loads(self.invoke())["body"])

    def invoke(self) -> bytes:
        return boto3.client("lambda").invoke(FunctionName="contract", Payload=b"{}")["Payload"].read()

    def api(self, logical_id: str) -> str:
        return f"{self.endpoint}/_aws/execute-api/{self.ids[logical_id]}"

    def as_function(self, service: str, **options):
        """A client with the function's own credentials."""
        environment = self.seen["environment"]
        return boto3.client(
            service,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=environment["AWS_SESSION_TOKEN"],
            **options,
        )

    def presigned_put(self, key: str, length: int) -> str:
        s3 = self.as_function("s3", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"))
        wanted = {"Bucket": "contract-objects", "Key": key, "ContentLength": length, "ContentType": "video/mp4"}
        return s3.generate_presigned_url("put_object", Params=wanted, ExpiresIn=60)

    def read_range(self):
        """The second to fourth byte of an object's older version."""
        versions = [self.s3.put_object(Bucket="contract-versions", Key="k", Body=body) for body in (b"abcdef", b"-")]
        wanted = {"Bucket": "contract-versions", "Key": "k", "VersionId": versions[0]["VersionId"]}
        return self.s3.get_object(**wanted, Range="bytes=1-3")

    def read_named(self):
        """An older version of an object, under a name and as another type."""
        versions = [self.s3.put_object(Bucket="contract-versions", Key="n", Body=body) for body in (b"abcdef", b"-")]
        wanted = {"Bucket": "contract-versions", "Key": "n", "VersionId": versions[0]["VersionId"]}
        return self.s3.get_object(
            **wanted, ResponseContentType="text/plain", ResponseContentDisposition='attachment; filename="a"')

    def send_mail(self):
        message = {"Subject": {"Data": "subject"}, "Body": {"Text": {"Data": "text"}}}
        to = {"ToAddresses": ["someone@example.com"]}
        client = self.as_function("ses")
        return client.send_email(Source="contract@example.com", Destination=to, Message=message)


# ---- relied on --------------------------------------------------------------------------------------------------


@relied_on("a function has the server's path and endpoint, and its own memory size and name")
def function_environment(world: World) -> bool:
    environment = world.seen["environment"]
    return (
        environment["AWS_ENDPOINT_URL"] == world.endpoint
        and environment["PATH"].endswith(":/usr/bin:/bin")
        and environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "640"
        and environment["AWS_LAMBDA_FUNCTION_NAME"] == "contract"
    )


@relied_on("an API answers below /_aws/execute-api/<id> without a stage in the path")
def execute_api(world: World) -> bool:
    status, _, body = http(world.api("Api") + "/v1/some/thing")
    return status == 200 and json.loads(body)["event"]["rawPath"] == "/v1/some/thing"


@relied_on("a role's policy holds for its function")
def role(world: World) -> bool:
    table = world.ids["Table"]
    world.as_function("dynamodb").get_item(TableName=table, Key={"id": {"S": "1"}})
    return refused(lambda: world.as_function("dynamodb").delete_item(TableName=table, Key={"id": {"S": "1"}}))


@relied_on("a function calls another without waiting, and only the one that its role names")
def function_to_function(world: World) -> bool:
    client = world.as_function("lambda")
    call = {"InvocationType": "Event", "Payload": b"{}"}
    answer = client.invoke(FunctionName="contract", **call)
    return answer["StatusCode"] == 202 and refused(lambda: client.invoke(FunctionName="elsewhere", **call))


# That it fires takes a minute to see: tests/sweep.rs waits for it.
@relied_on("a schedule is deployed with its rate and its function")
def schedule(world: World) -> bool:
    client = boto3.client("events")
    rule = client.describe_rule(Name=world.ids["Schedule"])
    (target,) = client.list_targets_by_rule(Rule=world.ids["Schedule"])["Targets"]
    is_set = (rule["ScheduleExpression"], rule["State"]) == ("rate(1 minute)", "ENABLED")
    return is_set and target["Arn"].endswith(":function:contract")


@relied_on("a presigned PUT is bound to length, type and the signer's rights; guard.py's mark satisfies TLS policies")
def presigned_put(world: World) -> bool:
    url = world.presigned_put("in/object", 3)
    answers = [
        http(url, "PUT", b"abc", content_type="video/mp4")[0],
        http(url, "PUT", b"abcd", content_type="video/mp4")[0],
        http(url, "PUT", b"abc", content_type="text/html")[0],
        http(world.presigned_put("elsewhere", 3), "PUT", b"abc", content_type="video/mp4")[0],
    ]
    return answers == [200, 403, 403, 403]


@relied_on("a range of a version can be read")
def range_of_a_version(world: World) -> bool:
    answer = world.read_range()
    return (answer["Body"].read(), answer["ContentRange"]) == (b"bcd", "bytes 1-3/6")


@relied_on("a new value of a secret moves the one before to AWSPREVIOUS, and that one out")
def secret_stages(world: World) -> bool:
    secrets = boto3.client("secretsmanager")
    name = secrets.create_secret(Name="contract-stages", SecretString="1")["Name"]

    def live():
        found = []
        for stage in ("AWSCURRENT", "AWSPREVIOUS"):
            try:
                found.append(secrets.get_secret_value(SecretId=name, VersionStage=stage)["SecretString"])
            except secrets.exceptions.ResourceNotFoundException:
                found.append(None)
        return found

    seen = [live()]
    for value in ("2", "3"):
        secrets.put_secret_value(SecretId=name, SecretString=value)
        seen.append(live())
    secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    return seen == [["1", None], ["2", "1"], ["3", "2"]]


@relied_on("a version is sent with the type and the name that its URL asks for")
def headers_of_a_version(world: World) -> bool:
    answer = world.read_named()
    return (answer["ContentType"], answer["ContentDisposition"]) == ("text/plain", 'attachment; filename="a"')


@relied_on("the guard keeps pages of other sites out and lets the stack's own in")
def guard(world: World) -> bool:
    ready = world.endpoint + "/_ministack/ready"
    answers = [
        http(ready)[0],
        http(ready, origin=ORIGIN)[0],
        http(ready, origin="http://localhost:3001")[0],
        http(ready, origin="null")[0],
        http(ready, host="example.com")[0],
        http(ready, host="127.0.0.1.example.com")[0],
        http(ready, sec_fetch_site="cross-site")[0],
        http(world.api("Api") + "/v1/x", sec_fetch_site="cross-site")[0],
    ]
    return answers == [200, 200, 403, 403, 403, 403, 403, 200]


@relied_on("sent mail can be read")
def mail(world: World) -> bool:
    message = {"Subject": {"Data": "subject"}, "Body": {"Text": {"Data": "text"}}}
    to = {"ToAddresses": ["reader@example.com"]}
    boto3.client("ses").send_email(Source="contract@example.com", Destination=to, Message=message)
    sent = json.loads(http(world.endpoint + "/_ministack/ses/messages")[2])["messages"]
    mails = [mail for mails in sent.values() for mail in mails if mail["To"] == ["reader@example.com"]]
    return len(mails) == 1 and mails[0]["Subject"] == "subject" and mails[0]["BodyText"] == "text"


# ---- worked around ----------------------------------------------------------------------------------------------


@worked_around("CloudFormation drops a table's TimeToLiveSpecification", "settle_table in settle.py may leave it out")
def time_to_live(world: World) -> bool:
    client = boto3.client("dynamodb")
    description = client.describe_time_to_live(TableName=world.ids["Table"])["TimeToLiveDescription"]
    return description["TimeToLiveStatus"] == "DISABLED"


@worked_around("CloudFormation drops point-in-time recovery", "settle_table in settle.py may leave it out")
def point_in_time_recovery(world: World) -> bool:
    backups = boto3.client("dynamodb").describe_continuous_backups(TableName=world.ids["Table"])
    description = backups["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    return description.get("PointInTimeRecoveryStatus") != "ENABLED"


@worked_around("CloudFormation drops an API's CorsConfiguration", "settle_api in settle.py can go")
def cors(world: World) -> bool:
    return not boto3.client("apigatewayv2").get_api(ApiId=world.ids["Api"]).get("CorsConfiguration")


@worked_around("an API's Body, which SAM's HttpApi events become, gives no routes", "routes may be SAM events")
def body(world: World) -> bool:
    return not boto3.client("apigatewayv2").get_routes(ApiId=world.ids["ImplicitApi"])["Items"]


@worked_around("a layer is not unpacked at /opt", "serve.py need not get ffmpeg by PATH (start in emulator.rs)")
def layer(world: World) -> bool:
    return not world.seen["layer"]


@worked_around("a GET of a version ignores Range", "range_of_a_version in repairs.py can go")
def repaired_range(world: World) -> bool:
    return world.read_range()["ResponseMetadata"]["HTTPHeaders"].get("x-emulator-repaired") == "range"


@worked_around("a GET of a version ignores response-content-type", "headers_of_a_version in repairs.py can go")
def repaired_headers(world: World) -> bool:
    return world.read_named()["ResponseMetadata"]["HTTPHeaders"].get("x-emulator-repaired") == "headers"


@worked_around("a number from a parameter stays a string in a mapping", "settle_mapping in settle.py can go")
def mapping(world: World) -> bool:
    client = boto3.client("lambda")
    raw = []
    # boto3 itself would make a number of it.
    client.meta.events.register("after-call", lambda http_response, **_: raw.append(json.loads(http_response.content)))
    client.get_event_source_mapping(UUID=world.ids["Mapping"])
    return isinstance(raw[0]["ScalingConfig"]["MaximumConcurrency"], str)


@worked_around("a role that names a sender may not send", "settle_role in settle.py can go")
def sender(world: World) -> bool:
    return refused(world.send_mail)


@worked_around("embedded metrics in a log make no metric", "tests may read metrics instead of log lines")
def embedded_metrics(world: World) -> bool:
    time.sleep(1)
    return not boto3.client("cloudwatch").list_metrics(Namespace="Contract")["Metrics"]


@worked_around("CloudFormation drops a stage's throttling", "throttling may be tested here")
def throttling(world: World) -> bool:
    stage = boto3.client("apigatewayv2").get_stage(ApiId=world.ids["Api"], StageName="$default")
    return not stage.get("DefaultRouteSettings")


def main(state: str) -> int:
    world = World(pathlib.Path(state))
    failed = 0
    for kind, name, remedy, function in CHECKS:
        try:
            holds = function(world)
            reason = remedy
        except Exception:
            holds = False
            reason = f"{remedy}\n{textwrap.indent(traceback.format_exc(limit=-2), '    ')}"
        if not holds:
            failed += 1
        print(f"{'ok' if holds else 'FAILED':<7}{kind}: {name}" + ("" if holds else f"\n       {reason}"))
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
