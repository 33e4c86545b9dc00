#!/bin/sh
# Trains by a job.yaml on a Trainshed service; the exit code is the verdict (docs/ci.md lists the codes).
#
#   sh ci.sh job.yaml [OPTIONS OF trainshed run]
#
# TRAINSHED_URL, TRAINSHED_TOKEN  the service
# TRAINSHED_PACKAGE               what pip installs where `trainshed` is not on the PATH, such as
#                                 trainshed[client] @ git+https://git.example.com/trainshed.git@v0.1.0
# TRAINSHED_OUT                   folder of reports and artifacts (trainshed-out)
set -eu

out=${TRAINSHED_OUT:-trainshed-out}

if ! command -v trainshed >/dev/null 2>&1; then
  tools=${TRAINSHED_VENV:-.trainshed-venv}
  if [ ! -x "$tools/bin/trainshed" ]; then
    package=${TRAINSHED_PACKAGE:?says what pip shall install}
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "$package"
  fi
  PATH=$tools/bin:$PATH
fi

# In the background, so that this shell hears a pipeline's signals and passes them on: what they do to the job
# is the command's to decide (--cancel-on-interrupt).
signalled=
trainshed run "$@" --out "$out" &
child=$!
trap 'signalled=yes; kill -TERM "$child" 2>/dev/null || true' INT TERM
code=0
wait "$child" || code=$?
if [ -n "$signalled" ]; then
  # The signal ended the wait, not yet the command.
  again=0
  wait "$child" || again=$?
  [ "$again" -eq 127 ] || code=$again
fi

if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$out/report.md" ]; then
  cat "$out/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"
