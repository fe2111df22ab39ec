package rejoin

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
)

func TestBar(t *testing.T) {
	for _, c := range []struct{ done, total, want string }{
		{"0", "2048", "[....................]   0%, 0 B of 2.0 MiB"},
		{"1024", "2048", "[##########..........]  50%, 1.0 MiB of 2.0 MiB, 102.4 KiB/s, 10s left"},
		{"4096", "2048", "[####################] 100%, 4.0 MiB of 2.0 MiB, 409.6 KiB/s, 0s left"},
		{"0", "0", "[####################] 100%, 0 B of 0 B"},
	} {
		if got := bar(c.done, c.total, 10*time.Second); got != c.want {
			t.Errorf("%s", got)
		}
	}
	if got := Size(3<<30, 0); got != "3.0 GiB" {
		t.Error(got)
	}
	if got := Size(3<<30, 100<<20); got != "3.0 GiB, about 31s at 100.0 MiB/s" {
		t.Error(got)
	}
	if got := Size(3<<40, 1); got != "3.0 TiB, about 596523h14m8s at 1 B/s" { // or more
		t.Errorf("at hardly any rate: %s", got)
	}
	if got := Size(1, 100<<20); got != "1 B, about 1s at 100.0 MiB/s" {
		t.Error(got)
	}
}

// On a pipe there is a line now and then, on a terminal each is drawn over the one before.
func TestProgress(t *testing.T) {
	var lines, drawn []string
	r := &Rejoin{Report: func(line string) { lines = append(lines, line) }}
	for range 2 {
		p := r.progress(datadir.Tool{Path: "pg_rewind"})
		for _, line := range []string{"pg_rewind: need to copy 5 MB (total source directory size is 70 MB)", "1/9 kB (11%) copied", "9/9 kB (100%) copied", "done"} {
			p.hear(line, time.Now())
		}
		r.Redraw = func(line string) { drawn = append(drawn, line) }
	}
	if len(lines) != 3 || len(drawn) != 2 || !strings.Contains(lines[0], "5 MB") || !strings.Contains(lines[1], "11%") {
		t.Errorf("lines %q, drawn %q", lines, drawn)
	}
}

// A tool that says nothing for a while is shown, too, with what it does or waits for.
func TestSilence(t *testing.T) {
	var lines []string
	r := &Rejoin{Report: func(line string) { lines = append(lines, strings.TrimSpace(line)) }}
	p := r.progress(datadir.Tool{Path: "/bin/pg_rewind"})
	begin := p.heard
	for _, step := range []struct {
		at         time.Duration // since the beginning
		hear, want string        // "" for silence, and for nothing new
	}{
		{4 * time.Second, "", ""},
		{5 * time.Second, "", "pg_rewind: waiting for the primary: 5s"},
		{6 * time.Second, "pg_rewind: reading source file list", ""},
		{65 * time.Second, "", "pg_rewind: reading source file list: 59s"},
		{70 * time.Second, "1024/2048 kB (50%) copied", "[##########..........]  50%, 1.0 MiB of 2.0 MiB"},
		{80 * time.Second, "", "[##########..........]  50%, 1.0 MiB of 2.0 MiB; nothing has come for 10s"},
		{90 * time.Second, "2048/2048 kB (100%) copied", "[####################] 100%, 2.0 MiB of 2.0 MiB, 102.4 KiB/s, 0s left"},
		{96 * time.Second, "", "[####################] 100%, 2.0 MiB of 2.0 MiB; writing it to the disk: 6s"},
		{97 * time.Second, "pg_rewind: syncing target data directory", ""},
		{107 * time.Second, "", "pg_rewind: syncing target data directory: 10s"},
	} {
		lines = nil
		if step.hear != "" {
			p.hear(step.hear, begin.Add(step.at))
		} else {
			p.silent(begin.Add(step.at))
		}
		if got := strings.Join(lines, "\n"); got != step.want {
			t.Errorf("after %s: %q, and not %q", step.at, got, step.want)
		}
	}
}

// What takes long shows now and then for how long already, and how many files it has seen; what is short shows nothing.
func TestDuring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		count := new(atomic.Int64)
		count.Store(7) // of what was before
		show := func(line string) { lines = append(lines, line) }
		takes := func(d time.Duration) func() error {
			return func() error {
				time.Sleep(d / 2)
				count.Add(1000)
				time.Sleep(d - d/2)
				return io.EOF
			}
		}
		for _, d := range []time.Duration{4 * time.Second, 14 * time.Second} {
			if err := during(show, "looking", count, takes(d)); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}
		if want := []string{"looking: 5s", "looking: 10s, 1000 files"}; !slices.Equal(lines, want) {
			t.Errorf("it shows %q", lines)
		}
		_ = during(nil, "looking", nil, takes(time.Minute))
	})
}

// To replay much WAL may take hours, and shows what is still missing.
func TestAwaitStreamsShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		r := &Rejoin{Observer: &controller.Observer{Node: "pm01", Clusters: silent{}}, Report: func(line string) { lines = append(lines, line) }}
		await := r.AwaitStreams(&Case{Slot: "mine"}).Action.(operation.Wait)
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		if err := await.Do(ctx); err == nil || len(lines) != 2 || !strings.Contains(lines[0], "it does not stream yet, and has replayed up to 0/0") {
			t.Errorf("it shows %q, %v", lines, err)
		}
	})
}

// silent is a cluster that cannot be read.
type silent struct{}

func (silent) Read(context.Context) (model.Cluster, error) {
	return model.Cluster{}, errors.New("no answer")
}

// A server that cannot start keeps the agent trying until its start times out, for five minutes in PG-REX, whatever
// keeps the database away meanwhile. Ended waits for that, shows it, and is not patient with anything else.
func TestEndedAwaitsStart(t *testing.T) {
	for _, state := range []struct {
		unsettled model.Unsettled
		ends      bool
	}{{model.UnsettledStarting, true}, {model.UnsettledBlocked, false}} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			cluster := fakes.ClusterOf(func() model.Cluster {
				clone := model.Clone{
					ID: "ms", Primitive: "pgsql", Agent: "ocf:heartbeat:pgsql",
					Parameters: map[string]string{"rep_mode": "sync", "node_list": "pm01 pm02"}, Roles: fakes.Roles{"pm01": model.RoleStopped},
				}
				if time.Since(begin) < 5*time.Minute {
					clone.Unsettled = map[string]model.Unsettled{"pm01": state.unsettled}
				}
				return model.Cluster{Quorate: true, Nodes: []model.Node{{Name: "pm01", Online: true}}, Clones: []model.Clone{clone}}
			})
			var lines []string
			r := &Rejoin{Observer: &controller.Observer{Node: "pm01", Clusters: cluster}, Report: func(line string) { lines = append(lines, line) }}
			err := r.Ended(datadir.Place{Data: t.TempDir()}).Do(t.Context())
			if (err == nil) != state.ends {
				t.Errorf("%s for 5 minutes: %v", state.unsettled, err)
			}
			if shows := len(lines) > 0; shows != state.ends {
				t.Errorf("%s: it shows %q", state.unsettled, lines)
			}
		})
	}
}
