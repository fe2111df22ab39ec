package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// printStatus writes a status for people.
func printStatus(out *printer.Printer, s controller.Status, wide bool) error {
	colour := map[bool]printer.Colour{true: printer.Green, false: printer.Yellow}[s.Healthy]
	out.Titled(s.Node+":", colour, "%s", s.Summary)
	out.Wrapped(printer.Dim, "pgrex %s since %s, looked %s ago, read %s ago, %d steps done",
		s.Version, s.Started.Local().Format(time.DateTime), ago(s.Looked), ago(s.Read), s.StepsDone)
	out.Line("")
	printMembers(out, s, wide)
	printForecast(out, s)
	out.Line("")
	out.Line("PostgreSQL here is %s%s", orDash(string(s.Server.State)), where(s))
	printCrashHint(out, s.CrashHint)
	printAutoRejoin(out, s.AutoRejoin, wide)
	printConditions(out, s)
	if wide {
		out.Line("")
		printHere(out, s)
	}
	return out.Err()
}

func printMembers(out *printer.Printer, s controller.Status, wide bool) {
	var t printer.Table
	head := []string{"HOST", "ROLE", "TL", "LSN", "LAG", "SLOT HOLDS", "TIME LEFT"}
	if wide {
		head = append(head, "STATUS", "DATA STATUS")
	}
	t.Head(head...)
	for _, m := range s.Members {
		role, colour := roleOf(m)
		timeline := "-"
		if m.Timeline > 0 {
			timeline = fmt.Sprint(m.Timeline)
		}
		holds, left := slotOf(m, slotsKnown(s))
		row := []printer.Cell{printer.Plain.In(m.Host), colour.In(role), printer.Plain.In(timeline), printer.Plain.In(lsn(m.LSN)),
			printer.Plain.In(lagOf(m)), holds, printer.Plain.In(left)}
		if wide {
			row = append(row, printer.Plain.In(orDash(m.Status)), printer.Plain.In(orDash(m.DataStatus)))
		}
		t.Row(row...)
	}
	out.Table(t)
	for _, m := range s.Members {
		if m.Problem != "" {
			out.Wrapped(printer.Dim, "%s does not tell: %s", m.Host, m.Problem)
		}
	}
}

func roleOf(m controller.Member) (role string, colour printer.Colour) {
	switch {
	case !m.Online:
		return "offline", printer.Red
	case m.Unsettled != "":
		return string(m.Unsettled), printer.Yellow
	case m.Role == model.RolePromoted:
		return "primary", printer.Bold
	case m.WithoutServer:
		return "no server", printer.Yellow
	case m.Role == model.RoleUnpromoted:
		return "standby", printer.Plain
	}
	return orDash(string(m.Role)), printer.Yellow
}

func lagOf(m controller.Member) string {
	switch {
	case m.LagBytes == nil:
		return "-"
	case m.LagSeconds == nil:
		return model.FormatBytes(*m.LagBytes)
	}
	return fmt.Sprintf("%s, %.1f s", model.FormatBytes(*m.LagBytes), *m.LagSeconds)
}

// slotsKnown tells whether the primary has been seen: otherwise nothing is known of its slots.
func slotsKnown(s controller.Status) bool {
	return s.Role != model.InTransition && slices.ContainsFunc(s.Members, func(m controller.Member) bool {
		return m.Role == model.RolePromoted && m.LSN.IsValid()
	})
}

func slotOf(m controller.Member, known bool) (holds printer.Cell, left string) {
	left = "-"
	switch {
	case m.Role == model.RolePromoted, !known:
		return printer.Plain.In("-"), left
	case m.Slot == nil:
		return printer.Yellow.In("no slot"), left
	case !m.Slot.RestartLSN.IsValid():
		return printer.Red.In("nothing"), left
	case m.Slot.TimeLeft != nil:
		left = model.FormatSeconds(*m.Slot.TimeLeft)
	}
	return printer.Plain.In(model.FormatBytes(m.Slot.Retained)), left
}

var wayColours = map[model.Way]printer.Colour{
	model.WayStream: printer.Green, model.WayRewind: printer.Yellow, model.WayCopy: printer.Red, model.WayUnknown: printer.Dim,
}

// printForecast writes the matrix: a row for each host, a column for each candidate.
func printForecast(out *printer.Printer, s controller.Status) {
	if len(s.Forecast) == 0 {
		return
	}
	var t printer.Table
	head := []string{"COMES BACK, IF PROMOTED:"}
	for _, m := range s.Members {
		head = append(head, m.Host)
	}
	t.Head(head...)
	for _, host := range s.Members {
		row := []printer.Cell{printer.Plain.In(host.Host)}
		for _, candidate := range s.Members {
			c := printer.Dim.In("-")
			for _, f := range s.Forecast {
				if f.Host == host.Host && f.Candidate == candidate.Host {
					c = wayColours[f.Way].In(string(f.Way))
				}
			}
			row = append(row, c)
		}
		t.Row(row...)
	}
	out.Line("")
	out.Table(t)
}

// printHere writes what is known of this host alone.
func printHere(out *printer.Printer, s controller.Status) {
	if s.WAL.Size != nil && s.WAL.Free != nil && s.WAL.WAL != nil {
		out.Line("WAL here: %s in a file system of %s, of which %s are free",
			model.FormatBytes(*s.WAL.WAL), model.FormatBytes(*s.WAL.Size), model.FormatBytes(*s.WAL.Free))
	}
	if s.WAL.Budget != nil {
		out.Line("slots may hold: %s", budgetText(*s.WAL.Budget))
	}
	if s.WAL.RateUsual != nil && s.WAL.RatePeak != nil {
		out.Line("WAL comes at: %s/s, at most %s/s",
			model.FormatBytes(uint64(*s.WAL.RateUsual)), model.FormatBytes(uint64(*s.WAL.RatePeak)))
	}
	if len(s.Slots) > 0 {
		var t printer.Table
		t.Head("SLOT HERE", "FOR", "ATTACHED", "RESTART LSN", "HOLDS", "WAL STATUS")
		for _, l := range s.Slots {
			t.Text(l.Name, orDash(l.Member), yesNo(l.Active), lsn(l.RestartLSN), model.FormatBytes(l.Retained),
				orDash(l.WALStatus))
		}
		out.Line("")
		out.Table(t)
	}
	candidate := ""
	for _, f := range s.Forecast {
		if f.Why == "" {
			continue
		}
		if f.Candidate != candidate {
			candidate = f.Candidate
			out.Line("")
			out.Line("If %s were promoted, or stays the primary:", f.Candidate)
		}
		out.Wrapped(printer.Plain, "%s: %s, because %s", f.Host, f.Way, f.Why)
	}
}

// printAutoRejoin writes how this host comes back without a person, if it may, and how it came back last.
func printAutoRejoin(out *printer.Printer, a *controller.AutoRejoinStatus, wide bool) {
	if a == nil || a.Dearest == model.DearestNone && (!wide || a.Last == nil && a.GivenUp == nil) {
		return
	}
	does := "this host is left alone"
	if a.Act != reconcile.ActNothing {
		does = "to do: " + string(a.Act)
	}
	out.Wrapped(printer.Plain, "without a person (up to %s): %s, because %s; failed tries: %d, recent returns: %d", a.Dearest, does, a.Why,
		a.Tries, len(a.Returns))
	if g := a.GivenUp; g != nil {
		printGivenUp(out, "given up by a try that failed", *g)
	}
	l := a.Last
	if l == nil {
		return
	}
	out.Wrapped(printer.Plain, "came back last at %s by %s, to %s (%s)", l.At.Local().Format(time.DateTime), orDash(l.Way), l.Primary, l.By)
	if g := l.GivenUp; g != nil {
		printGivenUp(out, "given up then", *g)
	}
}

// printGivenUp writes which WAL was given up, and whether all of it is kept.
func printGivenUp(out *printer.Printer, when string, g model.GivenUp) {
	kept := "it is kept in " + g.Folder
	if g.Short != "" {
		kept = fmt.Sprintf("not all of it is kept in %s: %s", g.Folder, g.Short)
	}
	out.Wrapped(printer.Plain, "%s: %s of WAL from %s to %s, timeline %d, last commit at %s; %s",
		when, model.FormatBytes(g.Bytes), g.From, g.To, g.Timeline, orDash(g.Commit), kept)
}

func budgetText(bytes int64) string {
	if bytes < 0 {
		return "without limit"
	}
	return model.FormatBytes(uint64(bytes))
}

var severityColours = map[model.Severity]printer.Colour{
	model.Critical: printer.Red, model.Warning: printer.Yellow, model.Info: printer.Dim,
}

// printConditions writes what is to be done, what failed, and the conditions that hold.
func printConditions(out *printer.Printer, s controller.Status) {
	if len(s.Planned)+len(s.Failures)+len(s.Conditions) > 0 {
		out.Line("")
	}
	for _, step := range s.Planned {
		out.Wrapped(printer.Plain, "to do: %s", step)
	}
	for _, f := range s.Failures {
		out.Wrapped(printer.Red, "failed: %s: %s", f.Step, f.Text)
	}
	for _, severity := range []model.Severity{model.Critical, model.Warning, model.Info} {
		for _, c := range s.Conditions {
			if c.Severity == severity {
				out.Wrapped(severityColours[severity], "%s %s since %s: %s",
					c.Severity, c.Code, c.Since.Local().Format(time.DateTime), c.Text)
			}
		}
	}
}

// printCrashHint writes whether a crash here would be told to Pacemaker, where that is wanted, and the last end of a
// postmaster.
func printCrashHint(out *printer.Printer, c controller.CrashHintStatus) {
	switch {
	case !c.Enabled:
	case c.Would:
		out.Wrapped(printer.Plain, "a crash of PostgreSQL here would be told to Pacemaker at once")
	default:
		out.Wrapped(printer.Plain, "a crash of PostgreSQL here would not be told to Pacemaker: %s", c.Why)
	}
	if c.Enabled && c.Problem != "" {
		out.Wrapped(printer.Yellow, "PostgreSQL here is not watched: %s", c.Problem)
	}
	switch last := c.Last; {
	case last == nil:
	case last.Given:
		out.Wrapped(printer.Yellow, "PostgreSQL here crashed %s ago; Pacemaker was told at once (crash hints since pgrex started: %d)", ago(last.At), c.Given)
	case last.Failed:
		out.Wrapped(printer.Yellow, "PostgreSQL here crashed %s ago; Pacemaker could not be told: %s", ago(last.At), last.Why)
	case last.Unanswered:
		out.Wrapped(printer.Yellow, "PostgreSQL here crashed %s ago; %s", ago(last.At), last.Why)
	case c.Enabled:
		out.Wrapped(printer.Dim, "PostgreSQL here ended %s ago, without a crash hint: %s", ago(last.At), last.Why)
	}
}

// where is what there is to say of a server that is up.
func where(s controller.Status) string {
	if s.Server.State != model.ServerUp {
		return ""
	}
	return fmt.Sprintf(", timeline %d, at %s%s", s.Server.Timeline, s.Server.Current, streams(s))
}

func streams(s controller.Status) string {
	switch {
	case s.Server.Streaming && s.Server.StreamingSlot != "":
		return ", streams through slot " + s.Server.StreamingSlot
	case s.Server.Streaming:
		return ", streams without a slot"
	case s.Role == model.Standby:
		return ", does not stream"
	}
	return ""
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never:"
	}
	return time.Since(t).Round(time.Second).String()
}

func lsn(l model.LSN) string {
	if !l.IsValid() {
		return "-"
	}
	return l.String()
}
