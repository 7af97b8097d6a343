#!/usr/bin/env bash
# Has a Chromium for the tests of the dashboard: installs Debian's where that can be done, else says what to do.
# Without one those tests are skipped, so this never fails.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; then exit 0; fi
fi
echo "browser.sh: no Chromium: the dashboard's browser tests are skipped. Install it, for instance: sudo apt-get install chromium" >&2
