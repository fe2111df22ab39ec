package rejoin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// ofTheCluster are the steps that need one, which the test's hosts have not.
var ofTheCluster = []string{"still-primary", "standby", "settle", "ended", "cleanup", "clear-primitive", "clear-clone", "unstandby", "streams"}

// parted is a host whose data have parted from its primary's, with all that it was before it is brought back.
type parted struct {
	t             *testing.T
	host, primary *pgserver.Server
	r             *Rejoin
	engine        *operation.Engine
	files         map[string]string // of the node's own
}

// newParted makes a host whose standby was promoted, and which was shut down in any case later.
func newParted(t *testing.T) *parted {
	t.Helper()
	host := pgserver.New(t)
	primary := host.Standby("wal_keep_size = 1GB") // the host is made what it was again and again
	host.CatchUp(primary)
	primary.Promote()
	primary.SQL("SELECT pg_create_physical_replication_slot('mine', true)")
	primary.SQL("CREATE TABLE of_the_primary AS SELECT 1")
	host.SQL("CREATE TABLE parted AS SELECT 1")
	host.Stop("immediate")
	fakes.Tools(t, "never")
	p := &parted{t: t, host: host, primary: primary, files: map[string]string{}}
	p.r = &Rejoin{Observer: fakes.Lone(), Report: func(line string) { p.t.Log(line) }}
	p.engine = fakes.Engine(t, p.r.Observer)
	for _, name := range datadir.NodeLocal {
		path := filepath.Join(host.Dir, "data", name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p.files[name] = "# the host's own, and nobody else's\n" + string(text)
		if err := os.WriteFile(path, []byte(p.files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.run("cp", "-a", host.Dir+"/data", host.Dir+"/kept")
	return p
}

func (p *parted) run(program string, args ...string) {
	p.t.Helper()
	if out, err := exec.CommandContext(p.t.Context(), program, args...).CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// reset makes the host what it was, with nothing left of an operation.
func (p *parted) reset() {
	p.t.Helper()
	dir := p.host.Dir
	p.run("sh", "-c", fmt.Sprintf("rm -rf %s/data* %[1]s/PGSQL.lock %s && cp -a %[1]s/kept %[1]s/data", dir, p.engine.Folder))
}

func (p *parted) place() datadir.Place {
	return datadir.Place{Data: p.host.Dir + "/data", Tmp: p.host.Dir, Bin: "/usr/lib/postgresql/15/bin"}
}

// job plans a way back from what is there now.
func (p *parted) job(asked string) operation.Job {
	p.t.Helper()
	c := &Case{Primary: "pm02", Node: "pm01", Slot: "mine", Primitive: "pgsql", Clone: "ms", Conninfo: p.primary.Conninfo()}
	c.Place = p.place()
	if err := c.compare(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	c.Ladder = Ladder(c.Return)
	rung, err := c.Choose(asked)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("the way back is %s: %s", rung.Method, rung.Why)
	if p.r.Left, err = operation.LoadJournal(p.engine.Folder); err != nil {
		p.t.Fatal(err)
	}
	job := p.r.Job(p.t.Context(), c, rung.Method, asked)
	job.Steps = slices.DeleteFunc(job.Steps, func(s operation.Step) bool { return slices.Contains(ofTheCluster, s.ID) })
	return job
}

// isBack starts the host, and wants it to follow the primary with files of its own and nothing left.
func (p *parted) isBack() {
	p.t.Helper()
	place := p.place()
	for name, want := range p.files {
		text, err := os.ReadFile(filepath.Join(place.Data, name))
		if err != nil || !strings.HasPrefix(string(text), want) {
			p.t.Errorf("%s is not its own: %v", name, err)
		}
	}
	auto, _ := os.ReadFile(filepath.Join(place.Data, "postgresql.auto.conf"))
	if strings.Count(string(auto), "primary_slot_name = 'mine'") != 1 {
		p.t.Errorf("postgresql.auto.conf is %q", auto)
	}
	if left := there(place.Lock(), place.Marker(), place.Beside()); len(left) > 0 || !operation.Left(p.engine.Folder).None() {
		p.t.Errorf("there is still %q, and of the operation %v", left, operation.Left(p.engine.Folder))
	}
	followsThrough(p.t, p.host, p.primary)
	p.host.Await("it has what the primary has", func() bool {
		now, err := p.host.Try("SELECT to_regclass('of_the_primary') IS NOT NULL, to_regclass('parted') IS NULL, pg_is_in_recovery()")
		return err == nil && now == "t|t|t"
	})
	p.host.Stop("fast")
}

// A rejoin whose process is killed anywhere in its work on the data is planned again from what is there, and that brings
// the host back at the first try. What the operator had asked for is asked for again; the cheapest way is left to
// choose, too.
func TestRejoinKilled(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	for _, test := range []struct {
		way   Method
		again string // how it is asked for once more
		steps []operation.Step
	}{
		{MethodRewind, "auto", p.r.rewind(&Case{})},
		{MethodCopy, string(MethodCopy), p.r.copy(&Case{})},
		{MethodCopy, "auto", fakes.From(t, p.r.copy(&Case{}), "swap")},
	} {
		for _, s := range test.steps {
			for _, at := range fakes.Points {
				t.Run(fmt.Sprintf("%s then %s %s %s", test.way, test.again, s.ID, at), func(t *testing.T) {
					p.t = t
					p.reset()
					fakes.Killed(t, p.engine, p.job(string(test.way)), s.ID, at)
					if left := operation.Left(p.engine.Folder); left.None() || left.Running {
						t.Fatalf("left is %+v", left)
					}
					if err := p.engine.Do(t.Context(), p.job(test.again)); err != nil {
						t.Fatal(err)
					}
					p.isBack()
				})
			}
		}
	}
	p.t = t
}

// A rejoin that is only data that fit is killed, too: the host's data are changed by nothing but the name of its slot.
func TestRejoinStartKilled(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	p.reset()
	if err := p.engine.Do(t.Context(), p.job("auto")); err != nil { // so that they fit
		t.Fatal(err)
	}
	p.isBack()
	for name := range p.files {
		text, err := os.ReadFile(filepath.Join(p.host.Dir, "data", name))
		if err != nil {
			t.Fatal(err)
		}
		p.files[name] = string(text)
	}
	p.files["postgresql.auto.conf"] = "" // its line of the slot's name moves
	p.run("sh", "-c", fmt.Sprintf("rm -rf %s/kept && cp -a %[1]s/data %[1]s/kept", p.host.Dir))
	for _, id := range []string{"still-fits", "slot-name", "unlock", "remove-left"} {
		for _, at := range fakes.Points {
			t.Run(id+" "+string(at), func(t *testing.T) {
				p.t = t
				p.reset()
				if err := os.WriteFile(p.host.Dir+"/PGSQL.lock", nil, 0o600); err != nil {
					t.Fatal(err)
				}
				fakes.Killed(t, p.engine, p.job(string(MethodStart)), id, at)
				if err := p.engine.Do(t.Context(), p.job("auto")); err != nil {
					t.Fatal(err)
				}
				p.isBack()
			})
		}
	}
	p.t = t
}

// pg_rewind itself is killed half-way, when the primary's files are over the host's own: the data are of no use as they
// are, the agent's lock stays, so that nothing starts them, and the next rejoin brings the host back with its own
// files.
func TestRewindHalfWay(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	p.reset()
	job := p.job("auto")
	broken := fakes.Step(t, job.Steps, "rewind")
	place := p.place()
	for i := range job.Steps {
		if job.Steps[i].ID == broken.ID {
			job.Steps[i].Action = operation.Program{Text: "pg_rewind", Run: func(context.Context) error {
				if err := place.Begin(); err != nil {
					return err
				}
				if err := datadir.CopyFiles(p.primary.Dir+"/data", place.Data); err != nil {
					return err
				}
				return fmt.Errorf("killed")
			}}
		}
	}
	if err := p.engine.Do(t.Context(), job); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ends with %v", err)
	}
	if place.Rewinding() != datadir.HalfRewound || len(there(place.Lock())) != 1 {
		t.Errorf("the journal of pg_rewind says %d; the lock is there: %v", place.Rewinding(), there(place.Lock()))
	}
	c := &Case{Place: place, Primary: "pm02", Slot: "mine", Conninfo: p.primary.Conninfo()}
	if err := c.compare(t.Context()); err != nil || c.Return.Fits() || c.Return.Begun != MethodRewind {
		t.Errorf("they fit: %t, %v", c.Return.Fits(), err)
	}
	if err := p.engine.Do(t.Context(), p.job("auto")); err != nil {
		t.Fatal(err)
	}
	p.isBack()
}
