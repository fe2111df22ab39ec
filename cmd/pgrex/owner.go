package main

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/reconcile"
)

// ownerOf returns the user who owns a server's data folder, with the groups of the user database. The groups of this
// process say nothing: it may be another user's, and has haclient on purpose. What cannot be read stays empty.
func ownerOf(server *postgres.Server) (owner reconcile.Owner) {
	uid, postmaster, err := server.Owner()
	if err != nil {
		return owner
	}
	owner.Postmaster = groupNames(processGroups(postmaster))
	account, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return owner
	}
	owner.Name, owner.Group = account.Username, groupNames([]string{account.Gid})[0]
	ids, _ := account.GroupIds() // none, where the database of groups cannot be read
	owner.Groups = groupNames(ids)
	return owner
}

// processGroups returns the groups of a process by number, including the primary one (proc_pid_status(5)).
func processGroups(pid int32) (ids []string) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it is empty if it may not be read
	for line := range strings.Lines(string(status)) {
		if key, values, _ := strings.Cut(line, ":"); key == "Gid" || key == "Groups" {
			ids = append(ids, strings.Fields(values)...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// groupNames returns the names of groups. A group without a name keeps its number.
func groupNames(ids []string) (names []string) {
	for _, id := range ids {
		if group, err := user.LookupGroupId(id); err == nil {
			id = group.Name
		}
		names = append(names, id)
	}
	return names
}
