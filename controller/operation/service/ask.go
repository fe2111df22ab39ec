package service

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// proof has a verdict on each other member, sorted by name, while no host is the primary.
type proof []verdict

// missing returns the reasons why the proof is not complete.
func (p proof) missing() (why []string) {
	for _, v := range p {
		if !v.OK {
			why = append(why, v.Why)
		}
	}
	return why
}

func (p proof) proven() bool { return len(p.missing()) == 0 }

// texts are the lines that the operator sees.
func (p proof) texts() (lines []string) {
	for _, v := range p {
		line := "  " + v.Why
		if !v.OK {
			line = "  not proven: " + v.Why
		}
		lines = append(lines, line)
	}
	return lines
}

// prove looks for a proof that no other member has newer data than this host.
func (s *Service) prove(ctx context.Context, h self, local reconcile.LocalData, p *Plan) (found proof) {
	o := ours{LocalData: local, Async: h.Policy.RepMode == "async", Overlooks: overlooks(h.Who, s.votes())}
	o.Doubt, o.Unsure = s.doubts(h, local, p)
	for _, m := range s.askOthers(ctx, h, o) {
		found = append(found, o.judge(m))
	}
	return found
}

// votes is why the quorum need not be that of more than half of the nodes; "" if it must be.
func (s *Service) votes() string {
	why, err := cib.OddVotes(cmp.Or(s.CorosyncConf, cib.CorosyncConf))
	if err != nil {
		return err.Error()
	}
	return why
}

// doubts are why the data here are not known to be those of the last primary, and why the data status of another member
// proves nothing about it; "" if they are, and if it does.
func (s *Service) doubts(h self, local reconcile.LocalData, p *Plan) (doubt, unsure string) {
	now := h.Here.Permanent[reconcile.DataStatus(h.Clone)]
	put, err := h.place.PutHere()
	latest := p.DataStatus == reconcile.DataLatest && now == reconcile.DataLatest // before this operation, and still
	inStep := p.DataStatus == reconcile.DataSync && (now == reconcile.DataSync || now == reconcile.DataLatest)
	switch {
	case !latest && !inStep:
		return notLatest, notLatest
	case err != nil:
		return err.Error(), err.Error()
	case inStep: // LATEST was set by this operation
		return notLatest, strayed(local, put, s.Observer.Kept.Standby)
	}
	doubt = parted(local, put, s.Observer.Kept.Primary)
	return doubt, doubt
}

// strayed is why the data here are not known to be those that this host had when it was last seen as a standby; "" if
// they are, or came after them. put is when the data here were put here.
func strayed(local reconcile.LocalData, put time.Time, was *controller.LastStandby) string {
	if was == nil {
		return "pgrex has not kept what this host had as a standby (it is kept since this version was first run as a " +
			"standby), so the data here may be older ones that were restored"
	}
	const not = "the data here are not known to be those that this host had as a standby: "
	on := slices.IndexFunc(local.Timelines, func(t model.Timeline) bool { return t.ID == was.Timeline })
	end := local.End
	if on >= 0 && on+1 < len(local.Timelines) {
		end = local.Timelines[on+1].Begin
	}
	switch {
	case local.SystemID != was.System:
		return fmt.Sprintf(not+"their system identifier is %s, and was %s", local.SystemID, was.System)
	case on < 0:
		return fmt.Sprintf(not+"they have nothing of timeline %d, on which they were", was.Timeline)
	case end < was.Replayed:
		return fmt.Sprintf(not+"on timeline %d they end at %s, and went up to %s", was.Timeline, end, was.Replayed)
	}
	return putSince(not, put, was.At, "a standby")
}

// putSince is why data that were put here at a time may not be those that were seen here as those of a primary or a
// standby; "" if they are.
func putSince(not string, put, seen time.Time, as string) string {
	if put.Before(seen) {
		return ""
	}
	return fmt.Sprintf("%sthey were put here, or restored, at %s, after %s, when it was last seen as %s (a chown, a "+
		"chmod and some backup tools look the same)", not, put.Format(time.DateTime), seen.Format(time.DateTime), as)
}

// parted is why the data here are not known to be those that this host had when it was last seen as the primary; "" if
// they are. Nothing in the CIB shows that a backup was put in their place. put is when the data here were put here.
func parted(local reconcile.LocalData, put time.Time, was *controller.LastPrimary) string {
	if was == nil {
		return "pgrex has not kept what this host had as the primary, so the data here may be older ones that were " +
			"restored"
	}
	const not = "the data here are not known to be those that this host had as the primary: "
	newest := local.Timelines[len(local.Timelines)-1].ID
	switch {
	case local.SystemID != was.System:
		return fmt.Sprintf(not+"their system identifier is %s, and was %s", local.SystemID, was.System)
	case newest != was.Timeline:
		return fmt.Sprintf(not+"they are on timeline %d, and were on %d", newest, was.Timeline)
	case local.End < was.Flushed:
		return fmt.Sprintf(not+"they end at %s, and went up to %s", local.End, was.Flushed)
	}
	return putSince(not, put, was.At, "the primary")
}

// askOthers asks the servers of all other members at the same time. It also asks members that Pacemaker shows as
// stopped or offline, because a server may still run there.
func (s *Service) askOthers(ctx context.Context, h self, o ours) []other {
	members := h.others(func(string) bool { return true })
	conninfo, err := h.place.Conninfo(ctx, h.Clone)
	ring, _ := cib.RingAddresses(cib.CorosyncConf) // without it, the other addresses remain
	claims := h.Claims()
	all := make([]other, len(members))
	var asking sync.WaitGroup
	for i, name := range members {
		m := &all[i]
		claim := slices.IndexFunc(claims, func(c reconcile.Claim) bool { return c.Host == name })
		*m = other{Claim: claims[claim], Node: h.NodeOf(name), Next: h.MayTakeOver(name)}
		if m.Node.Online && h.RoleOf(name) != model.RoleStopped {
			m.State = h.RoleText(name)
		}
		if err != nil {
			m.Problem = err.Error()
			continue
		}
		q := question{here: h, local: o.LocalData, conninfo: conninfo, member: name, wary: o.Doubt != "", watch: watch}
		asking.Go(func() { m.ask(ctx, q, s.Observer.Kept.Standbys[name], ring[name], name) })
	}
	asking.Wait()
	return all
}

// ask asks at one address after the other until one answers. The addresses are: the one from which the member streamed
// when this host was the primary, the one on corosync's ring, and the one to which the member's name leads.
func (m *other) ask(ctx context.Context, q question, addresses ...string) {
	var problems []string
	for i, address := range addresses {
		if address == "" || slices.Contains(addresses[:i], address) {
			continue
		}
		source, err := postgres.OpenStandby(ctx, q.conninfo, address)
		if err != nil {
			m.Heard = m.Heard || postgres.Answered(err)
			problems = append(problems, fmt.Sprintf("at %s: %v", address, err))
			continue
		}
		said, err := q.ask(ctx, source, address)
		source.Close()
		if err == nil {
			m.Said = &said
			return
		}
		m.Heard = m.Heard || !errors.Is(err, errOther) // whatever came then, a server let this host in
		problems = append(problems, fmt.Sprintf("at %s: %v", address, err))
	}
	m.Problem = strings.Join(problems, "; ")
}

// question has what a member is asked, and what its answer is compared with.
type question struct {
	here     self
	local    reconcile.LocalData
	conninfo string
	member   string
	// wary: it is not known that the data here are those of the last primary, so that a standby may have WAL that did not
	// come from them.
	wary  bool
	watch time.Duration // how long a standby must not move to count as one that replays nothing
}

// errOther says that another host's server has answered.
var errOther = errors.New("it is another host's")

// ask asks a member's server. Afterwards the source cannot be used any more.
func (q question) ask(ctx context.Context, source *postgres.Source, address string) (a answer, err error) {
	var received model.LSN
	if q.wary { // first: what it says afterwards is the end then
		if received, a.Replays, err = q.replays(ctx, source, address); err != nil {
			return a, err
		}
	}
	own := q.here.Names[q.member]
	if a.Upstream, err = source.Identify(ctx, own); err != nil {
		return a, err
	}
	if received > a.Flushed { // of a timeline that it does not replay yet
		a.Replays = fmt.Sprintf("it has received WAL up to %s", received)
	}
	if slot, _ := a.Slot(own); slot.Exists && own != q.here.OwnSlot() {
		return a, fmt.Errorf("the server at %s has the slot %s, which %s itself never has: %w",
			a.Address, own, q.member, errOther)
	}
	if a.Timelines, err = source.History(ctx, a.Timeline); err != nil {
		return a, err
	}
	newest := q.local.Timelines[len(q.local.Timelines)-1]
	if a.Later, err = source.Knows(ctx, newest.ID+1); err != nil {
		return a, err
	}
	if slices.Equal(a.Timelines, q.local.Timelines) && a.SystemID == q.local.SystemID {
		a.Same, err = q.same(ctx, source, newest, a.Flushed)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was removed, or it lies beyond the end here, and was never written
			a.Gone, err = a.Flushed <= q.local.End, nil
		case err == nil && a.Same:
			a.Commit = q.here.place.LastCommit(ctx, q.local, min(a.Flushed, q.local.End))
		}
	}
	return a, err
}

// same reports whether the last WAL of a standby is the same as the WAL at that position here. It returns
// fs.ErrNotExist if that WAL is no longer here. Afterwards the source cannot be used any more.
func (q question) same(ctx context.Context, source *postgres.Source, newest model.Timeline, its model.LSN) (bool, error) {
	const much, halfRecord = 8 << 10, 1 << 20
	end, size := q.local.End, model.LSN(q.local.Segment)
	if end.BytesTo(its) > halfRecord {
		return false, nil
	}
	both := min(end, its)
	from := max(newest.Begin, both-min(both, much), (both-min(both, 1))/size*size) // the segment before may be gone
	if from >= its {
		return true, nil // the standby has no WAL of the newest timeline yet
	}
	here, err := q.here.place.ReadWAL(newest.ID, from, its, q.local.Segment)
	if err != nil {
		return false, fmt.Errorf("compare its last WAL with that here: %w", err)
	}
	there, err := source.WAL(ctx, from, its, newest.ID)
	return bytes.Equal(here, there), err
}

// watch is how long pgrex watches a standby that replays nothing: it must not move.
const watch = 5 * time.Second

// letIn says what to do if pgrex can only watch a standby.
const letIn = " (let the replication user into the database postgres there, by pg_hba.conf, and pgrex sees for certain)"

// replays is why a standby may have more WAL than it says; "" if it cannot. Without a walreceiver, as after a restart
// while no host is the primary, IDENTIFY_SYSTEM answers with the end of what it has replayed. Once it has asked for WAL
// it has replayed all that it had before; received is up to where it has received WAL since. Where its database lets
// nobody in, it must not move for longer than a query may hold replay up, and must not have a restore_command, which may
// hold replay up for any time.
func (q question) replays(ctx context.Context, source *postgres.Source, address string) (received model.LSN, why string, err error) {
	if database, noAccess := postgres.OpenStandbyDatabase(ctx, q.conninfo, address); noAccess == nil {
		defer database.Close()
		received, err = database.Received(ctx)
		if err == nil && received == 0 {
			why = "since its start it has not asked for more yet"
		}
		return received, why, err
	}
	restore, err := source.Setting(ctx, "restore_command")
	if err != nil {
		return 0, "", err
	}
	if restore != "" { // it may take any time, and the WAL after that may be there already
		return 0, "it may be waiting for its restore_command" + letIn, nil
	}
	delay, err := source.Setting(ctx, "recovery_min_apply_delay")
	if err != nil {
		return 0, "", err
	}
	conflict, err := source.Setting(ctx, "max_standby_archive_delay")
	if err != nil {
		return 0, "", err
	}
	held, why := heldUp(delay, conflict)
	if why != "" {
		return 0, why + letIn, nil
	}
	before, err := source.Identify(ctx)
	if err != nil {
		return 0, "", err
	}
	select {
	case <-ctx.Done():
		return 0, "", context.Cause(ctx)
	case <-time.After(held + q.watch):
	}
	now, err := source.Identify(ctx)
	if err == nil && (now.Timeline != before.Timeline || now.Flushed != before.Flushed) {
		why = fmt.Sprintf("it moves: it was at %s, and is at %s", before.Flushed, now.Flushed) + letIn
	}
	return 0, why, err
}

// heldUp is how long a query may hold up the replay of WAL that a standby has, as it prints its settings; or why that
// cannot be awaited.
func heldUp(minApplyDelay, maxArchiveDelay string) (held time.Duration, why string) {
	const most = time.Minute
	if minApplyDelay != "0" {
		return 0, "its recovery_min_apply_delay is " + minApplyDelay
	}
	held, err := time.ParseDuration(strings.Replace(maxArchiveDelay, "min", "m", 1))
	if err != nil || held < 0 || held > most { // in days, say, or -1 for any time
		return 0, "its max_standby_archive_delay is " + maxArchiveDelay
	}
	return held, ""
}
