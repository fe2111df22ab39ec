package operation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/datadir"
	"github.com/pgrex/pgrex/controller/operation/handover"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/controller/operation/rejoin"
	"github.com/pgrex/pgrex/controller/operation/service"
	"github.com/pgrex/pgrex/controller/operation/switchover"
	"github.com/pgrex/pgrex/model"
)

// secret is the password in the conninfo that the agent has written on the test's host.
const secret = "Geheim7"

// A journal is read by more people than a conninfo: no operation keeps a password in it, neither in its plan nor in
// what it says of its steps.
func TestJournalHoldsNoSecret(t *testing.T) {
	c := fakes.NewTrio(t)
	recovery := "primary_conninfo = 'host=192.0.2.1 user=repuser password=" + secret + "'\n"
	if err := os.WriteFile(filepath.Join(c.Data, "recovery.conf"), []byte(recovery), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CIB_file", "")
	o := c.On("pm01", "pm01")
	place, err := datadir.Of(c.Clone)
	if err != nil {
		t.Fatal(err)
	}
	conninfo, err := place.Conninfo(t.Context(), c.Clone)
	if err != nil || !strings.Contains(conninfo, secret) {
		t.Fatalf("the conninfo is %q, %v", conninfo, err)
	}
	resume := map[string]func(ctx context.Context, j *operation.Journal) (operation.Job, error){
		"switchover": (&switchover.Switchover{Observer: o}).Resume,
		"adopt":      (&handover.Handover{Observer: o}).Resume, "release": (&handover.Handover{Observer: o}).Resume,
		"start": (&service.Service{Observer: o}).Resume, "stop": (&service.Service{Observer: o}).Resume,
		"rejoin": (&rejoin.Rejoin{Observer: o}).Resume,
	}
	token := model.Token{Operation: "switchover", Host: "pm01", Phase: model.PhaseBegun, Value: strings.Repeat("7", 32)}
	jobs := map[string]operation.Job{}
	for name, plan := range map[string]any{
		"switchover": switchover.Plan{Target: "pm02", Address: "192.0.2.2", Token: token},
		"adopt":      handover.Plan{Prefix: "pgrex", Meta: true, Token: token},
		"release":    handover.Plan{Prefix: "pgrex", Meta: true, Token: token},
		"start":      service.Plan{Force: true, Locked: true},
		"stop":       service.Plan{Failover: true},
	} {
		jobs[name] = resumed(t, resume[name], name, plan)
	}
	r := &rejoin.Rejoin{Observer: o}
	for _, way := range []rejoin.Method{rejoin.MethodStart, rejoin.MethodArchive, rejoin.MethodRewind, rejoin.MethodCopy} {
		jobs["rejoin, resumed, "+string(way)] = resumed(t, resume["rejoin"], "rejoin", rejoin.Plan{Asked: "auto", Way: way, Primary: "pm02"})
		full := &rejoin.Case{Place: place, Primary: "pm02", Slot: "pgrex_pm01", Node: "pm01", Conninfo: conninfo}
		if jobs["rejoin, "+string(way)], err = r.Job(t.Context(), full, way, "auto"); err != nil {
			t.Fatal(err)
		}
	}
	for name, job := range jobs {
		text := journalOf(t, job)
		if strings.Contains(text, secret) || strings.Contains(text, "repuser") {
			t.Errorf("%s keeps the conninfo:\n%s", name, text)
		}
		for _, s := range job.Steps {
			if !strings.Contains(text, fmt.Sprintf("%q", s.ID)) {
				t.Errorf("%s: the journal has nothing of its step %s", name, s.ID)
			}
		}
	}
}

// resumed makes the steps of a plan in a journal once more.
func resumed(t *testing.T, resume func(context.Context, *operation.Journal) (operation.Job, error), name string, plan any) operation.Job {
	t.Helper()
	data, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	job, err := resume(t.Context(), &operation.Journal{Operation: name, Plan: data, Token: strings.Repeat("7", 32)})
	if err != nil || len(job.Steps) < 3 {
		t.Fatalf("%s: %d steps, %v", name, len(job.Steps), err)
	}
	return job
}

// journalOf is the journal of a job as it is after its last step. The steps do nothing, but bear their names.
func journalOf(t *testing.T, job operation.Job) string {
	t.Helper()
	fakes.Tools(t, "never")
	e := fakes.Engine(t, fakes.Lone())
	e.Report = func(string) {}
	text := ""
	for i := range job.Steps {
		s := &job.Steps[i]
		last := i == len(job.Steps)-1
		s.Action, s.Back = operation.Change{Text: s.String(), Make: func() error {
			if !last {
				return nil
			}
			data, err := os.ReadFile(filepath.Join(e.Folder, "operation.json"))
			text = string(data)
			return err
		}}, nil
	}
	if err := e.Do(t.Context(), job); err != nil || text == "" {
		t.Fatalf("%q, %v", text, err)
	}
	return text
}

// An operation that was left is planned once more with the same steps, which a journal knows by their names: each is
// there once. What undoes steps has a name, too.
func TestStepsHaveNames(t *testing.T) {
	c := fakes.NewTrio(t)
	t.Setenv("CIB_file", "")
	o := c.On("pm01", "pm01")
	recovery := "primary_conninfo = 'host=192.0.2.1'\n"
	if err := os.WriteFile(filepath.Join(c.Data, "recovery.conf"), []byte(recovery), 0o600); err != nil {
		t.Fatal(err)
	}
	token := model.Token{Operation: "switchover", Host: "pm01", Phase: model.PhaseBegun, Value: strings.Repeat("7", 32)}
	var jobs []operation.Job
	for _, way := range []rejoin.Method{rejoin.MethodStart, rejoin.MethodArchive, rejoin.MethodRewind, rejoin.MethodCopy} {
		jobs = append(jobs, resumed(t, (&rejoin.Rejoin{Observer: o}).Resume, "rejoin", rejoin.Plan{Way: way, Primary: "pm02"}))
	}
	for _, name := range []string{"adopt", "release"} {
		jobs = append(jobs, resumed(t, (&handover.Handover{Observer: o}).Resume, name, handover.Plan{Prefix: "pgrex", Meta: true, Token: token}))
	}
	jobs = append(jobs, resumed(t, (&switchover.Switchover{Observer: o}).Resume, "switchover", switchover.Plan{Target: "pm02", Token: token}),
		resumed(t, (&service.Service{Observer: o}).Resume, "start", service.Plan{Force: true, Locked: true}))
	for _, job := range jobs {
		seen := map[string]bool{}
		for _, s := range job.Steps {
			if s.ID == "" || seen[s.ID] || s.String() == "" || strings.Contains(s.String(), "\n") {
				t.Errorf("%s: the step %q, %q", job.Operation, s.ID, s.Action)
			}
			seen[s.ID] = true
			for _, a := range s.Back {
				if a.String() == "" || strings.Contains(a.String(), "\n") {
					t.Errorf("%s: what takes %s back is called %q", job.Operation, s.ID, a)
				}
			}
		}
	}
}
