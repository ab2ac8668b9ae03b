"""Repairs of the emulator's own behaviour, for what no setting and no call can change.

Each leaves a right answer as it is, and marks an answer that it changed, so that contract.py can tell when a repair is
needed no longer.
"""

MARK = "x-emulator-repaired"


def range_of_a_version(s3) -> None:
    """A GET of one version of an object ignores `Range` and answers with all of it."""
    get_object = s3._get_object

    def get_object_range(bucket, key, headers, query=None):
        status, answer, body = get_object(bucket, key, headers, query)
        wanted = headers.get("range")
        if status != 200 or not wanted or not s3._qp(query or {}, "versionId", ""):
            return status, answer, body
        bounds = s3._parse_range(wanted, len(body))
        if bounds is None:
            refusal = {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}", MARK: "range"}
            return 416, refusal, s3._xml_body(s3._range_error_xml(bucket, key))
        first, last = bounds
        # A checksum is of the whole object.
        answer = {name: value for name, value in answer.items() if not name.lower().startswith("x-amz-checksum-")}
        part = body[first : last + 1]
        answer |= {"Content-Length": str(len(part)), MARK: "range"}
        answer["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        return 206, answer, part

    s3._get_object = get_object_range


def headers_of_a_version(s3) -> None:
    """A GET of one version of an object ignores the headers that its URL asks for, such as `response-content-type`."""
    get_object = s3._get_object

    def get_object_headers(bucket, key, headers, query=None):
        status, answer, body = get_object(bucket, key, headers, query)
        if status not in (200, 206) or not s3._qp(query or {}, "versionId", ""):
            return status, answer, body
        asked = dict(answer)
        s3._apply_response_overrides(asked, query)
        if asked != answer:
            asked |= {MARK: f"{answer[MARK]}, headers" if MARK in answer else "headers"}
        return status, asked, body

    s3._get_object = get_object_headers


def apply() -> None:
    """Applies all repairs to the emulator in this process."""
    from ministack.services import s3

    range_of_a_version(s3)
    headers_of_a_version(s3)
