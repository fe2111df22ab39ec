package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// proof is what is proven of each other member while no host is the primary, in order of name.
type proof []verdict

// missing is what is not proven.
func (p proof) missing() (why []string) {
	for _, v := range p {
		if !v.OK {
			why = append(why, v.Why)
		}
	}
	return why
}

func (p proof) proven() bool { return len(p.missing()) == 0 }

// texts are the lines that an operator reads.
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

// prove finds out whether another member has newer data than this host.
func (s *Service) prove(ctx context.Context, h self, local reconcile.LocalData, p *Plan) (found proof) {
	now := h.Here.Permanent[reconcile.DataStatus(h.Clone)]
	o := ours{
		LocalData: local, Async: h.Policy.RepMode == "async", Overlooks: overlooks(h.Who),
		Latest: p.DataStatus == reconcile.DataLatest && now == p.DataStatus, // not by an earlier attempt of this operation
	}
	for _, m := range s.askOthers(ctx, h, local) {
		found = append(found, o.judge(m))
	}
	return found
}

// askOthers asks the servers of all other members at the same time, also those that Pacemaker shows as stopped or
// offline: a server may run all the same.
func (s *Service) askOthers(ctx context.Context, h self, local reconcile.LocalData) []other {
	members := h.others(func(string) bool { return true })
	conninfo, err := h.place.Conninfo(ctx, h.Clone)
	ring, _ := cib.RingAddresses(cib.CorosyncConf) // there are other ways to a host
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
		q := question{here: h, local: local, conninfo: conninfo, member: name}
		asking.Go(func() { m.ask(ctx, q, s.Observer.Kept.Standbys[name], ring[name], name) })
	}
	asking.Wait()
	return all
}

// ask asks at one address after the other, up to the first with an answer: where the member streamed from when this
// host was the primary, its address on corosync's ring, and where its name leads.
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
		said, err := q.ask(ctx, source)
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

// question is what a member is asked, and what its answer is compared with.
type question struct {
	here     self
	local    reconcile.LocalData
	conninfo string
	member   string
}

// errOther says that another host's server has answered.
var errOther = errors.New("it is another host's")

// ask asks a member's server. The source is of no further use then.
func (q question) ask(ctx context.Context, source *postgres.Source) (a answer, err error) {
	own := q.here.Names[q.member]
	if a.Upstream, err = source.Identify(ctx, own); err != nil {
		return a, err
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

// same compares the last WAL of a standby with that here; fs.ErrNotExist if that is no longer here. The source is of no
// further use then.
func (q question) same(ctx context.Context, source *postgres.Source, newest model.Timeline, its model.LSN) (bool, error) {
	const much, halfRecord = 8 << 10, 1 << 20
	end, size := q.local.End, model.LSN(q.local.Segment)
	if end.BytesTo(its) > halfRecord {
		return false, nil
	}
	both := min(end, its)
	from := max(newest.Begin, both-min(both, much), (both-min(both, 1))/size*size) // the segment before may be gone
	if from >= its {
		return true, nil // it has nothing of the newest timeline
	}
	here, err := q.here.place.ReadWAL(newest.ID, from, its, q.local.Segment)
	if err != nil {
		return false, fmt.Errorf("compare its last WAL with that here: %w", err)
	}
	there, err := source.WAL(ctx, from, its, newest.ID)
	return bytes.Equal(here, there), err
}
