package stories

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// TestForecast: every host tells of every host, and how each would come back; what was foretold before a failover is
// what happens after it.
func TestForecast(t *testing.T) {
	on(t, debian13Only, everywhere, threeHosts(), func(s *story) {
		old := s.primary()
		rest := s.others(old)
		next, other := rest[0], rest[1]
		s.start(s.lab.Hosts()...)
		s.awaitRight(patience, old)

		s.chapter("the same on every host", func(s *story) { s.sameEverywhere(old) })
		s.chapter("not let in", func(s *story) { s.refusedIsSaid(next, other) })
		s.chapter("as foretold", func(s *story) { s.asForetold(old, next, other) })
	})
}

// way is what a host's status says of a pair.
func way(status controller.Status, candidate, host string) model.Way {
	i := slices.IndexFunc(status.Forecast, func(f model.Forecast) bool { return f.Candidate == candidate && f.Host == host })
	if i < 0 {
		return ""
	}
	return status.Forecast[i].Way
}

func member(status controller.Status, host string) controller.Member {
	i := slices.IndexFunc(status.Members, func(m controller.Member) bool { return m.Host == host })
	if i < 0 {
		return controller.Member{}
	}
	return status.Members[i]
}

// awaitForecast waits until every host says the same of a pair.
func (s *story) awaitForecast(candidate, host string, want model.Way, hosts ...string) {
	s.t.Helper()
	for _, from := range hosts {
		s.await(patience, fmt.Sprintf("%s says: were %s promoted, %s would %s", from, candidate, host, want), func() (bool, string) {
			status, err := s.status(from)
			return err == nil && way(status, candidate, host) == want, fmt.Sprint(status.Forecast, err)
		})
	}
}

// sameEverywhere: the matrix, every host's position and slots, on every host; and crm_mon shows the attribute.
func (s *story) sameEverywhere(primary string) {
	all := s.lab.Hosts()
	for _, candidate := range all {
		for _, host := range s.others(candidate) {
			want := model.WayStream
			if host == primary {
				want = model.WayRewind
			}
			s.awaitForecast(candidate, host, want, all...)
		}
	}
	for _, from := range all {
		s.await(patience, from+" knows of every host where it is, and its slots", func() (bool, string) {
			status, err := s.status(from)
			if err != nil {
				return false, err.Error()
			}
			for _, host := range all {
				m := member(status, host)
				there := slices.ContainsFunc(m.Slots, func(l model.UpstreamSlot) bool { return l.Exists && l.RestartLSN.IsValid() })
				if !m.LSN.IsValid() || m.Timeline == 0 || !there || m.Problem != "" {
					return false, fmt.Sprintf("%+v", m)
				}
			}
			return true, ""
		})
		table, _ := s.command(from, "status")
		s.t.Logf("on %s:\n%s", from, table)
	}
	out, err := s.lab.Exec(s.ctx, primary, "crm_mon", "-1", "-A")
	s.must(err)
	for _, host := range all {
		status, err := s.status(host)
		s.must(err)
		var own []model.Forecast
		for _, f := range status.Forecast {
			if f.Candidate == host {
				own = append(own, f)
			}
		}
		if !strings.Contains(out, model.FormatForecasts(own)) {
			s.t.Errorf("crm_mon -A does not show %s of %s:\n%s", model.FormatForecasts(own), host, out)
		}
	}
}

// refusedIsSaid: pg_hba.conf of a standby lets nobody in: another standby says so, and is healthy all the same.
func (s *story) refusedIsSaid(from, refusing string) {
	_, err := s.lab.ExecAs(s.ctx, "postgres", "postgres", refusing, "sh", "-c",
		"cp "+s.at.HBA+" /tmp/hba; echo 'local all all trust' >"+s.at.HBA+"")
	s.must(err)
	s.sql(refusing, "SELECT pg_reload_conf()")
	s.await(patience, from+" says that "+refusing+" does not let it in", func() (bool, string) {
		status, err := s.status(from)
		problem := member(status, refusing).Problem
		return err == nil && strings.Contains(problem, "pg_hba.conf") && status.Healthy, fmt.Sprint(status.Healthy, problem, err)
	})
	_, err = s.lab.ExecAs(s.ctx, "postgres", "postgres", refusing, "sh", "-c", "cat /tmp/hba >"+s.at.HBA+"")
	s.must(err)
	s.sql(refusing, "SELECT pg_reload_conf()")
	s.await(patience, from+" is let in again", func() (bool, string) {
		status, err := s.status(from)
		m := member(status, refusing)
		return err == nil && m.Problem == "" && m.LSN.IsValid(), fmt.Sprint(m.Problem, err)
	})
}

// asForetold: one standby is off, the primary crashes; who was to stream streams, and who was to be rewound is rewound.
func (s *story) asForetold(old, next, absent string) {
	s.mark(old)
	s.mark(absent)
	s.must(s.lab.Off(s.ctx, absent))
	s.load(old, 4*walKeepSize)
	s.awaitForecast(next, absent, model.WayStream, old, next)
	s.awaitForecast(next, old, model.WayRewind, old, next)
	s.await(patience, "nothing is foretold of "+absent+" as a candidate", func() (bool, string) {
		status, err := s.status(next)
		return err == nil && way(status, absent, old) == model.WayUnknown && !member(status, absent).Online, fmt.Sprint(status.Forecast, err)
	})
	s.awaitSuccessor(next)
	s.must(s.lab.Crash(s.ctx, old))
	s.awaitPrimary(next)
	s.load(next, 4*walKeepSize)
	s.awaitForecast(next, absent, model.WayStream, next) // nobody has streamed from here yet: it is remembered
	s.awaitForecast(next, old, model.WayRewind, next)
	s.must(s.lab.On(s.ctx, absent))
	s.awaitStreams(next, absent)
	s.neverCopied(absent)
	s.must(s.lab.Rewind(s.ctx, old))
	s.awaitStreams(next, old)
	s.awaitForecast(next, old, model.WayStream, s.lab.Hosts()...)
	s.awaitRight(patience, next)
}
