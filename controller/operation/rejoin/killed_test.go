package rejoin

import (
	"context"
	"errors"
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
var ofTheCluster = []string{"still-primary", "keep-away", "settle", "ended", "cleanup", "clear-primitive", "clear-clone", "unstandby", "let-back", "streams"}

// parted is a host whose data have parted from its primary's, with all that it was before it is brought back.
type parted struct {
	t             *testing.T
	host, primary *pgserver.Server
	r             *Rejoin
	engine        *operation.Engine
	files         map[string]string // of the node's own
	confined      bool              // the data folder is in a folder where nothing can be made
	tablespace    bool              // both have a tablespace, in a folder named oddFolder
}

// newParted makes a host whose standby was promoted, and which was shut down in any case later.
func newParted(t *testing.T) *parted {
	t.Helper()
	host := pgserver.New(t)
	makeTablespace(t, host, oddFolder)
	primary := host.Standby("wal_keep_size = 1GB") // the host is made what it was again and again
	host.CatchUp(primary)
	separate(t, primary, oddFolder)
	primary.Promote()
	primary.SQL("SELECT pg_create_physical_replication_slot('mine', true)")
	primary.SQL("CREATE TABLE of_the_primary AS SELECT 1")
	host.SQL("CREATE TABLE parted AS SELECT 1")
	host.Stop("immediate")
	fakes.Tools(t, "never")
	p := &parted{t: t, host: host, primary: primary, files: map[string]string{}, tablespace: true}
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
	p.keep()
	return p
}

func (p *parted) run(program string, args ...string) {
	p.t.Helper()
	if out, err := exec.CommandContext(p.t.Context(), program, args...).CombinedOutput(); err != nil {
		p.t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}

// shell runs a script of the shell, in which $0, $1 and so on are the args.
func (p *parted) shell(script string, args ...string) {
	p.t.Helper()
	p.run("sh", append([]string{"-ec", script}, args...)...)
}

// oddFolder is the name of a tablespace's folder on both hosts, with each character that pg_basebackup might misread.
const oddFolder = `spc=1 "\=a`

// makeTablespace makes a tablespace in a folder beside the data.
func makeTablespace(t *testing.T, s *pgserver.Server, name string) {
	t.Helper()
	s.SQL(`CREATE TABLESPACE "` + strings.ReplaceAll(name, `"`, `""`) + `" LOCATION '` + s.Folder(name) + `'`)
	s.SQL(`CREATE TABLE in_tablespace TABLESPACE "` + strings.ReplaceAll(name, `"`, `""`) + `" AS SELECT 1 AS one`)
}

// separate gives a standby a folder of its own for its only tablespace: hosts share nothing.
func separate(t *testing.T, standby *pgserver.Server, name string) {
	t.Helper()
	standby.Stop("fast")
	links, err := filepath.Glob(standby.Dir + "/data/pg_tblspc/[0-9]*")
	if err != nil || len(links) != 1 {
		t.Fatalf("its tablespaces are %q, %v", links, err)
	}
	shared, err := os.Readlink(links[0])
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(standby.Dir, name)
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", shared, own).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := errors.Join(os.Remove(links[0]), os.Symlink(own, links[0])); err != nil {
		t.Fatal(err)
	}
	standby.Start()
}

// keep keeps what the host is now, for reset.
func (p *parted) keep() {
	p.t.Helper()
	p.shell(`cd "$0"; rm -rf kept*; cp -a data kept
		for f in "$1"*; do [ ! -e "$f" ] || cp -a "$f" "kept-$f"; done`, p.host.Dir, oddFolder)
}

// reset makes the host what it was, with nothing left of an operation.
func (p *parted) reset() {
	p.t.Helper()
	p.shell(`cd "$0"; rm -rf data* PGSQL.lock "$1"* "$2"; cp -a kept data
		for f in kept-*; do [ ! -e "$f" ] || cp -a "$f" "${f#kept-}"; done`, p.host.Dir, oddFolder, p.engine.Folder)
	if p.confined {
		p.shell(`cd "$0"; mkdir -p roots; chmod 700 roots; rm -rf roots/data; mv data roots; ln -s roots/data data; chmod 500 roots`, p.host.Dir)
		p.t.Cleanup(func() { _ = os.Chmod(p.host.Dir+"/roots", 0o700) }) // for who removes it
	}
}

func (p *parted) place() datadir.Place {
	p.t.Helper()
	data, err := filepath.EvalSymlinks(p.host.Dir + "/data")
	if err != nil {
		p.t.Fatal(err)
	}
	return datadir.Place{Data: data, Tmp: p.host.Dir, Bin: "/usr/lib/postgresql/15/bin"}
}

// job plans a way back from what is there now.
func (p *parted) job(asked string) operation.Job {
	p.t.Helper()
	c := &Case{Primary: "pm02", Node: "pm01", Slot: "mine", Primitive: "pgsql", Clone: "ms", Conninfo: p.primary.Conninfo()}
	c.Place = p.place()
	var err error
	if p.r.Left, err = operation.LoadJournal(p.engine.Folder); err != nil {
		p.t.Fatal(err)
	}
	before, err := p.r.before()
	if err != nil {
		p.t.Fatal(err)
	}
	if before != nil {
		c.Place.FreshFolders = before.Fresh
	}
	if err := p.r.weigh(p.t.Context(), c); err != nil {
		p.t.Fatal(err)
	}
	rung, err := c.Choose(asked)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("the way back is %s: %s", rung.Method, rung.Why)
	job, err := p.r.Job(p.t.Context(), c, rung.Method, asked)
	if err != nil {
		p.t.Fatal(err)
	}
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
	query, want := "SELECT to_regclass('of_the_primary') IS NOT NULL, to_regclass('parted') IS NULL, pg_is_in_recovery()", "t|t|t"
	if p.tablespace {
		if spaces, err := filepath.Glob(p.host.Dir + "/spc*"); err != nil || len(spaces) != 1 {
			p.t.Errorf("the folders of its tablespace are %q, %v", spaces, err)
		}
		query, want = query+", one FROM in_tablespace", want+"|1"
	}
	followsThrough(p.t, p.host, p.primary)
	p.host.Await("it has what the primary has", func() bool {
		now, err := p.host.Try(query)
		return err == nil && now == want
	})
	p.host.Stop("fast")
	p.primary.Await("the slot is let go", func() bool { // what follows drops it, or waits until it is in use again
		return p.primary.SQL("SELECT active FROM pg_replication_slots WHERE slot_name = 'mine'") == "f"
	})
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

// A copy that was killed is undone: nothing of it is left, and the host has what it had.
func TestCopyUndone(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	for _, at := range fakes.Points {
		p.reset()
		fakes.Killed(t, p.engine, p.job(string(MethodCopy)), "copy", at)
		fresh := there(filepath.Join(p.host.Dir, oddFolder+".pgrex"))
		if was := at != fakes.Before; was != (len(fresh) == 1) {
			t.Errorf("killed %s, there is %q", at, fresh)
		}
		journal, err := operation.LoadJournal(p.engine.Folder)
		if err != nil {
			t.Fatal(err)
		}
		var plan Plan
		if err := journal.Read(&plan); err != nil {
			t.Fatal(err)
		}
		c := &Case{Place: p.place(), swapped: &plan.Swapped}
		c.Place.FreshFolders = plan.Fresh
		job := fakes.Job(p.r.copy(c))
		job.Primitive = journal.Primitive
		if err := p.engine.Undo(t.Context(), journal, job); err != nil {
			t.Fatal(err)
		}
		if spaces, err := filepath.Glob(p.host.Dir + "/spc*"); err != nil || len(spaces) != 1 || spaces[0] != filepath.Join(p.host.Dir, oddFolder) {
			t.Errorf("the folders of its tablespace are %q, %v", spaces, err)
		}
		if c.Place.Left() || !operation.Left(p.engine.Folder).None() {
			t.Error("something is left")
		}
		p.host.Start()
		if got := p.host.SQL("SELECT one FROM in_tablespace"); got != "1" {
			t.Errorf("it has %q", got)
		}
		p.host.Stop("fast")
	}
}

// A data folder behind a symbolic link, in a folder where nothing can be made, is rewound. It also gets a copy, whose
// files take the place of the old ones, even if that is killed half way, or undone.
func TestConfined(t *testing.T) {
	if asOwner(t) {
		return
	}
	p := newParted(t)
	p.confined = true
	p.reset()
	if err := p.engine.Do(t.Context(), p.job(string(MethodRewind))); err != nil {
		t.Fatal(err)
	}
	p.isBack()
	p.reset()
	p.shell(`mkdir "$0/backup"; touch "$0/backup/file"; chmod 500 "$0/backup"`, p.place().Data)
	if local, err := p.place().Look(t.Context()); err != nil || !strings.Contains(local.NoCopy, "type: sudo mv "+p.place().Data+"/backup") {
		t.Errorf("with a folder that cannot be moved: %q, %v", local.NoCopy, err)
	}
	p.shell(`chmod 700 "$0/backup"`, p.place().Data)
	half := func(place datadir.Place) { // as it was left by a process that was killed when the old data were out
		p.shell(`cd "$0"; mkdir pgrex-old; for f in *; do case $f in pgrex-*) ;; *) mv "$f" pgrex-old;; esac; done`, place.Data)
	}
	for _, undo := range []bool{false, true} {
		p.reset()
		fakes.Killed(t, p.engine, p.job(string(MethodCopy)), "swap", fakes.Before)
		place := p.place()
		half(place)
		again := p.job("auto")
		if !place.HalfSwapped() || len(there(place.Data+"/PG_VERSION")) != 0 {
			t.Error("it is not half swapped")
		}
		if undo {
			journal, err := operation.LoadJournal(p.engine.Folder)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.engine.Undo(t.Context(), journal, again); err != nil {
				t.Fatal(err)
			}
			if place.HalfSwapped() || len(there(place.Data+"/PG_VERSION", place.Beside()+"/PG_VERSION")) != 2 {
				t.Error("the copy is not in its place, or the old data are gone")
			}
			again = p.job("auto")
		}
		if err := p.engine.Do(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		p.isBack()
	}
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
	p.keep()
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
				if err := place.Begin(t.Context(), datadir.NodeLocal); err != nil {
					return err
				}
				if err := datadir.CopyFiles(t.Context(), p.primary.Dir+"/data", place.Data, datadir.NodeLocal); err != nil {
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
