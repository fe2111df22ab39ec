# Makes the root of one system: a minimal Debian, and the packages of a database host. The lab runs it in mount and process
# namespaces of their own, with ROOT, SUITE, MIRROR, KEYRING and PACKAGES in its environment. Lines that begin with > are progress.
set -euo pipefail
umask 022
chmod 755 "$ROOT"

echo "> debootstrap of $SUITE"
debootstrap --variant=minbase --keyring="$KEYRING" "$SUITE" "$ROOT" "$MIRROR"

mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/run"
inside() { chroot "$ROOT" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }

# Nothing is started while packages are installed, and no database is made.
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
mkdir -p "$ROOT/etc/postgresql-common/createcluster.d" "$ROOT/etc/dpkg/dpkg.cfg.d"
echo 'create_main_cluster = false' >"$ROOT/etc/postgresql-common/createcluster.d/rexlab.conf"
# What a lab host does not need: nobody reads documents there, and a lost root is made again.
cat >"$ROOT/etc/dpkg/dpkg.cfg.d/rexlab" <<-END
	path-exclude=/usr/share/doc/*
	path-exclude=/usr/share/man/*
	path-exclude=/usr/share/locale/*
	force-unsafe-io
END

echo "> the packages: $PACKAGES"
# shellcheck disable=SC2086 # the names are words
inside apt-get -qq install --yes --no-install-recommends $PACKAGES
inside apt-get clean
rm -r "$ROOT"/var/lib/apt/lists/*
rm "$ROOT/usr/sbin/policy-rc.d"

echo "> the units"
# The lab says when the cluster starts; Pacemaker alone starts PostgreSQL.
inside systemctl --quiet disable corosync.service pacemaker.service postgresql.service
# What would reach past the host to the machine, or has nothing to do in one.
inside systemctl --quiet mask systemd-timesyncd.service systemd-udevd.service systemd-udevd-control.socket \
	systemd-udevd-kernel.socket systemd-udev-trigger.service systemd-udev-settle.service systemd-modules-load.service \
	systemd-sysctl.service systemd-random-seed.service kmod-static-nodes.service getty@.service fstrim.timer \
	sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
	proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount systemd-binfmt.service dev-hugepages.mount \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
mkdir -p "$ROOT/var/log/journal" # a host's journal outlives its power

if [ "$SUITE" = bookworm ]; then
	# Pacemaker 2.1.5 takes the -INFINITY of "crm_attribute -v -INFINITY" for options and fails, and the pgsql agent never
	# starts. --update=-INFINITY means the same in every version.
	inside dpkg-divert --quiet --rename --divert /usr/sbin/crm_attribute.real --add /usr/sbin/crm_attribute
	cat >"$ROOT/usr/sbin/crm_attribute" <<-'END'
		#!/bin/sh
		for word; do
			shift
			if [ "$value" = next ]; then
				set -- "$@" "--update=$word"
				value=
			elif [ "$word" = -v ]; then
				value=next
			else
				set -- "$@" "$word"
			fi
		done
		exec /usr/sbin/crm_attribute.real "$@"
	END
	chmod 755 "$ROOT/usr/sbin/crm_attribute"
fi
# Whatever a set-user-id program has to do in a host, root can do there; and these would be there for everybody on the machine.
find "$ROOT" -xdev -type f -perm /6000 -exec chmod a-s {} +
umount "$ROOT/proc" "$ROOT/run"
