package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// completeLimit is how long a shell waits for names.
const completeLimit = 2 * time.Second

// completions are what a shell offers for the values of flags, by the flags' names.
var completions = map[string]cobra.CompletionFunc{
	"node":      names(nodes),
	"resource":  names(resources),
	"instance":  names(primitives),
	"to":        names(members),
	"down":      names(members),
	"give-up":   names(members),
	"method":    cobra.FixedCompletions(methods, cobra.ShellCompDirectiveNoFileComp),
	"log-level": cobra.FixedCompletions([]string{"info", "debug"}, cobra.ShellCompDirectiveNoFileComp),
	"archive":   folders, "move": folders, "backup": folders, "pg-data": folders, "pg-socket-dir": folders,
	"cib-dir": folders, "state-dir": folders,
}

// complete lets a shell complete the values of flags, and offer no files as arguments.
func complete(cmd *cobra.Command) {
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		offer := completions[f.Name]
		if choice, ok := f.Value.(choiceFlag); ok {
			offer = cobra.FixedCompletions(choice.choices, cobra.ShellCompDirectiveNoFileComp)
		}
		if offer != nil {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, offer) // fails only for a name that is no flag
		}
	})
	for _, c := range cmd.Commands() {
		complete(c)
	}
}

func folders(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// names makes a completion of one that asks for names. In a list, it completes the last one.
func names(ask func(context.Context, *cobra.Command) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, word string) (found []cobra.Completion, _ cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
		defer cancel()
		before := word[:strings.LastIndex(word, ",")+1]
		answer := make(chan []string, 1)
		go func() { answer <- ask(ctx, cmd) }() // a file system may not answer at all
		select {
		case names := <-answer:
			for _, name := range names {
				if model.Printable(name) == name { // any other would be shown differently from what has to be typed
					found = append(found, before+name)
				}
			}
		case <-ctx.Done():
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// members are the other hosts of the database, as the daemon knows them, or else the cluster's nodes.
func members(ctx context.Context, cmd *cobra.Command) (hosts []string) {
	s := newSettings()
	given := func(name string, setting *string) {
		if f := cmd.Flag(name); f != nil && f.Changed {
			*setting = f.Value.String()
		}
	}
	given("instance", &s.Instance)
	given("config", &s.Config)
	_ = s.forInstance(cmd.Flag("config") != nil && cmd.Flag("config").Changed)
	_ = s.readFile(false) // with wrong settings the default socket is asked
	given("socket", &s.Socket)
	status, err := controller.FetchStatus(ctx, s.Socket)
	if err != nil {
		return nodes(ctx, cmd)
	}
	for _, m := range status.Members {
		if !model.SameNode(m.Host, status.Node) {
			hosts = append(hosts, m.Host)
		}
	}
	return hosts
}

// nodes are the cluster's nodes; none where the CIB cannot be read.
func nodes(ctx context.Context, _ *cobra.Command) (names []string) {
	cluster, _ := (&cib.Client{}).Read(ctx) // what a shell cannot complete is typed
	for _, n := range cluster.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// primitives returns the primitives of the cluster's databases: the possible instances.
func primitives(ctx context.Context, _ *cobra.Command) (ids []string) {
	cluster, _ := (&cib.Client{}).Read(ctx) // as above
	for _, c := range cluster.Clones {
		ids = append(ids, c.Primitive)
	}
	return ids
}

// resources are the clones that may be a database.
func resources(ctx context.Context, _ *cobra.Command) (ids []string) {
	cluster, _ := (&cib.Client{}).Read(ctx) // as above
	for _, c := range cluster.Clones {
		ids = append(ids, c.ID)
	}
	return ids
}
