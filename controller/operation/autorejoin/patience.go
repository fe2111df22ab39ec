package autorejoin

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// This file decides how long a host is left alone after a close look that was no try.

// refusedFor is how long a host is left alone after a close look has found no way that is allowed: such a look measures
// the link and reads WAL. Each further look waits twice as long, as long as nothing changes.
const (
	refusedFor, refusedMost = 5 * time.Minute, model.LongestLeft
	lookMost                = 5 * time.Minute  // after a host that could not be looked at
	startMost               = 30 * time.Second // in an outage: a node that comes back may change everything
)

// leftAlone is why a close look found no way back that is allowed, and on what that depends.
type leftAlone struct {
	why     string
	dearest model.Dearest
	primary string
	online  string // the nodes that were online
	kind    kind
	wait    time.Duration // until the next close look
}

// kind is why a close look led to no try.
type kind string

const (
	kindTry     kind = "" // it did
	kindRefused kind = "refused"
	kindStart   kind = "start refused"
	kindOther   kind = "another operation"
	kindLook    kind = "not looked at"
)

// changed reports whether something has changed on which it depends that this host was left alone.
func (l leftAlone) changed(now leftAlone) bool {
	return l.dearest != now.dearest || l.primary != now.primary || l.online != now.online
}

// leftNow is on what it depends now whether this host is left alone.
func leftNow(who reconcile.Who, c reconcile.Comeback) leftAlone {
	var online []string
	if who.Cluster != nil {
		for _, n := range who.Cluster.Nodes {
			if n.Online {
				online = append(online, n.Name)
			}
		}
	}
	slices.Sort(online)
	return leftAlone{dearest: c.Dearest, primary: who.Primary, online: strings.Join(online, " ")}
}

// again is how long to wait after one more close look that ended so: twice as long as before if that was the same.
func (l leftAlone) again(before leftAlone, first, most time.Duration) time.Duration {
	same := l.kind == before.kind && !l.changed(before)
	if l.kind == kindRefused { // the texts of other kinds may differ each time
		same = same && l.why == before.why
	}
	if !same || before.wait == 0 {
		return first
	}
	return min(2*before.wait, most)
}

// errLook says that this host, or the primary, could not be looked at closely. It is no try: nothing was changed, and
// soon after a failover the primary's address may not answer yet.
var errLook = errors.New("not looked at")

// looksAgain is how many times sooner a host is looked at again than it is tried again.
const looksAgain = 12

// errRefused says that there is no way back that may be taken without a person. It is no try.
var errRefused = errors.New("left alone")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errRefused}, args...)...)
}

// patience returns how long a host is left alone after an end that was no try: first and at most. It was one if kind is
// kindTry.
func (a *AutoRejoin) patience(act reconcile.Act, err error) (kind kind, first, most time.Duration) {
	soon := a.Wait / looksAgain
	switch {
	case errors.Is(err, errRefused) && act == reconcile.ActStart:
		return kindStart, soon, startMost
	case errors.Is(err, errRefused):
		return kindRefused, refusedFor, refusedMost
	case errors.Is(err, operation.ErrOther), errors.Is(err, operation.ErrUnderWay), // which ends by itself
		errors.Is(err, operation.ErrNotAllowed): // the next look says why
		return kindOther, soon, startMost
	case errors.Is(err, errLook):
		return kindLook, soon, lookMost
	}
	return kindTry, 0, 0
}

// leave leaves this host alone for a while. That was no try.
func (a *AutoRejoin) leave(before model.AutoRejoin, l leftAlone, first, most time.Duration) {
	wait := l.again(a.left, first, most)
	before.Problem, before.Next = l.why, time.Now().Add(wait)
	before.Refused = l.kind == kindRefused
	a.remember(before)
	if l.why != a.left.why {
		a.Log.Info("left alone", keyWhy, l.why)
	}
	l.wait = wait
	a.left = l
}
