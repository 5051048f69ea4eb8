#!/bin/sh
# Puts what was built below a prefix, as packages have it. The programs find the rest of their files by their own place,
# so that the tree can be moved.
# usage: PREFIX=/usr DESTDIR=staging PROFILE=release scripts/install.sh
set -eu
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
profile=${PROFILE:-release}
bin=${BINDIR:-$(scripts/bin-dir.sh "$profile")}
strip=${STRIP-strip}

program() {
    [ -x "$bin/$1" ] || { echo "install: $bin/$1 is not built; use: make build PROFILE=$profile" >&2; exit 1; }
    install -D -m 755 "$bin/$1" "$2/$1"
    [ -z "$strip" ] || "$strip" --strip-unneeded "$2/$1"
}

for name in flux flux-broker flux-shell flux-keygen flux-jobtap-exec flux-module-exec resource-query fluxion-sim; do
    program "$name" "$root/bin"
done
for name in libpmi.so libpmi2.so; do
    program "$name" "$root/lib/flux"
    ln -sf "$name" "$root/lib/flux/$name.0"
done

install -d "$root/lib/flux/job-manager/plugins" "$root/lib/flux/shell/plugins"
for header in crates/plugin-sdk/include/ferroflux/*.h; do
    install -D -m 644 "$header" "$root/include/ferroflux/$(basename "$header")"
done
# For sources written for upstream: beside, not in the way of its own headers.
for header in crates/plugin-sdk/include/compat/flux/*.h; do
    install -D -m 644 "$header" "$root/include/ferroflux/compat/flux/$(basename "$header")"
done
install -D -m 644 crates/plugin-sdk/python/ferroflux_plugin.py "$root/lib/flux/python3/ferroflux_plugin.py"

install -D -m 644 etc/completions/flux.bash "$root/share/bash-completion/completions/flux"
install -D -m 644 etc/completions/flux.fish "$root/share/fish/vendor_completions.d/flux.fish"
for page in README.md ARCHITECTURE.md docs/*.md; do
    install -D -m 644 "$page" "$root/share/doc/ferroflux/$(basename "$page")"
done
install -D -m 644 LICENSE "$root/share/doc/ferroflux/LICENSE"

# A unit names the absolute paths of what it runs.
unitdir=${DESTDIR:-}${UNITDIR:-$prefix/lib/systemd/system}
install -d "$unitdir"
sed "s,/usr/bin/flux,$prefix/bin/flux," etc/systemd/flux.service > "$unitdir/flux.service"
chmod 644 "$unitdir/flux.service"

# The manual pages come from the commands themselves.
mandir=$root/share/man/man1
install -d "$mandir"
"$root/bin/flux" --help | sed -n 's/^   \([a-zA-Z][a-zA-Z0-9-]*\) .*/\1/p' | while read -r name; do
    if "$root/bin/flux" "$name" --man-page > "$mandir/flux-$name.1" 2>/dev/null </dev/null; then
        gzip -9nf "$mandir/flux-$name.1"
    else
        rm "$mandir/flux-$name.1"
    fi
done
