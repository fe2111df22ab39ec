package service

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/controller/operation/internal/fakes"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// outage is a cluster of three with real servers and no primary. The server of pm01 was killed while it was the
// primary, and the agent's lock is there. pm02 and pm03 are standbys, each at an address of its own.
type outage struct {
	*world
	standbys map[string]*pgserver.Server
}

// newOutage makes an outage. No server runs yet, and only pm01 is online.
func newOutage(t *testing.T) *outage {
	t.Helper()
	o := &outage{world: newServed(t), standbys: map[string]*pgserver.Server{}}
	o.CIBAdmin("--create", "--scope", "nodes", "--xml-text", `<node id="3" uname="pm03"/>`)
	for name, value := range map[string]string{
		"node_list": "pm01 pm02 pm03", "master_ip": "127.0.0.1", "pgport": fmt.Sprint(o.server.Port),
	} {
		o.Run(cib.SetParameter("pgsql", name, value))
	}
	for host, address := range map[string]string{"pm02": "127.0.0.2", "pm03": "127.0.0.3"} {
		o.standbys[host] = o.server.StandbyAt(address, fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=postgres application_name=%s'",
			o.server.Port, host))
		o.server.CatchUp(o.standbys[host])
		o.standbys[host].Stop("fast")
	}
	o.server.WriteWAL(1)
	o.server.SQL("CREATE TABLE t (); DROP TABLE t")
	o.server.Stop("immediate")
	o.runs = false
	for host := range o.standbys {
		o.off(host)
	}
	o.Did("pm01", "stop")
	o.Run(cib.SetAttribute("pm01", "pgsql-status", "STOP"))
	o.status("LATEST", "DISCONNECT")
	o.must(os.WriteFile(o.lock(), nil, 0o600))
	return o
}

// status sets the data status that the agent has written for each host. It saw pm02 go off.
func (o *outage) status(pm01, pm03 string) {
	o.t.Helper()
	for host, status := range map[string]string{"pm01": pm01, "pm02": disconnected, "pm03": pm03} {
		o.Run(cib.SetNodeAttribute(host, "pgsql-data-status", status))
	}
}

// off takes a node out of the cluster, and on brings it back with the database stopped.
func (o *outage) off(host string) { o.t.Helper(); o.joined(host, "false", "offline", "down") }
func (o *outage) on(host string)  { o.t.Helper(); o.joined(host, "true", "online", "member") }

func (o *outage) joined(host, in, crmd, join string) {
	o.t.Helper()
	id := strings.TrimPrefix(host, "pm0")
	o.CIBAdmin("--delete", "--xpath", "//node_state[@id='"+id+"']", "--force")
	o.CIBAdmin("--modify", "--allow-create", "--scope", "status", "--xml-text", fmt.Sprintf(
		`<node_state id="%s" uname="%s" in_ccm="%s" crmd="%s" join="%s" expected="%s"/>`, id, host, in, crmd, join, join))
	if crmd == "online" {
		o.Did(host, "stop")
	}
}

// starts has Pacemaker start a standby, which follows nobody.
func (o *outage) starts(host string) {
	o.t.Helper()
	o.on(host)
	o.standbys[host].Start()
	o.Did(host, "start")
}

// start plans to start pm01 without force. It looks where the members streamed from.
func (o *outage) start() (*Service, operation.Job, error) {
	s := o.service(nil)
	s.Observer.Kept.Standbys = map[string]string{"pm02": "127.0.0.2", "pm03": "127.0.0.3"}
	job, err := s.Start(o.t.Context(), false)
	return s, job, err
}

// refused expects a refusal with all of these texts.
func (o *outage) refused(why ...string) {
	o.t.Helper()
	_, _, err := o.start()
	if err == nil {
		o.t.Fatal("it starts")
	}
	for _, text := range append(why, "is not proven", "--force") {
		if !strings.Contains(err.Error(), text) {
			o.t.Errorf("it says %q, and not %q", err, text)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		o.t.Errorf("not one line: %q", err)
	}
}

// proven expects a start without force, with all of these texts.
func (o *outage) proven(says ...string) {
	o.t.Helper()
	_, job, err := o.start()
	o.must(err)
	text := strings.Join(job.Says, "\n")
	for _, want := range append(says, "it is proven that no other host has newer data, although ", ", last commit at 20") {
		if !strings.Contains(text, want) {
			o.t.Errorf("it says %q, and not %q", text, want)
		}
	}
	var ids []string
	for _, s := range job.Steps {
		ids = append(ids, s.ID)
	}
	if got := strings.Join(ids, " "); got != "no-primary still-newest unlock cleanup clear-primitive clear-clone let-back promoted writes" {
		o.t.Errorf("the steps are %s", got)
	}
}

// TestRestoredOverTheLastPrimary: the last primary lost its disk, and a backup was restored there, which has recovered
// without Pacemaker. Its data status is still LATEST, and pm02, which went off before, has what was committed since.
// What pgrex has kept shows that the data are others.
func TestRestoredOverTheLastPrimary(t *testing.T) {
	o := newOutage(t)
	o.status("LATEST", "DISCONNECT")
	o.on("pm02")
	o.on("pm03")
	o.proven("pm02 is stopped: by its data status, DISCONNECT", "pm03 is stopped: by its data status, DISCONNECT")
	o.Run(cib.KeepAway("msPostgresql", "pgsql", "pm01")) // or Pacemaker starts it once the lock is gone
	was, begin := *o.was, o.kept()
	for name, test := range map[string]struct {
		change func(was *controller.LastPrimary)
		why    string
	}{
		"another database": {func(was *controller.LastPrimary) { was.System = "7" }, "their system identifier is "},
		"another timeline": {func(was *controller.LastPrimary) { was.Timeline = 2 }, "they are on timeline 1, and were on 2"},
		"older":            {func(was *controller.LastPrimary) { was.Flushed = 0xFF000000 }, " and went up to 0/FF000000"},
		"put there since":  {func(was *controller.LastPrimary) { was.At = was.At.Add(-time.Hour) }, "they were put here, or restored, at "},
		"nothing is known": {nil, "pgrex has not kept what this host had as the primary"},
	} {
		t.Run(name, func(t *testing.T) {
			o.part(t, begin)
			now := was
			if o.was = &now; test.change == nil {
				o.was = nil
			} else {
				test.change(o.was)
			}
			o.refused("PGSQL.lock is there", "pm02 is stopped, and since ", test.why, "nothing but an answer shows what pm02 has")
			o.must(os.Remove(o.lock())) // it may have been on the disk that was lost
			o.refused("must not start first: ", test.why)
		})
	}
	o.part(t, begin)
	o.was = &was
	o.must(os.Remove(o.lock()))
	_, job, err := o.start()
	o.must(err)
	if job.Plan.(*Plan).Proven {
		t.Errorf("the last host to stop needs a proof: %q", job.Says)
	}
}

// TestRestoredOverAStandby: no host is LATEST, because a promotion failed half way, or the last primary was taken out of
// the cluster. pm01 was in step, lost its disk, and a backup was restored there. Its data status is still
// STREAMING|SYNC. What pgrex has kept shows that the data are others.
func TestRestoredOverAStandby(t *testing.T) {
	o := newOutage(t)
	o.must(os.Remove(o.lock()))
	o.status("STREAMING|SYNC", "DISCONNECT")
	o.on("pm02")
	o.on("pm03")
	o.Run(cib.KeepAway("msPostgresql", "pgsql", "pm01"))
	had, begin := *o.had, o.kept()
	for name, test := range map[string]struct {
		change func(had *controller.LastStandby)
		why    string
	}{
		"another database": {func(had *controller.LastStandby) { had.System = "7" }, "their system identifier is "},
		"another timeline": {func(had *controller.LastStandby) { had.Timeline = 2 }, "they have nothing of timeline 2"},
		"older":            {func(had *controller.LastStandby) { had.Replayed = 0xFF000000 }, "on timeline 1 they end at "},
		"put there since":  {func(had *controller.LastStandby) { had.At = had.At.Add(-time.Hour) }, "when it was last seen as a standby"},
		"nothing is known": {nil, "pgrex has not kept what this host had as a standby (it is kept since this version was first run as a standby)"},
	} {
		t.Run(name, func(t *testing.T) {
			o.part(t, begin)
			now := had
			if o.had = &now; test.change == nil {
				o.had = nil
			} else {
				test.change(o.had)
			}
			o.refused("no host has the data status LATEST", "pm02 is stopped, and since ", test.why, "nothing but an answer shows what pm02 has")
		})
	}
	o.part(t, begin)
	o.had = &had
	s, job, err := o.start() // all others are stopped: the host's own data prove enough
	o.must(err)
	if says := strings.Join(job.Says, "\n"); !job.Plan.(*Plan).Proven || !strings.Contains(says, "nobody was promoted since this host was in step") {
		t.Errorf("it says %q", says)
	}
	fakes.Killed(t, o.engine(s), job, "data-status", fakes.Between) // it is LATEST by then
	s = o.service(o.journal())
	job, err = starts(t, false)(s)
	o.must(err)
	if p := job.Plan.(*Plan); !p.Proven || p.DataStatus != "STREAMING|SYNC" {
		t.Errorf("planned once more, what was before it is %+v", p)
	}
	o.must(o.undo())
}

// A standby that has been promoted since is on a newer timeline, which has to leave the one before only after what this
// host had.
func TestStrayed(t *testing.T) {
	local := oursHere().LocalData // on timeline 2, which left timeline 1 at began
	seen := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		timeline uint32
		replayed model.LSN
		put      time.Time
		why      string
	}{
		"the same":           {2, ended, seen.Add(-time.Second), ""},
		"promoted since":     {1, began, seen.Add(-time.Second), ""},
		"left before that":   {1, began + 1, seen.Add(-time.Second), "on timeline 1 they end at 0/100, and went up to 0/101"},
		"behind":             {2, ended + 1, seen.Add(-time.Second), "on timeline 2 they end at 0/200, and went up to 0/201"},
		"on none of those":   {3, began, seen.Add(-time.Second), "they have nothing of timeline 3"},
		"put there just now": {2, ended, seen, "they were put here, or restored, at "},
	} {
		got := strayed(local, test.put, &controller.LastStandby{At: seen, System: "7", Timeline: test.timeline, Replayed: test.replayed})
		if (got == "") != (test.why == "") || !strings.Contains(got, test.why) {
			t.Errorf("%s: %q, want %q", name, got, test.why)
		}
	}
}

// TestNoPrimaryAnywhere: the synchronous standby pm02 went offline, the agent wrote DISCONNECT for it, and the
// primary's server was killed before pm03 was in step. pm01 starts again without force, once pm03 answers.
func TestNoPrimaryAnywhere(t *testing.T) {
	o := newOutage(t)
	o.status("LATEST", "STREAMING|ASYNC")
	o.refused("pm02 is offline (DISCONNECT), and may have been promoted since, because only 1 of 3 nodes are online", "pm03 is offline")
	o.on("pm03")
	o.proven("pm02 is offline: by its data status, DISCONNECT", "pm03 is stopped: by its data status, STREAMING|ASYNC")
	o.starts("pm03")
	begin := o.kept()
	o.proven("pm02 is offline: by its data status, DISCONNECT", "pm03 answers: it has the same WAL up to ", "MiB less than here")

	t.Run("a standby that does not let this host in", func(t *testing.T) {
		o.t = t
		o.standbys["pm03"].Access("local all all trust")
		o.refused("the server on pm03 (to Pacemaker: unpromoted) does not say what it has: ", "no pg_hba.conf entry")
		o.Did("pm03", "stop") // to Pacemaker the database is stopped, but a server runs
		o.refused("the server on pm03 (to Pacemaker: stopped) does not say what it has: ", "no pg_hba.conf entry")
		o.Did("pm03", "start")
		o.standbys["pm03"].Access("local all all trust", "host all all 127.0.0.0/8 trust", "host replication all 127.0.0.0/8 trust")
	})
	t.Run("a standby on whose address another host is", func(t *testing.T) {
		o.t = t
		o.standbys["pm03"].SQL("SELECT pg_create_physical_replication_slot('pgrex_pm03')")
		o.refused("has the slot pgrex_pm03, which pm03 itself never has: it is another host's")
		o.standbys["pm03"].SQL("SELECT pg_drop_replication_slot('pgrex_pm03')")
	})
	t.Run("no quorum", func(t *testing.T) {
		o.part(t, begin)
		o.CIBAdmin("--modify", "--xml-text", `<cib have-quorum="0"/>`)
		if _, _, err := o.start(); err == nil || !strings.Contains(err.Error(), "no quorum") {
			t.Errorf("it says %v", err)
		}
	})
	t.Run("promoted meanwhile", func(t *testing.T) { // behind Pacemaker's back, while the operator reads the question
		o.part(t, begin)
		before := o.now()
		s, job, err := o.start()
		o.must(err)
		o.standbys["pm03"].Promote()
		err = o.engine(s).Do(t.Context(), job)
		if err == nil || !strings.Contains(err.Error(), "that is no longer proven: the server on pm03 is a primary that Pacemaker does not know") {
			t.Errorf("it ends with %v", err)
		}
		o.wantEnd("refused", before, true)
		o.standbys["pm03"].Stop("fast")
		o.standbys["pm03"].Follow(o.server) // as the agent starts it
		o.refused("pm03 is on the newer timeline 2, which began at ", "type sudo pgrex rejoin here")
	})
	o.standbys["pm03"].Stop("fast")
	t.Run("killed, finished and undone", func(t *testing.T) {
		for _, point := range []struct {
			id string
			at fakes.Point
		}{{"unlock", fakes.Between}, {"unstandby", fakes.Before}} {
			o.part(t, begin)
			o.Did("pm03", "stop")
			o.Run(cib.SetStandby("pm01", true))
			before := o.now()
			s, job, err := o.start()
			o.must(err)
			fakes.Killed(t, o.engine(s), job, point.id, point.at)
			o.must(o.undo())
			o.wantEnd("undone", before, true)

			s, job, err = o.start()
			o.must(err)
			fakes.Killed(t, o.engine(s), job, point.id, point.at)
			s = o.service(o.journal())
			job, err = starts(t, false)(s)
			o.must(err)
			if p := job.Plan.(*Plan); !p.Locked || !p.Proven || p.DataStatus != "LATEST" {
				t.Errorf("planned once more, what was before it is %+v", p)
			}
			o.must(o.engine(s).Do(t.Context(), job))
			if _, err := os.Stat(o.lock()); err == nil || o.now().Clones[0].Roles["pm01"] != model.RolePromoted {
				t.Errorf("finished, the lock: %v, the roles: %v", err, o.now().Clones[0].Roles)
			}
		}
	})
	o.part(t, begin)
}
