#!/bin/sh
# The tests use a real browser and a real MariaDB. Install them where we may, else say what to install.
set -u
missing=""
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
command -v mariadbd >/dev/null 2>&1 || [ -x /usr/sbin/mariadbd ] || missing="$missing mariadb-server"
[ "$(uname)" != Linux ] || fc-list 2>/dev/null | grep -qi 'cjk\|wenquanyi\|pingfang\|yahei' || missing="$missing fonts-noto-cjk"
[ -n "$missing" ] || exit 0

sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo -n"
if command -v apt-get >/dev/null 2>&1 && $sudo true 2>/dev/null; then
    echo "Installing for the tests:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends fontconfig $missing >/dev/null && exit 0
fi
echo "The tests need these programs; install them and run make test again:$missing" >&2
echo "  Debian, Ubuntu:  sudo apt-get install$missing" >&2
echo "  Fedora:          sudo dnf install chromium mariadb-server google-noto-sans-cjk-fonts" >&2
echo "  macOS:           brew install mariadb && brew install --cask chromium" >&2
exit 1
