package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
)

// starting is what an operation starts on this host. It decides which rights the operation may have.
type starting int

const (
	startsTools    starting = iota // Pacemaker's tools only
	startsPrograms                 // PostgreSQL's programs, too, and what the server's configuration has them run
	startsServer                   // and, to undo a step, a server that stays
	startsInUnit                   // as startsPrograms, in a unit that is this program's own
)

// operates makes the command of an operation. Each part of the operation gets only the rights that it needs. A command
// that root starts splits (split.go), and each of the two parts calls operate.
func operates(
	s *settings, starts starting, operate func(cmd *cobra.Command) error,
) func(*cobra.Command, []string) error {
	return runE(func(cmd *cobra.Command) error {
		defer quits(cmd)()
		if err := s.load(cmd); err != nil {
			return err
		}
		if isPart(cmd.Context()) {
			return operate(cmd)
		}
		owner, err := s.dataOwner(cmd.Context())
		switch {
		case os.Geteuid() != 0 && (errors.Is(err, cib.ErrPermission) || errors.Is(err, fs.ErrPermission)):
			return fmt.Errorf("this user may neither ask Pacemaker nor look after the database: type: %s", asRoot())
		case err != nil:
			return err
		case os.Geteuid() == 0:
			return owner.split(cmd, starts, s.StateDir)
		case int(owner.uid) != os.Geteuid():
			return fmt.Errorf("%s belongs to the user %s, who is another one: type: %s", owner.folder, owner.name, asRoot())
		}
		if in, err := cib.InGroup(); in && err == nil && starts != startsTools {
			return fmt.Errorf("PostgreSQL's programs, and what its configuration has them run, would get the group %s,"+
				" and with it the cluster: type: %s", cib.ClusterGroup, asRoot())
		}
		return operate(cmd)
	})
}

// asRoot is this command line as it is meant to be typed.
func asRoot() string {
	return cib.Command{Path: "sudo", Args: append([]string{"pgrex"}, os.Args[1:]...)}.String()
}

// dataOwner is the user whose data folder it is, and as whom PostgreSQL's programs run.
type dataOwner struct {
	folder     string
	agents     string // the user that runs PostgreSQL, by the agent's parameters
	name, home string
	uid, gid   uint32
	groups     []uint32 // his further ones, by the user database, without haclient
	cluster    uint32   // haclient
}

// dataOwner finds out whose data folder it is, and opens nothing below that.
//
// The CIB is read with the rights that this process has, root's mostly, since only the CIB says where the folder is.
// That
// look is what root types every day, as crm_mon, and nothing that the database's owner can write has a part in it.
func (s *settings) dataOwner(ctx context.Context) (dataOwner, error) {
	look := controller.Observer{Node: s.Node, Resource: s.Resource, Clusters: &cib.Client{}}
	who, err := look.Cluster(ctx)
	if err != nil {
		return dataOwner{}, err
	}
	o := dataOwner{folder: cmp.Or(s.PGData, who.Clone.DataFolder()), agents: cmp.Or(who.Clone.Parameters["pgdba"], "postgres")}
	info, err := os.Stat(o.folder)
	// A root without capabilities may not look into a folder of somebody else's. Then the agent's user it is: the part
	// that gets that user's rights refuses a data folder that is not its own.
	hidden := os.Geteuid() == 0 && errors.Is(err, fs.ErrPermission)
	switch {
	case err == nil:
		o.uid = info.Sys().(*syscall.Stat_t).Uid
	case (hidden || errors.Is(err, fs.ErrNotExist)) && o.folder == who.Clone.DataFolder(): // rejoin makes it again
		if o.uid, err = userNumber(o.agents); err != nil {
			return o, fmt.Errorf("%s is not there, and whose it would be is not known: %w", o.folder, err)
		}
	default:
		return o, fmt.Errorf("see whose the data folder is: %w; run pgrex on a host that has it", err)
	}
	if os.Geteuid() != 0 {
		o.name = strconv.Itoa(int(o.uid))
		if account, err := user.LookupId(o.name); err == nil {
			o.name = account.Username
		}
		return o, nil // no further rights can be had
	}
	return o, o.lookUp()
}

// userNumber is the number of a user.
func userNumber(name string) (uint32, error) {
	account, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	numbers, err := idNumbers([]string{account.Uid})
	if err != nil {
		return 0, err
	}
	return numbers[0], nil
}

// lookUp asks the user database for the owner, and for the groups.
func (o *dataOwner) lookUp() error {
	if o.uid == 0 {
		return fmt.Errorf("%s belongs to root, who cannot run PostgreSQL: type: %s", o.folder,
			cib.Command{Path: "chown", Args: []string{o.agents + ":", o.folder}})
	}
	account, err := user.LookupId(strconv.Itoa(int(o.uid)))
	if err != nil {
		return fmt.Errorf("find the owner of %s: %w", o.folder, err)
	}
	o.name, o.home = account.Username, account.HomeDir
	cluster, err := user.LookupGroup(cib.ClusterGroup)
	if err != nil {
		return fmt.Errorf("find the group that may talk to Pacemaker: %w; install pacemaker", err)
	}
	ids, err := account.GroupIds()
	if err != nil {
		return fmt.Errorf("find the groups of %s: %w", o.name, err)
	}
	if account.Gid == cluster.Gid {
		return fmt.Errorf("the primary group of the user %s is %s, with which every superuser of the database has the cluster: give it another with usermod -g",
			o.name, cluster.Name)
	}
	numbers, err := idNumbers(append([]string{cluster.Gid, account.Gid}, ids...))
	if err != nil {
		return err
	}
	o.cluster, o.gid = numbers[0], numbers[1]
	o.groups = slices.DeleteFunc(numbers[1:], func(gid uint32) bool { return gid == o.cluster })
	return nil
}

func idNumbers(ids []string) (numbers []uint32, err error) {
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the number of a user or group: %w", err)
		}
		numbers = append(numbers, uint32(n))
	}
	return numbers, nil
}

// credential is what the part has that does the files and runs PostgreSQL's programs.
func (o dataOwner) credential() *syscall.Credential {
	return &syscall.Credential{Uid: o.uid, Gid: o.gid, Groups: o.groups}
}

// toolsCredential is what Pacemaker's tools have.
func (o dataOwner) toolsCredential() syscall.Credential {
	return syscall.Credential{Uid: o.uid, Gid: o.cluster}
}

// environment is a given one, for a process of the owner's.
func (o dataOwner) environment(given []string) []string {
	kept := slices.DeleteFunc(slices.Clone(given), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"HOME", "USER", "LOGNAME", toolsVariable}, name)
	})
	return append(kept, "HOME="+o.home, "USER="+o.name, "LOGNAME="+o.name)
}
