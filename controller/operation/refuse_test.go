package operation_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
)

// oneAtATime makes Pacemaker's tools wait for one another: a cluster does one thing after the other, but on a CIB file
// they overwrite it in place.
func (w *world) oneAtATime() {
	w.t.Helper()
	turn := filepath.Join(w.folder, "turn")
	w.must(os.Mkdir(turn, 0o700))
	for _, tool := range []string{"cibadmin", "crm_attribute", "crm_resource"} {
		path, err := exec.LookPath(tool)
		w.must(err)
		script := "#!/bin/sh\nexec flock --no-fork " + turn + "/lock " + path + " \"$@\"\n"
		w.must(os.WriteFile(filepath.Join(turn, tool), []byte(script), 0o700))
	}
	w.t.Setenv("PATH", turn+":"+os.Getenv("PATH"))
}

// Of two hosts that begin an operation at the same moment exactly one goes on. The other is refused, names it, and has
// done nothing.
func TestTwoHostsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.oneAtATime()
	type end struct {
		host string
		err  error
	}
	for range 20 {
		var begun atomic.Int32
		ends, refused := make(chan end, 2), make(chan struct{})
		for _, host := range []string{"pm01", "pm02"} {
			e, job := w.engine(host), w.job(host)
			e.Folder, e.Report = filepath.Join(t.TempDir(), "state"), func(string) {}
			job.Steps = []operation.Step{{ID: "only", Action: operation.Change{Text: "only", Make: func() error {
				if begun.Add(1) == 1 {
					<-refused // by the other's refusal, or its beginning
				}
				return nil
			}}}}
			go func() { ends <- end{host, e.Do(t.Context(), job)} }()
		}
		first := <-ends
		close(refused)
		second := <-ends
		if begun.Load() != 1 || second.err != nil {
			t.Fatalf("%d have begun; %+v, %+v", begun.Load(), first, second)
		}
		if !errors.Is(first.err, operation.ErrOther) { // pgrex auto-rejoin counts no try then
			t.Errorf("the refusal is not that of another host's operation: %v", first.err)
		}
		want := "switchover is under way, or unfinished: on " + second.host + ", type: sudo pgrex operation show"
		if first.err == nil || !strings.Contains(first.err.Error(), want) {
			t.Fatalf("%s says %v", first.host, first.err)
		}
		w.wantEnd(none)
	}
}

// The other operation ends just when its token refuses this one: then this one can name no other operation.
func TestAnotherHasJustEnded(t *testing.T) {
	w := newWorld(t)
	job := w.job("pm01")
	other := job.Token
	other.Value = strings.Repeat("1", 32)
	w.must(cib.CreateToken("pgsql", other).Run(t.Context()))
	e := fakes.Engine(t, fakes.Lone()) // it never reads a token
	if err := e.Do(t.Context(), job); err == nil || !strings.Contains(err.Error(), "has just ended: nothing was changed; run it again") {
		t.Errorf("it ends with %v", err)
	}
	if w.effects()["append"] != 0 || !operation.Left(e.Folder).None() {
		t.Errorf("something was done, or is left: %v", operation.Left(e.Folder))
	}
}

// Where another host has the token, nothing begins here, and no journal stays.
func TestAnotherHostHasIt(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.After)
	other := w.engine("pm02")
	other.Folder = filepath.Join(t.TempDir(), "state")
	before := w.kept()
	for name, begin := range map[string]func() error{
		"do":    func() error { return other.Do(t.Context(), w.job("pm02")) },
		"ready": func() error { return other.Ready(t.Context(), nil) },
	} {
		if err := begin(); err == nil || !strings.Contains(err.Error(), "on pm01, type: sudo pgrex operation show") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, w.kept()); diff != "" || !operation.Left(other.Folder).None() {
		t.Errorf("something was done: %s", diff)
	}
	// A token that is not understood is somebody's, too.
	w.takeToken()
	w.must(cib.SetProperty(model.TokenName("pgsql"), "of a later release").Run(t.Context()))
	for name, begin := range map[string]func() error{
		"do":    func() error { return other.Do(t.Context(), w.job("pm02")) },
		"ready": func() error { return other.Ready(t.Context(), nil) },
	} {
		if err := begin(); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
	if !operation.Left(other.Folder).None() {
		t.Error("a journal has stayed")
	}
}

// On a host with an unfinished operation no other one begins, but what goes on with it.
func TestUnfinishedHere(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "make", fakes.Between)
	continues := func(j *operation.Journal) bool { return j.Operation == "switchover" }
	before := w.kept()
	e := w.engine("pm01")
	for name, begin := range map[string]func() error{
		"do":    func() error { return e.Do(t.Context(), w.job("pm01")) },
		"ready": func() error { return e.Ready(t.Context(), nil) },
		"ready for another": func() error {
			return e.Ready(t.Context(), func(j *operation.Journal) bool { return j.Operation == "rejoin" })
		},
	} {
		err := begin()
		if err == nil || !strings.Contains(err.Error(), "is unfinished on this host: type sudo pgrex operation show, then") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.must(e.Ready(t.Context(), continues))
	if diff := cmp.Diff(before, w.kept()); diff != "" {
		t.Errorf("something was done:\n%s", diff)
	}
	_, job := w.resume()
	job.Continues = continues
	w.must(e.Do(t.Context(), job))
	w.wantEnd(all)
}

// While a process works on an operation, another one on the same host is refused, whatever it wants.
func TestUnderWayHere(t *testing.T) {
	w := newWorld(t)
	e, job := w.engine("pm01"), w.job("pm01")
	job.Steps[0].Action = operation.Change{Text: "append", Make: func() error {
		left := operation.Left(w.state())
		if left == nil || !left.Running {
			t.Errorf("it is %+v", left)
		}
		j, again := w.resume()
		if !j.Held(w.state()) {
			t.Error("it is not held")
		}
		for name, err := range map[string]error{
			"do": e.Do(t.Context(), w.job("pm01")), "finish": e.Finish(t.Context(), j, again), "undo": e.Undo(t.Context(), j, again),
			"end": e.EndLeft(t.Context(), nil), "ready": e.Ready(t.Context(), nil),
		} {
			says := "another operation is under way on this host: switchover, started by somebody at "
			if !errors.Is(err, operation.ErrUnderWay) && name != "ready" || !strings.HasPrefix(err.Error(), says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return w.makes("append")
	}}
	w.must(e.Do(t.Context(), job))
	w.wantEnd(all)
}

// A journal that cannot be read keeps every operation from beginning, and stays as it is. It is said which file that
// is.
func TestJournalThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	fakes.Killed(t, w.engine("pm01"), w.job("pm01"), "append", fakes.After)
	path := filepath.Join(w.state(), "operation.json")
	whole, err := os.ReadFile(path)
	w.must(err)
	text := string(whole)
	j, job := w.resume()
	for name, test := range map[string]struct{ text, says string }{
		"of another format":  {strings.Replace(text, `"pgrex_operation": 1`, `"pgrex_operation": 2`, 1), "its format is 2, and this pgrex reads 1"},
		"of no format":       {strings.Replace(text, `"pgrex_operation": 1`, `"pgrex_operation": 0`, 1), "its format is 0"},
		"half of it":         {text[:len(text)/2], "unexpected EOF"},
		"nothing":            {"", "EOF"},
		"of a later release": {strings.Replace(text, `"who"`, `"whose": 1, "who"`, 1), `unknown field "whose"`},
		"no journal":         {"\x00\x01", "invalid character"},
	} {
		w.must(os.WriteFile(path, []byte(test.text), 0o600))
		e := w.engine("pm01")
		before := w.kept()
		_, loadErr := operation.LoadJournal(w.state())
		for what, err := range map[string]error{
			"load": loadErr, "do": e.Do(t.Context(), w.job("pm01")), "ready": e.Ready(t.Context(), nil),
			"finish": e.Finish(t.Context(), j, job), "undo": e.Undo(t.Context(), j, job), "end": e.EndLeft(t.Context(), nil),
		} {
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if diff := cmp.Diff(before, w.kept()); diff != "" {
			t.Errorf("%s: something was done:\n%s", name, diff)
		}
		if left := operation.Left(w.state()); left.None() || left.Operation != "an operation" || left.Running {
			t.Errorf("%s: left is %+v", name, left)
		}
	}
	w.must(os.WriteFile(path, whole, 0o600))
	w.must(w.undo())
	w.wantEnd(none)
}

// A plan of another release is not read in part.
func TestPlanThatCannotBeRead(t *testing.T) {
	for text, says := range map[string]string{`{"token": {}, "more": 1}`: `unknown field "more"`, `[`: "EOF", `{"token": 1}`: "cannot unmarshal"} {
		var p struct {
			Token model.Token `json:"token"`
		}
		err := (&operation.Journal{Plan: []byte(text)}).Read(&p)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "the plan in the journal") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Where the state folder cannot be used, nothing begins: no token is taken, and no step done.
func TestStateFolder(t *testing.T) {
	w := newWorld(t)
	outside := t.TempDir()
	for name, test := range map[string]struct {
		make func(folder string) error
		says string
	}{
		"it is a file":           {func(folder string) error { return os.WriteFile(folder, nil, 0o600) }, "not a directory"},
		"it leads nowhere":       {func(folder string) error { return os.Symlink(outside+"/nowhere", folder) }, "no such file or directory"},
		"its parent is missing":  {func(folder string) error { return os.Remove(filepath.Dir(folder)) }, "make the state folder"},
		"the lock is a link":     {inFolder(func(f string) error { return os.Symlink(outside+"/stolen", f+"/operation.lock") }), "open the lock in the state folder"},
		"the lock is a folder":   {inFolder(func(f string) error { return os.Mkdir(f+"/operation.lock", 0o700) }), "is a directory"},
		"the new one is a link":  {inFolder(func(f string) error { return os.Symlink(outside+"/stolen", f+"/operation.json.new") }), "write the journal"},
		"the journal a folder":   {inFolder(func(f string) error { return os.Mkdir(f+"/operation.json", 0o700) }), "is a directory"},
		"the new one is no file": {inFolder(func(f string) error { return os.Mkdir(f+"/operation.json.new", 0o700) }), "write the journal"},
	} {
		e := w.engine("pm01")
		e.Folder = filepath.Join(t.TempDir(), "parent", "state")
		w.must(os.Mkdir(filepath.Dir(e.Folder), 0o700))
		w.must(test.make(e.Folder))
		before := w.kept()
		if err := e.Do(t.Context(), w.job("pm01")); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, w.kept()); diff != "" {
			t.Errorf("%s: something was done:\n%s", name, diff)
		}
		if _, err := os.Stat(outside + "/stolen"); err == nil {
			t.Fatalf("%s: a file was made where a link leads", name)
		}
	}
	w.wantEnd(none)
}

// inFolder makes something in a state folder that is there.
func inFolder(do func(folder string) error) func(folder string) error {
	return func(folder string) error { return errors.Join(os.Mkdir(folder, 0o700), do(folder)) }
}

// A state folder that is a link to one is that one: an operator may keep it elsewhere.
func TestStateFolderElsewhere(t *testing.T) {
	w := newWorld(t)
	link := filepath.Join(t.TempDir(), "link")
	w.must(os.Symlink(w.state(), link))
	e := w.engine("pm01")
	e.Folder = link
	fakes.Killed(t, e, w.job("pm01"), "make", fakes.After)
	w.wantLeft()
	if left := operation.Left(link); left.None() {
		t.Error("it is not seen by the link's name")
	}
	j, job := w.resume()
	w.must(e.Finish(t.Context(), j, job))
	w.wantEnd(all)
}

// Nobody but the folder's owner reads what is in it, and whoever may not read it is told nothing.
func TestStateFolderOfAnother(t *testing.T) {
	w := newWorld(t)
	e := w.engine("pm01")
	e.Folder = filepath.Join(w.folder, "made") // by the engine
	fakes.Killed(t, e, w.job("pm01"), "make", fakes.After)
	for path, want := range map[string]os.FileMode{e.Folder: 0o700, e.Folder + "/operation.json": 0o600, e.Folder + "/operation.lock": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if os.Geteuid() == 0 {
		w.asNobody()
	} else {
		w.must(os.Chmod(e.Folder, 0))
		defer func() { w.must(os.Chmod(e.Folder, 0o700)) }()
	}
	err := e.Do(t.Context(), operation.Job{Operation: "switchover", Plan: &found{}})
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("it says %v", err)
	}
	if _, err := operation.LoadJournal(e.Folder); !errors.Is(err, os.ErrPermission) {
		t.Errorf("it reads: %v", err)
	}
	if left := operation.Left(e.Folder); left != nil {
		t.Errorf("left is %+v", left)
	}
}

// asNobody takes root's rights on files from the thread of this test until it ends. Nothing is run meanwhile.
func (w *world) asNobody() {
	w.t.Helper()
	lockThread(w.t)
	const nobody = 65534
	was, err := unix.SetfsuidRetUid(nobody)
	w.must(err)
	w.t.Cleanup(func() { _ = unix.Setfsuid(was) })
}

// A full disk: nothing begins, and what was begun is undone, though nobody can write that down.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	e, free := w.engine("pm01"), func() {}
	full := func() error { return os.Mkdir(filepath.Join(w.state(), "operation.json.new"), 0o700) } // nothing can be written there
	if os.Geteuid() == 0 {
		e.Folder = filepath.Join(t.TempDir(), "small")
		w.must(os.Mkdir(e.Folder, 0o700))
		w.must(unix.Mount("tmpfs", e.Folder, "tmpfs", 0, "size=64k"))
		t.Cleanup(func() { w.must(unix.Unmount(e.Folder, 0)) })
		filler := filepath.Join(e.Folder, "filler")
		full, free = func() error { return fill(filler) }, func() { w.must(os.Remove(filler)) }
		w.must(full())
		if err := e.Do(t.Context(), w.job("pm01")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
		free()
	}
	w.wantEnd(none)
	job := w.job("pm01")
	for i := range job.Steps {
		if s := &job.Steps[i]; s.ID == "two" {
			act := s.Action
			s.Action = operation.Program{Text: "two, and the disk is full", Run: func(ctx context.Context) error {
				return errors.Join(act.Do(ctx), full())
			}}
		}
	}
	err := e.Do(t.Context(), job)
	if err == nil || !strings.Contains(err.Error(), "write the journal: ") {
		t.Errorf("it says %v", err)
	}
	w.wantEnd(none)
	if !operation.Left(e.Folder).None() {
		t.Error("its journal is still there")
	}
	free()
}

// fill fills a disk with a file. That it is full then is no error.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if closeErr := f.Close(); !errors.Is(err, unix.ENOSPC) || closeErr != nil {
		return errors.Join(err, closeErr)
	}
	return nil
}

// lockThread keeps a test on its thread, which ends with it: its rights are not those of the others.
func lockThread(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}
