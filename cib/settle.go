package cib

import (
	"context"
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

// lookAgain is how long after one look wait takes the next one. looksFor is how long a look may take: crm_resource answers
// at once if there is nothing to do, and otherwise waits for two seconds.
const (
	lookAgain = 500 * time.Millisecond
	looksFor  = time.Second
)

// wait runs the command of Settle, and looks meanwhile whether the cluster is idle, for two reasons. The tool itself looks
// every two seconds only. And the first failure of a recurring monitor leaves an entry in the CIB by which that monitor is
// still under way: Pacemaker 2.1.7 to 3.0.1 also waits for such a monitor, which never ends (pending_actions_in_cib in
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

// isIdle reports whether the cluster would have nothing to do now if it forgot the monitors that are under way for ever.
func isIdle(ctx context.Context) bool {
	client := &Client{Timeout: looksFor}
	data, err := client.query(ctx)
	if err != nil {
		return false
	}
	d, err := parse(data)
	if err != nil {
		return false
	}
	d.forgetStale()
	_, err = client.askAbout(ctx, []byte(text(d.root)), maxName, Settle().Path, waitOption, "--timeout=1s")
	return err == nil
}

// forgetStale removes the recurring monitors that are said to be under way though they have failed.
func (d *document) forgetStale() {
	for state := range children(d.status, "node_state") {
		for history := range children(child(child(state, "lrm"), "lrm_resources"), "lrm_resource") {
			failed := map[string]bool{}
			var pending []*etree.Element
			for op := range children(history, "lrm_rsc_op") {
				switch key := attr(op, "operation_key"); {
				case attr(op, "rc-code") != unknown:
					failed[key] = failed[key] || attr(op, "id") == attr(history, "id")+"_last_failure_0"
				case attr(op, "operation") == "monitor" && attr(op, "interval") != "0":
					pending = append(pending, op)
				}
			}
			for _, op := range pending {
				if failed[attr(op, "operation_key")] {
					history.RemoveChild(op)
				}
			}
		}
	}
}
