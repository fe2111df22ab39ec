package cib

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/beevik/etree"
)

// Settle waits until the cluster has nothing to do. In maintenance-mode it has ended the monitors then.
func Settle() Command { return Command{"crm_resource", []string{waitOption, "--timeout=25s"}} }

const waitOption = "--wait"

func (c Command) settles() bool { return slices.Contains(c.Args, waitOption) }

// unknown is the result of an operation that has not ended yet (PCMK_OCF_UNKNOWN).
const unknown = "193"

// lookAgain is how long after one look wait takes the next one.
const lookAgain = 500 * time.Millisecond

// wait runs the command of Settle, and looks meanwhile whether the cluster is idle, for two reasons. The tool itself looks
// every two seconds only. And the first failure of a recurring monitor leaves an entry in the CIB that says the monitor is
// still under way. Pacemaker 2.1.7 to 3.0.1 waits for it, too, without end (pending_actions_in_cib in
// crm_resource_runtime.c of later releases).
func (c Command) wait(ctx context.Context) error {
	waiting, end := context.WithCancel(ctx)
	defer end()
	var idle atomic.Bool
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for !idle.Load() {
			select {
			case <-waiting.Done():
				return
			case <-time.After(lookAgain):
			}
			if isIdle(waiting) {
				idle.Store(true)
				end()
			}
		}
	}()
	err := c.once(waiting)
	end()
	<-looked
	if idle.Load() {
		return nil
	}
	return err
}

// isIdle reports whether nothing is under way in the cluster, and the scheduler wants nothing, but for the monitors that
// only seem to be under way. It knows as much as crm_resource --wait does.
func isIdle(ctx context.Context) bool {
	client := &Client{}
	data, err := client.query(ctx)
	if err != nil {
		return false
	}
	d, err := parse(data)
	if err != nil || d.forgetStale() > 0 {
		return false
	}
	idle, err := client.wantsNothing(ctx, []byte(text(d.root)))
	return err == nil && idle
}

// wantsNothing reports whether the scheduler would do nothing with a CIB. Notifications alone are nothing.
func (c *Client) wantsNothing(ctx context.Context, data []byte) (bool, error) {
	answer, err := c.simulation(ctx, data, "--simulate")
	if err != nil {
		return false, err
	}
	for _, a := range answer.Transition.Actions {
		if a.XMLName.Local != "pseudo_action" && a.Op != "notify" {
			return false, nil
		}
	}
	return true, nil
}

// forgetStale removes the recurring monitors that are said to be under way, though they have failed since. It returns how
// many operations are left that are under way.
func (d *document) forgetStale() (underWay int) {
	for state := range children(d.status, "node_state") {
		for history := range children(child(child(state, "lrm"), "lrm_resources"), "lrm_resource") {
			failed := map[string]int{} // when, in seconds
			var pending []*etree.Element
			for op := range children(history, "lrm_rsc_op") {
				switch {
				case attr(op, "rc-code") == unknown:
					pending = append(pending, op)
				case attr(op, "id") == attr(history, "id")+"_last_failure_0":
					failed[attr(op, "operation_key")] = integer(attr(op, "last-rc-change"), 0)
				}
			}
			for _, op := range pending {
				began := integer(attr(op, "last-rc-change"), math.MaxInt)
				if attr(op, "operation") == "monitor" && attr(op, "interval") != "0" && failed[attr(op, "operation_key")] >= began {
					history.RemoveChild(op)
				} else {
					underWay++
				}
			}
		}
	}
	return underWay
}
