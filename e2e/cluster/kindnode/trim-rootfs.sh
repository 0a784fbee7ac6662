#!/bin/sh
# mmdebstrap hook, called with the root folder: what kind's own base image takes out of Debian's systemd, and
# what the building machine's configuration left behind.
set -eu
cd "$1"
rm -f usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
  usr/lib/systemd/system/multi-user.target.wants/* etc/systemd/system/*.wants/* \
  usr/lib/systemd/system/local-fs.target.wants/* usr/lib/systemd/system/basic.target.wants/* \
  usr/lib/systemd/system/sockets.target.wants/*udev* usr/lib/systemd/system/sockets.target.wants/*initctl*
echo ReadKMsg=no >> etc/systemd/journald.conf
rm -rf etc/hostname etc/apt/sources.list etc/apt/sources.list.d var/cache/apt var/lib/apt/lists
: > etc/resolv.conf
