#!/bin/sh
# A build gate: optimize, keep the accuracy budget, and fail the build where a promise is not kept.
#
#     examples/ci_gate.sh model.onnx calib.npz test.npz out/
#
# irc exits with 5 where a check or a budget does not hold, and then has written nothing.
set -eu
model=$1 calib=$2 test=$3 out=$4

irc optimize "$model" --passes cleanup,int8 --calibrate "$calib" --evaluate "$test" \
    --max-drop 1% --no-bench --json report.json -o "$out"

# The report is one JSON document with a published schema; a gate is a few lines over it.
python3 - <<'PYTHON'
import json

report = json.load(open("report.json"))
first, last = report["rows"][0]["figures"], report["rows"][-1]["figures"]
smaller = first["size"]["file_bytes"] / last["size"]["file_bytes"]
print(f"{smaller:.2f}x smaller, {last['metric']['name']} {last['metric']['value']:.4f}")
if smaller < 1.2:
    raise SystemExit(f"only {smaller:.2f}x smaller, the build wants 1.2x")
for verdict in report["verdicts"]:
    if verdict["level"] == "warning":
        print(f"warning: {verdict['text']}")
PYTHON
