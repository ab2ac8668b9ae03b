#!/usr/bin/env bash
# Checks the direction of the dependencies, and that no function carries a client it has no use for.
#
# Prints one line for each finding and exits 1 if there is one. Needs cargo.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

functions=(auth upload status intake process notify sweep)
findings=0
finding() {
    echo "features: $1"
    findings=$((findings + 1))
}

# Names of all packages that a package is built from.
built_from() {
    cargo tree --quiet --locked --package "$1" --edges normal --prefix none --format '{p}' | cut -d' ' -f1,2 | sort -u
}

# The rules of the domain stand alone: without a feature, nothing that does I/O is in the build.
if ! cargo check --quiet --locked --package reelay-core --no-default-features; then
    finding "reelay-core does not compile without its features"
fi
bare=$(cargo tree --quiet --locked --package reelay-core --no-default-features --edges normal --prefix none --format '{p}')
for crate in aws-config aws-sdk- lambda_ tokio axum hyper; do
    if grep -q "^$crate" <<<"$bare"; then
        finding "the bare reelay-core is built from $crate"
    fi
done

# What each function may not contain. A client that is not there cannot be misused, and costs no start time.
declare -A without=(
    [auth]="aws-sdk-s3 aws-sdk-sqs aws-sdk-ses aws-sdk-lambda"
    [upload]="aws-sdk-ses aws-sdk-lambda argon2"
    [status]="aws-sdk-sqs aws-sdk-ses aws-sdk-lambda argon2"
    [intake]="aws-sdk-ses aws-sdk-lambda aws-sdk-secretsmanager jsonwebtoken axum argon2"
    [process]="aws-sdk-ses aws-sdk-lambda aws-sdk-secretsmanager jsonwebtoken axum argon2"
    [notify]="aws-sdk-s3 aws-sdk-sqs aws-sdk-lambda aws-sdk-secretsmanager jsonwebtoken axum argon2"
    [sweep]="aws-sdk-ses aws-sdk-secretsmanager jsonwebtoken axum argon2"
)
for function in "${functions[@]}"; do
    packages=$(built_from "$function") || finding "$function has no dependency tree"
    for crate in ${without[$function]}; do
        if grep -q "^$crate " <<<"$packages"; then
            finding "$function is built from $crate"
        fi
    done
    for other in "${functions[@]}"; do
        if [ "$other" != "$function" ] && grep -q "^$other v" <<<"$packages"; then
            finding "$function depends on $other: what two functions need belongs into reelay-core"
        fi
    done
    # One TLS stack and one HTTP stack. The SDK's old default features bring a second of each.
    for crate in ring openssl native-tls anyhow "rustls v0.21" "hyper v0.14" "h2 v0.3"; do
        if grep -q "^$crate\( \|\.\|$\)" <<<"$packages"; then
            finding "$function is built from $crate"
        fi
    done
done

# Tests see the functions from outside only.
if cargo tree --quiet --locked --package e2e --edges all --prefix none --format '{p}' --depth 1 |
    grep -qE "^($(IFS='|'; echo "${functions[*]}")) v"; then
    finding "the tests depend on a function"
fi

if [ "$findings" -eq 0 ]; then
    echo "features: ${#functions[@]} functions, each with its own clients only"
fi
[ "$findings" -eq 0 ]
