package operation_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
)

// world is a CIB that Pacemaker's real tools change, and a folder in which the steps of a test's operation leave what
// they do.
type world struct {
	t       *testing.T
	folder  string
	guarded bool
	again   int // how often the step that is done once more was done
	// wrong, if not nil, is what the check of a step finds.
	wrong error
	// broken is the step whose undoing fails.
	broken string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, folder: t.TempDir()}
	data, err := os.ReadFile("../../cmd/pgrex/testdata/cluster.xml")
	w.must(err)
	for _, name := range []string{"cib", "effects", "state"} {
		w.must(os.Mkdir(filepath.Join(w.folder, name), 0o700))
	}
	w.must(os.WriteFile(w.cib(), data, 0o600))
	t.Setenv("CIB_file", w.cib())
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) cib() string   { return filepath.Join(w.folder, "cib", "cib.xml") } // alone in its folder, as Pacemaker has it
func (w *world) state() string { return filepath.Join(w.folder, "state") }

func (w *world) path(name string) string { return filepath.Join(w.folder, "effects", name) }

// engine is one of a new process, on a host.
func (w *world) engine(host string) *operation.Engine {
	e := fakes.Engine(w.t, &controller.Observer{Node: host, Clusters: &cib.Client{}})
	e.Folder = w.state()
	return e
}

func (w *world) cluster() model.Cluster {
	w.t.Helper()
	c, err := new(cib.Client).Read(w.t.Context())
	w.must(err)
	return c
}

// found is the plan of the test's operation.
type found struct {
	Token model.Token
	Lines int // as the step "append" has found
}

// job plans the operation on a host.
func (w *world) job(host string) operation.Job {
	w.t.Helper()
	o := w.engine(host).Observer
	who, err := o.Cluster(w.t.Context())
	w.must(err)
	job := operation.NewJob("switchover", who, operation.On{Folder: "/data", SystemID: "7", Timeline: 3})
	return w.planned(job, o, &found{Token: job.Token})
}

// resume plans what was left once more.
func (w *world) resume() (*operation.Journal, operation.Job) {
	w.t.Helper()
	j, err := operation.LoadJournal(w.state())
	w.must(err)
	if j == nil {
		w.t.Fatal("no journal is left")
	}
	var p found
	w.must(j.Read(&p))
	job := operation.Job{Operation: j.Operation, Node: j.Node, Primitive: j.Primitive, Token: p.Token, On: j.On}
	return j, w.planned(job, w.engine("pm01").Observer, &p)
}

func (w *world) planned(job operation.Job, o *controller.Observer, p *found) operation.Job {
	m := operation.Maintenance{Primitive: job.Primitive, Token: p.Token}
	job.Plan, job.Guarded, job.Steps = p, w.guarded, []operation.Step{
		{
			ID: "append", Action: operation.Program{
				Text: "append", Run: func(context.Context) error { return w.appends(p) },
				Found: func(context.Context) (operation.State, error) { return w.isThere("append") },
			},
			Back: []operation.Action{w.removes("append")},
		},
		{
			ID: "make", Action: operation.Change{
				Text: "make", Make: func() error { return w.makes("make") },
				Found: func(context.Context) (operation.State, error) { return w.isThere("make") },
			},
			Back: []operation.Action{w.removes("make")},
		},
		{ID: "maintenance", Action: m.Enter(), Back: m.Back()},
		{ID: "two", Action: operation.Commands{attribute("two", "1").Command, attribute("three", "1").Command}, Back: []operation.Action{
			attribute("two", ""), attribute("three", ""),
		}},
		{ID: "await", Again: true, Action: operation.Await("it is made", 1, func(context.Context) error { // a nanosecond: one look
			w.again++
			_, err := os.Stat(w.path("make"))
			return err
		})},
		{ID: "leave", Action: m.Leave(o), NoReturn: "it was left"},
		{ID: "write", Action: operation.Program{Text: "write", Run: func(context.Context) error {
			return os.WriteFile(w.path("write"), []byte("x\n"), 0o600)
		}}, Back: []operation.Action{w.removes("write")}},
	}
	return job
}

func attribute(name, value string) operation.Command {
	return operation.Command{Command: cib.SetNodeAttribute("pm01", "test-"+name, value)}
}

// appends must not be done twice, which shows, and makes what cannot be made twice.
func (w *world) appends(p *found) error {
	f, err := os.OpenFile(w.path("append"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x\n")
	p.Lines++
	return errors.Join(err, f.Close())
}

func (w *world) makes(name string) error {
	f, err := os.OpenFile(w.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x\n")
	return errors.Join(err, f.Close())
}

func (w *world) isThere(name string) (operation.State, error) {
	if w.wrong != nil {
		return operation.CannotTell, w.wrong
	}
	if _, err := os.Stat(w.path(name)); err != nil {
		return operation.NotDone, nil //nolint:nilerr // it is not there
	}
	return operation.Done, nil
}

func (w *world) removes(name string) operation.Action {
	return operation.Change{Text: "remove " + name, Make: func() error {
		if w.broken == name {
			return errBroken
		}
		if err := os.Remove(w.path(name)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}}
}

// effects are how often each effect is there.
func (w *world) effects() map[string]int {
	w.t.Helper()
	return w.effectsIn(w.cluster())
}

func (w *world) effectsIn(c model.Cluster) map[string]int {
	count := map[string]int{}
	for _, name := range []string{"append", "make", "write"} {
		text, _ := os.ReadFile(w.path(name)) // none where it is not there
		count[name] = strings.Count(string(text), "x\n")
	}
	pm01, _ := c.Node("pm01")
	for _, name := range []string{"two", "three"} {
		count[name] = len(pm01.Permanent["test-"+name])
	}
	return count
}

// all, none and beforeLeave are what effects there may be in the end.
var (
	all         = map[string]int{"append": 1, "make": 1, "two": 1, "three": 1, "write": 1}
	none        = map[string]int{"append": 0, "make": 0, "two": 0, "three": 0, "write": 0}
	beforeLeave = map[string]int{"append": 1, "make": 1, "two": 1, "three": 1, "write": 0}
)

// wantEnd wants some effects, and nothing else left of an operation: no journal, no token, no maintenance-mode.
func (w *world) wantEnd(effects map[string]int) {
	w.t.Helper()
	c := w.cluster()
	if diff := cmp.Diff(effects, w.effectsIn(c)); diff != "" {
		w.t.Errorf("the effects are (-wanted +there):\n%s", diff)
	}
	if t, is, err := c.Token("pgsql"); is || err != nil || c.Maintenance {
		w.t.Errorf("the token is there: %t %s, %v; maintenance-mode is on: %t", is, t, err, c.Maintenance)
	}
	if left := operation.Left(w.state()); !left.None() {
		w.t.Errorf("a journal is there: %+v", left)
	}
}

// wantLeft wants the journal and the token to be there, and nobody to work on it.
func (w *world) wantLeft() {
	w.t.Helper()
	t, is, err := w.cluster().Token("pgsql")
	if !is || err != nil || t.Host != "pm01" {
		w.t.Errorf("the token is there: %t %s, %v", is, t, err)
	}
	if left := operation.Left(w.state()); left.None() || left.Running || left.Operation != "switchover" || left.Who != "somebody" {
		w.t.Errorf("left is %+v", left)
	}
}

// kept are all files, as they are when a process has ended.
func (w *world) kept() map[string][]byte {
	w.t.Helper()
	files := map[string][]byte{}
	w.must(filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	}))
	return files
}

// set makes the files what they were.
func (w *world) set(files map[string][]byte) {
	w.t.Helper()
	for path := range w.kept() {
		w.must(os.Remove(path))
	}
	for path, data := range files {
		w.must(os.WriteFile(path, data, 0o600))
	}
}

func (w *world) finish() error {
	w.t.Helper()
	j, job := w.resume()
	return wellEnded(w.engine("pm01").Finish(w.t.Context(), j, job))
}

func (w *world) undo() error {
	w.t.Helper()
	j, job := w.resume()
	return wellEnded(w.engine("pm01").Undo(w.t.Context(), j, job))
}

// wellEnded takes what needs neither to be finished nor to be undone for that.
func wellEnded(err error) error {
	if errors.Is(err, operation.ErrNothingLeft) {
		return nil
	}
	return err
}

// An operation that nothing disturbs.
func TestOperation(t *testing.T) {
	w := newWorld(t)
	w.must(w.engine("pm01").Do(t.Context(), w.job("pm01")))
	w.wantEnd(all)
	if w.again != 1 {
		t.Errorf("it has looked %d times", w.again)
	}
}

// An operation whose process is killed anywhere is finished, or from the same point undone, and every effect is there
// once, or none.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	begin := w.kept()
	steps := w.job("pm01").Steps
	for i, s := range steps {
		for _, at := range fakes.Points {
			t.Run(s.ID+" "+string(at), func(t *testing.T) {
				w.t = t
				w.set(begin)
				fakes.Killed(t, w.engine("pm01"), w.job("pm01"), s.ID, at)
				w.wantLeft()
				left := w.kept()
				w.must(w.finish())
				w.wantEnd(all)

				w.set(left)
				w.must(w.undo())
				leave := slices.IndexFunc(steps, func(s operation.Step) bool { return s.NoReturn != "" })
				want := none
				if i > leave || i == leave && at != fakes.Before { // the CIB says that it was left
					want = beforeLeave
				}
				w.wantEnd(want)
			})
		}
	}
	w.t = t
}

// What undoes an operation may be killed anywhere, too. After that it is undone, or finished.
func TestKilledWhileUndone(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "await", fakes.After)
	begin := w.kept()
	_, steps := w.resume()
	for i, s := range steps.Steps {
		if len(s.Back) == 0 || s.ID == "write" { // which was not begun
			continue
		}
		for _, at := range fakes.Points {
			t.Run(s.ID+" "+string(at), func(t *testing.T) {
				w.t = t
				w.set(begin)
				j, job := w.resume()
				e := w.engine("pm01")
				last := len(s.Back) - 1
				if at == fakes.After {
					e = fakes.ReportEnds(e, "undone: "+s.Back[0].String())
				} else {
					job.Steps[i].Back[last] = fakes.Kill(job.Steps[i].Back[last], at)
				}
				err := fakes.Ends(e, func(e *operation.Engine) error { return e.Undo(t.Context(), j, job) })
				if !errors.Is(err, fakes.ErrKilled) {
					t.Fatalf("it was not killed: %v", err)
				}
				w.wantLeft()
				left := w.kept()
				w.must(w.undo())
				w.wantEnd(none)

				w.set(left)
				w.must(w.finish())
				w.wantEnd(all)
			})
		}
	}
	w.t = t
}

// An operation that fails is undone by itself, whatever a process that is gone had begun of it before.
func TestFailsAfterItWasKilled(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "two", fakes.Between)
	left := w.kept()
	broken := func(job operation.Job, id string) operation.Job {
		for i := range job.Steps {
			if job.Steps[i].ID == id {
				job.Steps[i].Action = operation.Look{Text: "broken", See: func(context.Context) error { return errBroken }}
			}
		}
		return job
	}
	for _, id := range []string{"two", "await"} {
		w.set(left)
		j, job := w.resume()
		if err := w.engine("pm01").Finish(t.Context(), j, broken(job, id)); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", id, err)
		}
		w.wantEnd(none)
	}
	// An interrupt before anything else: the step that was begun is undone with the others.
	w.set(left)
	ctx, cancel := context.WithCancel(t.Context())
	j, job := w.resume()
	w.interrupts(ctx, cancel, j, job)
	w.wantEnd(none)
	// Planned again, it fails at its first step: what goes on with the old one undoes what that had begun.
	w.set(left)
	_, job = w.resume()
	job.Continues = func(j *operation.Journal) bool { return j.Operation == "switchover" }
	if err := w.engine("pm01").Do(t.Context(), broken(job, "append")); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	w.wantEnd(none)
}

// interrupts finishes an operation, and interrupts it as soon as the token was seen.
func (w *world) interrupts(ctx context.Context, cancel func(), j *operation.Journal, job operation.Job) {
	w.t.Helper()
	e := w.engine("pm01")
	read := e.Observer.Clusters
	e.Observer.Clusters = readBy(func(ctx context.Context) (model.Cluster, error) {
		defer cancel()
		return read.Read(ctx)
	})
	if err := e.Finish(ctx, j, job); !errors.Is(err, context.Canceled) {
		w.t.Errorf("interrupted: %v", err)
	}
}

// readBy reads a cluster.
type readBy func(ctx context.Context) (model.Cluster, error)

// Read implements the controller's reader of the cluster.
func (r readBy) Read(ctx context.Context) (model.Cluster, error) { return r(ctx) }

// What was found before stays in the journal, and a step that was begun is looked at before it is done.
func TestPlanIsKept(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "append", fakes.After)
	_, job := w.resume()
	if p := job.Plan.(*found); p.Lines != 1 || p.Token.Host != "pm01" {
		t.Errorf("the plan is %+v", p)
	}
	j, _ := w.resume()
	lines := j.Describe(job.Steps)
	for _, want := range []string{
		"switchover, started by somebody at ", "planned on the data in /data, system identifier 7, timeline 3",
		"  done    append", "  to do   make",
	} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("it does not say %q: %q", want, lines)
		}
	}
	var remaining []string
	for _, s := range j.Remaining(job.Steps) {
		remaining = append(remaining, s.ID)
	}
	if got := strings.Join(remaining, " "); got != "make maintenance two await leave write" {
		t.Errorf("what remains is %s", got)
	}
	actions, left := j.Backwards(job.Steps)
	if len(actions) != 1 || actions[0].String() != "remove append" || left != "" {
		t.Errorf("what would be undone is %v, %q", actions, left)
	}
	w.must(w.undo())
}

// Past a point of no return nothing before it is shown or done again, though it would be otherwise.
func TestPastNoReturn(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "write", fakes.Between)
	j, job := w.resume()
	if remaining := j.Remaining(job.Steps); len(remaining) != 1 || remaining[0].ID != "write" {
		t.Errorf("what remains is %v", remaining)
	}
	actions, left := j.Backwards(job.Steps)
	if len(actions) != 1 || actions[0].String() != "remove write" || left != "it was left" {
		t.Errorf("what would be undone is %v, %q", actions, left)
	}
	w.must(os.Remove(w.path("make"))) // as which the second look would fail
	looks := w.again
	w.must(w.finish())
	if w.again != looks {
		t.Error("what comes before the point of no return was done again")
	}
}

// Where it cannot be told whether a step was done, finish stops, says so, and leaves everything as it is. Undo needs
// not know.
func TestCannotTell(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
	w.wrong = errors.New("the disk is gone")
	before := w.kept()
	err := w.finish()
	if err == nil || !strings.Contains(err.Error(), "make: pgrex cannot tell whether this step was done: the disk is gone; nothing was changed") {
		t.Errorf("finish says %v", err)
	}
	if diff := cmp.Diff(before, w.kept()); diff != "" {
		t.Errorf("it has changed something:\n%s", diff)
	}
	w.wantLeft()
	w.must(w.undo())
	w.wantEnd(none)
}

// A point of no return that nobody can tell of stops undo, too.
func TestCannotTellOfNoReturn(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "leave", fakes.Between)
	before := w.kept()
	for name, resume := range map[string]func(e *operation.Engine, ctx context.Context, j *operation.Journal, job operation.Job) error{
		"undo": (*operation.Engine).Undo, "finish": (*operation.Engine).Finish,
	} {
		j, job := w.resume()
		for i := range job.Steps {
			if s := &job.Steps[i]; s.NoReturn != "" {
				s.Action = operation.Program{Text: "leave", Found: func(context.Context) (operation.State, error) {
					return operation.CannotTell, errBroken
				}}
			}
		}
		err := resume(w.engine("pm01"), t.Context(), j, job)
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "leave: pgrex cannot tell") {
			t.Errorf("%s says %v", name, err)
		}
		if diff := cmp.Diff(before, w.kept()); diff != "" {
			t.Errorf("%s has changed something:\n%s", name, diff)
		}
	}
	w.wantLeft()
}

// An undo that fails stops there. The journal and the token stay, and a second one, once that is mended, goes through.
func TestUndoFails(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "two", fakes.After)
	w.broken = "append"
	for range 2 {
		err := w.undo()
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "the steps before it stay done: append: remove append: broken; mend that") {
			t.Errorf("undo says %v", err)
		}
		w.wantLeft()
		if diff := cmp.Diff(map[string]int{"append": 1, "make": 0, "two": 0, "three": 0, "write": 0}, w.effects()); diff != "" {
			t.Errorf("the effects are (-wanted +there):\n%s", diff)
		}
	}
	left := w.kept()
	w.broken = ""
	w.must(w.undo())
	w.wantEnd(none)
	w.set(left)
	w.must(w.finish()) // what was undone is done again
	w.wantEnd(all)
}

// Without its token an operation goes on only where that guards nobody else: it takes a new one then.
func TestTokenIsGone(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		for _, do := range []string{"finish", "undo"} {
			t.Run(fmt.Sprintf("guarded %t, %s", guarded, do), func(t *testing.T) {
				w := newWorld(t)
				w.guarded = guarded
				fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
				w.takeToken()
				before := w.effects()
				end := map[string]func() error{"finish": w.finish, "undo": w.undo}[do]
				w.must(end())
				switch {
				case guarded:
					w.wantEnd(before)
				case do == "undo":
					w.wantEnd(none)
				default:
					w.wantEnd(all)
				}
			})
		}
	}
}

func (w *world) takeToken() {
	w.t.Helper()
	token, is, err := w.cluster().Token("pgsql")
	w.must(err)
	if !is {
		w.t.Fatal("there is no token")
	}
	w.must(cib.DeleteToken("pgsql", token).Run(w.t.Context()))
}

// Where another host has the token meanwhile, nothing is done here, and that host is named.
func TestTokenIsAnothers(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
	w.takeToken()
	other := w.job("pm02").Token
	w.must(cib.CreateToken("pgsql", other).Run(t.Context()))
	before := w.kept()
	for name, end := range map[string]func() error{"finish": w.finish, "undo": w.undo, "another": func() error {
		job := w.job("pm01")
		job.Continues = func(*operation.Journal) bool { return true }
		return w.engine("pm01").Ready(t.Context(), job.Continues)
	}} {
		if err := end(); err == nil || !strings.Contains(err.Error(), "on pm02, type: sudo pgrex operation show") {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, w.kept()); diff != "" {
			t.Errorf("%s has changed something:\n%s", name, diff)
		}
	}
	w.guarded = true
	w.must(w.finish())
	if !operation.Left(w.state()).None() {
		t.Error("its journal is still there")
	}
	if now, is, err := w.cluster().Token("pgsql"); !is || err != nil || now != other {
		t.Errorf("the other's token is %s, %t, %v", now, is, err)
	}
}

// The data that an operation was planned on are another database's by now: nothing is done.
func TestAnotherDatabase(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
	before := w.kept()
	j, job := w.resume()
	job.On.SystemID = "8"
	for name, end := range map[string]func(e *operation.Engine) error{
		"finish": func(e *operation.Engine) error { return e.Finish(t.Context(), j, job) },
		"undo":   func(e *operation.Engine) error { return e.Undo(t.Context(), j, job) },
	} {
		err := end(w.engine("pm01"))
		if err == nil || !strings.Contains(err.Error(), "with the system identifier 7, and the one in /data has 8") {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, w.kept()); diff != "" {
			t.Errorf("%s has changed something:\n%s", name, diff)
		}
	}
	job.On.SystemID = "" // damaged data do not say
	w.must(w.engine("pm01").Undo(t.Context(), j, job))
	w.wantEnd(none)
}

// The operation that was left is another database's on this host: nothing is done, neither by what ends it nor by what
// would go on with it.
func TestOfAnotherDatabase(t *testing.T) {
	w := newWorld(t)
	w.guarded = true
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
	before := w.kept()
	j, job := w.resume()
	job.Primitive = "other"
	job.Continues = func(*operation.Journal) bool { return true }
	for name, do := range map[string]func(e *operation.Engine) error{
		"finish":   func(e *operation.Engine) error { return e.Finish(t.Context(), j, job) },
		"undo":     func(e *operation.Engine) error { return e.Undo(t.Context(), j, job) },
		"continue": func(e *operation.Engine) error { return e.Do(t.Context(), job) },
	} {
		if err := do(w.engine("pm01")); err == nil {
			t.Errorf("%s ends well", name)
		}
		if diff := cmp.Diff(before, w.kept()); diff != "" {
			t.Errorf("%s has changed something:\n%s", name, diff)
		}
	}
}

// Without a quorum, or on a host that has not joined the others yet, nothing is finished or undone: the CIB here may be
// an old one, and the others may have ended it.
func TestOldCIB(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
	before := w.kept()
	const notOnline = "has not joined the cluster"
	for _, c := range []struct {
		says   string
		change func(c *model.Cluster)
	}{
		{"has no quorum", func(c *model.Cluster) { c.Quorate = false }},
		{notOnline, func(c *model.Cluster) { c.Nodes[0].Online = false }},
		{notOnline, func(c *model.Cluster) { c.Nodes[0].Pending = true }},
		{"has no DC yet", func(c *model.Cluster) { c.DC = "" }},
	} {
		says, change := c.says, c.change
		e := w.engine("pm01")
		e.Observer.Clusters = readBy(func(ctx context.Context) (model.Cluster, error) {
			c, err := new(cib.Client).Read(ctx)
			if err == nil {
				change(&c)
			}
			return c, err
		})
		j, job := w.resume()
		for name, end := range map[string]func(context.Context, *operation.Journal, operation.Job) error{
			"finish": e.Finish, "undo": e.Undo,
		} {
			if err := end(t.Context(), j, job); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s says %v, and not that it %s", name, err, says)
			}
			if diff := cmp.Diff(before, w.kept()); diff != "" {
				t.Errorf("%s has changed something:\n%s", name, diff)
			}
		}
	}
}

// The journal cannot be kept once a point of no return is passed: nothing from before that is undone, and what
// comes after it is.
func TestJournalCannotBeKeptPastNoReturn(t *testing.T) {
	w := newWorld(t)
	var did []string
	back := func(name string) []operation.Action { return []operation.Action{says(&did, name, nil)} }
	job := w.job("pm01")
	job.Steps = []operation.Step{
		{ID: "before", Action: says(&did, "before", nil), Back: back("not before")},
		{ID: "passed", NoReturn: "it is passed", Action: operation.Change{Text: "pass", Make: func() error {
			return os.Mkdir(filepath.Join(w.state(), "operation.json.new"), 0o700)
		}}},
		{ID: "after", Action: says(&did, "after", nil), Back: back("not after")},
	}
	err := w.engine("pm01").Do(t.Context(), job)
	if left, ok := errors.AsType[*operation.LeftError](err); !ok || left.Left != "it is passed" {
		t.Errorf("it says %v", err)
	}
	if diff := cmp.Diff([]string{"before", "not after"}, did); diff != "" {
		t.Errorf("done is (-wanted +was):\n%s", diff)
	}
}

// What ends an operation without its journal is not done beside another operation on this host, nor where there is a
// journal.
func TestRunAlone(t *testing.T) {
	w := newWorld(t)
	e := w.engine("pm01")
	ran := 0
	var inner error
	only := []operation.Action{operation.Change{Text: "only", Make: func() error { ran++; return nil }}}
	outer := []operation.Action{operation.Program{Text: "outer", Run: func(ctx context.Context) error {
		inner = w.engine("pm01").RunAlone(ctx, only)
		return nil
	}}}
	w.must(e.RunAlone(t.Context(), outer))
	if !errors.Is(inner, operation.ErrUnderWay) || ran != 0 {
		t.Errorf("a second one: %v, and it ran %d times", inner, ran)
	}
	w.must(e.RunAlone(t.Context(), only))
	fakes.Killed(t, e, w.job("pm01"), "make", fakes.Between)
	if err := w.engine("pm01").RunAlone(t.Context(), only); err == nil || ran != 1 {
		t.Errorf("beside a journal: %v, and it ran %d times", err, ran)
	}
}

// Somebody else has ended it between the question and the answer.
func TestEndedMeanwhile(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
	j, job := w.resume()
	w.must(w.undo())
	for range 2 {
		err := w.engine("pm01").Undo(t.Context(), j, job)
		if err == nil || !strings.Contains(err.Error(), "somebody else has ended the operation meanwhile") {
			t.Errorf("it says %v", err)
		}
		fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "append", fakes.Before) // another one, which is not touched
		w.wantLeft()
		w.must(w.undo())
	}
}

// What is found to be whole is ended; what is another operation's is not.
func TestEndLeft(t *testing.T) {
	w := newWorld(t)
	continues := func(name string) func(*operation.Journal) bool {
		return func(j *operation.Journal) bool { return j.Operation == name }
	}
	w.must(w.engine("pm01").EndLeft(t.Context(), continues("switchover"))) // there is none
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.After)
	w.must(w.engine("pm01").EndLeft(t.Context(), continues("rejoin")))
	w.wantLeft()
	w.must(w.engine("pm01").EndLeft(t.Context(), continues("switchover")))
	w.wantEnd(map[string]int{"append": 1, "make": 1, "two": 0, "three": 0, "write": 0})
}

// Where the token cannot be given back, the journal stays, and undo gives it back later.
func TestTokenCannotBeGivenBack(t *testing.T) {
	w := newWorld(t)
	e := w.engine("pm01")
	job := w.job("pm01")
	write := &job.Steps[len(job.Steps)-1]
	broken := false
	read := e.Observer.Clusters
	e.Observer.Clusters = readBy(func(ctx context.Context) (model.Cluster, error) {
		if broken {
			return model.Cluster{}, errBroken
		}
		return read.Read(ctx)
	})
	write.Action = operation.Change{Text: "the cluster is gone", Make: func() error { broken = true; return nil }}
	err := e.Do(t.Context(), job)
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "the token is still in the CIB: ") {
		t.Errorf("it says %v", err)
	}
	w.wantLeft()
	w.must(w.undo())
	w.wantEnd(beforeLeave)
}
