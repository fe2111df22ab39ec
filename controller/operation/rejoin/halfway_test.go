package rejoin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/postgres"
)

// gate lets a limited number of bytes through of what a server sends.
type gate struct {
	left  atomic.Int64
	once  sync.Once
	spent chan struct{} // closed once that number is used up
}

// newGate makes a gate in front of a server, and returns the gate's port.
func newGate(t *testing.T, server int, bytes int64) (g *gate, port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	g = &gate{spent: make(chan struct{})}
	g.left.Store(bytes)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(server)))
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { _, _ = io.Copy(upstream, client); _ = upstream.Close() }()
			go func() { _, _ = io.Copy(gated{client, g}, upstream); _ = client.Close() }()
		}
	}()
	return g, l.Addr().(*net.TCPAddr).Port
}

// gated is a client's connection behind a gate.
type gated struct {
	io.Writer
	*gate
}

// Write drops what comes once the number of bytes is used up.
func (w gated) Write(p []byte) (int, error) {
	if w.left.Add(-int64(len(p))) < 0 {
		w.once.Do(func() { close(w.spent) })
		return len(p), nil
	}
	return w.Writer.Write(p)
}

// killRewind kills the pg_rewind that this process runs.
func killRewind(t *testing.T) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for _, word := range strings.Fields(string(text)) {
			name, _ := os.ReadFile("/proc/" + word + "/comm")
			pid, err := strconv.Atoi(word)
			if err == nil && strings.TrimSpace(string(name)) == "pg_rewind" {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
				return
			}
		}
	}
	t.Fatal("no pg_rewind runs")
}

// The real pg_rewind is killed when a number of bytes has come from the primary. Whatever it has changed by then, the
// data are half rewound, also after they were moved to another disk. A base backup that somebody has put into the same
// folder is not half rewound, though the journal is still beside it. The next rejoin brings the host back with its own
// files.
func TestRewindKilled(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	p.primary.SQL("CREATE TABLE much AS SELECT generate_series(1, 300000)")
	place := p.place()
	rewind := func(bytes int64) {
		p.t.Helper()
		p.reset()
		c := caseOf(p.t, p.host, p.primary)
		for _, s := range p.r.rewind(c) {
			if s.ID == "rewind" {
				break
			}
			p.must(s.Do(p.t.Context()))
		}
		gate, port := newGate(p.t, int(p.primary.Port), bytes)
		c.Conninfo = strings.Replace(c.Conninfo, "port="+strconv.Itoa(int(p.primary.Port)), "port="+strconv.Itoa(port), 1)
		ended := make(chan error, 1)
		go func() { ended <- fakes.Step(p.t, p.r.rewind(c), "rewind").Do(p.t.Context()) }()
		select {
		case <-gate.spent:
			killRewind(p.t)
			if exit, is := errors.AsType[*exec.ExitError](<-ended); !is || exit.String() != "signal: killed" {
				p.t.Errorf("it ends with %v", exit)
			}
		case err := <-ended:
			p.t.Fatalf("it has ended before: %v", err)
		}
	}
	half := func(where datadir.Place) {
		p.t.Helper()
		c := &Case{Place: where, Primary: "pm02", Slot: "mine", Conninfo: p.primary.Conninfo()}
		if err := c.compare(p.t.Context()); err != nil || where.Rewinding() != datadir.HalfRewound || c.Return.Fits() || c.Return.Begun != MethodRewind {
			p.t.Errorf("the journal says %d, they fit: %t, %v", where.Rewinding(), c.Return.Fits(), err)
		}
	}
	for _, bytes := range []int64{1 << 10, 4 << 20, 20 << 20} {
		t.Run(fmt.Sprintf("after %d bytes", bytes), func(t *testing.T) {
			p.t = t
			rewind(bytes)
			half(place)
			p.must(p.engine.Do(t.Context(), p.job("auto")))
			p.isBack()
		})
	}
	t.Run("moved to another disk", func(t *testing.T) {
		p.t = t
		rewind(20 << 20)
		elsewhere, err := os.MkdirTemp("/dev/shm", "pgrex-moved")
		p.must(err)
		t.Cleanup(func() { _ = os.RemoveAll(elsewhere) })
		moved := place
		moved.Data = elsewhere + "/data"
		p.shell(`mv "$0" "$1"`, place.Data, moved.Data)
		half(moved)
		p.shell(`mv "$0" "$1"`, place.Marker(), moved.Data+".pgrex-rewind") // in tmpdir it would be found, too
		half(moved)
		if local, err := moved.Look(t.Context()); err != nil || local.NoCopy != "" {
			t.Errorf("with its journal, a copy is refused: %q, %v", local.NoCopy, err)
		}
	})
	t.Run("a base backup in the same folder", func(t *testing.T) {
		p.t = t
		rewind(20 << 20)
		space := datadir.Tablespace{Tablespace: postgres.Tablespace{Location: filepath.Join(p.primary.Dir, oddFolder)}, Folder: filepath.Join(p.host.Dir, oddFolder)}
		p.shell(`rm -r "$0"; pg_basebackup "$@"`, space.Folder, space.Mapping(), "--dbname="+p.primary.Conninfo(), "--pgdata="+p.host.Dir+"/backup", "--checkpoint=fast")
		p.shell(`find "$1" -mindepth 1 -delete; cp -a "$0/." "$1"`, p.host.Dir+"/backup", place.Data)
		p.must(datadir.CopyFiles(t.Context(), place.Marker(), place.Data, datadir.NodeLocal)) // its port, too
		if place.Rewinding() != datadir.NotBegun {
			t.Errorf("the journal says %d", place.Rewinding())
		}
		p.must(p.engine.Do(t.Context(), p.job(string(MethodRestored))))
		p.isBack()
	})
	p.t = t
}

// What rewind is to fetch is known beforehand, also of databases that were made meanwhile with hardly any WAL.
func TestRewindFetches(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	for i := range 30 {
		p.primary.SQL(fmt.Sprintf("CREATE DATABASE d%d STRATEGY file_copy", i))
	}
	const most = 1 << 40
	g, port := newGate(t, int(p.primary.Port), most)
	c := caseOf(t, p.host, p.primary)
	rung := c.Return.rewind()
	p.must(fakes.Step(t, p.r.rewind(c), "recover").Do(t.Context()))
	p.must(fakes.Step(t, p.r.rewind(c), "checkpoint").Do(t.Context()))
	c.Conninfo = strings.Replace(c.Conninfo, "port="+strconv.Itoa(int(p.primary.Port)), "port="+strconv.Itoa(port), 1)
	p.must(fakes.Step(t, p.r.rewind(c), "dry-rewind").Do(t.Context()))
	before := g.left.Load()
	p.must(fakes.Step(t, p.r.rewind(c), "rewind").Do(t.Context()))
	real := uint64(before - g.left.Load())
	t.Logf("it was to fetch %d bytes, and has fetched %d", rung.Bytes, real)
	if rung.Bytes < real/2 || rung.Bytes > real*2 {
		t.Errorf("it was to fetch %d bytes, and has fetched %d", rung.Bytes, real)
	}
}

// A file that the primary cannot read, and that nothing sees before, ends the dry run. The data stay as they are.
func TestDryRunReadsAll(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	c := caseOf(t, p.host, p.primary)
	p.must(fakes.Step(t, p.r.rewind(c), "recover").Do(t.Context()))
	p.must(fakes.Step(t, p.r.rewind(c), "checkpoint").Do(t.Context()))
	p.shell(`cd "$0/pg_wal" && chmod 0 "$(ls 0* | head -n 1)"`, filepath.Join(p.primary.Dir, "data"))
	if err := fakes.Step(t, p.r.rewind(c), "dry-rewind").Do(t.Context()); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("it says %v", err)
	}
	if got := p.place().Rewinding(); got != datadir.NotBegun {
		t.Errorf("the journal says %d", got)
	}
}

func (p *parted) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}
