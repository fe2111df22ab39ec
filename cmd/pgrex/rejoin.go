package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/model"
)

// methods are what --method takes.
var methods = []string{
	"auto", string(rejoin.MethodStart), string(rejoin.MethodArchive), string(rejoin.MethodRestored),
	string(rejoin.MethodRewind), string(rejoin.MethodCopy),
}

func rejoinCommand() *cobra.Command {
	s := newSettings()
	var method, rate string
	var maxRate uint64
	var ask asking
	cmd := &cobra.Command{
		Use:   "rejoin",
		Short: "Bring this host back into replication",
		Long: `Looks at this host's data and at the primary, prints each way back with what it would fetch and why it
is possible or not, and takes the cheapest: start, archive (start, with WAL that only the WAL archive has), restored
(data that were restored from a backup recover with the WAL of both), rewind (pg_rewind) or copy (pg_basebackup, through
this host's own slot, beside the old data). Node-local files stay,
primary_slot_name is right before the first start, and the agent's PGSQL.lock goes only when the data are proven or
mended. It waits until the host streams. If it is interrupted or killed, run it again: it goes on where it stopped. Or
undo it: sudo pgrex operation undo.

Run it on the host that is to come back, as root. All but Pacemaker's tools runs as the user that owns the data.

Exit status: 0 the host streams, 1 failed or refused, 2 dry run with something to do, 64 wrong usage.`,
		Example: "  sudo pgrex rejoin --dry-run\n  sudo pgrex rejoin\n  sudo pgrex rejoin --method copy --max-rate 50M",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown argument %q", args[0])
			}
			if !slices.Contains(methods, method) {
				return fmt.Errorf("--method %q: it is auto, start, archive, restored, rewind or copy", method)
			}
			var err error
			maxRate, err = parseRate(rate)
			return err
		},
		RunE: operates(s, startsPrograms, func(cmd *cobra.Command) error {
			return rejoinHost(cmd, s, method, maxRate, &ask)
		}),
	}
	s.observeFlags(cmd.Flags())
	cmd.Flags().StringVar(&method, "method", "auto", "auto, start, archive, restored, rewind or copy")
	cmd.Flags().StringVar(&rate, "max-rate", "", "limit of a copy's rate per second, 32k to 1024M")
	ask.flags(cmd)
	return cmd
}

func rejoinHost(cmd *cobra.Command, s *settings, method string, maxRate uint64, ask *asking) error {
	out := printer.Out(cmd)
	o := s.observer()
	defer o.Close()
	engine := s.engine(cmd, o)
	engine.Report = out.Report // which knows of the line that Redraw has left
	if err := engine.Ready(cmd.Context(), rejoin.Continues); err != nil {
		return err
	}
	r := &rejoin.Rejoin{
		Observer: o, MaxRate: maxRate, Report: engine.Report, Method: method, StateDir: s.StateDir,
		Archive: method != string(rejoin.MethodStart) && method != string(rejoin.MethodCopy),
	}
	if out.Terminal() {
		r.Redraw = out.Redraw
	}
	var err error
	if r.Left, err = operation.LoadJournal(s.StateDir); err != nil {
		return err
	}
	found, err := r.Look(cmd.Context())
	if err != nil {
		return err
	}
	if found.Streams {
		return errors.Join(rejoined(cmd, engine, r, found, ask), s.forgetTries(ask, nil))
	}
	method = r.StillAsked(found, method)
	printLadder(engine.Report, found.Ladder)
	rung, err := found.Choose(method)
	if err != nil {
		return err
	}
	by := func(way rejoin.Method) error {
		says, err := found.Says(cmd.Context(), way)
		if err != nil {
			return err
		}
		job, err := r.Job(cmd.Context(), found, way, method)
		if err != nil {
			return err
		}
		job.Says = append(says, job.Says...)
		if err := ask.perform(cmd, engine, job, s.Node+" is back"); err != nil {
			if e := s.rememberGivenUp(job); e != nil {
				engine.Report(printer.OneLine(e))
			}
			return err
		}
		returned := rejoin.ReturnedBy(job, found.Primary, engine.Who)
		return s.forgetTries(ask, &returned)
	}
	err = by(rung.Method)
	if copied, e := found.Choose(string(rejoin.MethodCopy)); errors.Is(err, rejoin.ErrNoRewind) && method == "auto" && e == nil {
		engine.Report(printer.OneLine(err))
		err = by(copied.Method)
	}
	if _, ok := errors.AsType[statusError](err); ok || err == nil {
		return err
	}
	return fmt.Errorf("%w; mend that, then type: sudo pgrex rejoin", err)
}

// forgetTries clears what this host remembers of its ways back without a person: a person has brought it back now, or
// has seen that it is back. returned is how; nil if there was nothing to do.
func (s *settings) forgetTries(ask *asking, returned *model.Returned) error {
	before, err := operation.Remembered(s.StateDir)
	if ask.dryRun || err == nil && returned == nil && before.Tries == 0 && before.Problem == "" && len(before.Returns) == 0 {
		return nil
	}
	if returned == nil { // an unreadable file is replaced, too
		return operation.Remember(s.StateDir, model.AutoRejoin{Last: before.Last, GivenUp: before.GivenUp})
	}
	if returned.GivenUp == nil { // a try that failed may have given it up
		returned.GivenUp = before.GivenUp
	}
	return operation.Remember(s.StateDir, model.AutoRejoin{Last: returned})
}

// rememberGivenUp keeps what a job has given up that did not end well.
func (s *settings) rememberGivenUp(job operation.Job) error {
	given := rejoin.GaveUp(job)
	if given == nil {
		return nil
	}
	remembered, err := operation.Remembered(s.StateDir)
	if err != nil {
		return err
	}
	remembered.GivenUp = given
	return operation.Remember(s.StateDir, remembered)
}

// rejoined is what is left to do on a host that streams.
func rejoined(cmd *cobra.Command, engine *operation.Engine, r *rejoin.Rejoin, found *rejoin.Case, ask *asking) error {
	if !found.Left && r.Left == nil {
		r.Report(r.Observer.Node + " streams through its own slot: nothing to do")
		return nil
	}
	job, err := r.Job(cmd.Context(), found, "", "")
	if err != nil {
		return err
	}
	job.Says = []string{r.Observer.Node + " streams through its own slot, but an earlier rejoin has left something"}
	return ask.perform(cmd, engine, job, "")
}

// parseRate reads a rate as pg_basebackup takes it, in kB or with a unit, and returns bytes; 0 for none.
func parseRate(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	number, unit := text, uint64(1<<10)
	if n, ok := strings.CutSuffix(text, "M"); ok {
		number, unit = n, 1<<20
	} else if n, ok := strings.CutSuffix(text, "k"); ok {
		number = n
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if rate := n * unit; err == nil && rate >= 32<<10 && rate <= 1024<<20 {
		return rate, nil
	}
	return 0, fmt.Errorf("--max-rate %q: it is 32k to 1024M", text)
}

func printLadder(report operation.Reporter, ladder []rejoin.Rung) {
	for _, rung := range ladder {
		verdict := "not possible"
		if rung.Possible && rung.Method == rejoin.MethodCopy && rung.Bytes == 0 {
			verdict = "possible"
		} else if rung.Possible {
			verdict = "possible (" + rejoin.Size(rung.Bytes, rung.Rate) + ")"
		}
		report(fmt.Sprintf("%-8s  %s: %s", rung.Method, verdict, rung.Why))
	}
}

// confirm asks, unless the answer is given. Nobody can be asked without a terminal.
func confirm(cmd *cobra.Command, yes bool) error {
	if yes {
		return nil
	}
	if !isTerminal(os.Stdin) {
		return errors.New("there is no terminal to ask at: say --yes, or --dry-run")
	}
	printer.Out(cmd).Ask("do it? [y/N]")
	if !consents(cmd.Context(), cmd.InOrStdin()) {
		return errors.New("nothing was done")
	}
	return nil
}

// consents waits for an answer, or for an interrupt, which reading does not end with. No answer is no.
func consents(ctx context.Context, in io.Reader) bool {
	answers := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(in).ReadString('\n')
		answers <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case a := <-answers:
		return a == "y" || a == "yes"
	case <-ctx.Done():
		return false
	}
}
