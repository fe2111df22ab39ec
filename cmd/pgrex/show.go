package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
)

// printStatus writes a status for people.
func printStatus(out screen, s controller.Status, wide bool) error {
	w := &firstError{w: out.w}
	out.w = w
	colour := map[bool]string{true: green, false: yellow}[s.Healthy]
	first := out.wrap(s.Node + ": " + s.Summary)
	fmt.Fprintln(out.w, out.paint(bold, s.Node+":")+out.paint(colour, first[len(s.Node)+1:]))
	fmt.Fprintln(out.w, out.paint(dim, out.wrap(fmt.Sprintf("pgrex %s since %s, looked %s ago, read %s ago, %d steps done",
		s.Version, s.Started.Local().Format(time.DateTime), ago(s.Looked), ago(s.Read), s.StepsDone))))
	fmt.Fprintln(out.w)
	printMembers(out, s, wide)
	printForecast(out, s)
	fmt.Fprintf(out.w, "\nPostgreSQL here is %s%s\n", orDash(string(s.Server.State)), where(s))
	printConditions(out, s)
	if wide {
		fmt.Fprintln(out.w)
		printHere(out, s)
	}
	return w.err
}

// firstError keeps the first error of writing, so that not every line needs to be looked after.
type firstError struct {
	w interface {
		Write(p []byte) (int, error)
	}
	err error
}

func (f *firstError) Write(p []byte) (int, error) {
	if f.err == nil {
		_, f.err = f.w.Write(p)
	}
	return len(p), f.err
}

func printMembers(out screen, s controller.Status, wide bool) {
	var t table
	head := []string{"HOST", "ROLE", "TL", "LSN", "LAG", "SLOT HOLDS", "TIME LEFT"}
	if wide {
		head = append(head, "STATUS", "DATA STATUS")
	}
	t.head(head...)
	for _, m := range s.Members {
		role, colour := roleOf(m)
		timeline := "-"
		if m.Timeline > 0 {
			timeline = fmt.Sprint(m.Timeline)
		}
		holds, left := slotOf(m, slotsKnown(s))
		row := []cell{{m.Host, plain}, {role, colour}, {timeline, plain}, {lsn(m.LSN), plain}, {lagOf(m), plain}, holds, {left, plain}}
		if wide {
			row = append(row, cell{orDash(m.Status), plain}, cell{orDash(m.DataStatus), plain})
		}
		t.row(row...)
	}
	out.print(t)
	for _, m := range s.Members {
		if m.Problem != "" {
			fmt.Fprintln(out.w, out.paint(dim, out.wrap(m.Host+" does not tell: "+m.Problem)))
		}
	}
}

func roleOf(m controller.Member) (role, colour string) {
	switch {
	case !m.Online:
		return "offline", red
	case m.Unsettled != "":
		return string(m.Unsettled), yellow
	case m.Role == model.RolePromoted:
		return "primary", bold
	case m.Role == model.RoleUnpromoted:
		return "standby", plain
	}
	return orDash(string(m.Role)), yellow
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

func slotOf(m controller.Member, known bool) (holds cell, left string) {
	left = "-"
	switch {
	case m.Role == model.RolePromoted, !known:
		return cell{"-", plain}, left
	case m.Slot == nil:
		return cell{"no slot", yellow}, left
	case !m.Slot.RestartLSN.IsValid():
		return cell{"nothing", red}, left
	case m.Slot.TimeLeft != nil:
		left = model.FormatSeconds(*m.Slot.TimeLeft)
	}
	return cell{model.FormatBytes(m.Slot.Retained), plain}, left
}

var wayColours = map[model.Way]string{model.WayStream: green, model.WayRewind: yellow, model.WayCopy: red, model.WayUnknown: dim}

// printForecast writes the matrix: a row for each host, a column for each candidate.
func printForecast(out screen, s controller.Status) {
	if len(s.Forecast) == 0 {
		return
	}
	var t table
	head := []string{"COMES BACK, IF PROMOTED:"}
	for _, m := range s.Members {
		head = append(head, m.Host)
	}
	t.head(head...)
	for _, host := range s.Members {
		row := []cell{{host.Host, plain}}
		for _, candidate := range s.Members {
			c := cell{"-", dim}
			for _, f := range s.Forecast {
				if f.Host == host.Host && f.Candidate == candidate.Host {
					c = cell{string(f.Way), wayColours[f.Way]}
				}
			}
			row = append(row, c)
		}
		t.row(row...)
	}
	fmt.Fprintln(out.w)
	out.print(t)
}

// printHere writes what is known of this host alone.
func printHere(out screen, s controller.Status) {
	if s.WAL.Size != nil && s.WAL.Free != nil && s.WAL.WAL != nil {
		fmt.Fprintf(out.w, "WAL here: %s in a file system of %s, of which %s are free\n",
			model.FormatBytes(*s.WAL.WAL), model.FormatBytes(*s.WAL.Size), model.FormatBytes(*s.WAL.Free))
	}
	if s.WAL.Budget != nil {
		fmt.Fprintf(out.w, "slots may hold: %s\n", budgetText(*s.WAL.Budget))
	}
	if s.WAL.RateUsual != nil && s.WAL.RatePeak != nil {
		fmt.Fprintf(out.w, "WAL comes at: %s/s, at most %s/s\n", model.FormatBytes(uint64(*s.WAL.RateUsual)), model.FormatBytes(uint64(*s.WAL.RatePeak)))
	}
	if len(s.Slots) > 0 {
		var t table
		t.head("SLOT HERE", "FOR", "ATTACHED", "RESTART LSN", "HOLDS", "WAL STATUS")
		for _, l := range s.Slots {
			t.row(cell{l.Name, plain}, cell{orDash(l.Member), plain}, cell{yesNo(l.Active), plain}, cell{lsn(l.RestartLSN), plain},
				cell{model.FormatBytes(l.Retained), plain}, cell{orDash(l.WALStatus), plain})
		}
		fmt.Fprintln(out.w)
		out.print(t)
	}
	candidate := ""
	for _, f := range s.Forecast {
		if f.Why == "" {
			continue
		}
		if f.Candidate != candidate {
			candidate = f.Candidate
			fmt.Fprintf(out.w, "\nIf %s were promoted, or stays the primary:\n", f.Candidate)
		}
		fmt.Fprintln(out.w, out.wrap(fmt.Sprintf("%s: %s, because %s", f.Host, f.Way, f.Why)))
	}
}

func budgetText(bytes int64) string {
	if bytes < 0 {
		return "without limit"
	}
	return model.FormatBytes(uint64(bytes))
}

var severityColours = map[model.Severity]string{model.Critical: red, model.Warning: yellow, model.Info: dim}

// printConditions writes what is to be done, what failed, and the conditions that hold.
func printConditions(out screen, s controller.Status) {
	if len(s.Planned)+len(s.Failures)+len(s.Conditions) > 0 {
		fmt.Fprintln(out.w)
	}
	for _, step := range s.Planned {
		fmt.Fprintln(out.w, out.wrap("to do: "+step))
	}
	for _, f := range s.Failures {
		fmt.Fprintln(out.w, out.paint(red, out.wrap("failed: "+f.Step+": "+f.Text)))
	}
	for _, severity := range []model.Severity{model.Critical, model.Warning, model.Info} {
		for _, c := range s.Conditions {
			if c.Severity == severity {
				fmt.Fprintln(out.w, out.paint(severityColours[severity], out.wrap(fmt.Sprintf("%s %s since %s: %s",
					c.Severity, c.Code, c.Since.Local().Format(time.DateTime), c.Text))))
			}
		}
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
