# Sourced by the scripts beside it: the Debian packages that the lab and the tests need of this machine, and how to get them. What
# the lab's hosts need is in their systems' roots.

lab_packages="debootstrap debian-archive-keyring util-linux systemd"
test_packages="$lab_packages pacemaker pacemaker-cli-utils resource-agents postgresql-15 gcc libc6-dev git prometheus"
package_packages="lintian rpmlint rpm rpm2cpio cpio" # to check pgrex's own with

# missing_packages PACKAGE...: prints those that are not installed.
missing_packages() {
	for package; do
		dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
	done
}

# install_packages PACKAGE...: installs what is missing. Nothing is started, and no database is made: policy-rc.d forbids
# the first for the time of the installation, create_main_cluster the second.
install_packages() {
	local missing
	missing=$(missing_packages "$@")
	[ -n "$missing" ] || return 0
	# shellcheck disable=SC2086 # the names are words
	set -- $missing
	if [ "$(id -u)" != 0 ]; then
		echo "missing packages: $*; install them as root: apt-get install --no-install-recommends $*" >&2
		return 1
	fi
	echo "installing: $*"
	(
		policy=/usr/sbin/policy-rc.d
		cluster=/etc/postgresql-common/createcluster.d/pgrex.conf
		trap 'rm -f "$cluster"; [ -z "${made:-}" ] || rm -f "$policy"' EXIT
		# Ours, if another run was killed.
		if [ ! -e "$policy" ] || grep -q 'for the tests of pgrex' "$policy"; then
			made=1
			printf '#!/bin/sh\n# for the tests of pgrex: nothing is started while packages are installed\nexit 101\n' >"$policy"
			chmod 755 "$policy"
		fi
		mkdir -p "${cluster%/*}"
		echo 'create_main_cluster = false' >"$cluster"
		export DEBIAN_FRONTEND=noninteractive
		apt-get -qq update
		apt-get -qq install --yes --no-install-recommends "$@" >/dev/null
	)
}
