#!/bin/sh
# Writes the Python modules of both .proto files beside them. Run it from anywhere, with the project's Python first in
# PATH; the results are checked in.
set -eu
cd "$(dirname "$0")/../../.."
python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
  e2e/fakegpu/proto/deviceplugin.proto e2e/fakegpu/proto/podresources.proto
