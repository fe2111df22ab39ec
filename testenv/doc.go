// Package testenv boots a real PG-REX cluster of several hosts on one Linux machine, as root: the lab. Each host is a
// whole system: an overlay over the root of a Debian (System), with systemd as PID 1, and corosync, Pacemaker and
// PostgreSQL as that release has them. Tests and the command rexlab use it; nothing in it is a simulation.
//
// Up starts a lab process, which owns everything: a switch (a bridge in a network namespace without a name), the
// cgroups and the hosts. A host's first process is this binary again, in new mount, UTS, IPC, PID, network and cgroup
// namespaces; it mounts what the host has, closes what could reach the machine, and becomes systemd. Its death is a
// power cut. Nothing but empty cgroups has a name outside: when the lab process ends, in whatever way, the kernel
// takes down all of it. A lab that Up started ends with the calling process, unless Detach lets it live on.
//
// The caller's duty: call Main first thing in main or TestMain, since the lab process, the hosts and their fence agent
// are the caller's binary run again; and call Down.
//
// It must not change the machine outside of its own folder and of the systems' roots in /var/cache/rexlab: no link,
// address, mount, user or file. It ends only processes that it started, by pid and start time, never by name. It must
// not know pgrex: a host runs whatever unit it is given.
//
// It fails with errors that say what was done to which host, and what was last seen where something was awaited. A
// boot that fails leaves its folder with the logs and no process. Every call takes a context; what outlives its
// deadline is killed with its process group.
package testenv
