#!/bin/sh
# The steps of the Dockerfile in a clean root of Debian, where there is no Docker: as root,
#   sh packaging/clean_root.sh ROOT [TORCH_INDEX]
# ROOT is a folder that is made. BIND="FOLDER ..." makes folders of this machine readable in it, and variables
# PIP_* hold there, too. Needs mmdebstrap. Ends with the size of the root and a denoised picture.
set -eu
ROOT=$1
PROJECT=$(cd "$(dirname "$0")/.." && pwd)
mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$ROOT"
undo() {
    for folder in ${BIND:-} /proc /dev; do umount "$ROOT$folder" || true; done
}
trap undo EXIT
for folder in ${BIND:-} /proc /dev; do
    mkdir -p "$ROOT$folder"
    mount --bind "$folder" "$ROOT$folder"
done
cp /etc/resolv.conf "$ROOT/etc/resolv.conf"
mkdir "$ROOT/source" "$ROOT/data"
git -C "$PROJECT" archive HEAD | tar -x -C "$ROOT/source"

inside() {
    chroot "$ROOT" /usr/bin/env PATH=/opt/n2n/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
inside useradd --create-home n2n
inside python3 -m venv /opt/n2n
inside sh /source/packaging/install.sh /source ${2:+"$2"}
inside rm -r /source
inside chown n2n /data
inside su n2n -c 'cd /data && /opt/n2n/bin/n2n --version && /opt/n2n/bin/n2n doctor'
cp "$PROJECT/packaging/galaxy/test-data/noisy.tiff" "$ROOT/data"
inside su n2n -c 'cd /data && /opt/n2n/bin/n2n denoise noisy.tiff -o clean.tiff && ls -l'
undo
trap - EXIT
du -sh "$ROOT"
